//! `gelu attack`: attacks on private training and on hidden models, so that what is said of their leaks can be tried out. A
//! client solves for weights, and a server computes images from gradients.

mod extract;
mod hidden;
mod reconstruct;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Subcommand;
use gelu_io::data::{DataDir, LabelledImages, Split};
use gelu_io::digits::SampleDigits;
use gelu_io::files::make_folder;
use gelu_layers::{Activation, Initializer};
use gelu_models::train::private::{
    CoordinatorConfig, DMax, Description, FixedPoint, FixedTrainer, LayerLeakage, Leakage, ParticipantConfig,
    Samples, TrainPlan,
};
use gelu_models::train::{Dataset, TrainConfig};
use gelu_models::{Model, zoo};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};
use ndarray::Axis;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde_json::json;

use self::extract::{Extraction, extract};
use self::reconstruct::{DenseGradients, Reconstruction, correlation, reconstruct};
use crate::datasets;
use crate::output::{check_folders, note, out, outln};
use crate::report::{Panel, TextTable, write_panels};

/// Try out what weighted sums and gradients leak, and what the paper's masks and a hidden model prevent.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A client solves for the weights of a dense layer: one sample more than inputs is enough, one fewer is not.
    Extract(ExtractArgs),
    /// A server computes a training image from gradients: it can from those of one image, and sees noise where they are masked
    /// as in the paper. (The server of `gelu train` is not sent them at all, only their sum at the end of a turn.)
    Reconstruct(ReconstructArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gelu attack extract
  gelu attack extract --inputs 64 --outputs 30 --out pictures
  gelu attack extract --hide-model
  gelu attack extract --hide-model --deviate --out pictures")]
pub(crate) struct ExtractArgs {
    /// Inputs of the layer.
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u16).range(1..=512))]
    inputs: u16,
    /// Its outputs.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=512))]
    outputs: u16,
    /// Determines weights and inputs.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Try it on what a client of inference sees of a hidden model: its masks, its shares, its outputs.
    #[arg(long)]
    hide_model: bool,
    /// The client does not follow the protocol: it adds one to its share of each activation in turn, and reads the layer behind
    /// them from what comes out.
    #[arg(long, requires = "hide_model")]
    deviate: bool,
    /// Write extract.png here: the true weights, those recovered just past the strict bound, and what is known just
    /// below it. Of a hidden model: the true weights, and what the client makes of what it saw.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gelu attack reconstruct --out pictures
  gelu attack reconstruct --dataset mnist --data DIR --count 5 --out pictures")]
pub(crate) struct ReconstructArgs {
    /// Images of MNIST's training part instead of digits that this program draws.
    #[arg(long, value_parser = ["mnist"])]
    dataset: Option<String>,
    /// The folder with mnist/ [default: the folder named by GELU_DATA, then the per-user data folder].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How many images.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    count: u16,
    /// Neurons of the hidden layer.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=784))]
    hidden: u16,
    /// Its activation: sigmoid, tanh or relu.
    #[arg(long, default_value = "sigmoid")]
    activation: Activation,
    /// Determines the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write reconstruct.png here: for each image the original, what the server computes without masks (directly, and
    /// the paper's way), and what it computes with them.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Extract(args) if args.hide_model => hidden::run(args),
        Command::Extract(args) => run_extract(args),
        Command::Reconstruct(args) => run_reconstruct(args),
    }
}

/// Bits of the masks that hide steps in the paper's protocol; the paper's own have as many as its keys.
const MASK_BITS: u32 = 40;

/// The smallest keys: these runs protect nothing.
const KEY: KeyParameters = KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup };

fn plan_of(model: &mut Model, seed: u64) -> anyhow::Result<(Arc<TrainPlan>, Vec<i64>)> {
    model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(seed));
    let plan = TrainPlan::new(Description::new(model, 1, FixedPoint::default(), KEY, KEY.size))?;
    let parameters = plan.quantize(&model.weights())?;
    Ok((Arc::new(plan), parameters))
}

