//! Private training between a server and clients over TLS: the weights are those of the clear run on the same integers, bit
//! for bit, whatever breaks.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gelu_io::session::{Go, RunError};
use gelu_io::weights::WeightsFile;
use gelu_layers::Initializer;
use gelu_models::train::private::{
    CoordinatorConfig, DMax, Description, FixedTrainer, Leakage, ParticipantConfig, PrivateError, Samples,
    Shard, TrainPlan, TrainingOptions,
};
use gelu_models::train::{Dataset, TrainConfig};
use gelu_models::{Model, ModelBuilder, Weights};
use gelu_service::{
    ClientSecurity, Ledger, Limits, Membership, Moment, Patience, Refusal, Remote, RemoteTraining, Running,
    ServerSecurity, Service, ServiceError, Training, TrialCertificate, Web,
};
use gelu_tensor::paillier::KeyBits;
use gelu_tensor::{Backend, Shape};
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use crate::common::{AUTHORITY, Relay, all_end, counted};

const CLIENTS: usize = 4;

fn model() -> Model {
    let mut model = ModelBuilder::new([6]).dense("fc1", 5).tanh().dense("fc2", 3).softmax().build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(1));
    model
}

fn options() -> TrainingOptions {
    TrainingOptions {
        key: KeyBits::Bits1024.into(),
        train: TrainConfig { batch_size: 2, epochs: 1, seed: 9, ..TrainingOptions::default().train },
        d_max: DMax::Fixed(3),
        leakage: Leakage::Off,
        ..TrainingOptions::default()
    }
}

fn shards() -> Vec<Arc<dyn Samples>> {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let inputs = Array2::from_shape_fn((48, 6), |_| rng.random_range(0.0..1.0));
    let labels = (0..48).map(|_| rng.random_range(0..3)).collect();
    let data = Arc::new(Dataset::new(Shape::from([6]), inputs, labels, 3).unwrap());
    Shard::divide(&data, CLIENTS).into_iter().map(|shard| Arc::new(shard) as Arc<dyn Samples>).collect()
}

/// The weights that the clear run on the same integers comes to.
fn expected() -> Weights {
    let (options, model) = (options(), model());
    let TrainingOptions { key, numbers, train, d_max, leakage, .. } = options;
    let description = Description::new(&model, train.batch_size, numbers, key, key.size);
    let plan = Arc::new(TrainPlan::new(description).unwrap());
    let parameters = plan.quantize(&model.weights()).unwrap();
    let (seed, momentum) = (train.seed, train.momentum);
    let config = CoordinatorConfig { train, images: 48, d_max, leakage };
    let clients =
        (0..).zip(shards()).map(|(client, samples)| (samples, ParticipantConfig { client, seed, momentum }));
    let mut trainer = FixedTrainer::new(plan.clone(), config, parameters, clients).unwrap();
    while !trainer.is_complete() {
        trainer.turn().unwrap();
    }
    let mut trained = model;
    trained.load(&plan.weights(&trainer.coordinator().parameters).unwrap()).unwrap();
    trained.weights()
}

