//! `gelu plan --tune`: the fewest bits for each layer's weights.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use gelu_io::data::{DataDir, LabelledImages, Split};
use gelu_models::Model;
use gelu_models::plan::{Deployment, Quantization, Segment};
use indicatif::ProgressBar;
use ndarray::{Array2, Axis};
use serde::Serialize;

use crate::infer::{largest, pixels};
use crate::report::TextTable;

/// Where the images to judge by come from.
#[derive(Clone, Debug, Args)]
pub(crate) struct TuneArgs {
    /// Find the fewest weight bits of each layer, not above those that it has, at which MNIST's training images are read as by the real network, but
    /// for 3 in 10,000 (or as many as without tuning), and accuracy stays within 0.05 points. Reports how the test
    /// images fare.
    #[arg(long)]
    pub(crate) tune: bool,
    /// Write the weights (F32) with the bits that were found, which commands then take by themselves.
    #[arg(long, requires = "tune", value_name = "FILE.safetensors")]
    pub(crate) save: Option<PathBuf>,
    /// How many images of either part.
    #[arg(long, default_value_t = 10_000, requires = "tune", value_parser = clap::value_parser!(u32).range(1000..))]
    images: u32,
    /// The folder with mnist/ [default: the folder named by GELU_DATA, then the per-user data folder].
    #[arg(long, value_name = "DIR", requires = "tune")]
    data: Option<PathBuf>,
}

/// Least part of the predictions that must be those of the real network, on any images.
const LEAST_SAME: f64 = 0.999;
/// The same for images that the network was trained on and therefore knows better, unless it has less from the start.
const LEAST_SAME_KNOWN: f64 = 0.9997;
/// Most by which the accuracy may fall.
const MOST_LOST: f64 = 0.0005;
/// No layer gets fewer bits.
const LEAST_BITS: u32 = 2;

/// How a network on integers does on some images.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Score {
    /// Part of the predictions that are the real network's.
    same: f64,
    /// Part of the images classified correctly.
    accuracy: f64,
    /// The same for the real network.
    accuracy_float: f64,
}

impl Score {
    fn is_good(self, least_same: f64) -> bool {
        self.same >= least_same && self.accuracy_float - self.accuracy <= MOST_LOST
    }
}

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct Tuned {
    /// Bits of the weights, layer by layer.
    pub(crate) layer_bits: Vec<(String, u32)>,
    /// Server's operations before and after.
    operations: [u64; 2],
    /// On the images that the bits were chosen by.
    train: Score,
    /// On others.
    test: Score,
}

struct Images {
    pixels: Array2<f32>,
    labels: Vec<u8>,
    float: Vec<usize>,
}

impl Images {
    fn new(model: &Model, images: &LabelledImages, count: u32) -> anyhow::Result<Self> {
        ensure!(images.len() >= count as usize, "--images: expected at most {}, found {count}", images.len());
        let images = images.first(count as usize);
        let pixels = pixels(images.images())?;
        let float = model.logits(pixels.view())?.outer_iter().map(largest).collect();
        Ok(Self { pixels, labels: images.labels().to_vec(), float })
    }

    fn score(&self, model: &Model, quantization: &Quantization) -> anyhow::Result<Score> {
        let program = model.compile(quantization, &Deployment::default())?;
        let mut predictions = vec![];
        for part in self.pixels.axis_chunks_iter(Axis(0), 1000) {
            predictions.extend(program.run_clear(part)?.predictions());
        }
        let count = predictions.len() as f64;
        let right = |found: &[usize]| {
            found.iter().zip(&self.labels).filter(|(found, label)| **found == usize::from(**label)).count()
        };
        Ok(Score {
            same: predictions.iter().zip(&self.float).filter(|(a, b)| a == b).count() as f64 / count,
            accuracy: right(&predictions) as f64 / count,
            accuracy_float: right(&self.float) as f64 / count,
        })
    }
}

/// The weight bits of a segment.
fn bits_of(segment: &Segment) -> u32 {
    segment.terms.iter().map(|term| term.weights.bits()).max().unwrap_or(0)
}

/// Takes bits from one layer after the other, the costliest first, as long as the network stays good.
pub(crate) fn tune(
    args: &TuneArgs,
    model: &Model,
    quantization: &Quantization,
    deployment: &Deployment,
) -> anyhow::Result<Tuned> {
    let folder = DataDir::locate(args.data.clone());
    let train = Images::new(model, &folder.mnist(Split::Train)?, args.images)?;
    let start = model.compile(quantization, deployment)?;
    let before = start.plan().operations().total();
    let from = train.score(model, quantization)?;
    ensure!(
        from.is_good(LEAST_SAME),
        "the network on integers is off with these bits already; start from more with --weight-bits or \
         --activation-bits"
    );
    let least_same = from.same.min(LEAST_SAME_KNOWN);
    let mut segments: Vec<_> = start.plan().segments().iter().collect();
    segments.sort_by_key(|segment| std::cmp::Reverse(segment.layout.operations.total()));
    let bar = if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    let mut quantization = quantization.clone();
    for segment in segments {
        // A chain of layers has the bits of its first one.
        let Some(layer) = segment.name.split('+').next() else { continue };
        for bits in (LEAST_BITS..bits_of(segment)).rev() {
            bar.set_message(format!("{layer} with {bits} bits"));
            bar.tick();
            let mut fewer = quantization.clone();
            fewer.layer_bits.get_or_insert_default().insert(layer.to_owned(), bits);
            if !train.score(model, &fewer)?.is_good(least_same) {
                break;
            }
            quantization = fewer;
        }
    }
    bar.finish_and_clear();
    let program = model.compile(&quantization, deployment)?;
    let segments = program.plan().segments().iter();
    let layer_bits =
        segments.filter_map(|segment| Some((segment.name.split('+').next()?.to_owned(), bits_of(segment))));
    let test = Images::new(model, &folder.mnist(Split::Test)?, args.images.min(10_000))?;
    Ok(Tuned {
        layer_bits: layer_bits.collect(),
        operations: [before, program.plan().operations().total()],
        train: train.score(model, &quantization)?,
        test: test.score(model, &quantization)?,
    })
}

impl Tuned {
    /// For people, with the option to copy.
    pub(crate) fn text(&self) -> String {
        let mut table = TextTable::new(["images", "as the real network", "right", "right on reals"]);
        for (name, score) in [("chosen by", self.train), ("test", self.test)] {
            let percent = |part: f64| format!("{:.2} %", 100.0 * part);
            table.row([
                name.to_owned(),
                percent(score.same),
                percent(score.accuracy),
                percent(score.accuracy_float),
            ]);
        }
        let bits: Vec<String> =
            self.layer_bits.iter().map(|(layer, bits)| format!("{layer}={bits}")).collect();
        let [before, after] = self.operations;
        format!(
            "tuned: {before} products before, {after} now; use with\n  --layer-bits {}\n\n{table}\n",
            bits.join(",")
        )
    }
}
