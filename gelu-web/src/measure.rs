//! What the arithmetic takes in the engine that runs this module: `gelu-web/measure` prints it.

#![allow(unreachable_pub, reason = "wasm-bindgen exports what is public")]

use std::sync::Arc;

use gelu_layers::Initializer;
use gelu_models::infer::{Client, Event, Server, ServerModel};
use gelu_models::peer::Peer;
use gelu_models::plan::{Deployment, Quantization};
use gelu_models::zoo;
use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, Randomizer, RandomnessPool, SecretKey};
use gelu_wire::WirePeer;
use ndarray::Array2;
use rand::{Rng, SeedableRng, rngs::ChaCha20Rng};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;
}

fn failed(error: impl std::fmt::Display) -> JsValue {
    js_sys::Error::new(&error.to_string()).into()
}

/// Milliseconds of one of `times` calls.
fn time(times: usize, mut call: impl FnMut()) -> f64 {
    call();
    let start = now();
    (0..times).for_each(|_| call());
    (now() - start) / times as f64
}

/// Milliseconds of a key, a product mod n^2, a random factor, and of a client's work on one digit by LeNet-5, with random factors
/// and without, on one backend.
#[wasm_bindgen]
pub fn measure(backend: &str, bits: usize) -> Result<Vec<f64>, JsValue> {
    let backend: Backend = backend.parse().map_err(failed)?;
    let size = KeyBits::try_from(bits).map_err(failed)?;
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let start = now();
    let key =
        SecretKey::generate(KeyParameters { size, key_type: KeyType::Subgroup }, &mut rng).map_err(failed)?;
    let key_time = now() - start;
    let key = Arc::new(key.on(backend).map_err(failed)?);
    let factors = key.randomizers(&mut rng, 8);
    let factor = time(5, || drop(key.randomizers(&mut rng, 8))) / 8.0;
    let public = key.public_key();
    let mut x = factors.clone();
    let product = time(100, || x.multiply(public, &factors).unwrap_or_default()) / 8.0;
    let mut times = vec![key_time, product, factor];
    for ahead in [false, true] {
        times.push(lenet(&key, ahead, &mut rng).map_err(failed)?);
    }
    Ok(times)
}

fn lenet(
    key: &Arc<SecretKey>,
    ahead: bool,
    rng: &mut ChaCha20Rng,
) -> Result<f64, Box<dyn std::error::Error>> {
    let mut model = zoo::lenet5()?;
    model.initialize(Initializer::KaimingUniform, rng);
    let input = Array2::from_shape_fn((1, 784), |_| (rng.next_u32() >> 8) as f32 / (1 << 24) as f32);
    model.calibrate(input.view())?;
    let clear = model.compile(&Quantization::default(), &Deployment::default())?.run_clear(input.view())?;
    let mut server = Server::new(Arc::new(ServerModel::new(model, Quantization::default())));
    let pool = Arc::new(RandomnessPool::new(key.clone(), 4096));
    if ahead {
        pool.make(rng, 1024);
    }
    let mut client = Client::new(key.clone(), 1);
    client.draw_from(pool)?;
    let (mut spent, mut answer) = (0.0, None);
    while answer.is_none() {
        loop {
            let start = now();
            let made = client.next_message(rng)?.map(|message| Client::encode(&message)).transpose()?;
            spent += now() - start;
            let Some(bytes) = made else { break };
            server.handle(server.decode(&bytes)?, rng)?;
        }
        while let Some(message) = server.next_message(rng)? {
            let bytes = Server::encode(&message)?;
            let start = now();
            let event = client.handle(client.decode(&bytes)?, rng)?;
            spent += now() - start;
            match event {
                Some(Event::Ready) => {
                    spent = 0.0;
                    client.start(input.view())?;
                    break;
                }
                Some(Event::Done(outcome)) => answer = Some(outcome),
                None => {}
            }
        }
    }
    let integers = answer.ok_or("no answer")?.integers;
    if integers != clear.integers {
        return Err("the integers are not those of the clear run".into());
    }
    Ok(spent)
}
