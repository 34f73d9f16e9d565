//! Lesson 8: two machines. A server offers a network over TLS, with certificates on both sides, and hides its weights; a client
//! finds out what it takes, keeps its key to itself, and gets its digits classified. Both run in this process, and would do
//! the same on two.
//!
//!     cargo run --release --example 08_client_and_server

use std::sync::Arc;

use gelu_net::InferenceClient;
use gelu_net::io::digits::SampleDigits;
use gelu_net::models::plan::Reveal;
use gelu_net::prelude::*;
use gelu_service::{
    ClientSecurity, Limits, Modes, Patience, Remote, ServerSecurity, Service, TrialAuthority,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // Who may talk to whom: an authority signs a certificate for each side. On two machines these are files.
    let authority = TrialAuthority::new(1)?;
    let for_server = authority.server(&["localhost".to_owned()])?;
    let for_client = authority.client("hospital")?;

    // The model owner's machine.
    let mut model = zoo::conv1()?;
    model.load(&Weights::read("models/conv1.safetensors")?)?;
    let model = Arc::new(ServerModel::new(model, Quantization::default()));
    let service = Service::new(Limits::default()).with_model("conv1", model, Modes::default())?;
    let running = service.start("localhost:0", &ServerSecurity::Tls(for_server.credentials()?))?;
    println!("the server listens on {}", running.address());

    // The data owner's machine. The server's key is pinned: it was told by other means, as one reads out a fingerprint.
    let known = Some(for_server.credentials()?.fingerprint()?);
    let security = ClientSecurity::Tls { credentials: for_client.credentials()?, known };
    let url = format!("https://localhost:{}", running.address().port());
    let remote = Remote::new(&url, &security, Patience::default())?.hiding_model();
    let offer = remote.find("conv1")?;
    let cost = offer.hidden.ok_or("the model is not hidden")?;
    println!(
        "{} takes {} and answers {} times; an image costs {} kB up and {} kB down, and {} kB before it is there",
        offer.name,
        offer.interface.input,
        cost.round_trips,
        cost.online.0 / 1000,
        cost.online.1 / 1000,
        (cost.ahead.0 + cost.ahead.1) / 1000,
    );

    let digits = SampleDigits { seed: 8, per_digit: 2 }.draw();
    let images = digits.images().to_inputs();
    let images = images.to_shape((digits.len(), offer.interface.input.elements()))?;
    let key = SecretKey::generate(KeyBits::Bits2048, &mut rand::rng())?;
    let client = InferenceClient::new(Arc::new(key), digits.len()).hiding_model(Reveal::Logits);
    let connect = || -> Result<_> { Ok(remote.open("conv1")?) };
    let report = client.run(images.view(), &mut rand::rng(), connect, |_| ())?;

    let correct = report
        .predictions
        .iter()
        .zip(digits.labels())
        .filter(|(found, label)| **found == usize::from(**label))
        .count();
    println!(
        "{correct} of {} correct: {:.2} s for all that could be done ahead, and {:.3} s with the images",
        digits.len(),
        report.seconds_ahead,
        report.seconds_online,
    );
    running.stop();
    Ok(())
}
