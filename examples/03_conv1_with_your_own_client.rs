//! Lesson 3: Conv-1 on ciphertexts, message by message, with a function of your own as the client's step.
//!
//! Client and server are state machines: they take messages and make others, and never touch a socket, a file or a
//! clock. Carrying the bytes is up to you; here a loop does it.
//!
//!     cargo run --release --example 03_conv1_with_your_own_client

use std::path::Path;
use std::sync::Arc;

use gelu_net::io::digits::{SampleOptions, sample_digits};
use gelu_net::io::weights::read_safetensors;
use gelu_net::io::wire::{Limits, decode_message, encode_message};
use gelu_net::prelude::*;
use ndarray::Array2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rng = &mut rand::rng();

    // The server: a network, its weights, and how large its activations were when it was calibrated.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/conv1.safetensors");
    let weights = read_safetensors(&path)?;
    let mut model = zoo::conv1()?;
    model.load(&weights)?;
    let ranges = weights.metadata.get(Ranges::METADATA_KEY).ok_or("the weights have no ranges")?;
    let options = PlanOptions { ranges: serde_json::from_str(ranges)?, ..PlanOptions::default() };
    let mut server = Server::new(Arc::new(ServerModel::new(model, options)));

    // The client: a key, and one drawn digit, pixels from 0 to 1.
    let key = Arc::new(SecretKey::generate(KeyBits::Bits2048, rng)?);
    let digits = sample_digits(SampleOptions { seed: 1, per_digit: 1 });
    let (pixels, label) = digits.iter().nth(7).ok_or("no digit was drawn")?;
    let pixels = pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    let image = Array2::from_shape_vec((1, 784), pixels)?;

    // Your callback sees the decrypted weighted sums of every layer and leaves in their place what is encrypted
    // next. It replaces the plan's activations, so that ReLU is its duty now; logits stay as they are.
    let (mut client, hello) = Client::new(Arc::clone(&key), 1);
    client.on_step(Box::new(|segment, sums| {
        let smallest = sums.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!("             {}: {} sums from {smallest:.3} to {largest:.3}", segment.name, sums.len());
        if segment.activations.contains(&Activation::Relu) {
            sums.iter_mut().for_each(|x| *x = x.max(0.0));
        }
    }));

    // The conversation. Each side takes what comes, and is asked for what it has to say until it has nothing more;
    // here they take turns, but neither has to wait for the other. Decoding checks every length, every ciphertext, and
    // that it is under the session's key.
    let limits = Limits::default();
    server.handle(decode_message(&encode_message(&hello)?, None, limits)?, rng)?;
    let mut outcome = None;
    while outcome.is_none() {
        while let Some(message) = server.next_message(rng)? {
            let bytes = encode_message(&message)?;
            let message = decode_message(&bytes, Some(key.public_key()), limits)?;
            println!("   <- server {message}, {} bytes", bytes.len());
            match client.handle(message)? {
                Some(Event::Ready) => client.start(image.view())?,
                Some(Event::Done(done)) => outcome = Some(done),
                None => {}
            }
        }
        while let Some(message) = client.next_message(rng)? {
            let bytes = encode_message(&message)?;
            let message = decode_message(&bytes, server.key(), limits)?;
            println!("client ->    {message}, {} bytes", bytes.len());
            server.handle(message, rng)?;
        }
    }
    let finish = decode_message(&encode_message(&client.finish()?)?, server.key(), limits)?;
    server.handle(finish, rng)?;
    assert!(server.is_closed());
    let outcome = outcome.ok_or("nothing came out")?;
    println!("\na {label} was drawn, the network reads a {}", outcome.predictions()[0]);
    Ok(())
}
