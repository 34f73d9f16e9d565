//! The `gelu` command: convolutional networks on encrypted data.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod advice;
mod attack;
mod bench;
mod calibrate;
mod certs;
mod client;
mod config;
mod data;
mod datasets;
mod demo;
mod download;
mod given;
mod hide;
mod images;
mod import;
mod infer;
mod keygen;
mod lock;
mod model;
mod model_args;
mod output;
mod paper;
mod plan;
mod report;
mod serve;
mod serving;
mod state;
mod threads;
mod tls_args;
mod train;
mod tune;
mod weights;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::given::{Given, WrongUsage};
use crate::output::{OutputError, note};

/// Convolutional networks on encrypted data: the server computes on ciphertexts, the client keeps data and key.
#[derive(Debug, Parser)]
#[command(name = "gelu", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it work: sample digits, classified by LeNet-5 on ciphertexts. Needs nothing.
    Demo(demo::DemoArgs),
    /// Classify images on ciphertexts.
    Infer(infer::InferArgs),
    /// Turn an ONNX model, as PyTorch exports it, into one that runs on ciphertexts.
    Import(Box<import::ImportArgs>),
    /// Show how a model is run on ciphertexts.
    Plan(plan::PlanArgs),
    /// Time layers and operations, beside the machine's limit and other libraries.
    Bench(Box<bench::BenchArgs>),
    /// Make a key pair.
    Keygen(keygen::KeygenArgs),
    /// Show where data sets are looked for; download MNIST.
    Data(data::DataArgs),
    /// Train a model.
    Train(train::Args),
    /// Offer models to clients on other machines, to use or to train.
    Serve(Box<serve::ServeArgs>),
    /// Compute for a server that has clients of its own.
    Worker(worker::WorkerArgs),
    /// Use or train the models of a server on another machine.
    #[command(subcommand)]
    Client(client::Command),
    /// Look after what a server keeps: what each client has asked for, and runs of training.
    #[command(subcommand)]
    State(state::Command),
    /// Make certificates for a trial of `serve` and `client`.
    Certs(certs::CertsArgs),
    /// Try out what private training leaks, and what the paper's masks and a hidden model prevent.
    #[command(subcommand)]
    Attack(attack::Command),
    /// Look into weight files, check them against a model, convert them.
    #[command(subcommand)]
    Weights(weights::Command),
    Paper(paper::PaperArgs),
}

/// The command, with values of options that may begin with a minus: what is wrong with them is said by whoever knows the
/// option, and not by the parser, which would take them for options. Those that run for long have settings.
fn command() -> clap::Command {
    fn with_negative_numbers(command: clap::Command) -> clap::Command {
        command
            .mut_args(|argument| match argument.get_action().takes_values() {
                true => argument.allow_negative_numbers(true),
                false => argument,
            })
            .mut_subcommands(with_negative_numbers)
    }
    with_negative_numbers(Cli::command())
        .mut_subcommand("serve", |serve| config::with_variables(serve, "GELU_SERVE"))
        .mut_subcommand("worker", |worker| config::with_variables(worker, "GELU_WORKER"))
        .mut_subcommand("client", |client| {
            client.mut_subcommands(|command| {
                let prefix = format!("GELU_CLIENT_{}", command.get_name());
                config::with_variables(command, &prefix)
            })
        })
}

/// The command and the options that were given; `None` where nothing is left to do but what was printed.
fn parse() -> anyhow::Result<Option<(Cli, Given)>> {
    let command = command();
    let line = config::with_file(&command, std::env::args_os().collect())?;
    let matches = command.clone().try_get_matches_from(line)?;
    if config::print(&command, &matches)? {
        return Ok(None);
    }
    Ok(Some((Cli::from_arg_matches(&matches)?, Given::of(&matches))))
}

fn main() -> ExitCode {
    match parse().and_then(|parsed| match parsed {
        Some((cli, given)) => run(cli.command, &given),
        None => Ok(ExitCode::SUCCESS),
    }) {
        Ok(code) => match output::flush() {
            Ok(()) => code,
            Err(error) => failed(&error.into()),
        },
        Err(error) => failed(&error),
    }
}

fn run(command: Command, given: &Given) -> anyhow::Result<ExitCode> {
    model_args::backend()?;
    threads::start()?;
    match command {
        Command::Demo(args) => demo::run(&args, given)?,
        Command::Infer(args) => infer::run(&args, given)?,
        Command::Import(args) => import::run(&args)?,
        Command::Plan(args) => plan::run(&args, given)?,
        Command::Bench(args) => bench::run(&args, given)?,
        Command::Keygen(args) => keygen::run(&args)?,
        Command::Data(args) => data::run(args)?,
        Command::Train(args) => train::run(&args, given)?,
        Command::Serve(args) => serve::run(&args, given)?,
        Command::Worker(args) => worker::run(&args)?,
        Command::Client(command) => client::run(&command, given)?,
        Command::State(command) => state::run(&command)?,
        Command::Certs(args) => certs::run(&args)?,
        Command::Attack(command) => attack::run(&command)?,
        Command::Weights(command) => weights::run(&command)?,
        Command::Paper(args) => return paper::run(&args),
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what went wrong and what to do, and returns the exit code for it.
fn failed(error: &anyhow::Error) -> ExitCode {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        // Help is one of these, and may be piped into a program that does not read it to its end.
        let is_shown = error.print().is_ok() && output::flush().is_ok();
        return if is_shown { ExitCode::from(error.exit_code() as u8) } else { ExitCode::FAILURE };
    }
    if error.downcast_ref().is_some_and(OutputError::is_closed) {
        return ExitCode::FAILURE;
    }
    if error.is::<train::Interrupted>() {
        note!("{error}");
        return ExitCode::from(train::INTERRUPTED);
    }
    note!("error: {error:#}");
    if let Some(advice) = advice::advice(error) {
        note!("help: {advice}");
    }
    if error.is::<WrongUsage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal of 100 columns shows without breaking lines in the wrong place: examples are to be copied.
    #[test]
    fn examples_fit_the_width_and_defaults_are_said_once() {
        fn check(command: &clap::Command) {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in examples.lines().filter(|line| line.starts_with(' ')) {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let is_said =
                    !argument.get_default_values().is_empty() && argument.get_action().takes_values();
                assert!(!(is_said && help.contains("[default:")), "{}: {help}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }
}
