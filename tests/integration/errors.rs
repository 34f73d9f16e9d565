//! Every error of the library, printed once: what people read when something is wrong. The list beside it
//! (`errors.txt`) is for reviewers; `UPDATE_ERRORS=1 cargo test --test integration errors` writes it anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use gelu_garble::Error as GarbleError;
use gelu_net::Error;
use gelu_net::io::onnx::{ImportError, Unsupported};
use gelu_net::io::session::RunError;
use gelu_net::io::transport::Disconnected;
use gelu_net::layers::UnknownName;
use gelu_net::models::infer::{Denied, SessionError};
use gelu_net::models::peer::{AbortReason, Expected, Misuse, Part};
use gelu_net::models::plan::{PlanError, Preference};
use gelu_net::models::train::private::{PrivateError, ResumeFault};
use gelu_net::models::train::{DatasetError, StateError, TrainError};
use gelu_net::models::zoo::{Network, ZooError};
use gelu_net::models::{AdaptError, FoldError, GraphError, LoadError, LoadProblem, Normalization};
use gelu_net::tensor::paillier::KeyBits;
use gelu_net::tensor::{Error as TensorError, Shape};
use gelu_net::wire::{Kind, WireError};
use gelu_service::{Fingerprint, Refusal, ServiceError};

fn text(word: &str) -> String {
    word.to_owned()
}

fn shape() -> Shape {
    Shape::from([1, 28, 28])
}

fn tensor() -> Vec<TensorError> {
    use TensorError as E;
    vec![
        E::Shape { what: "inputs of a model", expected: shape(), found: [28, 28, 1].into() },
        E::Window { window: text("3x3"), input: shape(), why: "the kernel is larger than the padded input" },
        E::Count { what: "labels", expected: 10, found: 9 },
        E::Limit { what: "ciphertexts of a tensor", limit: 5, found: 6 },
        E::TooFew { what: "images", least: 1, found: 0 },
        E::Range { what: "bits of a weight", least: 2, most: 24, found: 25 },
        E::Multiple { what: "channels that divide into groups", of: 4, found: 6 },
        E::Order { expected: 1, found: 3 },
        E::Activation,
        E::ClientFunction,
        E::MissingFunction { name: text("waves") },
        E::ScaleRange { limit: 256, found: 300 },
        E::Modulus { bits: 2047, odd: true },
        E::Backend { wanted: text("avx9") },
        E::ForeignResidues,
        E::Key { rule: "p and q must be prime", found: text("a composite p") },
        E::PrimePair { rule: "p and q must differ" },
        E::Ciphertext { index: 3, rule: "must be below n^2" },
        E::Overflow { needed_bits: 70, available_bits: 62 },
        E::Scale { expected: 8, found: 9 },
        E::Weight { index: 3, found: 200, bits: 8, signed: true },
        E::RowSum { limit: 224, found: 229 },
        E::NotFinite { what: "elements of input images", found: 1, of: 784 },
        E::Value { index: 3, bound: 255 },
        E::Layout { operation: "flooding", expected: "residues", found: text("integers") },
        E::ForeignKey { expected: text("0a1b"), found: text("2c3d") },
        E::Randomness,
        E::Plaintext { index: 3 },
    ]
}

fn cause() -> TensorError {
    TensorError::Overflow { needed_bits: 70, available_bits: 62 }
}

fn graph() -> Vec<GraphError> {
    use GraphError as E;
    vec![
        E::Input { found: [3, 0].into() },
        E::Empty,
        E::NoName { position: 2 },
        E::DuplicateName { name: text("fc1") },
        E::Node { name: text("fc1"), inputs: vec![shape()], source: cause() },
        E::Cycle { name: text("a"), found: text("b") },
        E::NoValue { name: text("a"), expected: 3, found: 7 },
        E::Unused { name: text("a") },
        E::AfterSoftmax { name: text("relu1") },
        E::TooLarge { name: text("fc1"), what: "indices", limit: 100, found: 200 },
    ]
}

fn plan() -> Vec<PlanError> {
    use PlanError as E;
    vec![
        E::Empty,
        E::Option { what: "batch", expected: "at most 1024 images", found: text("1025") },
        E::NoRange { node: text("relu1") },
        E::UnknownLayer { name: text("fc9") },
        E::Numbers { name: text("fc1"), source: cause() },
        E::Hidden { node: text("gelu3") },
        E::Batch { expected: 1, found: 2 },
        E::Preference { expected: Preference::Bytes, found: Preference::Time },
        E::Description { what: "numbers of segments", expected: 2, found: 1 },
    ]
}

