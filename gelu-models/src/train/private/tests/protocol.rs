//! What both sides say, and what becomes of a turn when they say something else.

use gelu_tensor::{Contents, EncChunk, Encryption, Error, FixedTensor, Format, Packing, SlotLayout};

use super::*;
use crate::peer::{AbortReason, Conversation, Misuse, Part, PeerError};

/// A ciphertext of a key.
fn chunk(key: usize) -> EncChunk {
    let (key, format) = (KEYS[key].public_key(), Format::integers(1).unwrap());
    let packing = Packing { batch: 1, slot_bits: 2, key: key.size() };
    let layout = SlotLayout::images(packing, Contents::Integers(format)).unwrap();
    let one = FixedTensor::new(Shape::from([1]), format, vec![1]).unwrap();
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    Encryption::new(one, &layout, key).unwrap().next_chunk(key, rng).unwrap()
}

/// Runs a turn from a fresh start, with `change` in the way of each message: it delivers what it likes. Says how far the
/// turn came, and what the server's weights are then.
fn meddle(
    run: &Run,
    mut change: impl FnMut(usize, Said, &mut Talk<'_>) -> Result<Option<Event>, PrivateError>,
) -> (Result<bool, PrivateError>, Server, Client) {
    let (mut server, mut client) = (run.server(0), run.client(0, 0));
    let mut talk = Talk::new(&mut server, &mut client, 4).unwrap();
    let mut at = 0;
    let mut go = || {
        while let Some(said) = talk.next()? {
            at += 1;
            match change(at - 1, said, &mut talk)? {
                Some(Event::Ready) => talk.client.proceed()?,
                Some(Event::Ended) => return Ok(true),
                None => {}
            }
        }
        Ok(false)
    };
    let result = go();
    (result, server, client)
}

/// All messages of a turn, without anything in the way.
fn messages(run: &Run) -> Vec<Said> {
    let mut all = vec![];
    let (result, server, _) = meddle(run, |_, said, talk| {
        all.push(copy(&said));
        talk.deliver(said)
    });
    assert_eq!(result, Ok(true));
    assert_eq!(server.coordinator().turns, 1);
    all
}

fn copy(said: &Said) -> Said {
    match said {
        Said::ByClient(message) => Said::ByClient(message.clone()),
        Said::ByServer(message) => Said::ByServer(message.clone()),
    }
}

/// The weights that are left of a turn that came to its end, or did not.
fn check_weights(run: &Run, server: &Server, fixed: &FixedTrainer) {
    match server.coordinator().turns {
        0 => assert_eq!(server.coordinator().parameters, run.parameters),
        _ => assert_eq!(server.coordinator(), fixed.coordinator()),
    }
}

fn after_a_turn(run: &Run) -> FixedTrainer {
    let mut fixed = run.fixed();
    fixed.turn().unwrap();
    fixed
}

#[test]
fn a_turn_says_what_the_plan_has_in_its_order() {
    let run = branches();
    let said: Vec<String> = messages(&run).iter().map(|said| said.message().to_string()).collect();
    let tensor = |part: Part, iteration| format!("chunk 0 of the {}", Position { turn: 0, iteration, part });
    let mut expected = vec!["Join".to_owned(), "Turn".to_owned()];
    for iteration in 0..3 {
        let parts = run
            .plan
            .exchanges()
            .iter()
            .flat_map(|exchange| exchange.ups(iteration).iter().chain([&exchange.down]));
        expected.extend(parts.map(|part| tensor(*part, iteration)));
    }
    expected.extend([tensor(Part::Total, 2), "Ended".to_owned()]);
    assert_eq!(said, expected);
    // Corrections, but in the first iteration, and two terms up, one sum down, and errors back through one of the terms.
    let said = |at: usize| run.plan.exchanges()[at].ups(1).iter().map(Part::to_string).collect::<Vec<_>>();
    let corrections = "corrections of the sums of segment 1";
    assert_eq!(said(1), [corrections, "inputs of segment 1", "inputs of term 1 of segment 1"]);
    assert_eq!(said(3), ["corrections of the products of segment 2", "errors of segment 2"]);
    assert_eq!(run.plan.exchanges().len(), 3 + 2);
}

#[test]
fn a_message_that_is_replayed_is_refused() {
    let run = branches();
    let fixed = after_a_turn(&run);
    for replayed in 0..messages(&run).len() {
        let (result, server, client) = meddle(&run, |at, said, talk| {
            let again = copy(&said);
            let event = talk.deliver(said)?;
            if at == replayed {
                assert_eq!(talk.deliver(again)?, None);
            }
            Ok(event)
        });
        let error = result.unwrap_err();
        let unexpected = matches!(error, PrivateError::Unexpected { .. });
        // A chunk that comes again while there are more to come is not the next.
        assert!(unexpected || matches!(error, PrivateError::Numbers(Error::Count { .. })), "{error}");
        assert!(error.reason().is_some());
        assert!(server.is_closed() || client.is_closed(), "{replayed}");
        check_weights(&run, &server, &fixed);
    }
}

#[test]
fn a_message_that_is_lost_stops_the_turn_and_leaves_the_weights() {
    let run = branches();
    let fixed = after_a_turn(&run);
    let all = messages(&run);
    for (lost, said) in all.iter().enumerate() {
        let (result, server, _) = meddle(&run, |at, said, talk| match at == lost {
            true => Ok(None),
            false => talk.deliver(said),
        });
        // Both wait for each other, or one is told what it cannot take: the second term without the first.
        assert!(
            matches!(result, Ok(false) | Err(PrivateError::Unexpected { .. })),
            "without {}: {result:?}",
            said.message()
        );
        // The end of a turn is lost after it was taken.
        assert_eq!(server.coordinator().turns, u64::from(lost + 1 == all.len()));
        check_weights(&run, &server, &fixed);
    }
}

#[test]
fn a_peer_that_ends_the_turn_ends_it_on_both_sides() {
    let run = branches();
    let fixed = after_a_turn(&run);
    for end in 1..messages(&run).len() {
        let reason = AbortReason::Malformed;
        let (result, server, client) = meddle(&run, |at, said, talk| match (at == end, said) {
            (true, Said::ByClient(_)) => talk.deliver(Said::ByClient(Message::abort(reason))),
            (true, Said::ByServer(_)) => talk.deliver(Said::ByServer(Message::abort(reason))),
            (false, said) => talk.deliver(said),
        });
        let error = result.unwrap_err();
        assert_eq!((&error, error.reason()), (&PrivateError::Aborted(reason), None));
        assert!(server.is_closed() || client.is_closed());
        check_weights(&run, &server, &fixed);
    }
}

#[test]
fn ciphertexts_under_another_key_are_refused() {
    let run = branches();
    let fixed = after_a_turn(&run);
    for (changed, said) in messages(&run).iter().enumerate() {
        let Message::Tensor { .. } = said.message() else { continue };
        let (result, server, _) = meddle(&run, |at, said, talk| {
            let foreign = |message| match message {
                Message::Tensor { position, index, .. } => {
                    Message::Tensor { position, index, ciphertexts: chunk(2) }
                }
                other => other,
            };
            talk.deliver(match said {
                said if at != changed => said,
                Said::ByClient(message) => Said::ByClient(foreign(message)),
                Said::ByServer(message) => Said::ByServer(foreign(message)),
            })
        });
        let error = result.unwrap_err();
        assert!(matches!(error, PrivateError::Numbers(Error::ForeignKey { .. })), "{changed}: {error}");
        assert_eq!(error.reason(), Some(AbortReason::BadTensor));
        check_weights(&run, &server, &fixed);
    }
}

#[test]
fn more_ciphertexts_than_a_tensor_has_are_refused() {
    let run = branches();
    let fixed = after_a_turn(&run);
    for (changed, said) in messages(&run).iter().enumerate() {
        let Message::Tensor { .. } = said.message() else { continue };
        let (result, server, _) = meddle(&run, |at, said, talk| {
            let more = |message| match message {
                Message::Tensor { position, index, ciphertexts } => {
                    let bytes = [ciphertexts.encode(), ciphertexts.encode()].concat();
                    let ciphertexts = EncChunk::decode(ciphertexts.key(), &bytes).unwrap();
                    Message::Tensor { position, index, ciphertexts }
                }
                other => other,
            };
            talk.deliver(match said {
                said if at != changed => said,
                Said::ByClient(message) => Said::ByClient(more(message)),
                Said::ByServer(message) => Said::ByServer(more(message)),
            })
        });
        let error = result.unwrap_err();
        let PrivateError::Numbers(Error::Limit { what, .. }) = error else { panic!("{error}") };
        assert_eq!(what, "ciphertexts of a tensor");
        check_weights(&run, &server, &fixed);
    }
}

#[test]
fn tensors_out_of_place_are_refused_and_end_the_turn() {
    let run = branches();
    let begin = || {
        let (mut server, mut client) = (run.server(0), run.client(0, 0));
        let mut talk = Talk::new(&mut server, &mut client, 6).unwrap();
        assert!(!talk.run(|_| true).unwrap());
        (server, client)
    };
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let first = Part::Inputs { segment: 0, term: 0 };
    for (turn, iteration, index, part) in [
        (0, 0, 0, Part::Inputs { segment: 1, term: 0 }),
        (0, 0, 0, Part::Inputs { segment: 0, term: 1 }),
        (0, 0, 0, Part::Inputs { segment: u32::MAX, term: u32::MAX }),
        (0, 0, 0, Part::Errors { segment: 1, term: 0 }),
        (0, 0, 0, Part::Sums { segment: 0 }),
        (0, 0, 0, Part::Products { segment: 1, term: 0 }),
        (0, 0, 0, Part::SumCorrections { segment: 0 }),
        (0, 0, 0, Part::SumCorrections { segment: 1 }),
        (0, 0, 0, Part::ProductCorrections { segment: 1, term: 0 }),
        (0, 0, 0, Part::Total),
        (1, 0, 0, first),
        (u64::MAX, 0, 0, first),
        (0, 1, 0, first),
        (0, u32::MAX, 0, first),
        (0, u32::MAX, 0, Part::Total),
    ] {
        let (mut server, _) = begin();
        let position = Position { turn, iteration, part };
        let message = Message::Tensor { position, index, ciphertexts: chunk(0) };
        let error = server.handle(message, &mut rng).unwrap_err();
        assert!(
            matches!(&error, PrivateError::Unexpected { found, .. } if *found == position.to_string()),
            "{part:?}: {error}"
        );
        assert_eq!(error.reason(), Some(AbortReason::UnexpectedMessage));
        assert!(server.is_closed());
        assert_eq!(server.coordinator().parameters, run.parameters);
    }
    // A chunk that is not the first.
    let (mut server, _) = begin();
    let position = Position { turn: 0, iteration: 0, part: first };
    let message = Message::Tensor { position, index: 1, ciphertexts: chunk(0) };
    let error = server.handle(message, &mut rng).unwrap_err();
    assert!(matches!(error, PrivateError::Numbers(Error::Order { expected: 0, found: 1 })), "{error}");

    // At the client, which waits for the sums of the first segment.
    for (sent, part, typed) in [
        (true, Part::Sums { segment: 1 }, "place"),
        (true, Part::Products { segment: 1, term: 0 }, "place"),
        (true, first, "place"),
        (true, Part::Total, "place"),
        (false, Part::Sums { segment: 0 }, "early"),
    ] {
        let (_, mut client) = begin();
        client.proceed().unwrap();
        while sent && client.next_message(&mut rng).unwrap().is_some() {}
        let position = Position { turn: 0, iteration: 0, part };
        let header = run.plan.header(Part::Sums { segment: 0 }).unwrap();
        let one = chunk(0).encode();
        let all = EncChunk::decode(KEYS[0].public_key(), &one.repeat(header.ciphertexts())).unwrap();
        let error =
            client.handle(Message::Tensor { position, index: 0, ciphertexts: all }, &mut rng).unwrap_err();
        match typed {
            "place" => {
                assert!(
                    matches!(&error, PrivateError::Unexpected { found, .. } if *found == position.to_string()),
                    "{error}"
                )
            }
            _ => assert!(matches!(error, PrivateError::Unexpected { .. }), "{error}"),
        }
        assert!(client.is_closed() && client.totals().is_none());
    }
}

#[test]
fn messages_out_of_their_order_are_refused() {
    let run = small();
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let begin = || {
        let (mut server, mut client) = (run.server(0), run.client(0, 0));
        let mut talk = Talk::new(&mut server, &mut client, 6).unwrap();
        assert!(!talk.run(|_| true).unwrap());
        (server, client)
    };
    let unexpected = |error: PrivateError| matches!(error, PrivateError::Unexpected { .. });
    let join = || Message::Join { version: PRIVATE_VERSION, client: 0, key: KEYS[0].public_key().clone() };
    let (mut server, mut client) = begin();
    assert!(matches!(client.join(), Err(PrivateError::Misuse(Misuse::TurnInProgress))));
    assert!(unexpected(server.handle(join(), &mut rng).unwrap_err()));
    assert!(server.is_closed() && server.coordinator().parameters == run.parameters);
    let (mut server, mut client) = begin();
    assert!(unexpected(server.handle(Message::Ended { turn: 0 }, &mut rng).unwrap_err()));
    assert!(unexpected(client.handle(Message::Ended { turn: 0 }, &mut rng).unwrap_err()));
    assert!(client.is_closed() && matches!(client.proceed(), Err(PrivateError::Misuse(Misuse::NotReady))));
    // Without a turn.
    let position = Position { turn: 0, iteration: 0, part: Part::Inputs { segment: 0, term: 0 } };
    let tensor = || Message::Tensor { position, index: 0, ciphertexts: chunk(0) };
    assert!(unexpected(run.server(0).handle(tensor(), &mut rng).unwrap_err()));
    assert!(unexpected(run.client(0, 0).handle(tensor(), &mut rng).unwrap_err()));
    let version = Message::Join { version: 9, client: 0, key: KEYS[0].public_key().clone() };
    assert_eq!(
        run.server(0).handle(version, &mut rng).unwrap_err(),
        PrivateError::Version { expected: PRIVATE_VERSION, found: 9 }
    );
    let large = secret_key(KeyBits::Bits2048, &mut rng);
    let key = large.public_key().clone();
    let other = Message::Join { version: PRIVATE_VERSION, client: 0, key };
    assert!(matches!(run.server(0).handle(other, &mut rng), Err(PrivateError::KeySize { .. })));
    // A peer says nothing by itself.
    assert!(run.server(0).next_message(&mut rng).unwrap().is_none());
    assert!(run.client(0, 0).next_message(&mut rng).unwrap().is_none());
}

#[test]
fn a_client_checks_what_it_is_granted() {
    let run = small();
    let grant = |change: &dyn Fn(&mut Message)| {
        let mut client = run.client(0, 0);
        let mut server = run.server(0);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        client.join().unwrap();
        server.handle(client.next_message(&mut rng).unwrap().unwrap(), &mut rng).unwrap();
        let mut message = server.next_message(&mut rng).unwrap().unwrap();
        change(&mut message);
        let error = client.handle(message, &mut rng).unwrap_err();
        assert!(client.is_closed());
        error
    };
    let state = |error: PrivateError| {
        assert!(matches!(error, PrivateError::Grant(_) | PrivateError::KeySize { .. }), "{error}");
    };
    state(grant(&|message| {
        let Message::Turn { grant, .. } = message else { return };
        grant.iterations = 0;
    }));
    state(grant(&|message| {
        let Message::Turn { grant, .. } = message else { return };
        grant.room.pop();
    }));
    state(grant(&|message| {
        let Message::Turn { grant, .. } = message else { return };
        grant.rate_scale = u32::MAX;
    }));
    // It has seen no iteration that it could go on from.
    state(grant(&|message| {
        let Message::Turn { begun, .. } = message else { return };
        *begun = 2;
    }));
    state(grant(&|message| {
        let Message::Turn { description, .. } = message else { return };
        description.client_key.size = KeyBits::Bits2048;
    }));
    state(grant(&|message| {
        let Message::Turn { description, .. } = message else { return };
        description.server_key = KeyBits::Bits2048;
    }));
    let other = grant(&|message| {
        let Message::Turn { description, .. } = message else { return };
        let model = ModelBuilder::new([4]).dense("fc1", 3).softmax().build().unwrap();
        description.graph = model.graph().clone();
    });
    assert!(matches!(other, PrivateError::Setting { what: "elements of an input", .. }), "{other}");
}

#[test]
fn a_client_that_vanishes_leaves_nothing_but_its_line_in_the_ledger() {
    let run = small();
    let (mut server, mut first, mut second) = (run.server(0), run.client(0, 1), run.client(1, 0));
    let mut seen = 0;
    turn(&mut server, &mut first, 2, |_| {
        seen += 1;
        seen == 3
    })
    .unwrap();
    assert_eq!((&server.coordinator().parameters, server.iterations_done()), (&run.parameters, 2));
    server.close();
    assert!(server.is_closed());
    assert_eq!(
        (server.coordinator().parameters.clone(), server.coordinator().turns),
        (run.parameters.clone(), 0)
    );
    assert_eq!(server.coordinator().ledger.entries[0].most_iterations, 3);
    // The next one goes on, from the weights with which the turn began.
    assert!(whole_turn(&mut server, &mut second, 3).unwrap());
    assert_eq!(server.coordinator().turns, 1);
    assert_ne!(server.coordinator().parameters, run.parameters);
    // And the first one may come back.
    first.close();
    assert!(first.is_closed());
    assert!(whole_turn(&mut server, &mut first, 4).unwrap());
}

#[test]
fn a_run_that_stops_between_any_two_iterations_goes_on_to_the_same_weights() {
    for run in [small(), branches()] {
        let mut fixed = run.fixed();
        while !fixed.is_complete() {
            fixed.turn().unwrap();
        }
        let DMax::Fixed(iterations) = run.config.d_max else { unreachable!() };
        for stop in 0..iterations {
            let mut server = run.server(0);
            let mut clients: Vec<Client> = (0..run.clients).map(|client| run.client(client, 1)).collect();
            let mut ready = 0;
            turn(&mut server, &mut clients[0], u64::from(stop), |_| {
                ready += 1;
                ready > stop
            })
            .unwrap();
            let states = (server.state(), clients[0].state().unwrap());
            assert_eq!(states.0.client(), Some(0));
            let kept: (ServerState, ClientState) =
                serde_json::from_str(&serde_json::to_string(&states).unwrap()).unwrap();
            // Other keys than before.
            let mut server =
                Server::resume(run.plan.clone(), KEYS[1].clone(), run.config.clone(), kept.0).unwrap();
            assert_eq!(server.iterations_done(), u64::from(stop));
            let (samples, config) = run.participant(0);
            let description = run.plan.description().clone();
            clients[0] = Client::resume(KEYS[0].clone(), samples, config, description, kept.1).unwrap();
            let mut at = 0;
            while !server.is_complete() {
                assert!(whole_turn(&mut server, &mut clients[at % run.clients], at as u64).unwrap());
                at += 1;
            }
            assert_eq!(server.coordinator(), fixed.coordinator(), "stopped after {stop}");
        }
    }
}

#[test]
fn states_of_other_runs_are_refused() {
    let run = small();
    let (mut server, mut client) = (run.server(0), run.client(0, 1));
    let mut ready = 0;
    turn(&mut server, &mut client, 1, |_| {
        ready += 1;
        ready > 2
    })
    .unwrap();
    let states = serde_json::to_value((server.state(), client.state().unwrap())).unwrap();
    let resume = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut states = states.clone();
        change(&mut states);
        let (server, client): (ServerState, ClientState) = serde_json::from_value(states).unwrap();
        let server = Server::resume(run.plan.clone(), KEYS[0].clone(), run.config.clone(), server);
        let (samples, config) = run.participant(0);
        let description = run.plan.description().clone();
        let client = Client::resume(KEYS[1].clone(), samples, config, description, client);
        let refused =
            |error: &PrivateError| matches!(error, PrivateError::Resume(_) | PrivateError::Parameters { .. });
        [server.as_ref().is_err_and(refused), client.as_ref().is_err_and(refused)]
    };
    assert_eq!(resume(&|_| ()), [false, false]);
    let large = u64::MAX;
    assert_eq!(resume(&|states| states[0]["turn"]["done"] = 5.into()), [true, false]);
    assert_eq!(resume(&|states| states[0]["turn"]["grant"]["turn"] = 7.into()), [true, false]);
    let beyond = 1 << 23;
    assert_eq!(resume(&|states| states[0]["coordinator"]["parameters"][0] = beyond.into()), [true, false]);
    assert_eq!(
        resume(&|states| states[1]["participant"]["velocity"] = serde_json::json!([0])),
        [false, true]
    );
    assert_eq!(resume(&|states| states[1]["participant"]["turn"][2] = serde_json::json!([0])), [false, true]);

    // Counters that would overflow later, or are beyond the run.
    let ledger = serde_json::json!([{
        "client": 0, "layer": "fc9", "turns": large, "most_iterations": 1,
        "forward": [0, 1], "backward": [0, 1], "solvable": false
    }]);
    assert_eq!(resume(&|states| states[0]["coordinator"]["turns"] = large.into()), [true, false]);
    assert_eq!(resume(&|states| states[0]["coordinator"]["iterations"] = large.into()), [true, false]);
    assert_eq!(
        resume(&|states| states[0]["coordinator"]["ledger"]["entries"] = ledger.clone()),
        [true, false]
    );
    assert_eq!(resume(&|states| states[0]["turn"]["done"] = u32::MAX.into()), [true, false]);
    assert_eq!(resume(&|states| states[0]["turn"]["rate"] = large.into()), [true, false]);
    assert_eq!(resume(&|states| states[0]["turn"]["grant"]["iterations"] = u32::MAX.into()), [true, false]);
    assert_eq!(resume(&|states| states[0]["turn"]["grant"]["rate_scale"] = u32::MAX.into()), [true, false]);
    assert_eq!(resume(&|states| states[1]["participant"]["consumed"] = large.into()), [false, true]);
    for counter in ["images", "correct", "clamped"] {
        assert_eq!(
            resume(&|states| states[1]["participant"]["statistics"][counter] = large.into()),
            [false, true],
            "{counter}"
        );
    }
    let not_a_number = f64::NAN.to_bits();
    assert_eq!(
        resume(&|states| states[1]["participant"]["velocity"][0] = not_a_number.into()),
        [false, true]
    );
    assert_eq!(resume(&|states| states[1]["participant"]["turn"][1] = u32::MAX.into()), [false, true]);
    assert_eq!(resume(&|states| states[1]["participant"]["turn"][2][0] = i64::MIN.into()), [false, true]);

    // A client that has not seen the turn which the server kept.
    let mut server =
        Server::resume(run.plan.clone(), KEYS[0].clone(), run.config.clone(), server.state()).unwrap();
    let mut fresh = run.client(0, 1);
    assert!(matches!(whole_turn(&mut server, &mut fresh, 1), Err(PrivateError::Grant(_))));
    assert_eq!(server.coordinator().parameters, run.parameters);
    // The turn was given up, and the next one is whole.
    assert!(whole_turn(&mut server, &mut fresh, 2).unwrap());
    assert_eq!(server.coordinator().turns, 1);
}

