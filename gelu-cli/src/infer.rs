//! `gelu infer`

mod clamped;
mod input;
mod results;

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use gelu_io::data::Images;
use gelu_io::files::write_atomic;
use gelu_models::infer::ServerModel;
use gelu_models::plan::Deployment;
use gelu_models::train::ConfusionMatrix;
use gelu_net::{LocalInference, LocalReport};
use gelu_tensor::paillier::{KeyBits, KeyParameters};
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::{Array2, ArrayView1};
use serde::Serialize;
use serde_json::{Value, json};

use self::clamped::warn_of_clamped;
use self::input::Input;
use crate::calibrate::{CalibrateArgs, Calibrated};
use crate::datasets::{DataOptions, DatasetArg};
use crate::given::Given;
use crate::images::Invert;
use crate::model::{Loaded, ModelArgs};
use crate::model_args::{KeySize, KeyTypeName, Numbers, Prefer, key_for};
use crate::output::{check_files, check_folders, note, out, outln};
use crate::report::{TextTable, confusion_svg};
use crate::weights::warn_of_chance;

use self::results::{OutFile, Results};

/// Classify images or rows of a table on ciphertexts, with client and server both on this machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  Ten MNIST test images through LeNet-5, from the folder that holds mnist/*-ubyte.gz:
    gelu infer --dataset mnist --data DIR --count 10

  Pictures of digits, of any size and color:
    gelu infer --model conv1 --images a.png b.jpg

  The rows of a table, for a model that was trained on such:
    gelu infer --model mlp --weights patients.safetensors --dataset new.csv --batch 64 --out results.csv

  A full batch at once, as JSON:
    gelu infer --dataset mnist --count 60 --batch 60 --json

  A network of one's own, as `gelu train --out` and `gelu import` write it:
    gelu infer --model trained.safetensors --dataset mnist")]
pub(crate) struct InferArgs {
    #[command(flatten)]
    model: ModelArgs,
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
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Bits of the client's key, which is made anew.
    #[arg(long, value_enum, default_value = "2048")]
    key_bits: KeySize,
    /// How that key is made.
    #[arg(long, value_enum, default_value = "djn")]
    key_type: KeyTypeName,
    /// A secret key file of `gelu keygen` instead of a new key.
    #[arg(long, value_name = "FILE.key", conflicts_with_all = ["key_bits", "key_type"])]
    key: Option<PathBuf>,
    /// Take that file although others than its owner may read it.
    #[arg(long, requires = "key")]
    exposed_key: bool,
    /// Random factors of encryptions that the client makes before it starts, as one that is idle until images come
    /// would: encrypting then costs it little. LeNet-5 takes 250 for an image. They take 1 MB for 1,500 (key of 2048
    /// bits), and more are made in the background when fewer than half are left.
    #[arg(long, value_name = "FACTORS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pool: u32,
    #[command(flatten)]
    prefer: Prefer,
    #[command(flatten)]
    numbers: Numbers,
    /// Report the logits of every image too.
    #[arg(long)]
    logits: bool,
    #[command(flatten)]
    calibrate: CalibrateArgs,
    /// Write a row for each input into this file: class, confidence and, where it is known, the label.
    #[arg(long, value_name = "FILE.csv|FILE.json")]
    out: Option<OutFile>,
    /// Draw the confusion matrix into this file, where labels are known.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    options: DataOptions,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &InferArgs, given: &Given) -> anyhow::Result<()> {
    match args.dataset {
        Some(_) => given.refuse(&["invert"], "it is about the pictures of --images")?,
        None => given.refuse(
            &[
                "count",
                "split-seed",
                "data",
                "label",
                "labels",
                "missing",
                "test",
                "transpose",
                "size",
                "plot",
            ],
            "it is about data sets (--dataset), and --images names pictures without labels",
        )?,
    }
    check_folders(args.save_inputs.as_deref())?;
    check_files(args.out.iter().map(OutFile::path).chain(args.plot.as_deref()))?;
    let Loaded { model, name, .. } = args.model.load()?;
    let Input { read, pictures } = Input::read(args, &model)?;
    let inputs = &read.inputs;
    let parameters = KeyParameters { size: args.key_bits.into(), key_type: args.key_type.into() };
    let key = key_for(args.key.as_ref().map(|path| (path, args.exposed_key)), parameters)?;
    let KeyParameters { size, key_type } = key.public_key().parameters();
    let backend = key.public_key().backend();
    let batch = (args.batch as usize).min(inputs.nrows());
    let quantization = args.numbers.quantization(&model);
    let prefer = args.prefer.into();
    let deployment = Deployment { key: key.public_key().parameters(), batch, lanes: backend.lanes(), prefer };
    let program = model.compile(&quantization, &deployment)?;
    let fixed = program.run_clear(inputs.view())?;
    let float = model.logits(inputs.view())?;

