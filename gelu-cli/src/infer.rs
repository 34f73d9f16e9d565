//! `gelu infer`, and what classifying has in common wherever the server is.

mod clamped;
mod input;
mod results;
mod told;

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use gelu_io::data::Images;
use gelu_io::files::write_atomic;
use gelu_models::Interface;
use gelu_models::infer::ServerModel;
use gelu_models::plan::{Deployment, Plan, Preference};
use gelu_net::{InferenceReport, LocalInference};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::{Array2, ArrayView1};

use self::clamped::warn_of_clamped;
pub(crate) use self::input::Input;
use self::results::{OutFile, Results};
pub(crate) use self::told::{Pool, Run, Scores};
use self::told::{to_json, to_text};
use crate::calibrate::CalibrateArgs;
use crate::datasets::{DataOptions, DatasetArg};
use crate::given::Given;
use crate::hide::HideArgs;
use crate::images::Invert;
use crate::model::{Loaded, ModelArgs};
use crate::model_args::{Numbers, Prefer, key_bits, key_for, key_type};
use crate::output::{check_files, check_folders, note, out, outln};
use crate::report::confusion_svg;
use crate::weights::warn_of_chance;

/// Classify images or rows of a table on ciphertexts, with client and server both on this machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  Ten MNIST test images through LeNet-5, from the folder that holds mnist/*-ubyte.gz:
    gelu infer --dataset mnist --data DIR --count 10

  Pictures of digits, of any size and color:
    gelu infer --model conv1 --images a.png b.jpg

  The rows of a table, for a model that was trained on such:
    gelu infer --model patients.safetensors --dataset new.csv --batch 64 --out results.csv

  A full batch at once, as JSON:
    gelu infer --dataset mnist --count 60 --batch 60 --json

  A model that the client does not see either:
    gelu infer --dataset mnist --count 25 --hide-model

  A network of one's own, as `gelu train --out` and `gelu import` write it:
    gelu infer --model trained.safetensors --dataset mnist")]
pub(crate) struct InferArgs {
    #[command(flatten)]
    calibrate: CalibrateArgs,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    numbers: Numbers,
}

/// The most inputs that go through together.
pub(crate) const MOST_IN_A_BATCH: i64 = 1024;

/// What is classified, under which key, and what is told about it: wherever the server is.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// A data set (its test part, or all of one in one piece): a known name (`gelu data` lists them), a table, a folder of
    /// class folders with pictures, an .npz or .npy file, or a folder with IDX files.
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "images", required_unless_present = "images")]
    dataset: Option<DatasetArg>,
    /// How many inputs of the data set [default: all of a table or of a folder of pictures, 10 of others].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// With --test SHARE: the seed by which training divided the data set.
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    split_seed: u64,
    /// Pictures of one digit each, of any size and color.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Whether pictures show dark ink on light paper.
    #[arg(long, value_enum, default_value = "auto")]
    invert: Invert,
    /// Write what the network saw of each picture into this folder, as PNG under the picture's name.
    #[arg(long, value_name = "DIR", requires = "images")]
    save_inputs: Option<PathBuf>,
    /// Images that go through together: up to the slots of a ciphertext, more cost hardly more.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MOST_IN_A_BATCH))]
    batch: u32,
    /// Bits of the client's key, which is made anew.
    #[arg(long, value_parser = key_bits(), default_value = "2048", help_heading = "Key")]
    key_bits: KeyBits,
    /// How that key is made.
    #[arg(long, value_parser = key_type(), default_value = "djn", help_heading = "Key")]
    key_type: KeyType,
    /// A secret key file of `gelu keygen` instead of a new key.
    #[arg(long, value_name = "FILE.key", conflicts_with_all = ["key_bits", "key_type"], help_heading = "Key")]
    key: Option<PathBuf>,
    /// Take that file although others than its owner may read it.
    #[arg(long, requires = "key", help_heading = "Key")]
    exposed_key: bool,
    /// Random factors of encryptions that the client makes before it starts, as one that is idle until images come
    /// would: encrypting then costs it little. LeNet-5 takes 250 for an image. They take 1 MB for 1,500 (key of 2048
    /// bits), and more are made in the background when fewer than half are left.
    #[arg(long, value_name = "FACTORS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pool: u32,
    #[command(flatten)]
    prefer: Prefer,
    #[command(flatten)]
    hide: HideArgs,
    /// Report the logits of every image too.
    #[arg(long)]
    logits: bool,
    /// Write a row for each input into this file: class, confidence and, where it is known, the label.
    #[arg(long, value_name = "FILE.csv|FILE.json")]
    out: Option<OutFile>,
    /// Draw the confusion matrix into this file, where labels are known.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: DataOptions,
}