fn session() -> Vec<SessionError> {
    use SessionError as E;
    let part = Part::Sums { segment: 1 };
    vec![
        E::Unexpected { expected: Expected::Tensor { round: 0, part }, found: text("Finish") },
        E::Misuse(Misuse::BatchesInFlight),
        E::Version { expected: 3, found: 9 },
        E::Images(TensorError::NotFinite { what: "elements of input images", found: 1, of: 784 }),
        E::Plan(PlanError::Empty),
        E::Refused(PlanError::Empty),
        E::Denied(Denied::Spent { used: 96, allowed: 100 }),
        E::Numbers { segment: 2, source: cause() },
        E::Garbling {
            segment: 1,
            source: gelu_garble::Error::Length { what: "bytes of tables", expected: 1000, found: 999 },
        },
        E::Prepared { expected: 256, found: 400 },
        E::Memory { needed: 292_000_000, allowed: 100_000_000 },
        E::NotRevealed,
        E::Aborted(AbortReason::BadTensor),
        E::Closed,
    ]
}

fn private() -> Vec<PrivateError> {
    use PrivateError as E;
    vec![
        E::Setting { what: "momentum", expected: text("from 0 to below 1"), found: text("2") },
        E::NoSoftmax { found: [10].into() },
        E::Untrainable { name: text("bn1"), op: text("batch-norm2d") },
        E::NoWeights,
        E::TooLarge { what: "values of a batch", expected: 100, found: 200 },
        E::Model { rule: "the plan must have the tensor", found: text("sums of segment 9") },
        E::Layer { layer: text("fc1"), source: cause() },
        E::LargeSums { layer: text("fc1"), needed_bits: 41, available_bits: 40 },
        E::Leakage { layer: text("conv1"), iterations: 2, equations: 100, unknowns: 26 },
        E::Numbers(cause()),
        E::Unexpected { expected: Expected::Ended, found: text("Turn") },
        E::Misuse(Misuse::NotReady),
        E::Aborted(AbortReason::UnexpectedMessage),
        E::KeySize { expected: KeyBits::Bits2048, found: KeyBits::Bits1024 },
        E::Grant("expected the plan of the turns before"),
        E::Version { expected: 2, found: 9 },
        E::Diverged { iteration: 7 },
        E::Gradient { index: 3, bound: 100 },
        E::Parameters { expected: 100, largest: 8_388_607, found: 99 },
        E::Resume(ResumeFault::Steps),
        E::Bug("an exchange has tensors"),
        E::Complete,
    ]
}

fn misuse() -> Vec<Misuse> {
    use Misuse as E;
    vec![E::NotAccepted, E::BatchesInFlight, E::WithinBatch, E::TurnInProgress, E::NotReady]
}

fn load() -> LoadError {
    let problems = vec![
        LoadProblem::Missing { name: text("fc1.bias"), expected: [10].into() },
        LoadProblem::Unused { name: text("fc9.bias"), found: [10].into() },
        LoadProblem::Shape { name: text("fc1.weight"), expected: [10, 4].into(), found: [4, 10].into() },
        LoadProblem::NotFinite { name: text("fc2.weight"), found: 1, elements: 40 },
        LoadProblem::Metadata {
            key: "gelu.classes",
            expected: "names of classes",
            found: text("12 class names for 10 outputs"),
        },
        LoadProblem::Graph,
    ];
    LoadError { problems }
}

