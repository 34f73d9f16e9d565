//! `gelu plan --tune`: the fewest bits for each layer's weights.

use std::path::PathBuf;

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use gelu_io::data::ModelInputs;
use gelu_models::Model;
use gelu_models::plan::{Deployment, Program, Quantization};
use indicatif::ProgressBar;
use ndarray::{Array2, Axis};
use serde::Serialize;

use crate::datasets::{DataOptions, DatasetArg};
use crate::given::Given;
use crate::infer::largest;
use crate::model_args::LayerBits;
use crate::plan::totals;
use crate::report::TextTable;

/// What to judge by.
#[derive(Debug, Args)]
pub(crate) struct TuneArgs {
    /// Find the fewest weight bits of each layer, not above those that it has, that save products and at which a data set
    /// is read as by the real network, but for a few inputs (--tolerance). They are chosen by its validation part, else by
    /// its training part; how the test part fares is reported.
    #[arg(long)]
    pub(crate) tune: bool,
    /// Write the weights (F32) with the bits that were found, which commands then take by themselves.
    #[arg(long, requires = "tune", value_name = "FILE.safetensors")]
    pub(crate) save: Option<PathBuf>,
    /// The data set to tune by: a known name (`gelu data` lists them), a table, a folder of class folders with pictures, an
    /// .npz or .npy file, or a folder with IDX files [default: what the model was trained on, as its file says, else mnist].
    #[arg(long, value_name = "NAME|PATH")]
    dataset: Option<DatasetArg>,
    /// How many inputs of either part, at most.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Percent of the predictions that may differ from the real network's, or as many as without tuning. The accuracy may
    /// fall by half as many points, or by 0.05.
    #[arg(long, default_value_t = 0.03, value_name = "PERCENT", value_parser = parse_percent)]
    tolerance: f64,
    /// With a data set in one piece: the seed by which training divided it.
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    split_seed: u64,
    #[command(flatten)]
    options: DataOptions,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| format!("expected percent, from 0 to 100; found `{text}`"))
}

impl TuneArgs {
    /// Refuses options that would change nothing.
    pub(crate) fn check(&self, given: &Given) -> anyhow::Result<()> {
        let options = ["dataset", "images", "tolerance", "split-seed"];
        if !self.tune {
            given.refuse(&[&options, &DataOptions::NAMES[..]].concat(), "only --tune reads a data set")?;
        }
        Ok(())
    }

    fn dataset(&self, model: &Model) -> anyhow::Result<DatasetArg> {
        if let Some(dataset) = &self.dataset {
            return Ok(dataset.clone());
        }
        let known = model.info().provenance.get("gelu.dataset").map_or("mnist", String::as_str);
        known.parse().map_err(|error| {
            anyhow!("the model was trained on `{known}`: {error}; --dataset says where to find it")
        })
    }
}

/// Most of the predictions that may differ with the bits to start from, in percent.
const MOST_DIFFERENT: f64 = 0.1;
/// Points by which the accuracy may fall at any rate.
const MOST_LOST: f64 = 0.05;
/// No layer gets fewer bits.
const LEAST_BITS: u32 = 2;

/// How a network on integers does on some inputs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Score {
    /// How many they are.
    inputs: usize,
    /// Part of the predictions that are the real network's.
    same: f64,
    /// Part of the inputs classified correctly.
    accuracy: f64,
    /// The same for the real network.
    accuracy_float: f64,
}

impl Score {
    /// Percent of the predictions that are others than the real network's.
    fn different(self) -> f64 {
        100.0 * (1.0 - self.same)
    }

    /// Whether at most so many percent of the predictions differ, and the accuracy is hardly less.
    fn is_within(self, tolerance: f64) -> bool {
        let lost = 100.0 * (self.accuracy_float - self.accuracy);
        self.different() <= tolerance && lost <= MOST_LOST.max(tolerance / 2.0)
    }
}

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct Tuned {
    /// The data set.
    dataset: String,
    /// Bits of the weights, by layer.
    pub(crate) layer_bits: LayerBits,
    /// Server's operations before and after.
    operations: [u64; 2],
    /// On the inputs that the bits were chosen by.
    chosen_by: Score,
    /// On others.
    test: Score,
}

/// Inputs to judge by, and what the real network makes of them.
struct Examples {
    inputs: Array2<f32>,
    labels: Vec<usize>,
    float: Vec<usize>,
}

impl Examples {
    fn new(model: &Model, mut read: ModelInputs, most: u32) -> anyhow::Result<Self> {
        read.truncate(most as usize);
        let labels: Option<Vec<usize>> = read.labels.into_iter().collect();
        let labels = labels.context("expected a data set whose inputs all have labels")?;
        let inputs = read.inputs;
        let mut float = vec![];
        for part in inputs.axis_chunks_iter(Axis(0), TOGETHER) {
            float.extend(model.logits(part)?.outer_iter().map(largest));
        }
        Ok(Self { inputs, labels, float })
    }

