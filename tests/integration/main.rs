//! Tests of the whole library, in one program: linking takes longer than most of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod accuracy;
mod backend;
mod chest_xrays;
mod common;
mod encrypted_equals_clear;
mod errors;
mod fuzz_seeds;
mod hidden;
mod onnx;
mod operations;
mod protocol;
mod sessions;
mod shards;
mod transport;
mod two_machines;