#[test]
fn a_fixed_run_is_taken_up_again_between_two_turns() {
    let run = small();
    let mut whole = run.fixed();
    whole.turn().unwrap();
    let (state, participants) = (whole.coordinator().clone(), whole.participants());
    while !whole.is_complete() {
        whole.turn().unwrap();
    }
    let mut resumed = run.fixed();
    assert!(resumed.restore(run.config.clone(), state.clone(), participants[1..].to_vec()).is_err());
    resumed.restore(run.config.clone(), state, participants).unwrap();
    while !resumed.is_complete() {
        resumed.turn().unwrap();
    }
    assert_eq!(resumed.coordinator(), whole.coordinator());
    assert_eq!(resumed.participants(), whole.participants());
    assert_eq!(resumed.turn(), Err(PrivateError::Complete));
}

#[test]
fn sums_of_steps_that_no_honest_client_has_are_refused() {
    let run = small();
    let (result, server, _) = meddle(&run, |_, said, talk| match said {
        Said::ByClient(Message::Tensor { position, index, .. }) if position.part == Part::Total => {
            // Far above what four iterations can add up to, but below what a slot holds.
            let header = run.plan.header(Part::Total).unwrap();
            let format = header.layout.contents().format().unwrap();
            let values = vec![1 << 30; header.batch * header.shape.elements()];
            let values = FixedTensor::new(header.shape, format, values).unwrap();
            let key = KEYS[0].public_key();
            let mut forged = Encryption::new(values, &header.layout, key).unwrap();
            let ciphertexts = forged.next_chunk(key, &mut talk.rng).unwrap();
            talk.deliver(Said::ByClient(Message::Tensor { position, index, ciphertexts }))
        }
        said => talk.deliver(said),
    });
    let error = result.unwrap_err();
    assert!(matches!(error, PrivateError::Gradient { index: 0, .. }), "{error}");
    assert_eq!(server.coordinator().parameters, run.parameters);
    assert!(server.is_closed());
    // The client has seen them all the same.
    assert_eq!(server.coordinator().ledger.entries[0].most_iterations, 4);
}

/// A turn is over when the client says so, or after as many iterations as were granted.
#[test]
fn a_client_cannot_go_on_beyond_its_turn() {
    let run = small();
    let (result, server, _) = meddle(&run, |_, said, talk| match said {
        Said::ByClient(Message::Tensor { position, index, .. }) if position.part == Part::Total => {
            let part = Part::SumCorrections { segment: 0 };
            let header = run.plan.header(part).unwrap();
            let one = chunk(0).encode();
            let ciphertexts =
                EncChunk::decode(KEYS[0].public_key(), &one.repeat(header.ciphertexts())).unwrap();
            let position = Position { part, iteration: position.iteration + 1, ..position };
            talk.deliver(Said::ByClient(Message::Tensor { position, index, ciphertexts }))
        }
        said => talk.deliver(said),
    });
    assert!(matches!(result, Err(PrivateError::Unexpected { .. })), "{result:?}");
    assert_eq!(server.coordinator().parameters, run.parameters);
}
