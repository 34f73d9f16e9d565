//! The seeds of the fuzz targets, and what was found with them: every decoder takes every file, and none panics.
//! `UPDATE_SEEDS=1 cargo test --release --test integration fuzz_seeds` makes the seeds anew.

#[path = "../../fuzz/src/decoders.rs"]
#[allow(unreachable_pub, clippy::expect_used, reason = "another package has it, too")]
mod decoders;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use decoders::{DECODERS, KEY, hidden_client, hidden_server, model, rng, trainers, training_setup};
use gelu_net::io::session::{Checkpoint, TrainingAccount};
use gelu_net::io::weights::{Dtype, WeightsFile};
use gelu_net::models::infer::{self, Client, Event, Message, Server};
use gelu_net::models::peer::{AbortReason, Conversation, Part, Peer};
use gelu_net::models::train::private;
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;
use gelu_net::wire::{WirePeer, encode_message, encode_public_key, encode_secret_key};
use ndarray::Array2;

/// Seeds by target and name.
type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// All files of a folder and those below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_decoder_takes_every_seed_and_every_finding() {
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        for ((target, name), bytes) in seeds() {
            let folder = folder().join("seeds").join(target);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let files = [files(&folder().join("seeds")), files(&folder().join("findings"))].concat();
    for (target, decode) in DECODERS {
        let own = files.iter().filter(|file| file.parent().unwrap().ends_with(target));
        assert!(own.count() > 1, "{target} has seeds");
        for file in &files {
            let bytes = fs::read(file).unwrap();
            let start = Instant::now();
            decode(&bytes);
            let limit = Duration::from_secs(20);
            assert!(start.elapsed() < limit, "{target} took {:?} for {}", start.elapsed(), file.display());
        }
    }
}

/// Seeds are of value only as long as what they were made for takes them.
#[test]
fn seeds_are_valid_where_they_are_meant_to_be() {
    let seeds = folder().join("seeds");
    let read = |name: &str| fs::read(seeds.join(name)).unwrap();
    let server = trainers(&training_setup()).1;
    for file in files(&seeds.join("inference")) {
        let bytes = fs::read(&file).unwrap();
        let message = gelu_net::wire::decode_message(&bytes, Some(KEY.public_key()));
        assert!(message.is_ok(), "{}: {message:?}", file.display());
    }
    for file in files(&seeds.join("hidden")) {
        let message = hidden_client().decode(&fs::read(&file).unwrap());
        assert!(message.is_ok(), "{}: {message:?}", file.display());
    }
    assert!(matches!(server.decode(&read("training/join")), Ok(private::Message::Join { .. })));
    assert!(gelu_net::wire::decode_secret_key(&read("keys/secret")).is_ok());
    let weights = Weights::parse(&read("safetensors/model"), Path::new("model"));
    assert!(Model::from_weights(&weights.unwrap()).is_ok());
}

/// One of each, made by what writes them.
fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    let mut add = |target, name: &str, bytes| drop(seeds.insert((target, name.to_owned()), bytes));
    inference(&mut add);
    hidden(&mut add);
    training(&mut add);
    for key_type in [KeyType::Djn, KeyType::Subgroup] {
        let parameters = KeyParameters { size: KeyBits::Bits1024, key_type };
        let key = SecretKey::generate(parameters, &mut rng()).unwrap();
        let name =
            |what: &str| if key_type == KeyType::Djn { what.to_owned() } else { format!("{what}-subgroup") };
        add("keys", &name("public"), encode_public_key(key.public_key()).unwrap());
        add("keys", &name("secret"), encode_secret_key(&key).unwrap().to_vec());
    }
    files_of_data(&mut add);
    seeds
}

