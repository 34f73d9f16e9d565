use std::sync::{Arc, LazyLock};

use gelu_layers::Initializer;
use gelu_models::ModelBuilder;
use gelu_models::infer::{Client, Event, Message, Server, ServerModel, SessionError};
use gelu_models::peer::{AbortReason, Conversation};
use gelu_models::plan::{Preference, Quantization};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, PublicKey, SecretKey};
use gelu_tensor::{EncChunk, Error};
use ndarray::Array2;
use num_bigint::BigUint;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::ChaCha20Rng};
use serde_json::{Value, json};

mod hidden;
mod training;

use super::frame::{Limits, build};
use super::message::decode_within;
use super::*;

const PREFIX: usize = 18;

static KEY: LazyLock<Arc<SecretKey>> = LazyLock::new(|| key(5));

static MODEL: LazyLock<Arc<ServerModel>> = LazyLock::new(|| {
    let mut model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).softmax().build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut rng());
    model.calibrate(images().view()).unwrap();
    Arc::new(ServerModel::new(model, Quantization::default()))
});

/// Every message of one session, and how one is given up, as bytes.
static MESSAGES: LazyLock<Vec<(Kind, Vec<u8>)>> = LazyLock::new(|| {
    let rng = &mut rng();
    let mut server = Server::new(Arc::clone(&MODEL));
    let mut client = Client::new(Arc::clone(&KEY), 2);
    let mut messages = vec![];
    while !client.is_closed() {
        while !client.is_closed()
            && let Some(message) = client.next_message(rng).unwrap()
        {
            messages.push(message.clone());
            server.handle(message, rng).unwrap();
        }
        while !server.is_closed()
            && let Some(message) = server.next_message(rng).unwrap()
        {
            messages.push(message.clone());
            match client.handle(message, rng).unwrap() {
                Some(Event::Ready) => client.start(images().view()).unwrap(),
                Some(Event::Done(_)) => client.finish().unwrap(),
                None => {}
            }
        }
    }
    assert!(server.is_closed());
    messages.push(Message::Abort { reason: AbortReason::BadPlan });
    let kinds = [
        Kind::Hello,
        Kind::Accept,
        Kind::Tensor,
        Kind::Tensor,
        Kind::Tensor,
        Kind::Tensor,
        Kind::Finish,
        Kind::Abort,
    ];
    kinds.into_iter().zip(messages.iter().map(|message| encode_message(message).unwrap())).collect()
});

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(3)
}

fn images() -> Array2<f32> {
    Array2::from_elem((2, 4), 0.5)
}

fn key(seed: u64) -> Arc<SecretKey> {
    Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(seed)).unwrap())
}

fn public() -> &'static PublicKey {
    KEY.public_key()
}

fn message(kind: Kind) -> &'static [u8] {
    &MESSAGES.iter().find(|(found, _)| *found == kind).unwrap().1
}

fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    decode_message(bytes, Some(public()))
}

fn error(bytes: &[u8]) -> WireError {
    decode(bytes).unwrap_err()
}

/// A frame with another header or payload, whose lengths are right again.
fn edited(kind: Kind, bytes: &[u8], edit: impl FnOnce(&mut Value, &mut Vec<u8>)) -> Vec<u8> {
    let length = u32::from_le_bytes(bytes[6..10].try_into().unwrap()) as usize;
    let (header, payload) = bytes[PREFIX..].split_at(length);
    let (mut header, mut payload) = (serde_json::from_slice(header).unwrap(), payload.to_vec());
    edit(&mut header, &mut payload);
    build(kind, &header, &payload).unwrap()
}

