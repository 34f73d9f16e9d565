//! Lesson 5: two clients train a network that neither they nor the server could train alone, on drawn digits.
//!
//!     cargo run --release --example 05_private_training

use std::sync::Arc;

use gelu_net::io::digits::SampleDigits;
use gelu_net::models::train::private::{FixedTrainer, Samples, Shard};
use gelu_net::models::train::{Dataset, TrainConfig};
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;
use gelu_net::{TrainingOptions, TrainingSetup};
use rand::{SeedableRng, rngs::ChaCha20Rng};

fn dataset(seed: u64, per_digit: usize) -> Result<Dataset, Box<dyn std::error::Error>> {
    let digits = SampleDigits { seed, per_digit }.draw();
    let labels = digits.labels().iter().map(|&label| label.into()).collect();
    let inputs = digits.images().to_inputs().into_shape_with_order((digits.len(), 784))?;
    Ok(Dataset::new([1, 28, 28].into(), inputs, labels, 10)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut model = ModelBuilder::new([1, 28, 28])
        .conv2d("conv", Conv2dConfig::new(4, [5, 5]).with_stride([3, 3]))
        .relu()
        .flatten()
        .dense("fc", 10)
        .softmax()
        .build()?;
    model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(5));

    // Each client holds every second image, and nobody else sees them. While a client trains, the server's weights
    // stay as they are, and the client corrects the server's sums by what its own steps would have changed.
    let (train, test) = (Arc::new(dataset(5, 40)?), dataset(6, 10)?);
    let shards = Shard::divide(&train, 2).into_iter();
    let clients = shards.map(|shard| Arc::new(shard) as Arc<dyn Samples>).collect();
    let options = TrainingOptions {
        key: KeyParameters { size: KeyBits::Bits2048, key_type: KeyType::Subgroup },
        train: TrainConfig {
            epochs: 8,
            batch_size: 20,
            learning_rate: 0.02,
            weight_decay: 0.0,
            ..TrainConfig::default()
        },
        ..TrainingOptions::default()
    };
    let setup = TrainingSetup::new(&model, clients, &options)?;
    println!("before: {:.0} % of the test digits", 100.0 * model.evaluate(&test)?.accuracy);

    let mut training = LocalTraining::new(setup.clone(), &mut rand::rng())?;
    training.run(&mut rand::rng(), |done, all| {
        if done % 20 == 0 {
            println!("{done} of {all} iterations");
        }
    })?;
    training.load_into(&mut model)?;
    println!("after:  {:.0} % of the test digits", 100.0 * model.evaluate(&test)?.accuracy);

    let moment = training.moment();
    let megabytes = [moment.account.bytes_up(), moment.account.bytes_down()].map(|bytes| bytes as f64 / 1e6);
    println!("{:.1} MB from the clients, {:.1} MB from the server", megabytes[0], megabytes[1]);

    // The same arithmetic without encryption gives the same weights, bit for bit.
    let mut clear = FixedTrainer::new(setup.plan, setup.config, setup.parameters, setup.clients)?;
    while !clear.is_complete() {
        clear.turn()?;
    }
    assert_eq!(clear.coordinator().parameters, training.server().coordinator().parameters);
    Ok(())
}