fn inference(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let rng = &mut rng();
    let mut client = Client::new(Arc::clone(&KEY), 1);
    let mut server = Server::new(Arc::new(ServerModel::new(model(), Quantization::default())));
    let image = Array2::from_shape_fn((1, 36), |(_, pixel)| pixel as f32 / 36.0);
    let mut messages = vec![];
    while !server.is_closed() {
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
                Some(Event::Ready) => client.start(image.view()).unwrap(),
                Some(Event::Done(_)) => client.finish().unwrap(),
                None => {}
            }
        }
    }
    messages.push(Message::abort(AbortReason::Spent { used: 5, allowed: 6 }));
    let mut tensors = 0;
    for message in messages {
        let bytes = encode_message(&message).unwrap();
        let name = match &message {
            Message::Hello { .. } => "hello",
            Message::Accept { description, .. } => {
                add("plan", "inference", serde_json::to_vec(description).unwrap());
                "accept"
            }
            Message::Tensor { ciphertexts, .. } => {
                tensors += 1;
                if tensors > 2 {
                    continue;
                }
                let count = ciphertexts.ciphertext_count().min(3) as u16;
                let head = [&count.to_le_bytes()[..], &[1, 0, 1, 0, 100, 0, 0, 0, 0, 0, 0, 0, 1, 0]].concat();
                let ciphertexts = ciphertexts.encode();
                let some = &ciphertexts[..usize::from(count) * KEY.public_key().ciphertext_bytes()];
                add("tensors", if tensors == 1 { "inputs" } else { "sums" }, [&head[..], some].concat());
                if tensors == 1 { "inputs" } else { "sums" }
            }
            Message::Finish { .. } => "finish",
            Message::Abort { .. } => "abort",
        };
        add("inference", name, bytes);
    }
}

/// One message of each kind.
fn hidden(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let rng = &mut rng();
    let (mut client, mut server) = (hidden_client(), hidden_server());
    let image = Array2::from_shape_fn((1, 4), |(_, element)| element as f32 / 4.0);
    let mut messages = BTreeMap::new();
    let mut note = |message: &infer::hidden::Message| {
        use infer::hidden::Message as M;
        let name = match message {
            M::Hello { .. } => "hello",
            M::Accept { .. } => "accept",
            M::Tensor { position, .. } if matches!(position.part, Part::Sums { .. }) => "masked-sums",
            M::Tensor { .. } => "masks",
            M::Choices { .. } => "choices",
            M::Tables { .. } => "tables",
            M::Shares { .. } => "shares",
            M::Labels { .. } => "labels",
            M::Sums { .. } => "sums",
            M::Finish { .. } => "finish",
            M::Abort { .. } => "abort",
        };
        messages.entry(name).or_insert(infer::hidden::Client::encode(message).unwrap());
    };
    note(&infer::hidden::Message::abort(AbortReason::Refused));
    while !server.is_closed() {
        while !client.is_closed()
            && let Some(message) = client.next_message(rng).unwrap()
        {
            note(&message);
            server.handle(message, rng).unwrap();
        }
        while !server.is_closed()
            && let Some(message) = server.next_message(rng).unwrap()
        {
            note(&message);
            match client.handle(message, rng).unwrap() {
                Some(infer::hidden::Event::Ready) => client.start(image.view()).unwrap(),
                Some(infer::hidden::Event::Done(_)) => client.finish().unwrap(),
                _ => {}
            }
        }
    }
    messages.into_iter().for_each(|(name, bytes)| add("hidden", name, bytes));
}

fn training(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let rng = &mut rng();
    let setup = training_setup();
    add("plan", "training", serde_json::to_vec(setup.plan.description()).unwrap());
    let (mut client, mut server) = trainers(&setup);
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = |name: &str, client: &private::Client, server: &private::Server| {
        let path = folder.path().join("checkpoint");
        let (run, account) = (serde_json::json!({ "epochs": 1 }), TrainingAccount::default());
        let checkpoint = Checkpoint { run, server: server.state(), clients: vec![client.state()], account };
        checkpoint.write(&path).unwrap();
        add("checkpoint", name, fs::read(path).unwrap());
    };
    checkpoint("beginning", &client, &server);
    client.join().unwrap();
    let mut messages = BTreeMap::new();
    let mut name = |message: &private::Message, bytes: Vec<u8>| {
        let name = match message {
            private::Message::Join { .. } => "join".to_owned(),
            private::Message::Turn { .. } => "turn".to_owned(),
            private::Message::Tensor { position, .. } => position.part.to_string().replace(' ', "-"),
            private::Message::Ended { .. } => "ended".to_owned(),
            private::Message::Abort { .. } => "abort".to_owned(),
        };
        messages.entry(name).or_insert(bytes);
    };
    let mut is_over = false;
    while !is_over {
        while let Some(message) = client.next_message(rng).unwrap() {
            name(&message, private::Client::encode(&message).unwrap());
            server.handle(message, rng).unwrap();
        }
        while let Some(message) = server.next_message(rng).unwrap() {
            name(&message, private::Server::encode(&message).unwrap());
            match client.handle(message, rng).unwrap() {
                Some(private::Event::Ready) => {
                    checkpoint("turn", &client, &server);
                    client.proceed().unwrap();
                }
                Some(private::Event::Ended) => is_over = true,
                _ => {}
            }
        }
    }
    messages.into_iter().for_each(|(name, bytes)| add("training", &name, bytes));
}