fn others() -> Vec<Box<dyn std::error::Error>> {
    use gelu_net::io::Error as Io;
    let path = || "weights.safetensors".into();
    let none = || std::io::Error::from(std::io::ErrorKind::NotFound);
    vec![
        Box::new(Denied::Spent { used: 96, allowed: 100 }),
        Box::new(Denied::TooFast { allowed: 100, seconds: 1800 }),
        Box::new(Denied::Unknown { problem: text("database or disk is full") }),
        Box::new(FoldError::Channels { what: "mean", expected: 3, found: 2 }),
        Box::new(FoldError::Mean { channel: 0, found: f32::NAN }),
        Box::new(FoldError::Std { channel: 0, found: 0.0 }),
        Box::new(FoldError::Padding { name: text("conv1"), found: [[1, 1], [1, 1]] }),
        Box::new(FoldError::Twice { found: Normalization { mean: vec![0.1307], std: vec![0.3081] } }),
        Box::new(FoldError::NoWeights { found: text("relu") }),
        Box::new(StateError::NoState { found: text("none") }),
        Box::new(StateError::Progress { what: "epochs done", expected: text("at most 10"), found: 12 }),
        Box::new(StateError::Weights(load())),
        Box::new(StateError::Velocity(load())),
        Box::new(TrainError::Config { what: "learning rate", expected: "a positive number", found: -1.0 }),
        Box::new(TrainError::NoSoftmax { found: [10].into() }),
        Box::new(TrainError::Classes { expected: 10, found: 9 }),
        Box::new(TrainError::Empty),
        Box::new(TrainError::NoImages { found: [64].into() }),
        Box::new(TrainError::Diverged { epoch: 2, batch: 3, loss: f64::INFINITY }),
        Box::new(TrainError::WeightBits { layer: text("fc1"), found: 1 }),
        Box::new(TrainError::UnknownLayer { name: text("fc9") }),
        Box::new(TrainError::Plan(PlanError::Empty)),
        Box::new(TrainError::State(StateError::NoState { found: text("none") })),
        Box::new(Error::OtherModel),
        Box::new(Error::Thread(none())),
        Box::new(TrainError::Tensor(cause())),
        Box::new(DatasetError::Columns { expected: 4, found: 3 }),
        Box::new(DatasetError::Labels { expected: 4, found: 3 }),
        Box::new(DatasetError::Label { index: 3, classes: 10, found: 11 }),
        Box::new(DatasetError::NotFinite { index: 3 }),
        Box::new(WireError::Length { expected: 100, found: 99 }),
        Box::new(WireError::TooLarge { what: "payload", limit: 100, found: 101 }),
        Box::new(WireError::Magic { found: b"HTTP".to_vec() }),
        Box::new(WireError::Version { found: 9 }),
        Box::new(WireError::Kind { expected: text("a message"), found: text("number 99") }),
        Box::new(WireError::Header { kind: Kind::Hello, problem: text("unknown field `more`") }),
        Box::new(WireError::NoKey),
        Box::new(WireError::ForeignKey { expected: text("0a1b"), found: text("2c3d") }),
        Box::new(WireError::Content(cause())),
        Box::new(Io::Io { path: path(), action: "read", source: none() }),
        Box::new(Io::Exposed { path: "clinic.key".into(), mode: 0o644 }),
        Box::new(Io::Truncated { path: path(), expected: 100, found: 99 }),
        Box::new(Io::Trailing { path: path(), expected: 100 }),
        Box::new(Io::TooLarge { path: path(), what: "bytes", limit: 100, found: 101 }),
        Box::new(Io::Format { path: path(), expected: text("a safetensors header"), found: text("HTML") }),
        Box::new(Io::Kind {
            path: path(),
            expected: "a safetensors file",
            found: gelu_net::io::weights::FileKind::Pickle,
        }),
        Box::new(Io::Underflow { path: path(), tensor: text("fc1.bias"), largest: 1e-30 }),
        Box::new(ZooError::Unknown { found: text("lenet6") }),
        Box::new(ZooError::NoChoice { network: Network::Mlp(vec![12]), what: "pooling", found: text("max") }),
        Box::new(ZooError::Graph(GraphError::Empty)),
        Box::new(UnknownName { what: "pooling", expected: "`mean` or `max`", found: text("sum") }),
        Box::new(AdaptError::NoSuchName { from: text("features.0") }),
        Box::new(AdaptError::Taken { from: text("features.0"), to: text("conv1.bias") }),
        Box::new(Io::Dtype { path: path(), tensor: text("fc1.bias"), expected: "F32", found: text("I64") }),
        Box::new(Io::Value {
            path: path(),
            tensor: text("fc1.bias"),
            index: 3,
            expected: "a finite number",
            found: f64::NAN,
        }),
        Box::new(Io::LabelCount { path: path(), expected: 4, found: 3 }),
        Box::new(Io::Label { path: path(), index: 3, classes: 10, found: 11 }),
        Box::new(Io::Cell {
            path: path(),
            line: 3,
            column: 2,
            name: text("kind"),
            expected: text("one of `x`, `y`"),
            found: text("`z`"),
        }),
        Box::new(Io::MissingValue {
            path: path(),
            line: 3,
            column: 2,
            name: text("age"),
            found: text("?"),
            count: 7,
        }),
        Box::new(Io::Row { path: path(), line: 3, expected: 5, found: 4 }),
        Box::new(Io::Column {
            path: path(),
            wanted: text("`age`"),
            found: vec![text("1 `sex`"), text("2 `cp`")],
        }),
        Box::new(Io::Target {
            path: path(),
            line: 3,
            column: 2,
            name: text("price"),
            found: text("0.5"),
            distinct: 90,
            rows: 100,
        }),
        Box::new(Io::TooFew { path: path(), expected: "examples to test with", found: text("none") }),
        Box::new(Io::Unfit { path: path(), expected: text("inputs of 1x28x28"), found: text("3x28x28") }),
        Box::new(Io::DataNotFound { what: "MNIST", looked: vec!["a".into(), "b".into()] }),
        Box::new(RunError::<SessionError>::Peer(SessionError::Closed)),
        Box::new(RunError::<SessionError>::Wire(WireError::NoKey)),
        Box::new(RunError::<SessionError>::Disconnected(Disconnected)),
        Box::new(RunError::<SessionError>::Stalled),
        Box::new(ResumeFault::Steps),
        Box::new(ResumeFault::Turn),
        Box::new(ResumeFault::Clients),
        Box::new(ResumeFault::Counters),
    ]
}