fn limits() -> Limits {
    Limits {
        absence: Duration::from_secs(30),
        grace: Duration::from_millis(300),
        opening: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// A service that keeps its run in a folder.
fn service(folder: &Path, limits: Limits) -> Result<Service, ServiceError> {
    let training = Training {
        model: model(),
        options: options(),
        clients: CLIENTS as u32,
        turns: None,
        turns_an_hour: None,
        weights: Some(folder.join("small.safetensors")),
    };
    let ledger = Arc::new(Ledger::open(folder).unwrap());
    Service::new(limits).with_ledger(ledger, None).with_metrics(ANY).with_training("small", training)
}

/// A server of it.
fn start(folder: &Path, limits: Limits, address: SocketAddr) -> Result<Running, ServiceError> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let credentials = AUTHORITY.server(&names).unwrap().credentials().unwrap();
    service(folder, limits)?.start(address, &ServerSecurity::Tls(credentials))
}

/// What browsers are told of runs.
fn told(server: &Running) -> serde_json::Value {
    let address = server.web_address().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /v1/training HTTP/1.0\r\nhost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    serde_json::from_str(body).unwrap()
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

static CERTIFICATES: LazyLock<Vec<TrialCertificate>> = LazyLock::new(|| {
    (0..CLIENTS).map(|client| AUTHORITY.client(&format!("hospital-{client}")).unwrap()).collect()
});

fn remote(address: SocketAddr, client: usize) -> Remote {
    let credentials = CERTIFICATES[client].credentials().unwrap();
    let patience = Patience {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(60),
        reconnect: Duration::from_secs(30),
    };
    let security = ClientSecurity::Tls { credentials, known: None };
    Remote::new(&format!("https://{address}"), &security, patience).unwrap()
}

/// What ends a client's process in these tests.
#[derive(Debug)]
enum Stopped {
    Killed,
    Service(ServiceError),
}

impl From<ServiceError> for Stopped {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

impl From<RunError<PrivateError>> for Stopped {
    fn from(error: RunError<PrivateError>) -> Self {
        panic!("{error}: {:?}", std::error::Error::source(&error))
    }
}

/// One process of a client: it begins from what was kept, keeps what it is told to, and is killed where `dies` says so.
fn live(
    remote: &Remote,
    client: usize,
    kept: &Mutex<Option<String>>,
    mut dies: impl FnMut(&Moment<'_>) -> bool,
) -> Result<bool, Stopped> {
    let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
    let membership: Option<Membership> =
        kept.lock().unwrap().as_ref().map(|text| serde_json::from_str(text).unwrap());
    let offer = remote.find("small")?;
    let samples = shards()[client].clone();
    let mut training =
        RemoteTraining::new(remote.clone(), &offer, samples, membership, Backend::detect(), &mut rng)?
            .at(client as u32);
    training.run(&mut rng, |moment| {
        if let Moment::Keep(membership) = &moment {
            *kept.lock().unwrap() = Some(serde_json::to_string(membership).unwrap());
        }
        if dies(&moment) { Err(Stopped::Killed) } else { Ok(Go::On) }
    })
}

/// A client that is started again however often it is killed, and its last words.
fn persist(
    remote: &Remote,
    client: usize,
    mut dies: impl FnMut(&Moment<'_>) -> bool,
) -> Result<Membership, Stopped> {
    let kept = Mutex::new(None);
    loop {
        match live(remote, client, &kept, &mut dies) {
            Err(Stopped::Killed) => {}
            Err(Stopped::Service(ServiceError::Unreachable { .. })) => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(error),
            Ok(complete) => {
                assert!(complete);
                let kept = kept.lock().unwrap().take().unwrap();
                return Ok(serde_json::from_str(&kept).unwrap());
            }
        }
    }
}

fn weights(folder: &Path) -> Weights {
    Weights::read(folder.join("small.safetensors")).unwrap()
}

fn all(address: SocketAddr, dies: impl Fn(usize, &Moment<'_>) -> bool + Sync) -> Vec<Membership> {
    thread::scope(|scope| {
        let dies = &dies;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    persist(&remote(address, client), client, |moment| dies(client, moment)).unwrap()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn clients_that_take_turns_over_tls_come_to_the_weights_of_the_clear_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), limits(), ANY).unwrap();
    let memberships = all(server.address(), |_, _| false);
    assert_eq!(weights(folder.path()).tensors, expected().tensors);
    for (place, membership) in (0..).zip(&memberships) {
        assert_eq!((membership.place(), membership.statistics().images), (Some(place), 12));
        assert!(membership.account().bytes_up() > 10_000 && membership.account().bytes_down() > 10_000);
    }
    // Two layers of 24 iterations, whose last turn is counted when the server has let go of it.
    all_end(&server);
    let products = counted(&server, "gelu_products_total{model=\"small\"}");
    assert!(products > 24 * 100, "{products}");
    assert_eq!(counted(&server, "gelu_ended_total{model=\"small\",outcome=\"finished\"}"), 8);
    let offer = remote(server.address(), 0).find("small").unwrap().training.unwrap();
    assert_eq!((offer.done, offer.iterations, offer.enrolled), (24, 24, 4));
    let runs = Ledger::open(folder.path()).unwrap().runs().unwrap();
    assert_eq!((runs[0].iterations, runs[0].members.len(), runs[0].members[3].turns), (24, 4, 2));

    // Browsers are told how the run came there, and nothing of who took part.
    drop(server);
    let web = service(folder.path(), limits()).unwrap().with_web(Web::new(ANY));
    let run = &told(&web.start(ANY, &ServerSecurity::Loopback).unwrap())[0];
    assert_eq!(
        (&run["model"], &run["is_complete"], &run["is_held"]),
        (&"small".into(), &true.into(), &false.into())
    );
    assert_eq!((&run["run"]["done"], &run["run"]["iterations"]), (&24.into(), &24.into()));
    let members = (0..4).map(|place| serde_json::json!({ "place": place, "turns": 2 })).collect();
    assert_eq!(run["members"], serde_json::Value::Array(members));
    assert!(!run["changes"].as_array().unwrap().is_empty(), "{run}");
    assert!(!run.to_string().contains("hospital"), "{run}");
}

#[test]
fn clients_killed_at_any_moment_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), limits(), ANY).unwrap();
    let moments: Vec<AtomicUsize> = (0..CLIENTS).map(|_| AtomicUsize::new(0)).collect();
    // Every third moment that is no waiting, before and after what is to be kept.
    let memberships = all(server.address(), |client, moment| match moment {
        Moment::Iteration(_) | Moment::Keep(_) => {
            let at = moments[client].fetch_add(1, Ordering::SeqCst);
            at % 3 == 2 && at < 12
        }
        Moment::Waiting(_) | Moment::Retrying(_) => false,
    });
    assert_eq!(weights(folder.path()).tensors, expected().tensors);
    assert_eq!(memberships.iter().map(|of| of.statistics().images).sum::<u64>(), 48);
}

#[test]
fn servers_stopped_at_any_moment_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path(), limits(), ANY).unwrap();
    let address = server.address();
    thread::scope(|scope| {
        let clients = scope.spawn(move || all(address, |_, _| false));
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        for _ in 0..6 {
            thread::sleep(Duration::from_millis(rng.random_range(100..500)));
            server.stop();
            let since = Instant::now();
            server = loop {
                match start(folder.path(), limits(), address) {
                    Ok(server) => break server,
                    Err(error) => assert!(since.elapsed() < Duration::from_secs(20), "{error}"),
                }
                thread::sleep(Duration::from_millis(20));
            };
        }
        let memberships = clients.join().unwrap();
        assert_eq!(memberships.iter().map(|of| of.statistics().images).sum::<u64>(), 48);
    });
    assert_eq!(weights(folder.path()).tensors, expected().tensors);
}

#[test]
fn connections_that_break_anywhere_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), limits(), ANY).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    // Of some, the handshake breaks already.
    let mut cuts = || (0..10).map(|_| rng.random_range(1_000..12_000)).collect();
    let relays: Vec<Relay> = (0..CLIENTS).map(|_| Relay::new(server.address(), cuts())).collect();
    thread::scope(|scope| {
        for (client, relay) in relays.iter().enumerate() {
            scope.spawn(move || persist(&remote(relay.address, client), client, |_| false).unwrap());
        }
    });
    let connections = relays.iter().map(|relay| relay.connections.load(Ordering::SeqCst));
    assert!(connections.clone().all(|connections| connections > 10), "{:?}", connections.collect::<Vec<_>>());
    assert_eq!(weights(folder.path()).tensors, expected().tensors);
}

