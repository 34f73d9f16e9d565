//! A small network, a server for it, and a connection that breaks where it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gelu_io::session::{ClientSession, RunError};
use gelu_layers::{Conv2dConfig, Initializer};
use gelu_models::infer::{Client, ServerModel};
use gelu_models::plan::{Outcome, Quantization};
use gelu_models::{Model, ModelBuilder};
use gelu_service::{
    ClientSecurity, Limits, Modes, Patience, Remote, RemoteTransport, Running, ServerSecurity, Service,
    TrialAuthority,
};
use gelu_tensor::paillier::{KeyBits, SecretKey};
use ndarray::Array4;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

pub(crate) static KEY: LazyLock<Arc<SecretKey>> = LazyLock::new(|| {
    Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(5)).unwrap())
});

pub(crate) static AUTHORITY: LazyLock<TrialAuthority> = LazyLock::new(|| TrialAuthority::new(2).unwrap());

/// A convolution and a dense layer, as small as can be.
pub(crate) fn model() -> Model {
    let mut model = ModelBuilder::new([1, 6, 6])
        .conv2d("conv", Conv2dConfig::new(2, [3, 3]))
        .relu()
        .flatten()
        .dense("fc", 3)
        .build()
        .unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(1));
    model.calibrate(images(8).view()).unwrap();
    model
}

pub(crate) fn images(count: usize) -> Array4<f32> {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    Array4::from_shape_fn((count, 1, 6, 6), |_| rng.random_range(0.0..1.0))
}

/// What the network gives in the clear, with the numbers that it has on ciphertexts.
pub(crate) fn expected(count: usize) -> Vec<i64> {
    let (model, images) = (model(), images(count));
    let server = ServerModel::new(model, Quantization::default());
    let program = server.program(&gelu_models::plan::Deployment { batch: 1, ..Default::default() }).unwrap();
    program.run_clear(images.view()).unwrap().integers.values().to_vec()
}

/// What the server has counted under a name with labels.
pub(crate) fn counted(server: &Running, counter: &str) -> u64 {
    let mut stream = TcpStream::connect(server.metrics_address().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let line = answer.lines().find_map(|line| line.strip_prefix(counter));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

/// Waits until the server has let go of all conversations.
pub(crate) fn all_end(server: &Running) {
    let since = Instant::now();
    while server.sessions() > 0 && since.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.sessions(), 0);
}

pub(crate) fn service(limits: Limits) -> Service {
    service_in(limits, Modes::any())
}

pub(crate) fn service_in(limits: Limits, modes: Modes) -> Service {
    let model = Arc::new(ServerModel::new(model(), Quantization::default()));
    Service::new(limits).with_model("small", model, modes).unwrap()
}

pub(crate) fn start(limits: Limits) -> Running {
    over_tls(service(limits))
}

pub(crate) fn over_tls(service: Service) -> Running {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let credentials = AUTHORITY.server(&names).unwrap().credentials().unwrap();
    service.start("127.0.0.1:0", &ServerSecurity::Tls(credentials)).unwrap()
}

pub(crate) fn client_security() -> ClientSecurity {
    let credentials = AUTHORITY.client("hospital").unwrap().credentials().unwrap();
    ClientSecurity::Tls { credentials, known: None }
}

pub(crate) fn remote(address: SocketAddr) -> Remote {
    let patience = Patience {
        connect: Duration::from_secs(10),
        answer: Duration::from_secs(60),
        reconnect: Duration::from_secs(20),
    };
    Remote::new(&format!("https://{address}"), &client_security(), patience).unwrap()
}

/// Classifies images one by one, two of them in flight.
pub(crate) fn infer(transport: &RemoteTransport, count: usize) -> Result<Vec<i64>, RunError> {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let images = images(count);
    let client = Client::new(Arc::clone(&KEY), 1);
    let mut session = ClientSession::open(transport, client, &mut rng)?;
    let mut outcomes: Vec<Outcome> = vec![];
    let batches = images.axis_chunks_iter(ndarray::Axis(0), 1);
    session.infer_all(batches, &mut rng, |outcome| outcomes.push(outcome))?;
    session.finish(&mut rng)?;
    Ok(outcomes.iter().flat_map(|outcome| outcome.integers.values()).copied().collect())
}

/// A relay between client and server that breaks its connections after so many bytes of each, both directions together;
/// those after the list stay whole.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    /// Connections so far.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Bytes of the connection that is relayed now.
    pub(crate) bytes: Arc<AtomicUsize>,
}

impl Relay {
    pub(crate) fn new(server: SocketAddr, cuts: Vec<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&connections), Arc::clone(&bytes));
        thread::spawn(move || {
            let mut cuts = cuts.into_iter();
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                counts.0.fetch_add(1, Ordering::SeqCst);
                counts.1.store(0, Ordering::SeqCst);
                let left = Arc::new(Mutex::new(cuts.next().unwrap_or(usize::MAX)));
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (left, bytes) = (Arc::clone(&left), Arc::clone(&counts.1));
                    thread::spawn(move || relay(from, to, &left, &bytes));
                }
            }
        });
        Self { address, connections, bytes }
    }

    /// One that passes so many bytes to the server and then one at a time, with pauses.
    pub(crate) fn trickling(server: SocketAddr, after: usize, pause: Duration) -> Self {
        Self::of(server, move |client, server| {
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut &back.0, &mut &back.1));
            let _ = std::io::copy(&mut client.try_clone().unwrap().take(after as u64), &mut &server);
            let mut byte = [0];
            while (&client).read_exact(&mut byte).is_ok() && (&server).write_all(&byte).is_ok() {
                thread::sleep(pause);
            }
        })
    }

    /// One that passes so many bytes to the client and then reads no more of them.
    pub(crate) fn deaf(server: SocketAddr, after: usize) -> Self {
        Self::of(server, move |client, server| {
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut back.0.take(after as u64), &mut &back.1));
            let _ = std::io::copy(&mut &client, &mut &server);
        })
    }

    fn of(server: SocketAddr, carry: impl Fn(TcpStream, TcpStream) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, bytes) = Default::default();
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                server.set_nodelay(true).unwrap();
                let carry = carry.clone();
                thread::spawn(move || carry(client, server));
            }
        });
        Self { address, connections, bytes }
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, left: &Mutex<usize>, count: &AtomicUsize) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let passed = {
            let mut left = left.lock().unwrap();
            let passed = read.min(*left);
            *left -= passed;
            passed
        };
        count.fetch_add(passed, Ordering::SeqCst);
        if to.write_all(&buffer[..passed]).is_err() || passed < read {
            break;
        }
    }
    // Both ways at once, as when a cable is pulled.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
