//! Lesson 3: Conv-1 on ciphertexts, message by message, with a function of your own as the client's step.
//!
//! Client and server are state machines: they take messages and make others, and never touch a socket, a file or a
//! clock. Carrying the bytes is up to you; here a loop does it.
//!
//!     cargo run --release --example 03_conv1_with_your_own_client

use std::path::Path;
use std::sync::Arc;

use gelu_net::io::digits::SampleDigits;
use gelu_net::models::infer::{Client, Event, Server};
use gelu_net::models::peer::Peer;
use gelu_net::prelude::*;
use gelu_net::wire::{decode_message, encode_message};
use ndarray::s;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rng = &mut rand::rng();

    // The server: Conv-1, in which a function of the client's stands for the first ReLU. The server knows its name and
    // how much comes out of it, no more.
    let mut model = ModelBuilder::new([1, 28, 28])
        .conv2d("conv1", Conv2dConfig::new(5, [5, 5]).with_stride([2, 2]))
        .client_function("my_relu", [5, 12, 12])
        .avg_pool2d("pool1", [2, 2])
        .relu()
        .flatten()
        .dense("fc1", 10)
        .softmax()
        .build()?;
    // The file has weights, and by the names of nodes how large their values became. What it calls `relu2` is the first
    // ReLU here.
    model.load(&Weights::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/conv1.safetensors"))?)?;
    let mut ranges = model.ranges().cloned().ok_or("the weights have no ranges")?;
    ranges.set("relu1", ranges.get("relu2").ok_or("no range of `relu2`")?);
    model.set_ranges(Some(ranges));
    let mut server = Server::new(Arc::new(ServerModel::new(model, Quantization::default())));

    // The client: a key, one drawn digit, pixels from 0 to 1, and its function, which sees the decrypted weighted sums of
    // an image and gives what goes on.
    let key = Arc::new(SecretKey::generate(KeyBits::Bits2048, rng)?);
    let digits = SampleDigits { seed: 1, per_digit: 1 }.draw();
    let (images, label) = (digits.images().to_inputs(), digits.labels()[7]);
    let image = images.slice(s![7..8, .., .., ..]);
    let my_relu = |sums: &[f64]| {
        let smallest = sums.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!("             my_relu: {} sums from {smallest:.3} to {largest:.3}", sums.len());
        sums.iter().map(|x| x.max(0.0)).collect()
    };
    let mut client = Client::new(Arc::clone(&key), 1).with_function("my_relu", Arc::new(my_relu));

    // The conversation. Each side takes what comes, and is asked for what it has to say until it has nothing more;
    // here they take turns, but neither has to wait for the other. Decoding checks every length, every ciphertext, and
    // that it is under the session's key.
    while !server.is_closed() {
        while !client.is_closed()
            && let Some(message) = client.next_message(rng)?
        {
            let bytes = encode_message(&message)?;
            println!("client ->    {message}, {} bytes", bytes.len());
            server.handle(decode_message(&bytes, server.key())?, rng)?;
        }
        while !server.is_closed()
            && let Some(message) = server.next_message(rng)?
        {
            let bytes = encode_message(&message)?;
            println!("   <- server {message}, {} bytes", bytes.len());
            match client.handle(decode_message(&bytes, Some(key.public_key()))?, rng)? {
                Some(Event::Ready) => client.start(image)?,
                Some(Event::Done(outcome)) => {
                    println!("\na {label} was drawn, the network reads a {}\n", outcome.predictions()[0]);
                    client.finish()?;
                }
                None => {}
            }
        }
    }
    Ok(())
}
