#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod bfv;
mod cli;
pub mod cryptonets;
mod gelu;
pub mod link;
mod machine;
mod output;
mod parts;
mod picture;
mod report;
mod results;
pub mod rivals;

pub use cli::main;