fn files_of_data(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let folder = tempfile::tempdir().unwrap();
    for (name, dtype) in [("model", Dtype::F32), ("half", Dtype::F16)] {
        let path = folder.path().join(name);
        model().weights().write(&path, dtype).unwrap();
        add("safetensors", name, fs::read(path).unwrap());
    }
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx/models");
    for name in ["mlp.script.onnx", "mobilenet.script.onnx", "squeeze_excite.dynamo.onnx"] {
        add("onnx", name, fs::read(models.join(name)).unwrap());
    }
    let images = [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2][..], &[7; 12]].concat();
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    gzip.write_all(&images).unwrap();
    add("idx", "images", images);
    add("idx", "images.gz", gzip.finish().unwrap());
    add("idx", "labels", vec![0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 2]);
    let numbers = "age,color,label\n41,red,yes\n17.5,\"light, blue\",no\n,red,yes\n1e3,green,no\n";
    add("csv", "commas", numbers.as_bytes().to_vec());
    add("csv", "semicolons", b"a;b;c\n1,5;2,5;x\n3,0;?;y\n4,5;NA;x\n".to_vec());
    add(
        "csv",
        "utf16",
        "a\tb\n1\t2\n3\t4\n"
            .encode_utf16()
            .fold(vec![0xff, 0xfe], |all, unit| [all, unit.to_le_bytes().to_vec()].concat()),
    );
    let [pixels, labels] = [npy("|u1", "(3, 2, 2)", &[9; 12]), npy("|u1", "(3, 1)", &[0, 1, 0])];
    let floats: Vec<u8> = (0..6).flat_map(|value| (value as f32 / 4.0).to_le_bytes()).collect();
    add("npz", "array.npy", npy("<f4", "(3, 2)", &floats));
    add("npz", "stored.npz", zip(&[("train_images.npy", &pixels), ("train_labels.npy", &labels)], false));
    add("npz", "deflated.npz", zip(&[("x_test.npy", &pixels), ("y_test.npy", &labels)], true));
}

/// An array of NumPy, version 1.0 of its format.
fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes(), data].concat()
}

/// An archive of entries that are stored or deflated.
fn zip(entries: &[(&str, &[u8])], is_deflated: bool) -> Vec<u8> {
    let (mut bytes, mut directory) = (vec![], vec![]);
    for (name, contents) in entries {
        let mut checksum = flate2::Crc::new();
        checksum.update(contents);
        let mut encoder = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::default());
        encoder.write_all(contents).unwrap();
        let data = if is_deflated { encoder.finish().unwrap() } else { contents.to_vec() };
        let method = if is_deflated { 8_u16 } else { 0 };
        let at = bytes.len() as u32;
        let mut common = [20, 0, 0, 0].to_vec();
        common.extend(method.to_le_bytes());
        common.extend([0; 4]);
        common.extend(checksum.sum().to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((contents.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&common);
        bytes.extend(name.as_bytes());
        bytes.extend(data);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, length, count) = (bytes.len() as u32, directory.len() as u32, entries.len() as u16);
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count.to_le_bytes().repeat(2));
    bytes.extend(length.to_le_bytes());
    bytes.extend(at.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}