#[test]
fn the_others_go_on_when_a_client_goes_away_in_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let absence = Duration::from_secs(1);
    let server = start(folder.path(), Limits { absence, ..limits() }, ANY).unwrap();
    let address = server.address();
    thread::scope(|scope| {
        for client in 0..CLIENTS - 1 {
            scope.spawn(move || persist(&remote(address, client), client, |_| false).unwrap());
        }
        let last = CLIENTS - 1;
        let mut iterations = 0;
        let gone = live(&remote(address, last), last, &Mutex::new(None), |moment| {
            iterations += u32::from(matches!(moment, Moment::Iteration(_)));
            iterations == 2
        });
        assert!(matches!(gone, Err(Stopped::Killed)));
    });
    let runs = Ledger::open(folder.path()).unwrap().runs().unwrap();
    let turns: Vec<u64> = runs[0].members.iter().map(|member| member.turns).collect();
    assert_eq!((runs[0].iterations, turns[3]), (24, 0), "{turns:?}");
    // Its turn came to nothing.
    assert_ne!(weights(folder.path()).tensors, expected().tensors);
}

#[test]
fn clients_that_cannot_take_part_are_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), limits(), ANY).unwrap();
    let address = server.address();
    let kept = Mutex::new(None);
    let comes = |client: usize, place: u32, samples: usize| -> Result<bool, Stopped> {
        let remote = remote(address, client);
        let offer = remote.find("small")?;
        let rng = &mut ChaCha20Rng::from_rng(&mut rand::rng());
        let samples = shards()[samples].clone();
        RemoteTraining::new(remote, &offer, samples, None, Backend::detect(), rng)?.at(place).run(
            rng,
            |moment| match moment {
                Moment::Waiting(offer) => {
                    assert!(offer.enrolled < offer.clients);
                    Err(Stopped::Killed)
                }
                Moment::Keep(membership) => {
                    *kept.lock().unwrap() = Some(serde_json::to_string(membership).unwrap());
                    Ok(Go::On)
                }
                _ => Ok(Go::On),
            },
        )
    };
    let refusal = |result: Result<bool, Stopped>| match result {
        Err(Stopped::Service(ServiceError::Refused { refusal, message, .. })) => (refusal, message),
        other => panic!("{other:?}"),
    };
    assert!(matches!(comes(0, 1, 0), Err(Stopped::Killed)));
    let (kind, words) = refusal(comes(1, 1, 1));
    assert!(kind == Refusal::Enrolment && words.contains("place 2 of 4 is taken"), "{words}");
    let (kind, words) = refusal(comes(1, 4, 1));
    assert!(kind == Refusal::Enrolment && words.contains("place 5 of 4"), "{words}");
    let (kind, words) = refusal(comes(0, 2, 0));
    assert!(kind == Refusal::Enrolment && words.contains("this client has place 2"), "{words}");
    // A model that is trained is not offered for inference.
    let error = remote(address, 0).open("small").unwrap_err();
    assert!(error.to_string().contains("being trained"), "{error}");
    // What was kept of another run.
    let mut text: serde_json::Value = serde_json::from_str(&kept.lock().unwrap().clone().unwrap()).unwrap();
    text["run"][0] = (255 - text["run"][0].as_u64().unwrap()).into();
    *kept.lock().unwrap() = Some(text.to_string());
    let error = live(&remote(address, 0), 0, &kept, |_| false).unwrap_err();
    assert!(matches!(error, Stopped::Service(ServiceError::AnotherRun)), "{error:?}");
}

