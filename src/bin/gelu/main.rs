//! The `gelu` command: convolutional networks on encrypted data.

mod data;
mod datasets;
mod train;
mod weights;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Convolutional networks on encrypted data: the server computes on ciphertexts, the client keeps data and key.
#[derive(Debug, Parser)]
#[command(name = "gelu", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show where data sets are looked for and what is there.
    Data(data::DataArgs),
    /// Train a model.
    Train(train::Args),
    /// Look into weight files, check them against a model, convert them.
    #[command(subcommand)]
    Weights(weights::Command),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Data(args) => data::run(args),
        Command::Train(args) => train::run(&args),
        Command::Weights(command) => weights::run(&command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