fn patched(bytes: &[u8], at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

fn secret_file() -> Vec<u8> {
    encode_secret_key(&KEY).unwrap().to_vec()
}

#[test]
fn every_message_comes_back() {
    assert_eq!(MESSAGES.len(), 8);
    for (kind, bytes) in MESSAGES.iter() {
        let again = decode(bytes).unwrap();
        let name = if again.position().is_some() { "Tensor".to_owned() } else { again.to_string() };
        assert_eq!(format!("{kind:?}"), name);
        assert_eq!(&encode_message(&again).unwrap(), bytes, "{kind}");
    }
}

#[test]
fn every_key_comes_back() {
    let sizes = [KeyBits::Bits1024, KeyBits::Bits2048];
    for (size, key_type) in sizes.into_iter().flat_map(|size| KeyType::ALL.map(|key_type| (size, key_type))) {
        let parameters = KeyParameters { size, key_type };
        let key = SecretKey::generate(parameters, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
        let file = encode_secret_key(&key).unwrap();
        let secret = decode_secret_key(&file).unwrap();
        assert_eq!(encode_secret_key(&secret).unwrap(), file);
        let public = decode_public_key(&encode_public_key(key.public_key()).unwrap()).unwrap();
        assert_eq!((&public, public.parameters()), (key.public_key(), parameters));
    }
}

#[test]
fn truncation_at_every_length_is_found() {
    for (kind, bytes) in MESSAGES.iter() {
        for length in 0..bytes.len() {
            let found = error(&bytes[..length]);
            assert!(matches!(found, WireError::Length { .. }), "{kind} cut at {length}: {found}");
        }
        let longer = [bytes, &[0][..]].concat();
        let expected = WireError::Length { expected: bytes.len(), found: bytes.len() + 1 };
        assert_eq!(error(&longer), expected);
    }
    let file = secret_file();
    for length in 0..file.len() {
        assert!(matches!(decode_secret_key(&file[..length]), Err(WireError::Length { .. })));
    }
}

#[test]
fn bytes_of_something_else_are_named() {
    let hello = message(Kind::Hello);
    assert_eq!(error(b"PK\x03\x04 and so on"), WireError::Magic { found: b"PK\x03\x04".to_vec() });
    assert_eq!(error(&patched(hello, 4, &[2])), WireError::Version { found: 2 });
    assert!(matches!(error(&patched(hello, 5, &[99])), WireError::Kind { found, .. } if found == "kind 99"));
    for other in [encode_public_key(public()).unwrap(), secret_file()] {
        assert!(
            matches!(error(&other), WireError::Kind { expected, .. } if expected == "a message of inference")
        );
    }
}

/// Both lengths are compared with the limits before anything else: no memory is taken for what is only declared.
#[test]
fn oversize_lengths_are_refused() {
    let hello = message(Kind::Hello);
    let limit = Limits::default();
    let found = error(&patched(hello, 6, &u32::MAX.to_le_bytes()));
    let found_header = u64::from(u32::MAX);
    assert_eq!(found, WireError::TooLarge { what: "header", limit: limit.header, found: found_header });
    for declared in [u64::MAX, 1 << 63, (1 << 30) + 1] {
        let found = error(&patched(hello, 10, &declared.to_le_bytes()));
        assert_eq!(found, WireError::TooLarge { what: "payload", limit: limit.payload, found: declared });
    }
    let within = Limits { header: 1 << 10, payload: 383 };
    let expected = WireError::TooLarge { what: "payload", limit: 383, found: 384 };
    assert_eq!(decode_within(hello, Some(public()), within).unwrap_err(), expected);
    let file = patched(&secret_file(), 10, &(1u64 << 15).to_le_bytes());
    assert!(matches!(decode_secret_key(&file), Err(WireError::TooLarge { what: "payload", .. })));
}

#[test]
fn headers_that_describe_something_else_are_refused() {
    for (kind, bytes) in MESSAGES.iter() {
        let unknown = edited(*kind, bytes, |header, _| header["surprise"] = json!(1));
        assert!(matches!(error(&unknown), WireError::Header { kind: found, .. } if found == *kind));
        let empty = edited(*kind, bytes, |header, _| *header = json!({}));
        assert!(matches!(error(&empty), WireError::Header { kind: found, .. } if found == *kind));
    }
    let session = |header: &mut Value, _: &mut Vec<u8>| header["session"] = json!([1, 2, 3]);
    assert!(matches!(error(&edited(Kind::Finish, message(Kind::Finish), session)), WireError::Header { .. }));
    for kind in [Kind::Accept, Kind::Finish, Kind::Abort] {
        let loaded = edited(kind, message(kind), |_, payload| payload.push(1));
        assert_eq!(error(&loaded), WireError::Length { expected: 0, found: 1 });
    }
}

/// Neither a part of a description nor one of a position may be unknown, however deep it lies.
#[test]
fn unknown_fields_at_any_depth_are_refused() {
    for (kind, bytes) in MESSAGES.iter() {
        let mut objects = vec![];
        edited(*kind, bytes, |header, _| paths(header, String::new(), &mut objects, Value::is_object));
        assert!(*kind != Kind::Accept || objects.len() > 10);
        for path in objects {
            let unknown = edited(*kind, bytes, |header, _| {
                header.pointer_mut(&path).unwrap()["surprise"] = json!(1);
            });
            let found = error(&unknown);
            assert!(matches!(found, WireError::Header { .. }), "{kind}{path}: {found}");
        }
    }
}

/// Paths to the values of a kind in JSON.
fn paths(value: &Value, path: String, out: &mut Vec<String>, wanted: fn(&Value) -> bool) {
    if wanted(value) {
        out.push(path.clone());
    }
    match value {
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, value)| paths(value, format!("{path}/{i}"), out, wanted));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| paths(value, format!("{path}/{name}"), out, wanted));
        }
        _ => {}
    }
}

