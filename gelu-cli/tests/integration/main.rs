//! Tests of the command, in one program: linking takes longer than most of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod attacks;
mod bench;
mod checkpoints;
mod cli;
mod common;
mod hidden;
mod import;
mod options;
mod outputs;
mod own_data;
mod paper;
mod pictures;
mod private_training;
mod served_training;
mod service;
mod train_and_weights;
mod workers;
