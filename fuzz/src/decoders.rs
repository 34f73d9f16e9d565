//! Every decoder of bytes from outside, as a function of the bytes: nothing may come of them but a value or an error.
//! `tests/integration/fuzz_seeds.rs` of the library runs the same functions on the seeds and findings beside this folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use gelu_net::io::data::{DataSet, Images, Missing, ReadOptions, Table};
use gelu_net::io::onnx::{ImportOptions, Imported};
use gelu_net::io::session::Checkpoint;
use gelu_net::io::weights::{Listing, WeightsFile};
use gelu_net::models::infer::hidden as hidden_model;
use gelu_net::models::infer::{Message, SessionId};
use gelu_net::models::peer::Peer;
use gelu_net::models::plan::{Description, HiddenPlan, Plan, Reveal};
use gelu_net::models::train::Dataset;
use gelu_net::models::train::private::{self, Shard, TrainPlan};
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;
use gelu_net::tensor::{
    Contents, EncChunk, EncTensor, EncTensorBuilder, EncTensorHeader, Format, Packing, Shape, SlotLayout,
};
use gelu_net::wire::{self, WirePeer};
use gelu_net::{TrainingOptions, TrainingSetup};
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha20Rng};

/// A decoder's name and its function.
pub type Decoder = (&'static str, fn(&[u8]));

/// All of them, but those of the network service, which are private there.
pub const DECODERS: [Decoder; 12] = [
    ("inference", inference),
    ("hidden", hidden),
    ("training", training),
    ("keys", keys),
    ("tensors", tensors),
    ("plan", plan),
    ("safetensors", safetensors),
    ("onnx", onnx),
    ("idx", idx),
    ("csv", csv),
    ("npz", npz),
    ("checkpoint", checkpoint),
];

/// Bytes before a frame's header.
const PREFIX: usize = 18;

/// The key of all sessions here, which is always the same: ciphertexts among the seeds are under it.
pub static KEY: LazyLock<Arc<SecretKey>> = LazyLock::new(|| {
    Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng()).expect("a key can be made"))
});

/// A client and a server of private training; no turn has begun.
static TRAINERS: LazyLock<(private::Client, private::Server)> = LazyLock::new(|| trainers(&training_setup()));

/// What both begin with.
static SETUP: LazyLock<TrainingSetup> = LazyLock::new(training_setup);

/// Returns a generator that is always the same.
pub fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(7)
}

/// Returns a network of all that a small plan can have.
pub fn model() -> Model {
    let conv = Conv2dConfig::new(2, [3, 3]);
    let mut model = ModelBuilder::new([1, 6, 6])
        .conv2d("conv", conv)
        .relu()
        .residual_with(|main| main.conv2d("a", Conv2dConfig::new(2, [1, 1])), |short| short)
        .avg_pool2d("pool", [2, 2])
        .flatten()
        .dense("fc", 3)
        .softmax()
        .build()
        .expect("the network holds together");
    model.initialize(Initializer::KaimingUniform, &mut rng());
    let inputs = Array2::from_shape_fn((2, 36), |(i, j)| (i + j) as f32 / 37.0);
    model.calibrate(inputs.view()).expect("the inputs are of its shape");
    model
}

/// Returns a network that can be hidden, with a server for it.
pub fn hidden_server() -> hidden_model::Server {
    let mut model =
        ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build().expect("two layers");
    model.initialize(Initializer::KaimingUniform, &mut rng());
    let inputs = Array2::from_shape_fn((2, 4), |(i, j)| (i + j) as f32 / 5.0);
    model.calibrate(inputs.view()).expect("the inputs are of its shape");
    hidden_model::Server::new(Arc::new(ServerModel::new(model, Quantization::default())))
}

/// Returns a client of a hidden model.
pub fn hidden_client() -> hidden_model::Client {
    hidden_model::Client::new((*KEY).clone(), 2, Reveal::Logits)
}

/// Returns a private training of a network of one layer.
pub fn training_setup() -> TrainingSetup {
    let mut model =
        ModelBuilder::new([4]).dense("fc", 2).softmax().build().expect("one layer holds together");
    model.initialize(Initializer::KaimingUniform, &mut rng());
    let inputs = Array2::from_shape_fn((4, 4), |(i, j)| (i + j) as f32 / 8.0);
    let data = Dataset::new([4].into(), inputs, vec![0, 1, 0, 1], 2).expect("as many labels as inputs");
    let shards = Shard::divide(&Arc::new(data), 1);
    let samples: Vec<Arc<dyn private::Samples>> =
        shards.into_iter().map(|shard| Arc::new(shard) as _).collect();
    let mut options = TrainingOptions::default();
    options.key.size = KeyBits::Bits1024;
    TrainingSetup::new(&model, samples, &options).expect("the network can be trained")
}