/// A message with every number of its header replaced by every kind of extreme: those that can still be decoded.
fn extremes(kind: Kind, bytes: &[u8]) -> Vec<(String, Message)> {
    let mut numbers = vec![];
    edited(kind, bytes, |header, _| paths(header, String::new(), &mut numbers, Value::is_number));
    let extremes = [0, 1, 3, 63, 64, 1 << 20, u64::from(u32::MAX), i32::MAX as u64, 1 << 61, u64::MAX];
    let extremes = extremes.map(|x| json!(x)).into_iter().chain([json!(-1), json!(i32::MIN), json!(0.5)]);
    let same = edited(kind, bytes, |_, _| ());
    let pairs = numbers.iter().flat_map(|path| extremes.clone().map(move |extreme| (path, extreme)));
    let changed = pairs.filter_map(|(path, extreme)| {
        let changed = edited(kind, bytes, |header, _| *header.pointer_mut(path).unwrap() = extreme.clone());
        let message = decode(&changed).ok()?;
        (changed != same).then(|| (format!("{path}: {extreme}"), message))
    });
    changed.collect()
}

/// The numbers of a description come from a peer: none of them may overflow, or ask for much memory, on the way to
/// being refused; and where a client takes them, it sends as much as a plan may.
#[test]
fn absurd_descriptions_are_refused_or_are_others() {
    let accept = message(Kind::Accept);
    let changed = extremes(Kind::Accept, accept);
    assert!(changed.len() > 150, "{}", changed.len());
    let (count, mut refused) = (changed.len(), 0);
    for (edit, message) in changed {
        let mut client = Client::new(Arc::clone(&KEY), 2);
        client.next_message(&mut rng()).unwrap();
        match client.handle(message, &mut rng()) {
            Err(SessionError::Plan(_)) => {
                assert!(client.is_closed());
                refused += 1;
            }
            Err(error) => panic!("{edit}: {error}"),
            Ok(_) => {
                let up = client.plan().unwrap().segments()[0].ciphertexts_up();
                assert!(up <= 1 << 22, "{edit}: {up}");
            }
        }
    }
    // Others are refused as they are decoded.
    assert!(refused > 30, "{refused} of {count}");
}