fn onnx() -> Vec<ImportError> {
    use ImportError as E;
    let path = || "model.onnx".into();
    let unsupported = Unsupported {
        node: text("norm1"),
        operator: text("LRN"),
        reason: text("the operator is not known"),
        advice: "train with batch norm in its place",
    };
    vec![
        E::File(gelu_net::io::Error::Trailing { path: path(), expected: 100 }),
        E::Opset { path: path(), least: 9, most: 24, found: 7 },
        E::Interface { path: path(), expected: "one output", found: text("2 outputs: `a`, `b`"), open: None },
        E::Unsupported { path: path(), nodes: 9, unsupported: vec![unsupported] },
        E::Graph { path: path(), source: Box::new(GraphError::Empty) },
        E::Weights { path: path(), source: load() },
    ]
}

fn service() -> Vec<ServiceError> {
    use ServiceError as E;
    let (server, address) = (text("https://gelu.example.org:7443"), ([192, 0, 2, 1], 7443).into());
    let key = |pair: &str| pair.repeat(32).parse::<Fingerprint>().unwrap();
    vec![
        E::Address { found: text("localhost") },
        E::Unprotected { address },
        E::UnprotectedServer { host: text("gelu.example.org") },
        E::Credentials { what: "private key", problem: text("no items found") },
        E::Listen { address, problem: text("permission denied") },
        E::NoModel,
        E::Page { path: "site".into(), problem: text("expected index.html, found none") },
        E::Origin { found: text("pages") },
        E::Unreachable { server: server.clone(), problem: text("connection refused") },
        E::ForeignServer { server: server.clone(), expected: key("01"), found: key("23") },
        E::Refused {
            server: server.clone(),
            refusal: Refusal::UnknownModel,
            message: text("the models here are lenet5"),
        },
        E::Lost { server, waited: Duration::from_secs(120), problem: text("connection refused") },
        E::Silent { waited: Duration::from_secs(300) },
        E::Stream { expected: "messages one after the other", found: text("message 3 after 5") },
        E::Ended,
        E::Stopped,
        E::State { path: "state/ledger.sqlite".into(), problem: text("database or disk is full") },
        E::NoLedger,
        E::Training {
            model: text("lenet5"),
            error: Box::new(PrivateError::Setting {
                what: "clients",
                expected: text("1 to 1000"),
                found: text("0"),
            }),
        },
        E::StateUnkept,
        E::AnotherRun,
    ]
}

fn garble() -> Vec<GarbleError> {
    use GarbleError as E;
    vec![
        E::Length { what: "bytes of a garbling", expected: 1392, found: 1391 },
        E::Range { what: "circuits side by side", least: 1, most: 4096, found: 0 },
        E::Point { index: 127, found: "the identity" },
    ]
}

