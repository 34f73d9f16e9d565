//! Bytes outside: weights, data sets, images, sample digits, reports.
//!
//! Everything here treats its input as hostile: sizes from headers are checked against the file before memory is
//! taken, and a bad file is a typed [`Error`] that names the file, what was expected and what was found.

#![forbid(unsafe_code)]

pub mod data;
pub mod digits;
mod error;
pub mod files;
pub mod images;
pub mod pool;
pub mod report;
pub mod session;
pub mod transport;
pub mod weights;
pub mod wire;

pub use error::Error;
