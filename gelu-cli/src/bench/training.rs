//! `gelu bench train`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use gelu_io::session::{Go, TrainingAccount, run_turn};
use gelu_layers::Initializer;
use gelu_models::train::private::{
    Client, CoordinatorConfig, DMax, Description, FixedPoint, Leakage, ParticipantConfig, Server, TrainPlan,
    TrainingOptions,
};
use gelu_models::train::{Dataset, TrainConfig};
use gelu_models::zoo::Setting;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde_json::json;

use crate::model::{Choices, untrained};
use crate::model_args::{key_bits, key_type, new_key};
use crate::output::{out, outln};
use crate::train::private::shares;
use gelu_io::machine::Limit;

/// Time private training, and where its time goes: the server's products, the client's encryptions and decryptions.
///
/// Images are made up: no time depends on them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gelu bench train
  gelu bench train --model dense300 --key-type djn --iterations 5 --json")]
pub(crate) struct TrainingArgs {
    /// The network: a model file, or lenet5, conv1, mlp:WIDTHS, resnet20 and the like; its weights do not matter.
    #[arg(long, value_name = "FILE|NAME", default_value = "lenet5")]
    model: PathBuf,
    #[command(flatten)]
    choices: Choices,
    /// Bits of both sides' keys, which are made anew.
    #[arg(long, value_parser = key_bits(), default_value = "2048")]
    key_bits: KeyBits,
    /// How the keys are made.
    #[arg(long, value_parser = key_type(), default_value = "subgroup")]
    key_type: KeyType,
    /// Images of an iteration.
    #[arg(long, default_value_t = TrainingOptions::BATCH as u32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Iterations of the one turn that is timed.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    iterations: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TrainingArgs) -> anyhow::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut model = untrained(&args.model, &args.choices, Setting::default())?;
    model.initialize(Initializer::KaimingUniform, &mut rng);
    let parameters = KeyParameters { size: args.key_bits, key_type: args.key_type };
    let (batch, size) = (args.batch as usize, parameters.size);
    let description = Description::new(&model, batch, FixedPoint::default(), parameters, parameters.size);
    let plan = Arc::new(TrainPlan::new(description)?);
    let (elements, classes) = (model.input_shape().elements(), model.output_shape().elements());
    let inputs = Array2::from_shape_fn((batch, elements), |_| rng.random_range(0.0..1.0f32));
    let labels = (0..batch).map(|_| rng.random_range(0..classes)).collect();
    let samples = Arc::new(Dataset::new(model.input_shape().clone(), inputs, labels, classes)?);
    let train = TrainConfig {
        batch_size: batch,
        epochs: args.iterations,
        weight_decay: 0.0,
        learning_rate: 0.01,
        ..TrainConfig::default()
    };
    let config = CoordinatorConfig {
        train,
        images: batch as u64,
        d_max: DMax::Fixed(args.iterations),
        leakage: Leakage::Off,
    };
    let [own, clients] = [(); 2].map(|()| new_key(parameters).map(Arc::new));
    let weights = plan.quantize(&model.weights())?;
    let own = own?;
    let backend = own.public_key().backend();
    let mut server = Server::new(plan, own, config, weights)?;
    let mut client = Client::new(clients?, samples, ParticipantConfig { client: 0, seed: 0, momentum: 0.9 });

    let before = Limit::measure(backend);
    let (mut account, start) = (TrainingAccount::default(), Instant::now());
    let (mut server_rng, mut client_rng) = (rand::rng(), rand::rng());
    let mut first = None;
    let ended =
        run_turn(&mut server, &mut client, &mut account, [&mut server_rng, &mut client_rng], |_, _, _| {
            // Tables for both keys are made before the first iteration.
            first.get_or_insert_with(Instant::now);
            anyhow::Ok(Go::On)
        })?;
    anyhow::ensure!(ended, "the turn did not end");
    let seconds = first.unwrap_or(start).elapsed().as_secs_f64();
    let after = Limit::measure(backend);
    let limits = [before, after].map(|limit| limit.product_ns(2048));
    let images = u64::from(args.batch) * u64::from(args.iterations);
    let (up, down, steps) = (account.up(), account.down(), account.steps());
    let all = up.making + up.taking + down.making + down.taking + steps.making + steps.taking;
    let percent = |seconds: f64| 100.0 * seconds / all.max(1e-9);
    if args.json {
        let object = json!({
            "model": args.model.to_string_lossy(),
            "key_bits": size.bits(),
            "key_type": parameters.key_type,
            "batch": args.batch,
            "iterations": args.iterations,
            "images_per_second": images as f64 / seconds,
            "percent": {
                "server_products": percent(down.making),
                "server_decoding": percent(up.taking),
                "client_encryption": percent(up.making),
                "client_decryption": percent(down.taking),
                "steps": percent(steps.making + steps.taking),
            },
            "seconds": seconds,
            "bytes_up": account.bytes_up(),
            "bytes_down": account.bytes_down(),
            "limit_ns": (limits[0] + limits[1]) / 2.0,
        });
        outln!("{object}")?;
        return Ok(());
    }
    outln!(
        "{}, {} key of {} bits, {} iterations of {} images: {:.1} images/s, {:.1} ms an image (limit_ns {:.0})\n",
        args.model.display(),
        parameters.key_type.name(),
        size.bits(),
        args.iterations,
        args.batch,
        images as f64 / seconds,
        1e3 * seconds / images as f64,
        (limits[0] + limits[1]) / 2.0,
    )?;
    out!("{}", shares(&account))?;
    let bytes = |bytes: u64| bytes as f64 / images as f64 / 1e3;
    outln!("\nan image: {:.1} kB up, {:.1} kB down", bytes(account.bytes_up()), bytes(account.bytes_down()))?;
    Ok(())
}