fn boxed<E: std::error::Error + 'static>(errors: Vec<E>) -> Vec<Box<dyn std::error::Error>> {
    errors.into_iter().map(|error| Box::new(error) as Box<dyn std::error::Error>).collect()
}

/// The files that declare errors, with how many attributes each has that are not of these lists.
const SOURCES: [&str; 20] = [
    include_str!("../../gelu-garble/src/error.rs"),
    include_str!("../../gelu-layers/src/unknown.rs"),
    include_str!("../../gelu-tensor/src/error.rs"),
    include_str!("../../gelu-models/src/adapt.rs"),
    include_str!("../../gelu-models/src/zoo/name.rs"),
    include_str!("../../gelu-models/src/graph/error.rs"),
    include_str!("../../gelu-models/src/plan/error.rs"),
    include_str!("../../gelu-models/src/infer/gate.rs"),
    include_str!("../../gelu-models/src/infer/mod.rs"),
    include_str!("../../gelu-models/src/peer/error.rs"),
    include_str!("../../gelu-models/src/train/private/error.rs"),
    include_str!("../../gelu-models/src/normalize.rs"),
    include_str!("../../gelu-models/src/train/state.rs"),
    include_str!("../../gelu-models/src/train/error.rs"),
    include_str!("../../gelu-models/src/train/dataset.rs"),
    include_str!("../../gelu-wire/src/error.rs"),
    include_str!("../../gelu-io/src/error.rs"),
    include_str!("../../gelu-io/src/session/mod.rs"),
    include_str!("../../gelu-io/src/onnx/error.rs"),
    include_str!("../../gelu-service/src/error.rs"),
];

#[test]
fn every_error_says_once_what_was_expected() {
    let all: Vec<Box<dyn std::error::Error>> = [
        boxed(garble()),
        boxed(tensor()),
        boxed(graph()),
        boxed(plan()),
        boxed(session()),
        boxed(private()),
        boxed(misuse()),
        boxed(onnx()),
        boxed(service()),
        others(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let declared: usize = SOURCES.iter().map(|source| source.matches("#[error(").count()).sum();
    // That of the whole library is mostly those of its parts.
    let own = include_str!("../../src/error.rs");
    let own = own.matches("#[error(").count() - own.matches("#[error(transparent)]").count();
    assert_eq!(all.len(), declared + own, "an error that is not in the list, or twice");

    let (mut list, mut seen) = (String::new(), BTreeSet::new());
    for error in &all {
        let shown = error.to_string();
        let mut line = shown.clone();
        let (mut said, mut next) = (shown.clone(), error.source());
        while let Some(cause) = next {
            let shown = cause.to_string();
            assert!(!said.contains(&shown), "`{shown}` is said twice: {said}");
            said = shown;
            write!(line, ": {said}").unwrap();
            next = cause.source();
        }
        // Options and commands are advice for those who use the command.
        assert!(!line.contains("--") && !line.contains("`gelu "), "{line}");
        assert!(!line.is_empty() && !line.ends_with('.'), "{line}");
        seen.insert(line.clone());
        writeln!(list, "{}", line.replace('\n', "\n    ")).unwrap();
    }
    assert!(seen.len() + 12 > all.len(), "hardly two errors read alike");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/errors.txt");
    if std::env::var_os("UPDATE_ERRORS").is_some() {
        std::fs::write(path, &list).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), list, "review {path}");
}

/// The one error of the library keeps the error of the part that failed, and says the same.
#[test]
fn the_error_of_the_library_is_that_of_its_part() {
    let same = |whole: Error, part: &dyn std::error::Error| {
        assert_eq!(whole.to_string(), part.to_string());
        assert_eq!(
            std::error::Error::source(&whole).map(ToString::to_string),
            part.source().map(ToString::to_string)
        );
    };
    same(cause().into(), &cause());
    same(GraphError::Empty.into(), &GraphError::Empty);
    same(load().into(), &load());
    same(PlanError::Numbers { name: text("fc1"), source: cause() }.into(), &plan()[4]);
    same(SessionError::Closed.into(), &SessionError::Closed);
    same(PrivateError::Complete.into(), &PrivateError::Complete);
    same(Disconnected.into(), &Disconnected);
    same(TrainError::Empty.into(), &TrainError::Empty);
    same(WireError::NoKey.into(), &WireError::NoKey);
    same(DatasetError::NotFinite { index: 3 }.into(), &DatasetError::NotFinite { index: 3 });
}