fn run_extract(args: &ExtractArgs) -> anyhow::Result<()> {
    check_folders(args.out.as_deref())?;
    let (inputs, outputs) = (usize::from(args.inputs), usize::from(args.outputs));
    let mut model = zoo::mlp(&zoo::MlpConfig {
        inputs,
        hidden: vec![outputs],
        classes: 2,
        activation: Activation::Relu,
    })?;
    let (plan, parameters) = plan_of(&mut model, args.seed)?;
    let segment = &plan.segments()[0];
    // What a client sends and decrypts: integers of private training.
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed ^ 1);
    let term = segment.terms.first().context("a dense layer has weights")?;
    let bound = term.format.bound() as i64;
    let vectors: Vec<i64> = (0..(inputs + 1) * inputs).map(|_| rng.random_range(-bound..=bound)).collect();
    let sums = segment.sums(&parameters, &[&vectors[..]])?;
    let truth: Vec<Vec<i64>> = parameters[term.layer.weights.clone()]
        .chunks_exact(inputs)
        .zip(segment.bias(&parameters))
        .map(|(row, bias)| row.iter().copied().chain([bias]).collect())
        .collect();
    let past = extract([inputs, outputs], &vectors, &sums)?;
    let below = extract([inputs, outputs], &vectors[inputs..], &sums[outputs..])?;
    let right = match &past {
        Extraction::Solved { rows } => {
            rows.iter().flatten().zip(truth.iter().flatten()).filter(|(found, truth)| found == truth).count()
        }
        Extraction::Open { .. } => 0,
    };
    let all = truth.len() * (inputs + 1);
    let rank = match &below {
        Extraction::Open { rank, .. } => *rank,
        Extraction::Solved { .. } => inputs + 1,
    };
    let strict = LayerLeakage::of(&plan)[0].strict_iterations();
    if let Some(folder) = &args.out {
        make_folder(folder)?;
        let reals = |rows: &[Vec<i64>]| -> Vec<f64> {
            rows.iter().flat_map(|row| row[..inputs].iter().map(|&x| x as f64)).collect()
        };
        let found = match &past {
            Extraction::Solved { rows } => reals(rows),
            Extraction::Open { .. } => vec![0.0; outputs * inputs],
        };
        let (truth, unknown) = (reals(&truth), vec![0.0; outputs * inputs]);
        let panel = |values| Panel { size: [outputs, inputs], values };
        let path = folder.join("extract.png");
        write_panels(&path, &[vec![panel(&truth)], vec![panel(&found)], vec![panel(&unknown)]])?;
        note!("wrote {}", path.display());
    }
    if args.json {
        let object = json!({
            "inputs": inputs, "outputs": outputs, "unknowns_of_an_output": inputs + 1,
            "past": { "samples": inputs + 1, "recovered": right, "of": all },
            "below": { "samples": inputs, "solved": matches!(below, Extraction::Solved { .. }), "rank": rank },
            "strict_samples": strict,
        });
        outln!("{object}")?;
        return Ok(());
    }
    outln!(
        "a dense layer of {inputs} inputs and {outputs} outputs: {} unknowns for each output",
        inputs + 1
    )?;
    outln!("{} samples: {right} of {all} weights and biases recovered, exactly", inputs + 1)?;
    outln!("{inputs} samples: rank {rank}, infinitely many weights give the same sums")?;
    outln!("the strict policy allows {strict} samples")?;
    Ok(())
}

