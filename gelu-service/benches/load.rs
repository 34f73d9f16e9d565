//! What the network costs, and what many clients at once do to each other: LeNet-5 over TLS on one machine, beside the pipe
//! within a process, in turns, so that both meet the same machine.
//!
//!     cargo bench -p gelu-service --bench load [-- SESSIONS]
//!
//! Client and servers share the cores. Figures are medians.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made has no result")]

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use gelu_io::digits::SampleDigits;
use gelu_io::session::{ClientSession, serve};
use gelu_io::transport::{InProcess, Transport};
use gelu_io::weights::WeightsFile;
use gelu_models::infer::{Client, Server, ServerModel};
use gelu_models::plan::Quantization;
use gelu_models::{Weights, zoo};
use gelu_service::{
    ClientSecurity, Limits, Modes, Patience, Remote, ServerSecurity, Service, TrialAuthority,
};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
use ndarray::{Array2, Axis};
use rand::{SeedableRng, rngs::ChaCha20Rng};

/// Images of a full batch, under the tuned bits and a subgroup key of 2,048 bits.
const FULL: usize = 75;

fn main() {
    let sessions = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(64);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/lenet5.safetensors");
    let mut model = zoo::lenet5().unwrap();
    model.load(&Weights::read(file).unwrap()).unwrap();
    let quantization =
        Quantization { layer_bits: Some(model.layer_bits().clone()), ..Quantization::default() };
    let model = Arc::new(ServerModel::new(model, quantization));
    let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
    let parameters = KeyParameters { size: KeyBits::Bits2048, key_type: KeyType::Subgroup };
    let key = Arc::new(SecretKey::generate(parameters, &mut rng).unwrap());
    let digits = SampleDigits { seed: 3, per_digit: FULL.div_ceil(10) }.draw();
    let images = digits.images().to_inputs().into_shape_with_order((digits.len(), 28 * 28)).unwrap();

    let authority = TrialAuthority::new(1).unwrap();
    let limits =
        Limits { sessions, sessions_per_client: sessions, connections_per_client: 256, ..Limits::default() };
    let service = Service::new(limits).with_model("lenet5", Arc::clone(&model), Modes::revealed()).unwrap();
    let credentials = authority.server(&["localhost".to_owned()]).unwrap().credentials().unwrap();
    let running = service.start("localhost:0", &ServerSecurity::Tls(credentials)).unwrap();
    let url = format!("https://localhost:{}", running.address().port());
    let own = authority.client("bench").unwrap().credentials().unwrap();
    let security = ClientSecurity::Tls { credentials: own, known: None };
    let remote = Remote::new(&url, &security, Patience::default()).unwrap();

    for (what, batch, repeats) in [("one image", 1, 41), ("a full batch", FULL, 9)] {
        let images = images.select(Axis(0), &(0..batch).collect::<Vec<_>>());
        let (mut within, mut over) = (vec![], vec![]);
        for _ in 0..repeats {
            within.push(in_process(&model, &key, &images));
            let start = Instant::now();
            classify(remote.open("lenet5").unwrap(), &key, &images);
            over.push(start.elapsed().as_secs_f64());
        }
        let [within, over] = [median(within), median(over)];
        println!(
            "{what}: {:.1} ms in a process, {:.1} ms over TLS ({:.3} times)",
            within * 1e3,
            over * 1e3,
            over / within
        );
    }

    let images = images.select(Axis(0), &(0..FULL).collect::<Vec<_>>());
    let start = Instant::now();
    let in_turn = sessions.min(16);
    for _ in 0..in_turn {
        classify(remote.open("lenet5").unwrap(), &key, &images);
    }
    let alone = start.elapsed().as_secs_f64() / (in_turn * FULL) as f64;
    let start = Instant::now();
    let threads: Vec<_> = (0..sessions)
        .map(|_| {
            let (remote, key, images) = (remote.clone(), Arc::clone(&key), images.clone());
            thread::spawn(move || {
                classify(remote.open("lenet5").unwrap(), &key, &images);
                start.elapsed().as_secs_f64()
            })
        })
        .collect();
    let mut ends: Vec<f64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let together = start.elapsed().as_secs_f64() / (sessions * FULL) as f64;
    ends.sort_by(f64::total_cmp);
    println!(
        "{sessions} sessions at once, a full batch each: {:.2} ms an image, one after the other {:.2} ms (throughput {:.2} \
         times); the last ended {:.2} times as late as the first",
        together * 1e3,
        alone * 1e3,
        alone / together,
        ends[ends.len() - 1] / ends[0]
    );
    println!("memory: {}", peak_memory());
    running.stop();
}

/// A session of one batch, the key's tables included.
fn classify(transport: impl Transport, key: &Arc<SecretKey>, images: &Array2<f32>) {
    let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
    let client = Client::new(Arc::clone(key), images.nrows() as u32);
    let mut session = ClientSession::open(transport, client, &mut rng).unwrap();
    session.infer(images.view(), &mut rng).unwrap();
    session.finish(&mut rng).unwrap();
}

fn in_process(model: &Arc<ServerModel>, key: &Arc<SecretKey>, images: &Array2<f32>) -> f64 {
    let start = Instant::now();
    let (client_end, server_end) = InProcess::pair();
    let server = Server::new(Arc::clone(model));
    let serving = thread::spawn(move || {
        let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
        serve(server_end, server, &mut rng).1.unwrap();
    });
    classify(client_end, key, images);
    serving.join().unwrap();
    start.elapsed().as_secs_f64()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// The most memory that this process, clients and server, has had.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown here".to_owned(), |line| line.trim().to_owned())
}