#[test]
fn a_client_has_as_many_turns_as_it_may_have() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::open(folder.path()).unwrap());
    let serve = || {
        let mut options = options();
        options.train.epochs = 2;
        let training = Training {
            model: model(),
            options,
            clients: 1,
            turns: Some(2),
            turns_an_hour: None,
            weights: None,
        };
        let service =
            Service::new(limits()).with_ledger(ledger.clone(), None).with_training("small", training);
        service.unwrap().start(ANY, &ServerSecurity::Loopback).unwrap()
    };
    // Three iterations a turn, twelve in all; and the count outlives the server.
    for expected in [6, 6] {
        let server = serve();
        let url = format!("http://{}", server.address());
        let remote = Remote::new(&url, &ClientSecurity::Loopback, Patience::default()).unwrap();
        let kept = folder.path().join("kept.json");
        let membership = std::fs::read(&kept).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap());
        let rng = &mut ChaCha20Rng::seed_from_u64(4);
        let (offer, samples) = (remote.find("small").unwrap(), shards()[0].clone());
        let mut client =
            RemoteTraining::new(remote, &offer, samples, membership, Backend::detect(), rng).unwrap();
        let ended: Result<bool, Stopped> = client.run(rng, |moment| {
            if let Moment::Keep(membership) = moment {
                std::fs::write(&kept, serde_json::to_vec(membership).unwrap()).unwrap();
            }
            Ok(Go::On)
        });
        let Err(Stopped::Service(ServiceError::Refused { refusal, message, .. })) = ended else {
            panic!("{ended:?}")
        };
        assert!(refusal == Refusal::Budget && message.contains("2 turns, of 2"), "{message}");
        assert_eq!(ledger.runs().unwrap()[0].iterations, expected);
    }
}

#[test]
fn a_run_is_gone_on_with_under_the_same_settings_only() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path(), limits(), ANY).unwrap().stop();
    let ledger = Arc::new(Ledger::open(folder.path()).unwrap());
    let begin = |options: TrainingOptions, clients: u32| {
        let training =
            Training { model: model(), options, clients, turns: None, turns_an_hour: None, weights: None };
        Service::new(limits()).with_ledger(ledger.clone(), None).with_training("small", training).map(|_| ())
    };
    begin(options(), 4).unwrap();
    let error = begin(options(), 3).unwrap_err().to_string();
    assert!(error.contains("clients 4 there, 3 now"), "{error}");
    let other = TrainingOptions { d_max: DMax::Auto, ..options() };
    let error = begin(other, 4).unwrap_err().to_string();
    assert!(error.contains("begun there with other settings"), "{error}");
    assert!(matches!(begin(options(), 0), Err(ServiceError::Training { .. })));
    let training = Training {
        model: model(),
        options: options(),
        clients: 1,
        turns: None,
        turns_an_hour: None,
        weights: None,
    };
    let none = Service::new(limits()).with_training("small", training).unwrap_err();
    assert!(matches!(none, ServiceError::NoLedger), "{none}");
}
