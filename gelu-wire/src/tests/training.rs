use std::sync::{Arc, LazyLock};

use gelu_layers::Initializer;
use gelu_models::ModelBuilder;
use gelu_models::peer::{Conversation, Peer};
use gelu_models::train::private::{
    Client, CoordinatorConfig, DMax, Description, Event, FixedPoint, Leakage, Message, ParticipantConfig,
    Server, TrainPlan,
};
use gelu_models::train::{Dataset, TrainConfig};
use gelu_tensor::Shape;
use gelu_tensor::paillier::{KeyBits, SecretKey};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::ChaCha20Rng};
use serde_json::{Value, json};

use super::{edited, paths};
use crate::training::{TrainingKeys, decode_training, encode_training};
use crate::{Kind, WireError};

static KEYS: LazyLock<[Arc<SecretKey>; 2]> = LazyLock::new(|| {
    [1, 2].map(|seed| {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng).unwrap())
    })
});

fn keys() -> TrainingKeys<'static> {
    TrainingKeys { client: Some(KEYS[0].public_key()), server: Some(KEYS[1].public_key()) }
}

fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    decode_training(bytes, keys())
}

/// Every message of one turn of two iterations, as bytes.
static MESSAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let mut model = ModelBuilder::new([3]).dense("fc1", 2).relu().dense("fc2", 2).softmax().build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut rng);
    let description =
        Description::new(&model, 2, FixedPoint::default(), KeyBits::Bits1024.into(), KeyBits::Bits1024);
    let plan = Arc::new(TrainPlan::new(description).unwrap());
    let parameters = plan.quantize(&model.weights()).unwrap();
    let train = TrainConfig { batch_size: 2, weight_decay: 0.0, ..TrainConfig::default() };
    let config = CoordinatorConfig { train, images: 4, d_max: DMax::Fixed(2), leakage: Leakage::Off };
    let mut server = Server::new(plan, KEYS[1].clone(), config, parameters).unwrap();
    let mut client = client();
    client.join().unwrap();
    let (mut all, mut ended) = (vec![], false);
    while !ended {
        while let Some(message) = client.next_message(&mut rng).unwrap() {
            all.push(encode_training(&message).unwrap());
            server.handle(message, &mut rng).unwrap();
        }
        while let Some(message) = server.next_message(&mut rng).unwrap() {
            all.push(encode_training(&message).unwrap());
            match client.handle(message, &mut rng).unwrap() {
                Some(Event::Ready) => client.proceed().unwrap(),
                Some(Event::Ended) => ended = true,
                None => {}
            }
        }
    }
    assert_eq!(server.coordinator().turns, 1);
    all
});

fn client() -> Client {
    let inputs = Array2::from_elem((4, 3), 0.5);
    let samples = Arc::new(Dataset::new(Shape::from([3]), inputs, vec![0, 1, 1, 0], 2).unwrap());
    Client::new(KEYS[0].clone(), samples, ParticipantConfig { client: 0, seed: 1, momentum: 0.0 })
}

#[test]
fn every_message_of_training_has_one_encoding() {
    assert!(MESSAGES.len() > 12);
    for bytes in MESSAGES.iter() {
        let message = decode(bytes).unwrap();
        assert_eq!(&encode_training(&message).unwrap(), bytes, "{message}");
    }
}

#[test]
fn ciphertexts_of_training_need_the_key_of_their_part() {
    let swapped = TrainingKeys { client: keys().server, server: keys().client };
    for bytes in MESSAGES.iter() {
        let message = decode(bytes).unwrap();
        if message.place().is_some() {
            let found = decode_training(bytes, swapped);
            assert!(matches!(found, Err(WireError::ForeignKey { .. })));
            let found = decode_training(bytes, TrainingKeys::default());
            assert!(matches!(found, Err(WireError::NoKey)));
        }
    }
}

/// What a client is told at the beginning of a turn comes from a peer: none of its numbers may make it panic, or ask for
/// much memory.
#[test]
fn absurd_turns_are_refused_or_are_others() {
    let turn = MESSAGES.iter().find(|bytes| matches!(decode(bytes), Ok(Message::Turn { .. }))).unwrap();
    let mut numbers = vec![];
    edited(Kind::Turn, turn, |header, _| paths(header, String::new(), &mut numbers, Value::is_number));
    assert!(numbers.len() > 20, "{numbers:?}");
    let extremes = [0, 1, 3, 63, 64, 1 << 20, u64::from(u32::MAX), i32::MAX as u64, 1 << 61, u64::MAX];
    let extremes = extremes.map(|x| json!(x)).into_iter().chain([json!(-1), json!(i32::MIN), json!(0.5)]);
    let mut refused = 0;
    for path in &numbers {
        for extreme in extremes.clone() {
            let bytes =
                edited(Kind::Turn, turn, |header, _| *header.pointer_mut(path).unwrap() = extreme.clone());
            let Ok(message) = decode(&bytes) else {
                refused += 1;
                continue;
            };
            let (mut client, rng) = (client(), &mut ChaCha20Rng::seed_from_u64(3));
            client.join().unwrap();
            client.next_message(rng).unwrap();
            if client.handle(message, rng).is_err() {
                refused += 1;
            }
        }
    }
    assert!(refused > 5 * numbers.len(), "{refused} of {}", 13 * numbers.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_bytes_are_an_error_or_another_message_but_no_panic(which: prop::sample::Index, at: prop::sample::Index, value: u8, cut: bool) {
        let mut bytes = MESSAGES[which.index(MESSAGES.len())].clone();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
            prop_assert!(decode(&bytes).is_err());
        } else {
            bytes[at] = value;
            if let Ok(message) = decode(&bytes) {
                // What is decoded is encoded to the same length; a header may write a number in another way.
                let again = decode(&encode_training(&message).unwrap()).unwrap();
                prop_assert_eq!(again.to_string(), message.to_string());
            }
        }
    }
}
