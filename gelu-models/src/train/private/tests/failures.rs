//! Runs in which either side fails, at any moment, and goes on from what it kept.

use proptest::prelude::*;

use super::*;

/// Runs to the end with both sides' states kept as they say, and both lost whenever `fails` says so of the next message:
/// before it is delivered, or after.
fn run_with_failures(run: &Run, seed: u64, mut fails: impl FnMut(usize) -> Option<bool>) -> Server {
    let resume = |state: ServerState| {
        let state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        let mut server =
            Server::resume(run.plan.clone(), KEYS[0].clone(), run.config.clone(), state).unwrap();
        server.count_again();
        server
    };
    let mut kept_server = run.server(0).state();
    let mut kept: Vec<Option<ClientState>> = vec![None; run.clients];
    let mut said = 0;
    loop {
        let mut server = resume(kept_server.clone());
        if server.is_complete() {
            return server;
        }
        let at = (server.coordinator().turns % run.clients as u64) as usize;
        let mut client = match kept[at].clone() {
            None => run.client(at, 1),
            Some(state) => {
                let ((samples, config), description) = (run.participant(at), run.plan.description().clone());
                let state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
                Client::resume(KEYS[1].clone(), samples, config, description, state).unwrap()
            }
        };
        let mut talk = Talk::new(&mut server, &mut client, seed + said as u64).unwrap();
        while let Some(message) = talk.next().unwrap() {
            let fault = fails(said);
            said += 1;
            if fault == Some(false) {
                break;
            }
            match message {
                Said::ByClient(message) => {
                    if talk.server.handle(message, &mut talk.rng).unwrap().is_some() {
                        kept_server = talk.server.state();
                    }
                }
                Said::ByServer(message) => match talk.client.handle(message, &mut talk.rng).unwrap() {
                    Some(Event::Ready) => {
                        kept[at] = talk.client.state();
                        talk.client.proceed().unwrap();
                    }
                    Some(Event::Ended) => {
                        kept[at] = talk.client.state();
                        break;
                    }
                    None => {}
                },
            }
            if fault == Some(true) {
                break;
            }
        }
    }
}

#[test]
fn failures_at_any_message_lose_nothing_where_both_sides_keep_what_they_say() {
    for run in [small(), branches()] {
        let mut fixed = run.fixed();
        while !fixed.is_complete() {
            fixed.turn().unwrap();
        }
        let mut all = 0;
        let undisturbed = run_with_failures(&run, 1, |at| {
            all = at + 1;
            None
        });
        assert_eq!(undisturbed.coordinator().parameters, fixed.coordinator().parameters);
        assert!(all > 30, "{all} messages");
        for at in 0..all {
            for delivered in [false, true] {
                let server = run_with_failures(&run, 1, |now| (now == at).then_some(delivered));
                let [found, expected] = [server.coordinator(), fixed.coordinator()];
                assert_eq!(found.parameters, expected.parameters, "failed at {at}, delivered: {delivered}");
                assert_eq!((found.turns, found.iterations), (expected.turns, expected.iterations));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn many_failures_lose_nothing_either(seed: u64, rate in 3_u32..12) {
        let run = small();
        let mut fixed = run.fixed();
        while !fixed.is_complete() {
            fixed.turn().unwrap();
        }
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut left = 40;
        let server = run_with_failures(&run, seed >> 1, |_| {
            let fails = left > 0 && rng.random_ratio(1, rate);
            left -= u32::from(fails);
            fails.then(|| rng.random())
        });
        prop_assert_eq!(&server.coordinator().parameters, &fixed.coordinator().parameters);
        // Every iteration that was begun again is in the ledger.
        let most = |coordinator: &CoordinatorState| {
            coordinator.ledger.entries.iter().map(|entry| entry.most_iterations).max()
        };
        prop_assert!(most(server.coordinator()) >= most(fixed.coordinator()));
    }
}

#[test]
fn a_strict_policy_counts_what_a_client_sees_again() {
    let model = ModelBuilder::new([8]).dense("fc1", 7).tanh().dense("fc2", 6).softmax().build().unwrap();
    let mut run =
        Run::new(model, Setup { batch: 1, clients: 2, images: 40, iterations: 5, ..Setup::default() });
    run.config.leakage = Leakage::Strict;
    let longest = LayerLeakage::of(&run.plan).iter().map(LayerLeakage::strict_iterations).min();
    assert_eq!(longest, Some(5));
    let (mut server, mut client) = (run.server(0), run.client(0, 1));
    turn(&mut server, &mut client, 1, |server| server.iterations_done() == 1).unwrap();
    let kept = server.state();
    let mut server = Server::resume(run.plan.clone(), KEYS[0].clone(), run.config.clone(), kept).unwrap();
    server.count_again();
    // The turn does not go on: one iteration more would be one equation too many. One of what is left begins.
    let mut client = run.client(0, 1);
    client.join().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let join = client.next_message(&mut rng).unwrap().unwrap();
    assert_eq!(server.handle(join, &mut rng), Ok(Some(Change::Granted)));
    assert_eq!(server.coordinator().seen, [(0, 3)]);
    let Some(Message::Turn { grant, begun, .. }) = server.next_message(&mut rng).unwrap() else { panic!() };
    assert_eq!((grant.iterations, begun), (2, 0));
    // Given up as well, it leaves one iteration, and then none.
    server.abandon();
    assert_eq!(server.coordinator().seen, [(0, 4)]);
    assert!(!turn(&mut server, &mut run.client(0, 1), 3, |_| true).unwrap());
    server.abandon();
    let refused = turn(&mut server, &mut run.client(0, 1), 4, |_| true);
    assert!(matches!(refused, Err(PrivateError::Leakage { iterations: 6, .. })), "{refused:?}");
    // Another client has seen nothing of these weights, and changes them.
    assert!(whole_turn(&mut server, &mut run.client(1, 1), 5).unwrap());
    assert!(server.coordinator().seen.is_empty());
    assert!(whole_turn(&mut server, &mut run.client(0, 1), 6).unwrap());
}
