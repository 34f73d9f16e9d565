//! The extension module behind the Python package `gelu`: what only Rust can do, for `python/gelu/` to give names to.
//!
//! Arrays are numpy's. Work runs without the interpreter's lock on threads that belong to no core, and stops on Ctrl-C after the
//! present step (`run.rs`). Errors become the exceptions of `gelu/_exceptions.py` (`error.rs`). Secret keys stay in the process
//! that made them (`key.rs`).

#![forbid(unsafe_code)]

mod arrays;
mod client;
mod error;
mod import;
mod key;
mod link;
mod network;
mod outcome;
mod plan;
mod run;
mod server;
mod spec;
mod step;
mod trainer;

use pyo3::prelude::pymodule;

/// What Python imports as `gelu._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::client::{Client, Connection};
    #[pymodule_export]
    use super::import::{from_onnx, load};
    #[pymodule_export]
    use super::key::{_forget_keys, SecretKey};
    #[pymodule_export]
    use super::network::Network;
    #[pymodule_export]
    use super::outcome::Outcome;
    #[pymodule_export]
    use super::run::{get_num_threads, set_num_threads};
    #[pymodule_export]
    use super::server::{Server, Serving, Tls};
    #[pymodule_export]
    use super::spec::ClientSpec;
    #[pymodule_export]
    use super::trainer::{PrivateTrainer, TrainingStep};

    /// The version of the package.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
