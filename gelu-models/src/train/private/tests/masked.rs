//! Training on ciphertexts is the training on integers in the clear.

use gelu_tensor::paillier::PublicKey;
use gelu_tensor::{Operations, RingBits};
use proptest::prelude::*;

use super::*;
use crate::peer::{Conversation, Part};

/// Numbers for a ring of any size; inputs and activations have different scales.
fn numbers(ring: RingBits, flood_bits: u32) -> FixedPoint {
    let numbers = FixedPoint { ring, flood_bits, input_bits: 6, ..FixedPoint::default() };
    match ring.bits() {
        32 => FixedPoint { weight_bits: 12, activation_bits: 7, error_bits: 7, ..numbers },
        _ => numbers,
    }
}

/// Runs a whole run both ways, and compares after every turn.
fn check(run: &Run, seed: u64) {
    let (mut fixed, mut server) = (run.fixed(), run.server((seed % 2) as usize));
    // Plans are for one type of key, but others do.
    let mut clients: Vec<Client> = (0..run.clients).map(|client| run.client(client, client % 2)).collect();
    let mut at = 0;
    while !fixed.is_complete() {
        let client = at % run.clients;
        let masked = whole_turn(&mut server, &mut clients[client], seed + at as u64);
        // Polynomials may diverge, and weights outgrow a small ring, and then both must.
        if let Err(error) = fixed.turn() {
            assert_eq!(masked.unwrap_err(), error);
            assert!(
                matches!(error, PrivateError::Diverged { .. } | PrivateError::RingFull { .. }),
                "{error}"
            );
            assert_eq!(server.coordinator().parameters, fixed.coordinator().parameters);
            return;
        }
        assert!(masked.unwrap());
        assert_eq!(server.coordinator(), fixed.coordinator());
        assert_eq!(clients[client].statistics(), fixed.statistics()[client]);
        at += 1;
    }
    assert!(server.is_complete() && server.coordinator().parameters != run.parameters);
}

#[test]
fn every_kind_of_network_is_trained_under_masks_as_in_the_clear() {
    for (name, model) in graphs::all() {
        println!("{name}");
        let setup =
            Setup { batch: 3, images: 6, numbers: numbers(RingBits::default(), 40), ..Setup::default() };
        check(&Run::new(model, setup), 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// The central test: masked and clear runs give the same weights after every turn.
    #[test]
    fn masked_training_of_random_networks_is_the_clear_training(
        seed in 0..u64::MAX / 2,
        (clients, batch, iterations) in (1..4usize, 1..8usize, 1..4u32),
        (ring, flood_bits) in (0..4usize, 0..41u32),
    ) {
        let numbers = numbers(RingBits::ALL[ring], flood_bits);
        let setup = Setup { batch, clients, images: 4 * batch + 1, numbers, iterations, seed };
        check(&Run::new(graphs::random(seed), setup), seed);
    }
}

#[test]
fn masked_weights_and_masks_meet_in_those_of_the_clear_run_after_every_iteration() {
    let run = small();
    // The clear run, stopped after each iteration: its parameters are those of a turn of so many iterations.
    for iterations in 1..4u32 {
        let (mut server, mut client) = (run.server(0), run.client(0, 1));
        let config = CoordinatorConfig { d_max: DMax::Fixed(iterations), ..run.config.clone() };
        let clients = (0..run.clients).map(|client| run.participant(client));
        let mut fixed = FixedTrainer::new(run.plan.clone(), config, run.parameters.clone(), clients).unwrap();
        fixed.turn().unwrap();
        let mut seen = 0;
        turn(&mut server, &mut client, 1, |_| {
            seen += 1;
            seen > iterations
        })
        .unwrap();
        let ring = run.plan.numbers().ring;
        let sums = server.masked().unwrap().iter().zip(client.masks());
        let sums: Vec<u64> = sums.map(|(masked, mask)| ring.wrap(masked.wrapping_add(*mask))).collect();
        assert_eq!(sums, fixed.coordinator().parameters);
        assert_ne!(server.masked().unwrap(), fixed.coordinator().parameters);
        // A mask of its own for every parameter.
        assert!(client.masks().iter().all(|&mask| mask != 0));
        // And the assertion can fail.
        let mut masks = client.masks().to_vec();
        masks[3] ^= 1;
        let totals = client.totals().unwrap();
        assert!(server.agrees(client.masks(), totals) && !server.agrees(&masks, totals));
        assert!(!server.agrees(&masks[1..], totals));
    }
}

#[test]
fn the_server_does_as_many_operations_as_the_plan_states() {
    for (name, model) in graphs::all().into_iter().step_by(3) {
        let run = Run::new(model, Setup { images: 2, iterations: 1, ..Setup::default() });
        let (mut server, mut client) = (run.server(1), run.client(0, 0));
        let mut talk = Talk::new(&mut server, &mut client, 1).unwrap();
        let mut found = None;
        while let Some(said) = talk.next().unwrap() {
            // The turn ends with this, and the count with the turn.
            if said.message().place().map(|place| place.part) == Some(Part::Total) {
                found.get_or_insert(talk.server.operations().computing);
            }
            let said = match said {
                // As if the key had been decoded: others count their operations on this one.
                Said::ByClient(Message::Join { version, client, key }) => {
                    let [n, h] = [key.n_le_bytes(), key.h_le_bytes()];
                    let key = PublicKey::from_le_bytes(key.parameters().key_type, &n, &h).unwrap();
                    Said::ByClient(Message::Join { version, client, key })
                }
                said => said,
            };
            match talk.deliver(said).unwrap() {
                Some(Event::Ready) => talk.client.proceed().unwrap(),
                Some(Event::Stepped) => talk.send_steps().unwrap(),
                Some(Event::Ended) | None => {}
            }
        }
        let segments = run.plan.segments().iter();
        let backs = segments.clone().flat_map(|segment| &segment.terms).filter_map(|term| term.back.as_ref());
        let layouts = segments.map(|segment| &segment.layout).chain(backs.map(|back| &back.layout));
        let planned = layouts.fold(Operations::default(), |sum, layout| sum + layout.operations);
        assert_eq!(found, Some(planned), "{name}");
    }
}