/// So do those of positions: neither side takes a tensor of another place.
#[test]
fn absurd_positions_are_refused() {
    let tensors: Vec<_> = MESSAGES.iter().filter(|(kind, _)| *kind == Kind::Tensor).collect();
    for (up, bytes) in [(true, &tensors[0].1), (false, &tensors[1].1)] {
        let changed = extremes(Kind::Tensor, bytes);
        assert!(changed.len() > 20, "{}", changed.len());
        for (edit, message) in changed {
            // The same randomness again, so that the session has the same name.
            let rng = &mut rng();
            let (mut server, mut client) =
                (Server::new(Arc::clone(&MODEL)), Client::new(Arc::clone(&KEY), 2));
            server.handle(client.next_message(rng).unwrap().unwrap(), rng).unwrap();
            client.handle(server.next_message(rng).unwrap().unwrap(), rng).unwrap();
            client.start(images().view()).unwrap();
            client.next_message(rng).unwrap();
            let error = match up {
                true => server.handle(message, rng).err(),
                false => client.handle(message, rng).err(),
            };
            let error = error.unwrap_or_else(|| panic!("{edit} is taken"));
            let refused = matches!(error, SessionError::Unexpected { .. } | SessionError::Numbers { .. });
            assert!(refused, "{edit}: {error}");
            assert!(if up { server.is_closed() } else { client.is_closed() });
        }
    }
}

#[test]
fn numbers_that_are_no_ciphertexts_are_refused() {
    let width = public().ciphertext_bytes();
    let n = BigUint::from_bytes_le(&public().n_le_bytes());
    let p = KEY.to_le_bytes().p;
    let good = message(Kind::Tensor);
    let first = BigUint::from_bytes_le(&good[good.len() - width..]);
    let unit = "must be a unit mod n^2, so not zero";
    for (number, rule) in [
        (BigUint::ZERO, unit),
        (n.clone(), unit),
        (BigUint::from_bytes_le(&p), unit),
        (&n * &n, "must be below n^2"),
        // A second encoding of the same ciphertext, where there is room for it.
        ((first + &n * &n).min((BigUint::from(1u8) << (8 * width)) - 1u8), "must be below n^2"),
    ] {
        let mut bytes = number.to_bytes_le();
        bytes.resize(width, 0);
        let bytes = patched(good, good.len() - width, &bytes);
        let index = 3;
        assert_eq!(error(&bytes), WireError::Content(Error::Ciphertext { index, rule }), "{number:x}");
    }
    for missing in [1, width + 1, 4 * width] {
        let short = edited(Kind::Tensor, good, |_, payload| payload.truncate(payload.len() - missing));
        assert!(matches!(error(&short), WireError::Content(Error::Multiple { .. } | Error::Range { .. })));
    }
}

/// A chunk has at least one ciphertext, and no more than one message takes.
#[test]
fn chunks_have_a_bounded_number_of_ciphertexts() {
    let good = message(Kind::Tensor);
    let most = EncChunk::most(public());
    let of = |count: usize| {
        edited(Kind::Tensor, good, |_, payload| {
            let one = payload[..public().ciphertext_bytes()].to_vec();
            *payload = one.repeat(count);
        })
    };
    assert_eq!(decode(&of(most)).unwrap().place().unwrap().ciphertexts, most);
    let wrong =
        |found| WireError::Content(Error::Range { what: "ciphertexts of a chunk", least: 1, most, found });
    assert_eq!(error(&of(0)), wrong(0));
    let found = error(&of(most + 1));
    assert!(matches!(found, WireError::TooLarge { what: "payload", limit: EncChunk::BYTES, .. }), "{found}");
    let larger = Limits { payload: 1 << 20, ..Limits::default() };
    let found = decode_within(&of(most + 1), Some(public()), larger).unwrap_err();
    assert_eq!(found, wrong(most + 1));
}

#[test]
fn ciphertexts_under_another_key_are_refused() {
    for (kind, bytes) in MESSAGES.iter().filter(|(kind, _)| *kind == Kind::Tensor) {
        let other = key(6);
        let found = decode_message(bytes, Some(other.public_key())).unwrap_err();
        let [expected, theirs] = [other.public_key(), public()].map(PublicKey::fingerprint_hex);
        assert_eq!(found, WireError::ForeignKey { expected, found: theirs });
        assert_eq!(decode_message(bytes, None).unwrap_err(), WireError::NoKey, "{kind}");
    }
}