    fn score(&self, model: &Model, quantization: &Quantization) -> anyhow::Result<Score> {
        let program = model.compile(quantization, &Deployment::default())?;
        let mut predictions = vec![];
        for part in self.inputs.axis_chunks_iter(Axis(0), TOGETHER) {
            predictions.extend(program.run_clear(part)?.predictions());
        }
        let part = |of: &[usize]| {
            let equal = predictions.len() - of.iter().zip(&predictions).filter(|(a, b)| a != b).count();
            equal as f64 / predictions.len() as f64
        };
        let right = self.float.iter().zip(&self.labels).filter(|(found, label)| found == label).count();
        Ok(Score {
            inputs: predictions.len(),
            same: part(&self.float),
            accuracy: part(&self.labels),
            accuracy_float: right as f64 / predictions.len() as f64,
        })
    }
}

/// Inputs that go through a network at a time.
const TOGETHER: usize = 1000;

/// Takes bits from one layer after the other, the costliest first, as long as the network stays good.
pub(crate) fn tune(
    args: &TuneArgs,
    model: &Model,
    quantization: &Quantization,
    deployment: &Deployment,
) -> anyhow::Result<Tuned> {
    let dataset = args.dataset(model)?;
    let read = args.options.divided_for_model(&dataset, &model.interface(), args.split_seed)?;
    let [examples, test] = read.map(|read| Examples::new(model, read, args.images));
    let (examples, test) = (examples?, test?);
    let start = model.compile(quantization, deployment)?;
    let cost = |program: &Program| (program.plan().operations().total(), totals(program.plan()));
    let from = examples.score(model, quantization)?;
    ensure!(
        from.is_within(args.tolerance.max(MOST_DIFFERENT)),
        "on integers the network reads {:.2} % of the inputs differently with these bits already, and {:.2} % of them \
         correctly in place of {:.2} %; start from more with --weight-bits or --activation-bits, or allow for more with \
         --tolerance",
        from.different(),
        100.0 * from.accuracy,
        100.0 * from.accuracy_float
    );
    let tolerance = from.different().max(args.tolerance);
    let mut segments: Vec<_> = start.plan().segments().iter().collect();
    segments.sort_by_key(|segment| std::cmp::Reverse(segment.layout.operations.total()));
    let bar = if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    // A chain of layers has the bits of its first one.
    let terms = segments.iter().flat_map(|segment| &segment.terms);
    let chains = terms.filter_map(|term| Some((term.layers.first()?, &term.layers)));
    let bits_of =
        |(first, chain): (&String, &Vec<String>)| (first.clone(), quantization.bits_of(model, chain));
    let layer_bits: LayerBits = chains.clone().map(bits_of).collect();
    let mut quantization = Quantization { layer_bits: Some(layer_bits), ..quantization.clone() };
    let before = cost(&start);
    let (mut chosen_by, mut least) = (from, before);
    for (layer, _) in chains {
        let mut fewer = quantization.clone();
        for bits in (LEAST_BITS..quantization.bits_of(model, [layer])).rev() {
            bar.set_message(format!("{layer} with {bits} bits"));
            bar.tick();
            fewer.layer_bits.get_or_insert_default().insert(layer.clone(), bits);
            // Where sums are added, another layer's scale can ask for as much.
            let fewer_cost = cost(&model.compile(&fewer, deployment)?);
            if fewer_cost >= least {
                continue;
            }
            let score = examples.score(model, &fewer)?;
            if !score.is_within(tolerance) {
                break;
            }
            (quantization, chosen_by, least) = (fewer.clone(), score, fewer_cost);
        }
    }
    bar.finish_and_clear();
    Ok(Tuned {
        dataset: dataset.name(),
        layer_bits: quantization.layer_bits.clone().unwrap_or_default(),
        operations: [before.0, least.0],
        chosen_by,
        test: test.score(model, &quantization)?,
    })
}

impl Tuned {
    /// For people, with the option to copy.
    pub(crate) fn text(&self) -> String {
        let mut table = TextTable::new(["inputs", "count", "as the real network", "right", "right on reals"]);
        for (name, score) in [("chosen by", self.chosen_by), ("test", self.test)] {
            let percent = |part: f64| format!("{:.2} %", 100.0 * part);
            table.row([
                name.to_owned(),
                score.inputs.to_string(),
                percent(score.same),
                percent(score.accuracy),
                percent(score.accuracy_float),
            ]);
        }
        let bits: Vec<String> =
            self.layer_bits.iter().map(|(layer, bits)| format!("{layer}={bits}")).collect();
        let [before, after] = self.operations;
        format!(
            "tuned by {}: {before} products before, {after} now; use with\n  --layer-bits {}\n\n{table}\n",
            self.dataset,
            bits.join(",")
        )
    }
}
