//! Latency over a link of 100 Mbit/s with 20 ms of delay each way, and whether encryption, transfer and computing overlap: one
//! image and many of LeNet-5 and ResNet-20 over TLS, through a proxy that lets no more through than such a link.
//!
//!     cargo bench -p gelu-service --bench link [-- IMAGES]
//!
//! Client and server share the cores of one machine. Transfer is what the link takes for the bytes that crossed, in the
//! direction that had more, and its delay for each answer that the client has to wait for.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made has no result")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gelu_io::digits::{SampleOptions, sample_digits};
use gelu_io::session::{ClientSession, StepRecord, serve};
use gelu_io::transport::{InProcess, Transport};
use gelu_io::weights::WeightsFile;
use gelu_layers::Initializer;
use gelu_models::infer::{Client, Server, ServerModel};
use gelu_models::plan::Quantization;
use gelu_models::{Model, Weights, zoo};
use gelu_service::{
    ClientSecurity, Limits, Modes, Patience, Remote, ServerSecurity, Service, TrialAuthority,
};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
use ndarray::{Array2, Axis};
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

const BITS_PER_SECOND: f64 = 100e6;
const DELAY: Duration = Duration::from_millis(20);

/// What a segment of TCP carries of TLS, and what it takes on the wire.
const SEGMENT: [usize; 2] = [1448, 1514];

fn main() {
    let batches = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10);
    let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
    let parameters = KeyParameters { size: KeyBits::Bits2048, key_type: KeyType::Subgroup };
    let key = Arc::new(SecretKey::generate(parameters, &mut rng).unwrap());
    for (name, model, images, repeats) in [lenet5(), resnet20()] {
        let quantization =
            Quantization { layer_bits: Some(model.layer_bits().clone()), ..Quantization::default() };
        let model = Arc::new(ServerModel::new(model, quantization));
        for (what, batches) in [("one image", 1), ("two in flight", batches.min(repeats * 4))] {
            let images =
                images.select(Axis(0), &(0..batches).map(|at| at % images.nrows()).collect::<Vec<_>>());
            measure(&format!("{name}, {what}"), &model, &key, (&images, repeats));
        }
    }
}

fn lenet5() -> (&'static str, Model, Array2<f32>, usize) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/lenet5.safetensors");
    let mut model = zoo::lenet5().unwrap();
    model.load(&Weights::read(file).unwrap()).unwrap();
    let digits = sample_digits(SampleOptions { seed: 3, per_digit: 1 });
    let images = digits.images().to_inputs().into_shape_with_order((digits.len(), 28 * 28)).unwrap();
    ("LeNet-5", model, images, 5)
}

/// With made-up weights, as in the other measurements of it.
fn resnet20() -> (&'static str, Model, Array2<f32>, usize) {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let mut model = zoo::resnet20(10).unwrap();
    model.initialize(Initializer::KaimingUniform, &mut rng);
    let images = Array2::from_shape_fn((4, 3 * 32 * 32), |_| rng.random_range(0.0..1.0_f32));
    model.calibrate(images.view()).unwrap();
    ("ResNet-20", model, images, 1)
}

/// Seconds in all, of the client and of the server, the bytes up and down, and the answers waited for.
struct Run {
    seconds: f64,
    client: f64,
    bytes: [usize; 2],
    answers: usize,
}

