#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod data;
pub mod digits;
mod error;
pub mod files;
pub mod machine;
pub mod onnx;
pub mod pool;
pub mod session;
pub mod transport;
pub mod weights;

pub use error::Error;