/// Returns both sides of it.
pub fn trainers(setup: &TrainingSetup) -> (private::Client, private::Server) {
    let TrainingSetup { plan, config, parameters, clients, .. } = setup.clone();
    let server = private::Server::new(plan, (*KEY).clone(), config, parameters);
    let (samples, config) = clients.into_iter().next().expect("there is one");
    (private::Client::new((*KEY).clone(), samples, config), server.expect("an iteration is allowed"))
}

/// The bytes with the lengths in a frame's prefix set to what is there: a fuzzer rarely gets them right.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some(rest) = bytes.len().checked_sub(PREFIX) else { return bytes };
    let stated = u32::from_le_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]);
    let header = rest.min(stated as usize);
    bytes[6..10].copy_from_slice(&(header as u32).to_le_bytes());
    bytes[10..18].copy_from_slice(&((rest - header) as u64).to_le_bytes());
    bytes
}

/// Decodes a message of inference, and makes the plan in it.
pub fn inference(bytes: &[u8]) {
    for bytes in [bytes, &mended(bytes)] {
        let _ = wire::decode_message(bytes, None);
        let Ok(message) = wire::decode_message(bytes, Some(KEY.public_key())) else { continue };
        let again = wire::encode_message(&message).expect("it was not too long");
        assert!(wire::decode_message(&again, Some(KEY.public_key())).is_ok());
        if let Message::Accept { description, .. } = message {
            let _ = Plan::new(*description, KEY.public_key().parameters());
        }
    }
}

/// Decodes a message of inference that hides the model, makes the plans in it, and has both sides take it as the first that
/// they hear.
pub fn hidden(bytes: &[u8]) {
    for bytes in [bytes, &mended(bytes)] {
        let mut client = hidden_client();
        let mut server = hidden_server();
        let _ = server.decode(bytes);
        let Ok(message) = client.decode(bytes) else { continue };
        let again = hidden_model::Client::encode(&message).expect("it was not too long");
        assert!(client.decode(&again).is_ok());
        if let hidden_model::Message::Accept { description, .. } = &message
            && let Ok(plan) = Plan::new((**description).clone(), KEY.public_key().parameters())
        {
            let _ = HiddenPlan::new(&plan, Reveal::Class);
        }
        client.next_message(&mut rng()).expect("a hello");
        let _ = client.handle(message.clone(), &mut rng());
        let _ = server.handle(message, &mut rng());
        let _ = server.handle(hidden_model::Message::Finish { session: SessionId([0; 16]) }, &mut rng());
    }
}

/// Decodes a message of training as both sides do, and makes the plan in it.
pub fn training(bytes: &[u8]) {
    let (client, server) = &*TRAINERS;
    for bytes in [bytes, &mended(bytes)] {
        let _ = server.decode(bytes);
        if let Ok(private::Message::Turn { description, .. }) = client.decode(bytes) {
            let _ = TrainPlan::new(*description);
        }
    }
}

/// Decodes key files.
pub fn keys(bytes: &[u8]) {
    for bytes in [bytes, &mended(bytes)] {
        if let Ok(key) = wire::decode_public_key(bytes) {
            assert!(wire::encode_public_key(&key).is_ok_and(|again| again == bytes));
        }
        let _ = wire::decode_secret_key(bytes);
    }
}

