//! Training on ciphertexts is the training on integers in the clear.

use gelu_tensor::paillier::PublicKey;
use gelu_tensor::{Encryption, FixedTensor, Operations};
use proptest::prelude::*;

use super::*;
use crate::peer::{Conversation, Part};

/// Numbers for sums of any size; inputs and activations have different scales.
fn numbers(sum_bits: u32, product_bits: u32) -> FixedPoint {
    let numbers = FixedPoint { sum_bits, product_bits, input_bits: 6, ..FixedPoint::default() };
    match sum_bits {
        ..40 => {
            let product_bits = product_bits.min(12);
            FixedPoint { weight_bits: 12, product_bits, activation_bits: 7, error_bits: 7, ..numbers }
        }
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
        let encrypted = whole_turn(&mut server, &mut clients[client], seed + at as u64);
        // Polynomials may diverge, and weights outgrow the bits of sums, and then both must.
        if let Err(error) = fixed.turn() {
            assert_eq!(encrypted.unwrap_err(), error);
            assert!(
                matches!(
                    error,
                    PrivateError::Diverged { .. }
                        | PrivateError::LargeSums { .. }
                        | PrivateError::Parameters { .. }
                ),
                "{error}"
            );
            assert_eq!(server.coordinator().parameters, fixed.coordinator().parameters);
            return;
        }
        assert!(encrypted.unwrap());
        assert_eq!(server.coordinator(), fixed.coordinator());
        assert_eq!(clients[client].statistics(), fixed.statistics()[client]);
        at += 1;
    }
    assert!(server.is_complete() && server.coordinator().parameters != run.parameters);
}

#[test]
fn every_kind_of_network_is_trained_on_ciphertexts_as_in_the_clear() {
    for (name, model) in graphs::all() {
        println!("{name}");
        let setup = Setup { batch: 3, images: 6, numbers: numbers(40, 10), ..Setup::default() };
        check(&Run::new(model, setup), 5);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// The central test: runs on ciphertexts and clear ones give the same weights after every turn.
    #[test]
    fn training_of_random_networks_on_ciphertexts_is_the_clear_training(
        seed in 0..u64::MAX / 2,
        (clients, batch, iterations) in (1..4usize, 1..8usize, 1..4u32),
        (sum_bits, product_bits) in (28..=56u32, 4..=18u32),
    ) {
        let numbers = numbers(sum_bits, product_bits);
        let setup = Setup { batch, clients, images: 4 * batch + 1, numbers, iterations, seed };
        check(&Run::new(graphs::random(seed), setup), seed);
    }
}

#[test]
fn the_servers_weights_stay_as_they_are_until_the_turn_ends() {
    let run = small();
    let (mut server, mut client) = (run.server(0), run.client(0, 1));
    let (mut steps, plain) = (vec![], run.parameters.clone());
    let ended = turn(&mut server, &mut client, 1, |server| {
        assert_eq!(server.coordinator().parameters, plain);
        false
    });
    assert!(ended.unwrap());
    assert_ne!(server.coordinator().parameters, plain);
    // All that the server gets within a turn is under the client's key, and only the end's sum under its own.
    let (mut server, mut client) = (run.server(0), run.client(0, 1));
    let mut talk = Talk::new(&mut server, &mut client, 1).unwrap();
    while let Some(said) = talk.next().unwrap() {
        if let Said::ByClient(Message::Tensor { position, ciphertexts, .. }) = &said {
            let own = usize::from(position.part != Part::Total);
            assert_eq!(ciphertexts.key(), KEYS[own].public_key(), "{position}");
        }
        if talk.deliver(said).unwrap() == Some(Event::Ready) {
            steps.push(talk.client.totals().unwrap().to_vec());
            talk.client.proceed().unwrap();
        }
    }
    assert_eq!(steps.len(), 5);
    assert!(steps[0].iter().all(|&step| step == 0) && steps.windows(2).all(|pair| pair[0] != pair[1]));
}

/// Without what the client sends of its own steps, sums would be those of the weights at the turn's beginning.
#[test]
fn corrections_are_what_makes_sums_those_of_the_present_weights() {
    let run = small();
    let mut fixed = run.fixed();
    fixed.turn().unwrap();
    let (mut server, mut client) = (run.server(0), run.client(0, 1));
    let mut talk = Talk::new(&mut server, &mut client, 1).unwrap();
    while let Some(said) = talk.next().unwrap() {
        let said = match said {
            Said::ByClient(Message::Tensor { position, index, ciphertexts })
                if matches!(position.part, Part::SumCorrections { .. }) =>
            {
                let header = run.plan.header(position.part).unwrap();
                let zeros = vec![0; header.batch * header.shape.elements()];
                let format = header.layout.contents().format().unwrap();
                let zeros = FixedTensor::new(header.shape, format, zeros).unwrap();
                let key = KEYS[1].public_key();
                let chunk =
                    Encryption::new(zeros, &header.layout, key).unwrap().next_chunk(key, &mut talk.rng);
                assert_eq!(chunk.as_ref().unwrap().ciphertext_count(), ciphertexts.ciphertext_count());
                Said::ByClient(Message::Tensor { position, index, ciphertexts: chunk.unwrap() })
            }
            said => said,
        };
        if talk.deliver(said).unwrap() == Some(Event::Ready) {
            talk.client.proceed().unwrap();
        }
    }
    assert_eq!(server.coordinator().turns, 1);
    assert_ne!(server.coordinator().parameters, fixed.coordinator().parameters);
}

#[test]
fn the_server_does_as_many_operations_as_the_plan_states() {
    for (name, model) in graphs::all().into_iter().step_by(3) {
        let run = Run::new(model, Setup { images: 4, iterations: 2, ..Setup::default() });
        let (mut server, mut client) = (run.server(1), run.client(0, 0));
        let mut talk = Talk::new(&mut server, &mut client, 1).unwrap();
        // In the second iteration: the first has no corrections.
        let (mut before, mut found) = (vec![], None);
        while let Some(said) = talk.next().unwrap() {
            // The turn ends with this, and the count with the turn.
            if said.message().place().map(|place| place.part) == Some(Part::Total) {
                found.get_or_insert(talk.server.operations().computing - before[1]);
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
                Some(Event::Ready) => {
                    before.push(talk.server.operations().computing);
                    talk.client.proceed().unwrap();
                }
                Some(Event::Ended) | None => {}
            }
        }
        // By the bits that these weights have.
        let all = run.plan.multiplications(&run.parameters).unwrap();
        let planned = all.iter().fold(Operations::default(), |sum, one| sum + one.layout.operations);
        assert_eq!(found, Some(planned), "{name}");
    }
}
