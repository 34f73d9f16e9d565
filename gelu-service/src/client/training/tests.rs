//! Clients that do not keep to their place in a run, or to its protocol.

mod misbehavior;

use gelu_layers::Initializer;
use gelu_models::ModelBuilder;
use gelu_models::train::private::{DMax, Leakage, TrainingOptions};
use gelu_models::train::{Dataset, TrainConfig};
use gelu_tensor::paillier::KeyBits;
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::{ClientSecurity, Ledger, Limits, Patience, Running, ServerSecurity, Service, Training};

fn server(folder: &std::path::Path, turns_an_hour: Option<u64>) -> Running {
    serve(folder, turns_an_hour, (1, Limits::default()))
}

fn serve(folder: &std::path::Path, turns_an_hour: Option<u64>, (epochs, limits): (u32, Limits)) -> Running {
    let mut model = ModelBuilder::new([3]).dense("fc", 2).softmax().build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(1));
    let defaults = TrainingOptions::default();
    let options = TrainingOptions {
        key: KeyBits::Bits1024.into(),
        train: TrainConfig { batch_size: 2, epochs, ..defaults.train },
        d_max: DMax::Fixed(1),
        leakage: Leakage::Off,
        ..defaults
    };
    let training = Training { model, options, clients: 2, turns: None, turns_an_hour, weights: None };
    let ledger = Arc::new(Ledger::open(folder).unwrap());
    let service = Service::new(limits).with_metrics("127.0.0.1:0".parse().unwrap()).with_ledger(ledger, None);
    service.with_training("small", training).unwrap().start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap()
}

fn client(server: &Running, place: u32) -> RemoteTraining {
    returning(server, place, None)
}

/// One that goes on from what it has kept.
fn returning(server: &Running, place: u32, kept: Option<Membership>) -> RemoteTraining {
    let address = format!("http://{}", server.address());
    let remote = Remote::new(&address, &ClientSecurity::Loopback, Patience::default()).unwrap();
    let offer = remote.find("small").unwrap();
    let inputs = Array2::from_elem((4, 3), 0.5);
    let samples = Arc::new(Dataset::new([3].into(), inputs, vec![0, 1, 1, 0], 2).unwrap());
    let mut rng = ChaCha20Rng::seed_from_u64(place.into());
    RemoteTraining::new(remote, &offer, samples, kept, Backend::detect(), &mut rng).unwrap().at(place)
}

#[test]
fn who_does_not_keep_to_its_place_is_refused_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), None);
    let (mut first, mut second) = (client(&server, 0), client(&server, 1));
    let name = second.membership.client.clone();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| second.await_turn().unwrap());
        while first.await_turn().unwrap() != State::Yours {}

        // Another's turn, that of somebody whom nobody knows, and that of nobody.
        let topic = |client: &str| Topic {
            model: "small".to_owned(),
            about: About::Turn { client: client.to_owned() },
        };
        for (name, expected) in
            [(&name[..], Refusal::Turn), ("stranger", Refusal::Turn), ("", Refusal::Malformed)]
        {
            let refused = first.remote.open_about(topic(name)).unwrap_err();
            assert!(
                matches!(refused, ServiceError::Refused { refusal, .. } if refusal == expected),
                "{refused}"
            );
        }

        // The own turn, under another's number: it comes to nothing, and the next one has its turn.
        let transport = first.remote.open_about(topic(&first.membership.client)).unwrap();
        let config = ParticipantConfig { client: 1, seed: 0, momentum: 0.0 };
        let mut other = Client::new(first.key.clone(), first.samples.0.clone(), config);
        let mut account = TrainingAccount::default();
        let rng = &mut ChaCha20Rng::seed_from_u64(9);
        let turn = take_turn(&transport, &mut other, &mut account, rng, |_, _| Ok::<_, Broken<()>>(Go::On));
        assert!(matches!(turn, Err(Broken::Run(RunError::Disconnected(_)))));
        let why = transport.why().map(|why| why.to_string()).unwrap_or_default();
        assert!(why.contains("its own place"), "{why}");
        drop(transport);
        assert_eq!(waiting.join().unwrap(), State::Yours);
    });

    // Both come to the end of the run all the same.
    std::thread::scope(|scope| {
        for client in [&mut first, &mut second] {
            scope.spawn(move || {
                let rng = &mut ChaCha20Rng::seed_from_u64(3);
                let complete: Result<bool, Box<dyn std::error::Error>> = client.run(rng, |_| Ok(Go::On));
                assert!(complete.unwrap());
            });
        }
    });
    assert_eq!((first.offer.done, first.offer.iterations), (4, 4));
}

/// Takes part for as long as the server lets it.
fn run(client: &mut RemoteTraining) -> Result<bool, String> {
    let rng = &mut ChaCha20Rng::seed_from_u64(3);
    let ended: Result<bool, Box<dyn std::error::Error>> = client.run(rng, |_| Ok(Go::On));
    ended.map_err(|error| match error.downcast_ref() {
        Some(ServiceError::Refused { refusal: Refusal::Rate, message, .. }) => message.clone(),
        _ => panic!("{error}"),
    })
}

#[test]
fn a_client_that_begins_turns_too_fast_is_told_when_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = [None, None];
    // Two iterations in turns of one each are one turn more than an hour has, also after a restart.
    for _ in 0..2 {
        let server = server(folder.path(), Some(1));
        let mut clients = [0, 1].map(|place: u32| returning(&server, place, kept[place as usize].take()));
        std::thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| {
                    let told = run(client).unwrap_err();
                    let seconds = told.strip_prefix(
                        "this client may begin 1 turns in an hour, and has; it may come again in ",
                    );
                    let seconds =
                        seconds.and_then(|rest| rest.strip_suffix(" s")).unwrap_or_else(|| panic!("{told}"));
                    assert!((3000..=3600).contains(&seconds.parse::<u32>().unwrap()), "{told}");
                });
            }
        });
        // Nor does one that does not ask first begin its turn.
        let topic = Topic {
            model: "small".to_owned(),
            about: About::Turn { client: clients[0].membership.client.clone() },
        };
        let refused = clients[0].remote.open_about(topic).unwrap_err();
        assert!(
            matches!(refused, ServiceError::Refused { refusal: Refusal::Rate | Refusal::Turn, .. }),
            "{refused}"
        );
        kept = clients.map(|client| Some(client.membership));
        assert_eq!(Ledger::open(folder.path()).unwrap().runs().unwrap()[0].iterations, 2);
    }
    let ledger = Ledger::open(folder.path()).unwrap();
    let hour_ago = "UPDATE pace SET since = since - 3600";
    rusqlite::Connection::open(ledger.path()).unwrap().execute(hour_ago, []).unwrap();
    let server = server(folder.path(), Some(1));
    std::thread::scope(|scope| {
        for (place, kept) in (0..).zip(kept) {
            let mut client = returning(&server, place, kept);
            scope.spawn(move || run(&mut client).unwrap_or_else(|told| told.contains("an hour")));
        }
    });
    assert_eq!(ledger.runs().unwrap()[0].iterations, 4);
}