pub(crate) fn run(args: &InferArgs, given: &Given) -> anyhow::Result<()> {
    let InferArgs { asked, .. } = args;
    asked.check(given)?;
    asked.hide.check(given)?;
    let Loaded { model, name, .. } = args.model.load()?;
    let input = asked.read(&model.interface())?;
    let inputs = &input.read.inputs;
    let key = Arc::new(asked.key()?);
    let backend = key.public_key().backend();
    let batch = asked.batch(inputs.nrows());
    let quantization = args.numbers.quantization(&model);
    let prefer = asked.prefer();
    let deployment = Deployment { key: key.public_key().parameters(), batch, lanes: backend.lanes(), prefer };
    let program = match asked.hide.is_asked() {
        true => model.compile_hidden(&quantization, &deployment)?,
        false => model.compile(&quantization, &deployment)?,
    };
    asked.advise_on_batch(inputs.nrows(), program.plan());
    let fixed = program.run_clear(inputs.view())?;
    let float = model.logits(inputs.view())?;

    let model = Arc::new(ServerModel::new(model, quantization));
    let mut local = asked.hide.local(LocalInference::shared(model, key, batch).preferring(prefer));
    let start = Instant::now();
    if asked.pool > 0 {
        local = local.with_pool(asked.pool as usize, &mut rand::rng());
    }
    let pool = local.pool().map(|pool| Pool::new(pool, start));
    let calibration = args.calibrate.start(backend);
    let bar = progress_bar(inputs.nrows());
    let report = local.run(inputs.view(), &mut rand::rng(), |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let size = deployment.key.size;
    let calibrated =
        calibration.zip(report.server).map(|(calibration, server)| calibration.finish(&server, size.bits()));

    let is_exact = match report.integers.is_empty() {
        true => report.predictions == fixed.predictions(),
        false => report.integers == fixed.integers.values(),
    };
    ensure!(
        is_exact,
        "the encrypted logits differ from the clear fixed-point ones; please report this as a bug"
    );
    let float: Vec<usize> = float.outer_iter().map(largest).collect();
    let scores = Some(Scores::new(&report, &fixed.predictions(), &float));
    let run = Run { model: name, server: None, key: deployment.key, backend, pool, calibrated, scores };
    asked.tell(&input, &report, &run)
}

impl Asked {
    /// Refuses options that would change nothing, and files that could not be written.
    pub(crate) fn check(&self, given: &Given) -> anyhow::Result<()> {
        match self.dataset {
            Some(_) => given.refuse(&["invert"], "it is about the pictures of --images")?,
            None => given.refuse(
                &[&["count", "split-seed", "plot"], &DataOptions::NAMES[..]].concat(),
                "it is about data sets (--dataset), and --images names pictures without labels",
            )?,
        }
        check_folders(self.save_inputs.as_deref())?;
        check_files(self.out.iter().map(OutFile::path).chain(self.plot.as_deref()))?;
        Ok(())
    }

    /// Reads the inputs, as the model takes them.
    pub(crate) fn read(&self, interface: &Interface) -> anyhow::Result<Input> {
        Input::read(self, interface)
    }

    /// The client's key: that of a file, or a new one.
    pub(crate) fn key(&self) -> anyhow::Result<SecretKey> {
        let parameters = KeyParameters { size: self.key_bits, key_type: self.key_type };
        key_for(self.key.as_ref().map(|path| (path, self.exposed_key)), parameters)
    }

    /// Images that go through together.
    pub(crate) fn batch(&self, inputs: usize) -> usize {
        (self.batch as usize).min(inputs)
    }

    /// Says which batch would take less time, where one would take half as many or fewer.
    pub(crate) fn advise_on_batch(&self, inputs: usize, plan: &Plan) {
        let full = plan.full_batch();
        let better = full.min(MOST_IN_A_BATCH as usize).min(inputs);
        if !self.hide.is_asked() && inputs.div_ceil(self.batch(inputs)) >= 2 * inputs.div_ceil(better) {
            note!("note: {full} inputs fill a ciphertext: --batch {better} takes less time an input");
        }
    }

    /// What plans save.
    pub(crate) fn prefer(&self) -> Preference {
        self.prefer.into()
    }

    /// Whether and how the model is hidden.
    pub(crate) fn hide(&self) -> &HideArgs {
        &self.hide
    }

    /// Random factors to be made ahead.
    pub(crate) fn pool(&self) -> usize {
        self.pool as usize
    }

    /// Prints what came out, and writes the files that were asked for.
    pub(crate) fn tell(&self, input: &Input, report: &InferenceReport, run: &Run) -> anyhow::Result<()> {
        let Input { read, pictures } = input;
        let graph = report.plan.graph();
        let classes = graph.shape(graph.output()).elements();
        let results = Results::new(read, (report.outputs.view(), classes), &report.predictions);
        warn_of_clamped(report);
        if let Some(matrix) = results.confusion.as_ref().filter(|matrix| matrix.total() >= FEW) {
            let counts: Vec<usize> = matrix.counts().iter().map(|row| row.iter().sum()).collect();
            warn_of_chance(matrix.correct() as f64 / matrix.total() as f64, &counts);
        }
        if self.json {
            let mut object = to_json(self.logits, report, &results, run);
            pictures.add_to(&mut object);
            outln!("{object}")?;
        } else {
            read.notes.iter().for_each(|note| note!("data: {note}"));
            out!("{}", to_text(self.logits, report, &results, run))?;
        }
        if let Some(file) = &self.out {
            file.write(&results)?;
            note!("wrote {}", file.path().display());
        }
        if let Some(path) = &self.plot {
            let matrix = results.confusion.as_ref().context("--plot: no input has a label that is known")?;
            write_atomic(path, confusion_svg(matrix, &results.classes, results.area)?.as_bytes())?;
            note!("wrote {}", path.display());
        }
        pictures.are_all_usable()
    }
}

/// Fewer labels say nothing about a model.
const FEW: usize = 50;

pub(crate) fn largest(row: ArrayView1<'_, f32>) -> usize {
    gelu_layers::argmax(&row.to_vec())
}

/// Pixels scaled to 0..1, `[images, pixels]`.
pub(crate) fn pixels(images: &Images) -> anyhow::Result<Array2<f32>> {
    let [height, width] = images.size();
    Ok(images.to_inputs().into_shape_with_order((images.count(), height * width))?)
}

/// A bar on a terminal, nothing elsewhere.
pub(crate) fn progress_bar(images: usize) -> ProgressBar {
    if !stderr().is_terminal() || images < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(images as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} images, {eta} left") {
        bar.set_style(style);
    }
    bar
}
