//! Lesson 6: a residual network with batch norm and max pooling, built node by node, on ciphertexts.
//!
//!     cargo run --release --example 06_residual_network

use std::sync::Arc;

use gelu_net::io::digits::SampleDigits;
use gelu_net::io::session::Role;
use gelu_net::prelude::*;
use rand::{SeedableRng, rngs::ChaCha20Rng};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rng = &mut ChaCha20Rng::seed_from_u64(5);

    // Branches are functions of a builder. Batch norm needs no work of its own: it becomes part of the convolution before
    // it. Max pooling and activations are the client's.
    let conv = |channels| Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1]).without_bias();
    let halved = Conv2dConfig::new(8, [1, 1]).with_stride([2, 2]).without_bias();
    let mut model = ModelBuilder::new([1, 28, 28])
        .conv2d("stem", conv(4).with_stride([2, 2]))
        .batch_norm2d("stem_norm")
        .relu()
        .max_pool2d([2, 2])
        .residual(|main| {
            let main = main.conv2d("a1", conv(4)).batch_norm2d("a1_norm").relu();
            main.conv2d("a2", conv(4)).batch_norm2d("a2_norm")
        })
        .relu()
        .residual_with(
            |main| {
                let main = main.conv2d("b1", conv(8).with_stride([2, 2])).batch_norm2d("b1_norm").relu();
                main.conv2d("b2", conv(8)).batch_norm2d("b2_norm")
            },
            |shortcut| shortcut.conv2d("shortcut", halved).batch_norm2d("shortcut_norm"),
        )
        .relu()
        .global_avg_pool2d()
        .flatten()
        .dense("fc", 10)
        .softmax()
        .build()?;

    // Untrained here: `gelu train --clear` and `model.load` fill in weights and the running statistics of batch norm.
    model.initialize(Initializer::KaimingUniform, rng);
    let digits = SampleDigits { seed: 5, per_digit: 1 }.draw();
    let images = digits.images().to_inputs();
    model.calibrate(images.view())?;

    // Eight images go through together, so that a slot of every ciphertext is one of them; then the other two.
    let server = Arc::new(ServerModel::new(model, Quantization::default()));
    let key = Arc::new(SecretKey::generate(KeyBits::Bits2048, rng)?);
    let report = LocalInference::shared(server.clone(), key, 8).run(images.view(), rng, |_| ())?;
    let of = |batch: usize| Deployment { key: KeyBits::Bits2048.into(), batch, ..Deployment::default() };
    let programs = [server.program(&of(8))?, server.program(&of(2))?];
    assert_eq!(report.integers, programs[0].run_clear(images.view())?.integers.values());

    // A segment is what the server computes in one go: chains of linear layers, and sums of them where a projection meets
    // the main branch. An identity is added by the client, who has it in the clear.
    println!("{:<34} {:<44} ct up  ct down  planned  counted", "segment", "then, at the client");
    let server_steps = report.steps.iter().filter(|step| step.party == Role::Server && step.batch.is_some());
    let counted: Vec<u64> = server_steps.map(|step| step.products).collect();
    for (at, segment) in programs[0].plan().segments().iter().enumerate() {
        println!(
            "{:<34} {:<44} {:>5} {:>8} {:>8} {:>8}",
            segment.name,
            programs[0].plan().client_steps(Some(at)).join(", "),
            segment.ciphertexts_up(),
            segment.ciphertexts_down(),
            segment.layout.operations.total(),
            counted[at]
        );
    }
    println!();

    // What is planned is what runs: the counts agree exactly.
    let planned: u64 = programs.iter().map(|program| program.plan().operations().total()).sum();
    assert_eq!(report.server.map(|server| server.products), Some(planned));
    println!("{planned} products for {} images in {:.2} s", digits.len(), report.seconds);
    Ok(())
}
