//! Lesson 4: LeNet-5 from a safetensors file, ten drawn digits at once, and the account of every step.
//!
//!     cargo run --release --example 04_lenet5_from_safetensors [FILE.safetensors]

use std::path::{Path, PathBuf};

use gelu_net::io::digits::SampleDigits;
use gelu_net::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Weights with PyTorch's names and shapes. Loading is strict: a tensor that is missing, unused, of another shape
    // or not finite is an error that names it, and the report lists what was applied.
    let shipped = || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lenet5.safetensors");
    let path = std::env::args().nth(1).map_or_else(shipped, PathBuf::from);
    let mut model = zoo::lenet5()?;
    println!("{}\n", model.load(&Weights::read(path)?)?);

    let digits = SampleDigits { seed: 4, per_digit: 1 }.draw();
    let images = digits.images().to_inputs();

    // How large activations get decides where their binary point goes. `gelu train` and `gelu weights import` write
    // the ranges into the file, from which they were loaded; without them, measure on data that may be seen.
    if model.ranges().is_none() {
        model.calibrate(images.view())?;
    }

    // Both sides on this machine, joined by a pipe that carries encoded bytes.
    let key = SecretKey::generate(KeyBits::Bits2048, &mut rand::rng())?;
    let server = ServerModel::new(model, Quantization::default());
    let deployment =
        Deployment { key: KeyBits::Bits2048.into(), batch: digits.len(), ..Deployment::default() };
    let clear = server.program(&deployment)?.run_clear(images.view())?;
    let report =
        LocalInference::new(server, key, digits.len()).run(images.view(), &mut rand::rng(), |_| ())?;

    // The same network on integers in the clear gives the same logits, bit for bit.
    assert_eq!(report.integers, clear.integers.values());

    println!("digit  prediction  confidence");
    for (image, (&label, &prediction)) in digits.labels().iter().zip(&report.predictions).enumerate() {
        let confidence = 100.0 * report.outputs[[image, prediction]];
        println!("{label:>5}  {prediction:>10}  {confidence:>9.1}%");
    }

    println!("\n{:<26} at      ct in  ct out  kB sent  products  checks     ms", "step");
    for step in &report.steps {
        println!(
            "{:<26} {:<6} {:>6} {:>7} {:>8.1} {:>9} {:>7} {:>6.1}",
            step.step,
            step.party,
            step.ciphertexts_in,
            step.ciphertexts_out,
            step.bytes_out as f64 / 1e3,
            step.products,
            step.checks,
            1e3 * step.seconds
        );
    }
    println!();
    println!("{:.2} s in all, {} values clamped", report.seconds, report.saturations.total());
    Ok(())
}