fn run_reconstruct(args: &ReconstructArgs) -> anyhow::Result<()> {
    check_folders(args.out.as_deref())?;
    ensure!(
        matches!(args.activation, Activation::Sigmoid | Activation::Tanh | Activation::Relu),
        "--activation: expected sigmoid, tanh or relu, found {}",
        args.activation
    );
    let images: LabelledImages = match &args.dataset {
        Some(_) => DataDir::locate(args.data.clone()).mnist(Split::Train)?,
        None => SampleDigits { per_digit: 1 + usize::from(args.count) / 10, seed: args.seed }.draw(),
    };
    let data = datasets::from_images(&images.first(usize::from(args.count)))?;
    let hidden = usize::from(args.hidden);
    let config = zoo::MlpConfig {
        inputs: 784,
        hidden: vec![hidden],
        classes: data.classes(),
        activation: args.activation,
    };
    let mut model = zoo::mlp(&config)?;
    let (plan, parameters) = plan_of(&mut model, args.seed)?;
    let mut rng = rand::rng();
    let mut results = vec![];
    for (at, image) in data.inputs().outer_iter().enumerate() {
        let one = data.inputs().select(Axis(0), &[at]);
        let samples = Dataset::new(data.shape().clone(), one, vec![data.labels()[at]], data.classes())?;
        let train = TrainConfig { batch_size: 1, weight_decay: 0.0, momentum: 0.0, ..TrainConfig::default() };
        let config = CoordinatorConfig { train, images: 1, d_max: DMax::Fixed(1), leakage: Leakage::Paper };
        let participant = ParticipantConfig { client: 0, seed: args.seed, momentum: 0.0 };
        let clients: [(Arc<dyn Samples>, _); 1] = [(Arc::new(samples), participant)];
        let mut trainer = FixedTrainer::new(plan.clone(), config, parameters.clone(), clients)?;
        trainer.turn()?;
        let truth: Vec<f64> = image.iter().map(|&x| f64::from(x)).collect();
        // The gradients times the learning rate, and what becomes of them under masks that are uniform mod 2^40.
        let after = &trainer.coordinator().parameters;
        let steps: Vec<i64> = parameters.iter().zip(after).map(|(before, after)| before - after).collect();
        let unused = 64 - MASK_BITS;
        let mut mask = |step: &i64| (step.wrapping_add(rng.random()) << unused >> unused) as f64;
        let received: Vec<f64> = steps.iter().map(&mut mask).collect();
        let steps: Vec<f64> = steps.iter().map(|&step| step as f64).collect();
        let [open, masked] = [
            guess(&model, hidden, args.activation, &plan, &steps)?,
            guess(&model, hidden, args.activation, &plan, &received)?,
        ];
        results.push((truth, open, masked));
    }
    let correlations: Vec<[f64; 4]> = results
        .iter()
        .map(|(truth, open, masked)| {
            [&open.direct, &open.inverted, &masked.direct, &masked.inverted]
                .map(|guess| correlation(truth, guess))
        })
        .collect();
    if let Some(folder) = &args.out {
        make_folder(folder)?;
        let panel = |values| Panel { size: [28, 28], values };
        let rows: Vec<Vec<Panel<'_>>> = results
            .iter()
            .map(|(truth, open, masked)| {
                [truth, &open.direct, &open.inverted, &masked.direct, &masked.inverted]
                    .map(|x| panel(&x[..]))
                    .to_vec()
            })
            .collect();
        let path = folder.join("reconstruct.png");
        write_panels(&path, &rows)?;
        note!("wrote {}", path.display());
    }
    if args.json {
        let images: Vec<_> = correlations
            .iter()
            .map(|[direct, inverted, masked_direct, masked_inverted]| {
                json!({
                    "without_masks": { "direct": direct, "inverted": inverted },
                    "with_masks": { "direct": masked_direct, "inverted": masked_inverted },
                })
            })
            .collect();
        outln!("{}", json!({ "hidden": hidden, "activation": args.activation, "correlations": images }))?;
        return Ok(());
    }
    outln!("correlation of what the server computes with the image:\n")?;
    let mut table = TextTable::new([
        "image",
        "no masks, directly",
        "no masks, inverted",
        "masked, directly",
        "masked, inverted",
    ]);
    for (at, row) in correlations.iter().enumerate() {
        table.row([at.to_string()].into_iter().chain(row.iter().map(|x| format!("{x:.3}"))));
    }
    out!("{table}")?;
    Ok(())
}

/// What the server makes of steps, masked or not.
fn guess(
    model: &Model,
    hidden: usize,
    activation: Activation,
    plan: &TrainPlan,
    steps: &[f64],
) -> anyhow::Result<Reconstruction> {
    let weights = model.weights();
    let reals = |name: &str| -> anyhow::Result<Vec<f64>> {
        let tensor = weights.tensors.get(name).with_context(|| format!("the model has no `{name}`"))?;
        Ok(tensor.data().iter().map(|&x| f64::from(x)).collect())
    };
    let mut layers = plan.layers();
    let (first, second) = (layers.next().context("a first layer")?, layers.next().context("a second layer")?);
    Ok(reconstruct(&DenseGradients {
        hidden,
        activation,
        weights: &reals(&format!("{}.weight", first.name))?,
        biases: &reals(&format!("{}.bias", first.name))?,
        first: &steps[first.weights.clone()],
        first_biases: &steps[first.biases.clone()],
        second: &steps[second.weights.clone()],
        second_biases: &steps[second.biases.clone()],
    })?)
}