/// Decodes ciphertexts after a header that the first bytes say: extents, batch, bits and stacking.
pub fn tensors(bytes: &[u8]) {
    let Some((head, ciphertexts)) = bytes.split_at_checked(16) else { return };
    let key = KEY.public_key();
    let number = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let shape = Shape::from([number(0), number(2)]);
    let batch = number(4) * if head[15] == 0 { 1 } else { 1 << 16 };
    let bound = u64::from_le_bytes([head[6], head[7], head[8], head[9], head[10], head[11], head[12], 0]);
    let chunk = EncChunk::decode(key, ciphertexts);
    let Ok(format) = Format::integers(bound).and_then(|format| format.with_scale_bits(i32::from(head[13])))
    else {
        return;
    };
    let packing = Packing { batch, slot_bits: format.slot_bits(), key: key.size() };
    let Ok(layout) = SlotLayout::images(packing, Contents::Integers(format)) else { return };
    let layout = layout.with_stacked(usize::from(head[14]), key.size()).unwrap_or(layout);
    let header = EncTensorHeader::new(shape, batch, layout);
    if let Ok(tensor) = EncTensor::decode(key, header.clone(), ciphertexts) {
        assert_eq!(tensor.encode_ciphertexts(), ciphertexts);
    }
    if let (Ok(chunk), Ok(mut builder)) = (chunk, EncTensorBuilder::new(key, header, 1)) {
        for index in 0..3 {
            let _ = builder.push(index, &chunk);
            while builder.next_part().is_some() {}
        }
    }
}

/// Makes a plan of a description that is JSON, for inference or for training.
pub fn plan(bytes: &[u8]) {
    if let Ok(description) = serde_json::from_slice::<Description>(bytes) {
        let key = KeyParameters { size: KeyBits::Bits2048, key_type: KeyType::Djn };
        let _ = Plan::new(description, key);
    }
    if let Ok(description) = serde_json::from_slice::<private::Description>(bytes) {
        let _ = TrainPlan::new(description);
    }
}

/// Reads a file of weights, and the model in it.
pub fn safetensors(bytes: &[u8]) {
    let name = Path::new("weights.safetensors");
    if let Ok(weights) = Weights::parse(bytes, name)
        && let Ok(model) = Model::from_weights(&weights)
    {
        let interface = model.interface();
        let _ = interface.fault();
        // Whatever a file brings with it, it brings again.
        assert!(Model::from_weights(&model.weights()).is_ok());
    }
    in_file("weights.safetensors", bytes, |path| drop(Listing::read(path)));
}

/// Imports an ONNX model.
pub fn onnx(bytes: &[u8]) {
    let name = Path::new("model.onnx");
    for input in [None, Some(Shape::from([1, 6, 6]))] {
        let options = ImportOptions { input, output: None };
        if let Ok(imported) = Imported::parse(bytes, name, &options) {
            let _ = imported.model.interface().fault();
        }
    }
}

/// Reads images and labels in IDX.
pub fn idx(bytes: &[u8]) {
    let name = Path::new("images-idx3-ubyte");
    if let Ok(images) = Images::parse(bytes, name) {
        assert_eq!(images.iter().len(), images.count());
    }
    let _ = Images::parse_labels(bytes, name, 10);
    in_file("images-idx3-ubyte", bytes, |path| learn(DataSet::read(path, &ReadOptions::default())));
}

/// Reads a table.
pub fn csv(bytes: &[u8]) {
    if let Ok(table) = Table::parse(bytes, Path::new("table.csv")) {
        learn(Ok::<_, gelu_net::io::Error>(DataSet::from_table(table, None, Missing::default())));
    }
}

/// Reads an array, or an archive of them.
pub fn npz(bytes: &[u8]) {
    in_file("arrays.npz", bytes, |path| learn(DataSet::read(path, &ReadOptions::default())));
}

/// Reads a checkpoint, and goes on from there with both sides.
pub fn checkpoint(bytes: &[u8]) {
    in_file("checkpoint", bytes, |path| {
        let Ok(checkpoint) = Checkpoint::<serde_json::Value>::read(path) else { return };
        let TrainingSetup { plan, config, clients, .. } = SETUP.clone();
        let description = plan.description().clone();
        let _ = private::Server::resume(plan, KEY.clone(), config, checkpoint.server);
        for ((samples, config), state) in clients.into_iter().zip(checkpoint.clients) {
            let Some(state) = state else { continue };
            let _ = private::Client::resume(KEY.clone(), samples, config, description.clone(), state);
        }
    });
}

/// What is done with a data set that was read: its summary, and the examples of it.
fn learn<E>(set: Result<DataSet, E>) {
    if let Ok(set) = set {
        let _ = set.summary(0.1);
        let _ = set.training(0.1, 1);
    }
}

/// Has a file with these bytes read, for those who read no bytes.
fn in_file(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("gelu-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("temporary files can be written");
        folder
    });
    let path = FOLDER.join(name);
    fs::write(&path, bytes).expect("temporary files can be written");
    read(&path);
}
