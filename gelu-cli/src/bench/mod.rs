//! `gelu bench`

mod compare;
mod hidden;
mod measure;
mod peers;
mod report;
mod training;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gelu_io::files::write_atomic;
use gelu_io::session::Role;
use gelu_models::plan::Preference;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};
use serde::{Deserialize, Serialize};

use self::measure::{LayerFigures, Operation, SessionFigures};
use crate::given::Given;
use crate::hide::HideArgs;
use crate::infer::MOST_IN_A_BATCH;
use crate::model::ModelArgs;
use crate::model_args::{Numbers, Prefer, key_bits, key_type};
use crate::output::{check_files, out, outln};
use crate::report::{Bar, TextTable, bar_chart_svg};

/// Time every layer of a network and every operation on ciphertexts, beside the machine's own limit.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  LeNet-5, one image, a new key of 2048 bits:
    gelu bench

  A full batch under a subgroup key, kept for later, with a chart:
    gelu bench --batch 75 --key-type subgroup --json > before.json
    gelu bench --batch 75 --key-type subgroup --compare before.json --svg layers.svg

  The same network hidden from the client, ahead and online apart:
    gelu bench --hide-model --key-type subgroup

  Private training, and what share of it is whose:
    gelu bench train

  All figures of this machine, as a section of a file:
    gelu bench report --out BENCHMARKS.md

  The same operations in python-paillier, SecretFlow HEU and TenSEAL, on one core:
    gelu bench peers

Times are medians. Images are made up, and so are weights that no file has: no time depends on them, but on the bits of \
weights. The limit is what independent multiply-add instructions would take (see `gelu infer --help`), timed before and \
after the work; a comparison is scaled by it, so that two runs on a machine whose speed drifts, or on two machines, can be compared."
)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    other: Option<Other>,
    /// Bits of the client's key, which is made anew.
    #[arg(long, value_parser = key_bits(), default_value = "2048")]
    key_bits: KeyBits,
    /// How the key is made.
    #[arg(long, value_parser = key_type(), default_value = "djn")]
    key_type: KeyType,
    /// Images that go through together.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MOST_IN_A_BATCH))]
    batch: u32,
    #[command(flatten)]
    prefer: Prefer,
    #[command(flatten)]
    hide: HideArgs,
    /// How many times everything is timed.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Threads beside which one thread is timed [default: as many as there are cores].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Compare with what `gelu bench --json` printed before.
    #[arg(long, value_name = "FILE.json")]
    compare: Option<PathBuf>,
    /// Write a chart of the layers' times.
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Time the machine's limit before and after the work. Always done here; the option is accepted because other
    /// commands have it.
    #[arg(long)]
    calibrate: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    numbers: Numbers,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Time python-paillier, SecretFlow HEU and TenSEAL beside this program, on one core.
    Peers(peers::PeersArgs),
    /// Time private training, and where its time goes.
    Train(training::TrainingArgs),
    /// Measure everything that BENCHMARKS.md tells of a machine, and write it as a section of Markdown.
    Report(report::ReportArgs),
}

/// What is printed as JSON, and read again for a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    model: String,
    key_bits: usize,
    key_type: KeyType,
    backend: String,
    batch: usize,
    prefer: Preference,
    runs: usize,
    threads: usize,
    /// Nanoseconds of one product mod n^2 with a key of 2048 bits at the machine's limit, on one core.
    limit_ns: f64,
    limit_ns_before: f64,
    limit_ns_after: f64,
    /// The same for the key at hand.
    limit_ns_of_key: f64,
    layers: Vec<LayerFigures>,
    operations: Vec<Operation>,
    session: SessionFigures,
    /// The most memory that this process had at a time, in bytes, where the system tells.
    peak_memory: Option<u64>,
}

pub(crate) fn run(args: &BenchArgs, given: &Given) -> anyhow::Result<()> {
    match &args.other {
        Some(Other::Peers(args)) => return peers::run(args),
        Some(Other::Train(args)) => return training::run(args),
        Some(Other::Report(args)) => return report::run(args),
        None => {}
    }
    args.hide.check(given)?;
    let parameters = KeyParameters { size: args.key_bits, key_type: args.key_type };
    if args.hide.is_asked() {
        given.refuse(&["batch"], "with --hide-model, --prepare says how many queries share ciphertexts")?;
        given.refuse(&["compare", "svg", "threads"], "--hide-model times whole sessions")?;
        return hidden::run(args, parameters);
    }
    check_files(args.svg.as_deref())?;
    // Read first: a mistyped name should not cost a measurement.
    let earlier = args.compare.as_deref().map(compare::read).transpose()?;
    let report = measure::measure(args, parameters)?;
    if let Some(path) = &args.svg {
        write_atomic(path, chart(&report)?.as_bytes())?;
    }
    if args.json {
        outln!("{}", serde_json::to_string(&report)?)?;
        return Ok(());
    }
    out!("{}", text(&report))?;
    if let Some(earlier) = &earlier {
        out!("\n{}", compare::text(earlier, &report))?;
    }
    Ok(())
}