#[test]
fn keys_of_peers_are_checked() {
    let hello = message(Kind::Hello);
    let content =
        |edit: &dyn Fn(&mut Value, &mut Vec<u8>)| error(&edited(Kind::Hello, hello, edit)).to_string();
    assert!(content(&|_, payload| payload[0] &= 0xfe).contains("odd"));
    assert!(content(&|_, payload| payload[127] = 0).contains("1024, 2048, 3072 or 4096 bits"));
    assert!(content(&|_, payload| payload[128..].fill(0)).contains("unit"));
    assert!(content(&|_, payload| payload[128..].fill(0xff)).contains("below n^2"));
    let sized = |header: &mut Value, _: &mut Vec<u8>| header["key_bits"] = json!(2048);
    assert_eq!(content(&sized), WireError::Length { expected: 768, found: 384 }.to_string());
    assert!(content(&|header, _| header["key_bits"] = json!(1025)).contains("1025 bits"));
}

#[test]
fn preferences_are_known_ones() {
    let hello = message(Kind::Hello);
    for prefer in [json!("bits"), json!(2), json!(null)] {
        let found = error(&edited(Kind::Hello, hello, |header: &mut Value, _: &mut Vec<u8>| {
            header["prefer"] = prefer.clone()
        }));
        assert!(matches!(found, WireError::Header { .. }), "{found}");
    }
    let other =
        edited(Kind::Hello, hello, |header: &mut Value, _: &mut Vec<u8>| header["prefer"] = json!("bytes"));
    assert!(matches!(
        decode_message(&other, None).unwrap(),
        Message::Hello { prefer: Preference::Bytes, .. }
    ));
}

#[test]
fn secret_key_files_are_checked() {
    let file = secret_file();
    let found = |edit: &dyn Fn(&mut Value, &mut Vec<u8>)| {
        decode_secret_key(&edited(Kind::SecretKey, &file, edit)).unwrap_err()
    };
    // p + 4 keeps its residue mod 4 and is no prime (for this seed).
    let composite = |header: &mut Value, payload: &mut Vec<u8>| {
        assert_eq!(header["key_bits"], 1024);
        payload[0] = payload[0].wrapping_add(4);
    };
    let rule = "p must be a prime that is 3 mod 4";
    assert!(
        matches!(found(&composite), WireError::Content(Error::Key { rule: broken, .. }) if broken == rule)
    );
    let twice = |_: &mut Value, payload: &mut Vec<u8>| payload.copy_within(..64, 64);
    assert!(matches!(found(&twice), WireError::Content(Error::PrimePair { .. })));
    let small = |_: &mut Value, payload: &mut Vec<u8>| payload[63] = 0;
    assert!(matches!(found(&small), WireError::Content(Error::Key { .. })));
    let h = |_: &mut Value, payload: &mut Vec<u8>| payload[200] ^= 1;
    assert!(matches!(
        found(&h),
        WireError::Content(Error::Key {
            rule: "h must be an n-th residue mod n^2, of the order that the key's type asks for",
            ..
        })
    ));
    let size = |header: &mut Value, _: &mut Vec<u8>| header["key_bits"] = json!(2048);
    assert_eq!(found(&size), WireError::Length { expected: 768, found: 384 });
    let subgroup = |header: &mut Value, _: &mut Vec<u8>| header["key_type"] = json!("subgroup");
    assert_eq!(found(&subgroup), WireError::Length { expected: 424, found: 384 });
    let kind = |header: &mut Value, _: &mut Vec<u8>| header["key_type"] = json!("rsa");
    assert!(matches!(found(&kind), WireError::Header { kind: Kind::SecretKey, .. }));

    let public_file = encode_public_key(public()).unwrap();
    let swapped =
        |expected: &str, found: &str| WireError::Kind { expected: expected.into(), found: found.into() };
    assert_eq!(decode_secret_key(&public_file).unwrap_err(), swapped("a secret key", "a public key"));
    assert_eq!(decode_public_key(&file).unwrap_err(), swapped("a public key", "a secret key"));
    assert_eq!(
        decode_public_key(message(Kind::Hello)).unwrap_err(),
        swapped("a public key", "a Hello message")
    );
}