    let mut local = LocalInference::new(ServerModel::new(model, quantization), key, batch).preferring(prefer);
    let start = Instant::now();
    if args.pool > 0 {
        local = local.with_pool(args.pool as usize, &mut rand::rng());
    }
    let pool = local.pool().map(|pool| Pool {
        factors: pool.ready(),
        bytes: pool.bytes(),
        seconds: start.elapsed().as_secs_f64(),
    });
    let calibration = args.calibrate.start(backend);
    let bar = progress_bar(inputs.nrows());
    let report = local.run(inputs.view(), &mut rand::rng(), |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let calibrated = calibration.map(|calibration| calibration.finish(&report.server, size.bits()));

    ensure!(
        report.integers == fixed.integers.values(),
        "the encrypted logits differ from the clear fixed-point ones; please report this as a bug"
    );
    let float: Vec<usize> = float.outer_iter().map(largest).collect();
    let scores = Scores::new(&report, &fixed.predictions(), &float);
    let results = Results::new(&read, report.outputs.view(), &report.predictions);
    let engine =
        Engine { model: name, size, key_type: key_type.name(), backend: backend.name(), pool, calibrated };
    warn_of_clamped(&report, program.plan());
    if let Some(matrix) = results.confusion.as_ref().filter(|matrix| matrix.total() >= FEW) {
        let counts: Vec<usize> = matrix.counts().iter().map(|row| row.iter().sum()).collect();
        warn_of_chance(matrix.correct() as f64 / matrix.total() as f64, &counts);
    }
    if args.json {
        let mut object = to_json(args, &report, &scores, &results, &engine);
        pictures.add_to(&mut object);
        outln!("{object}")?;
    } else {
        read.notes.iter().for_each(|note| note!("data: {note}"));
        out!("{}", to_text(args, &report, &scores, &results, &engine))?;
    }
    if let Some(file) = &args.out {
        file.write(&results)?;
        note!("wrote {}", file.path().display());
    }
    if let Some(path) = &args.plot {
        let matrix = results.confusion.as_ref().context("--plot: no input has a label that is known")?;
        write_atomic(path, confusion_svg(matrix, &results.classes, results.area)?.as_bytes())?;
        note!("wrote {}", path.display());
    }
    pictures.are_all_usable()
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

struct Scores {
    agree_fixed: f64,
    agree_float: f64,
}

impl Scores {
    fn new(report: &LocalReport, fixed: &[usize], float: &[usize]) -> Self {
        let count = report.predictions.len();
        let same = |other: &[usize]| report.predictions.iter().zip(other).filter(|(a, b)| a == b).count();
        Self {
            agree_fixed: same(fixed) as f64 / count as f64,
            agree_float: same(float) as f64 / count as f64,
        }
    }
}

struct Engine {
    model: String,
    size: KeyBits,
    key_type: &'static str,
    backend: &'static str,
    pool: Option<Pool>,
    calibrated: Option<Calibrated>,
}

/// What the client prepared.
#[derive(Debug, Serialize)]
struct Pool {
    factors: usize,
    bytes: usize,
    seconds: f64,
}

fn to_json(
    args: &InferArgs,
    report: &LocalReport,
    scores: &Scores,
    results: &Results,
    engine: &Engine,
) -> Value {
    let count = report.predictions.len();
    let mut object = json!({
        "model": engine.model,
        "count": count,
        "correct": results.confusion.as_ref().map(ConfusionMatrix::correct),
        "accuracy": results.accuracy(),
        "auc": results.area,
        "confusion": results.confusion,
        "classes": results.classes,
        "rows": results.rows,
        "agree_fixed": scores.agree_fixed,
        "agree_float": scores.agree_float,
        "key_bits": engine.size.bits(),
        "key_type": engine.key_type,
        "backend": engine.backend,
        "batch": report.plan.description().batch,
        "prefer": report.plan.description().prefer,
        "threads": rayon::current_num_threads(),
        "seconds_total": report.seconds,
        "seconds_per_image": report.seconds / count as f64,
        "predictions": report.predictions,
        "server": report.server,
        "client": report.client,
        "bytes_up": report.bytes_up,
        "bytes_down": report.bytes_down,
        "saturations": report.saturations.total(),
        "pool": engine.pool,
        "steps": report.steps,
    });
    if args.logits {
        let images: Vec<Value> = report
            .logits
            .outer_iter()
            .enumerate()
            .map(|(index, logits)| {
                json!({
                    "index": index,
                    "label": results.labels[index],
                    "prediction": report.predictions[index],
                    "logits": logits.to_vec(),
                })
            })
            .collect();
        object["logits"] = images.into();
    }
    if let Some(calibrated) = &engine.calibrated {
        calibrated.add_to(&mut object);
    }
    object
}

fn to_text(
    args: &InferArgs,
    report: &LocalReport,
    scores: &Scores,
    results: &Results,
    engine: &Engine,
) -> String {
    const MOST_ROWS: usize = 50;
    let count = report.predictions.len();
    let mut header = vec!["input", "label", "prediction", "confidence"];
    if args.logits {
        header.push("logits");
    }
    let mut table = TextTable::new(header);
    for (index, result) in results.rows.iter().enumerate().take(MOST_ROWS) {
        let mut row = vec![
            result.input.clone(),
            result.label.clone().unwrap_or_default(),
            result.class.clone(),
            format!("{:.1}%", 100.0 * result.confidence),
        ];
        if args.logits {
            let logits: Vec<String> = report.logits.row(index).iter().map(|x| format!("{x:.3}")).collect();
            row.push(logits.join(" "));
        }
        table.row(row);
    }
    let mut text = table.to_string();
    if count > MOST_ROWS {
        text += &format!("... and {} more (--json lists all)\n", count - MOST_ROWS);
    }
    text += "\n";
    text += &results.text();
    text += &format!(
        "as in the clear {:.2}% of the predictions (integers equal bit for bit), as on reals {:.2}%\n",
        100.0 * scores.agree_fixed,
        100.0 * scores.agree_float
    );
    let Engine { size, key_type, backend, pool, calibrated, .. } = engine;
    text += &format!("key             {} bits, {key_type}, {backend} arithmetic\n", size.bits());
    text += &format!(
        "time            {:.3} s, {:.1} ms an image (server {:.3} s, client {:.3} s)\n",
        report.seconds,
        1e3 * report.seconds / count as f64,
        report.server.seconds,
        report.client.seconds
    );
    text += &format!(
        "server          {} products mod n^2, {:.0} ns each\n",
        report.server.products, report.server.ns_per_product
    );
    text += &format!(
        "client          {} encryptions, {} decryptions, {} values clamped\n",
        report.client.encryptions,
        report.client.decryptions,
        report.saturations.total()
    );
    if let Some(Pool { factors, bytes, seconds }) = pool {
        text += &format!(
            "prepared        {factors} random factors in {seconds:.3} s, {:.1} MB; not in the time above\n",
            *bytes as f64 / 1e6
        );
    }
    let kilobytes = |bytes| bytes as f64 / 1e3;
    text += &format!(
        "traffic         {:.1} kB up, {:.1} kB down\n",
        kilobytes(report.bytes_up),
        kilobytes(report.bytes_down)
    );
    text += &calibrated.as_ref().map_or(String::new(), Calibrated::line);
    text
}