fn chart(report: &Report) -> anyhow::Result<String> {
    let server = report.layers.iter().map(|layer| Bar {
        label: format!("server: {}", layer.name),
        value: 1e3 * layer.seconds_all_threads,
        role: Role::Server,
    });
    let client = Bar {
        label: "client: all steps".to_owned(),
        value: 1e3 * report.session.seconds_client_all_threads,
        role: Role::Client,
    };
    let title = format!(
        "{}, batch of {}, {} key of {} bits: time per layer",
        report.model,
        report.batch,
        report.key_type.name(),
        report.key_bits
    );
    let bars: Vec<Bar> = server.chain([client]).collect();
    bar_chart_svg(&title, "ms", &bars)
}

/// A time in the unit that suits it.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", 1e9 * s),
        s if s < 1e-3 => format!("{:.1} us", 1e6 * s),
        s if s < 1.0 => format!("{:.2} ms", 1e3 * s),
        s => format!("{s:.2} s"),
    }
}

fn text(report: &Report) -> String {
    let Report { model, key_bits, batch, threads, backend, .. } = report;
    let mut text = format!(
        "{model}, batch of {batch}, {} key of {key_bits} bits, {backend} arithmetic, preferring {}, medians of {} runs\n\n",
        report.key_type.name(),
        report.prefer,
        report.runs
    );
    let all = format!("{threads} threads");
    let mut layers = TextTable::new([
        "server's layer",
        "product by",
        "ct up",
        "ct down",
        "kB up",
        "kB down",
        "products",
        "1 thread",
        "a product",
        "of the limit",
        &all,
        "faster",
    ]);
    for layer in &report.layers {
        layers.row([
            layer.name.clone(),
            layer.product_by.clone().unwrap_or_default(),
            layer.ciphertexts_up.to_string(),
            layer.ciphertexts_down.to_string(),
            format!("{:.1}", layer.bytes_up as f64 / 1e3),
            format!("{:.1}", layer.bytes_down as f64 / 1e3),
            layer.products.to_string(),
            time(layer.seconds_one_thread),
            time(layer.seconds_one_thread / layer.products.max(1) as f64),
            format!("{:.0} %", 100.0 * layer.share_of_limit),
            time(layer.seconds_all_threads),
            format!("{:.2} x", layer.seconds_one_thread / layer.seconds_all_threads),
        ]);
    }
    text += &layers.to_string();
    let sum = |pick: fn(&LayerFigures) -> f64| report.layers.iter().map(pick).sum::<f64>();
    let [one, many] = [sum(|layer| layer.seconds_one_thread), sum(|layer| layer.seconds_all_threads)];
    text += &format!(
        "the server's part: {} with 1 thread, {} with {threads}: {:.2} times as fast\n\n",
        time(one),
        time(many),
        one / many
    );
    let mut operations = TextTable::new(["operation", "1 thread", &all]);
    for operation in &report.operations {
        operations.row([
            operation.name.clone(),
            time(operation.seconds_one_thread),
            time(operation.seconds_all_threads),
        ]);
    }
    text += &operations.to_string();
    let session = &report.session;
    text += &format!(
        "\nboth sides      {} a batch ({} an image), {} the first with its session\n\
         client          {} a batch with 1 thread, {} with {threads}\n",
        time(session.seconds_per_batch),
        time(session.seconds_per_batch / *batch as f64),
        time(session.seconds_first),
        time(session.seconds_client_one_thread),
        time(session.seconds_client_all_threads)
    );
    if let Some(bytes) = report.peak_memory {
        text += &format!("memory          {:.0} MB at most, both sides together\n", bytes as f64 / 1e6);
    }
    text += &format!(
        "limit           limit_ns {:.0} ({:.0} before, {:.0} after); {:.0} ns a product for this key\n",
        report.limit_ns, report.limit_ns_before, report.limit_ns_after, report.limit_ns_of_key
    );
    text
}