fn measure(
    what: &str,
    model: &Arc<ServerModel>,
    key: &Arc<SecretKey>,
    (images, repeats): (&Array2<f32>, usize),
) {
    // Within a process, for what either side computes.
    let (client_end, server_end) = InProcess::pair();
    let server = Server::new(Arc::clone(model));
    let serving = thread::spawn(move || {
        let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
        let (steps, ended) = serve(server_end, server, &mut rng);
        ended.unwrap();
        measured(&steps).map(|step| step.seconds).sum::<f64>()
    });
    let alone = classify(client_end, key, images);
    let computing = serving.join().unwrap();

    let authority = TrialAuthority::new(1).unwrap();
    let service =
        Service::new(Limits::default()).with_model("m", Arc::clone(model), Modes::revealed()).unwrap();
    let credentials = authority.server(&["localhost".to_owned()]).unwrap().credentials().unwrap();
    let running = service.start("localhost:0", &ServerSecurity::Tls(credentials)).unwrap();
    let proxy = slow_link(running.address());
    let own = authority.client("bench").unwrap().credentials().unwrap();
    let security = ClientSecurity::Tls { credentials: own, known: None };
    let remote =
        Remote::new(&format!("https://localhost:{}", proxy.port()), &security, Patience::default()).unwrap();
    let mut runs: Vec<Run> = (0..repeats).map(|_| classify(remote.open("m").unwrap(), key, images)).collect();
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let over = &runs[repeats / 2];
    let [up, down] = over.bytes.map(|bytes| (bytes * 8 * SEGMENT[1] / SEGMENT[0]) as f64 / BITS_PER_SECOND);
    let waits = over.answers as f64 * 2.0 * DELAY.as_secs_f64();
    let transfer = up.max(down) + waits;
    let largest = transfer.max(alone.client).max(computing);
    println!(
        "{what}: {:.3} s; in a process {:.3} s, of which the client is busy {:.3} s and the server {:.3} s; transfer {:.3} s \
         ({:.2} MB up, {:.2} MB down: {:.3} s and {:.3} s; {} answers: {waits:.3} s); total / largest {:.2}, total / \
         (client + server + transfer) {:.2}",
        over.seconds,
        alone.seconds,
        alone.client,
        computing,
        transfer,
        over.bytes[0] as f64 / 1e6,
        over.bytes[1] as f64 / 1e6,
        up,
        down,
        over.answers,
        over.seconds / largest,
        over.seconds / (transfer + alone.client + computing),
    );
}

/// A session of batches of one image, without what comes before the first of them.
fn classify(transport: impl Transport, key: &Arc<SecretKey>, images: &Array2<f32>) -> Run {
    let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
    let client = Client::new(Arc::clone(key), 1);
    let mut session = ClientSession::open(transport, client, &mut rng).unwrap();
    // The tables of the key.
    session.infer(images.select(Axis(0), &[0]).view(), &mut rng).unwrap();
    let start = Instant::now();
    session.infer_all(images.axis_chunks_iter(Axis(0), 1), &mut rng, |_| ()).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let segments = session.client().plan().unwrap().segments().len();
    let steps = session.finish(&mut rng).unwrap();
    Run {
        seconds,
        client: measured(&steps).map(|step| step.seconds).sum(),
        bytes: [
            measured(&steps).map(|step| step.bytes_out).sum(),
            measured(&steps).map(|step| step.bytes_in).sum(),
        ],
        // Two batches in flight wait together.
        answers: segments * images.nrows().div_ceil(2),
    }
}

/// The steps on batches after the first.
fn measured(steps: &[StepRecord]) -> impl Iterator<Item = &StepRecord> {
    steps.iter().filter(|step| step.batch.is_some_and(|batch| batch > 0))
}

/// One direction of the link.
#[derive(Default)]
struct Pipe {
    flying: Mutex<Flying>,
    changed: Condvar,
}

/// What is on its way.
#[derive(Default)]
struct Flying {
    /// When it arrives, and its bytes.
    segments: VecDeque<(Instant, Vec<u8>)>,
    is_closed: bool,
}

/// A proxy that passes on as much as the link does, as late as the link does.
fn slow_link(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect(server).unwrap();
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let pipe = Arc::new(Pipe::default());
                let into = Arc::clone(&pipe);
                thread::spawn(move || enter(from, &into));
                thread::spawn(move || leave(&pipe, to));
            }
        }
    });
    address
}

/// Takes bytes at the link's rate.
fn enter(mut from: TcpStream, pipe: &Pipe) {
    let mut buffer = [0; SEGMENT[0]];
    let mut free = Instant::now();
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let on_wire = (read + SEGMENT[1] - SEGMENT[0]) as f64 * 8.0 / BITS_PER_SECOND;
        free = free.max(Instant::now()) + Duration::from_secs_f64(on_wire);
        pipe.flying.lock().unwrap().segments.push_back((free + DELAY, buffer[..read].to_vec()));
        pipe.changed.notify_one();
        // As much as a router would hold.
        if let Some(ahead) = free.checked_duration_since(Instant::now() + Duration::from_millis(10)) {
            thread::sleep(ahead);
        }
    }
    pipe.flying.lock().unwrap().is_closed = true;
    pipe.changed.notify_one();
}

fn leave(pipe: &Pipe, mut to: TcpStream) {
    loop {
        let (arrives, bytes) = {
            let mut flying = pipe.flying.lock().unwrap();
            loop {
                if let Some(next) = flying.segments.pop_front() {
                    break next;
                }
                if flying.is_closed {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                flying = pipe.changed.wait(flying).unwrap();
            }
        };
        thread::sleep(arrives.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
}
