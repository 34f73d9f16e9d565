//! Convolutional networks on encrypted data: a server that owns the model computes every linear layer on Paillier
//! ciphertexts, a client that owns the data and the key decrypts the weighted sums, applies the exact activation and
//! encrypts again (GELU-Net, IJCAI 2018).
//!
//! Define a model, run it in the clear and on ciphertexts, and get the same integers:
//!
//! ```
//! use gelu_net::prelude::*;
//! use rand::{SeedableRng, rngs::ChaCha20Rng};
//!
//! # fn main() -> gelu_net::Result<()> {
//! let mut model = ModelBuilder::new([1, 12, 12])
//!     .conv2d("conv1", Conv2dConfig::new(2, [5, 5]))
//!     .avg_pool2d("pool1", [2, 2])
//!     .relu()
//!     .flatten()
//!     .dense("fc1", 10)
//!     .softmax()
//!     .build()?;
//! let mut rng = ChaCha20Rng::seed_from_u64(7);
//! model.initialize(Initializer::KaimingUniform, &mut rng);
//!
//! let images = ndarray::Array4::from_elem((1, 1, 12, 12), 0.5);
//! model.calibrate(images.view())?; // on typical inputs: how large its values become
//! let key = SecretKey::generate(KeyBits::Bits1024, &mut rng)?; // 1,024 bits: for tests only
//! let server = ServerModel::new(model, Quantization::default());
//! let deployment = Deployment { key: KeyBits::Bits1024.into(), ..Deployment::default() };
//! let clear = server.program(&deployment)?.run_clear(images.view())?;
//! let report = LocalInference::new(server, key, 1).run(images.view(), &mut rng, |_| ())?;
//! assert_eq!(report.integers, clear.integers.values());
//! # Ok(())
//! # }
//! ```
//!
//! The crates, each of which knows only those before it: [`tensor`] (numbers and ciphertexts), [`layers`] (what one
//! node does), [`models`] (graphs, plans, peers), [`wire`] (messages as bytes), [`io`] (files, transports, sessions).

#![forbid(unsafe_code)]

mod error;
mod inference;
mod training;

pub use gelu_io as io;
pub use gelu_layers as layers;
pub use gelu_models as models;
pub use gelu_models::train::private::TrainingOptions;
pub use gelu_tensor as tensor;
pub use gelu_wire as wire;
pub use inference::{
    ClientTotals, InferenceClient, InferenceReport, LocalInference, PhaseTotals, ServerTotals,
};
pub use training::{LocalTraining, Moment, TrainingSetup};
pub use {ndarray, rand};

pub use crate::error::{Error, Result};

/// What most programs need. Everything else has a name that is clearer beside its module's.
pub mod prelude {
    pub use gelu_io::weights::WeightsFile as _;
    pub use gelu_layers::{Activation, Conv2dConfig, Initializer};
    pub use gelu_models::infer::ServerModel;
    pub use gelu_models::plan::{Deployment, Preference, Quantization};
    pub use gelu_models::{Model, ModelBuilder, Weights, zoo};
    pub use gelu_tensor::paillier::{KeyBits, KeyType, PublicKey, SecretKey};

    pub use crate::{Error, LocalInference, LocalTraining};
}

/// Compiles and runs the Rust code of README.md with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