/// p, q, p', q' and h, of 64, 64, 20, 20 and 256 bytes.
#[test]
fn subgroup_key_files_are_checked() {
    let parameters = KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup };
    let key = SecretKey::generate(parameters, &mut ChaCha20Rng::seed_from_u64(4)).unwrap();
    let file = encode_secret_key(&key).unwrap();
    let found = |edit: &dyn Fn(&mut Value, &mut Vec<u8>)| {
        decode_secret_key(&edited(Kind::SecretKey, &file, edit)).unwrap_err()
    };
    for at in [0, 30, 63, 64, 100, 127, 128, 140, 147, 148, 160, 167, 168, 300, 423] {
        let error = found(&|_, payload| payload[at] ^= 2);
        assert!(
            matches!(error, WireError::Content(Error::Key { .. } | Error::PrimePair { .. })),
            "{at}: {error}"
        );
    }
    let rule = "the subgroup primes must have the size for the key and divide p - 1 and q - 1 once";
    let of_subgroup = |error: WireError| {
        assert!(matches!(error, WireError::Content(Error::Key { rule: broken, .. }) if broken == rule));
    };
    of_subgroup(found(&|_, payload| payload[128..168].rotate_left(20)));
    of_subgroup(found(&|_, payload| payload[147] = 1));
    of_subgroup(found(&|_, payload| payload[128..148].fill(0xff)));
    of_subgroup(found(&|_, payload| payload[148..168].fill(0)));
    let label = |header: &mut Value, _: &mut Vec<u8>| header["key_type"] = json!("djn");
    assert_eq!(found(&label), WireError::Length { expected: 384, found: 424 });
    for missing in [1, 20, 256, 424] {
        let short = found(&|_, payload| payload.truncate(424 - missing));
        assert_eq!(short, WireError::Length { expected: 424, found: 424 - missing });
    }
    for length in 0..file.len() {
        assert!(matches!(decode_secret_key(&file[..length]), Err(WireError::Length { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A changed byte is an error, or changes a message into another valid one; it never panics.
    #[test]
    fn a_corrupt_byte_never_panics(which in 0usize..8, at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = MESSAGES[which].1.clone();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(message) = decode(&bytes) {
            prop_assert!(decode(&encode_message(&message).unwrap()).is_ok());
        }
    }

    /// The same in headers alone, where almost every byte matters.
    #[test]
    fn a_corrupt_header_never_panics(which in 0usize..8, at in any::<prop::sample::Index>(), digit in 0u8..10) {
        let mut bytes = MESSAGES[which].1.clone();
        let length = u32::from_le_bytes(bytes[6..10].try_into().unwrap()) as usize;
        let digits: Vec<usize> = (PREFIX..PREFIX + length).filter(|&i| bytes[i].is_ascii_digit()).collect();
        if !digits.is_empty() {
            bytes[digits[at.index(digits.len())]] = b'0' + digit;
        }
        if let Ok(message) = decode(&bytes) {
            prop_assert!(decode(&encode_message(&message).unwrap()).is_ok());
        }
    }

    /// A secret key file with a changed byte is refused, but where the byte is as it was.
    #[test]
    fn a_corrupt_secret_key_is_refused(at in any::<prop::sample::Index>(), change in 1u8..=255) {
        let mut file = secret_file();
        let at = at.index(file.len());
        file[at] ^= change;
        prop_assert!(decode_secret_key(&file).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
        prop_assert!(decode(&[&b"GELU\x01\x02"[..], &bytes].concat()).is_err());
        prop_assert!(decode(&[&b"GELU\x01\x0a"[..], &bytes].concat()).is_err());
        prop_assert!(decode_public_key(&bytes).is_err());
    }
}
