//! `gelu bench report`: a machine's figures, all from one command.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use clap::Args;
use gelu_io::files::{read_limited, write_atomic};
use gelu_io::machine::processor;
use gelu_tensor::Backend;
use indicatif::ProgressBar;
use serde_json::Value;

use super::{Report, time};
use crate::infer::MOST_IN_A_BATCH;
use crate::output::{check_files, note, out};

/// Measure everything that BENCHMARKS.md tells of a machine, and write it as a section of Markdown.
///
/// Every measurement is a run of this program by itself: `gelu bench` and `gelu bench train`, on every kind of
/// arithmetic that the machine has. It takes some minutes; on a machine that does other work at the same time, figures
/// say little.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gelu bench report
  gelu bench report --out BENCHMARKS.md")]
pub(crate) struct ReportArgs {
    /// The file, whose section on the same machine is replaced; other sections and texts stay [default: standard output].
    #[arg(long, value_name = "FILE.md")]
    out: Option<PathBuf>,
    /// What the machine is called [default: the name of its processor].
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// How many times everything is timed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Leave out all but the fastest arithmetic and the smaller networks, and time everything three times at most.
    #[arg(long)]
    quick: bool,
}

/// One run of `gelu bench`.
struct Case {
    backend: Backend,
    model: &'static str,
    key_type: &'static str,
    key_bits: u32,
    /// As many images as fill the slots of a ciphertext, or one.
    is_full: bool,
}

/// The longest file that a section is written into.
const MAX_FILE: u64 = 16 << 20;

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<()> {
    check_files(args.out.as_deref())?;
    let machine = args.machine.clone().unwrap_or_else(processor);
    ensure!(!machine.contains(['\n', '<', '>']), "--machine: expected a name in one line, found {machine:?}");
    let fastest = Backend::detect();
    let others = Backend::ALL.into_iter().filter(|backend| backend.is_available() && *backend != fastest);
    let backends: Vec<Backend> = [fastest].into_iter().chain(others).collect();
    let cases = cases(args, &backends, fastest);
    let bar = match std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        true => ProgressBar::new(cases.len() as u64 + 2),
        false => ProgressBar::hidden(),
    };
    let runs = if args.quick { args.runs.min(3) } else { args.runs };
    let mut reports = vec![];
    for case in &cases {
        let Case { backend, model, key_type, key_bits, is_full } = case;
        bar.set_message(format!("{model} on {}", backend.name()));
        let options = ["--model", model, "--key-type", key_type, "--key-bits", &key_bits.to_string()];
        let batch = if *is_full { full_batch(*backend, &options)? } else { 1 };
        let timed = ["--batch", &batch.to_string(), "--runs", &runs.to_string(), "--json"];
        let object = this_program(*backend, &[&["bench"], &options[..], &timed[..]].concat())?;
        reports.push(serde_json::from_value::<Report>(object).context("what `gelu bench --json` printed")?);
        bar.inc(1);
    }
    let mut training = vec![];
    for key_type in ["subgroup", "djn"].into_iter().take(if args.quick { 1 } else { 2 }) {
        bar.set_message("private training");
        training.push(this_program(fastest, &["bench", "train", "--key-type", key_type, "--json"])?);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let section = section(&machine, runs, &reports, &training)?;
    match &args.out {
        None => out!("{section}")?,
        Some(path) => {
            let before = match path.exists() {
                true => String::from_utf8(read_limited(path, MAX_FILE)?)
                    .with_context(|| format!("{}: expected text in UTF-8", path.display()))?,
                false => String::new(),
            };
            write_atomic(path, replaced(&before, &machine, &section).as_bytes())?;
            note!("wrote {}", path.display());
        }
    }
    Ok(())
}

fn cases(args: &ReportArgs, backends: &[Backend], fastest: Backend) -> Vec<Case> {
    let mut cases = vec![];
    let case =
        |backend, model, key_type, key_bits, is_full| Case { backend, model, key_type, key_bits, is_full };
    for &backend in backends.iter().take(if args.quick { 1 } else { backends.len() }) {
        for model in ["lenet5", "conv1"] {
            cases.extend([false, true].map(|is_full| case(backend, model, "subgroup", 2048, is_full)));
        }
        if backend == fastest && !args.quick {
            for model in ["lenet5", "conv1"] {
                cases.extend([false, true].map(|is_full| case(backend, model, "djn", 2048, is_full)));
            }
            cases.push(case(backend, "lenet5", "subgroup", 3072, false));
            cases.push(case(backend, "resnet20", "subgroup", 2048, false));
        }
    }
    cases
}

/// As many images as fill the slots of a ciphertext.
fn full_batch(backend: Backend, options: &[&str]) -> anyhow::Result<u64> {
    let plan = this_program(backend, &[&["plan"], options, &["--json"]].concat())?;
    let Some(full) = plan["full_batch"].as_u64() else {
        bail!("expected the full batch of a plan, found {plan}");
    };
    Ok(full.min(MOST_IN_A_BATCH as u64))
}

/// Runs this program on an arithmetic, and returns the JSON object that it prints.
fn this_program(backend: Backend, arguments: &[&str]) -> anyhow::Result<Value> {
    let program = std::env::current_exe().context("the path of this program")?;
    let output = Command::new(program)
        .args(arguments)
        .env("GELU_BACKEND", backend.name())
        .stdin(Stdio::null())
        .output()
        .context("cannot run this program")?;
    ensure!(
        output.status.success(),
        "gelu {} ({}): {}",
        arguments.join(" "),
        backend.name(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("what `gelu {}` printed", arguments.join(" ")))
}

fn section(machine: &str, runs: u32, reports: &[Report], training: &[Value]) -> anyhow::Result<String> {
    let first = reports.first().context("no measurement")?;
    let mut text = format!(
        "{}\n### {machine}\n\n{} threads; `gelu bench report`, version {}, medians of {runs}.\n\n",
        begin(machine),
        first.threads,
        env!("CARGO_PKG_VERSION")
    );
    text += "| arithmetic | key | limit_ns | product | squaring | owner's encryption | public encryption | decryption |\n";
    text += "|---|---|---|---|---|---|---|---|\n";
    let mut seen = vec![];
    for report in reports {
        let of = (report.backend.clone(), report.key_type, report.key_bits);
        if seen.contains(&of) {
            continue;
        }
        seen.push(of);
        let names = [
            "product mod n^2",
            "squaring mod n^2",
            "encryption by the key's owner",
            "encryption with the public key",
            "decryption",
        ];
        let operations = names.map(|name| {
            let found = report.operations.iter().find(|operation| operation.name == name);
            found.map_or_else(String::new, |operation| time(operation.seconds_one_thread))
        });
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {}, {} | {:.0} | {} |",
            report.backend,
            report.key_type.name(),
            report.key_bits,
            report.limit_ns,
            operations.join(" | ")
        );
    }
    text += "\nOne thread. The limit is that of a product with a key of 2048 bits.\n\n";
    text += "| arithmetic | network | key | batch | an image | the first, with its session | products | server, 1 thread | \
             threads gain | share of the limit | kB up | kB down | limit_ns |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for report in reports {
        let sum = |pick: fn(&super::LayerFigures) -> f64| report.layers.iter().map(pick).sum::<f64>();
        let [one, all] = [sum(|layer| layer.seconds_one_thread), sum(|layer| layer.seconds_all_threads)];
        let at_limit = sum(|layer| layer.share_of_limit * layer.seconds_one_thread);
        let _ = writeln!(
            text,
            "| {} | {} | {}, {} | {} | {} | {} | {} | {} | {:.2} x | {:.0} % | {:.1} | {:.1} | {:.0} |",
            report.backend,
            report.model,
            report.key_type.name(),
            report.key_bits,
            report.batch,
            time(report.session.seconds_per_batch / report.batch as f64),
            time(report.session.seconds_first),
            report.layers.iter().map(|layer| layer.products).sum::<u64>(),
            time(one),
            one / all,
            100.0 * at_limit / one,
            sum(|layer| layer.bytes_up as f64) / 1e3,
            sum(|layer| layer.bytes_down as f64) / 1e3,
            report.limit_ns
        );
    }
    text += "\nBoth sides on all threads, with two batches in flight where there are several.\n\n";
    text += "| private training | key | batch | images/s | limit_ns |\n|---|---|---|---|---|\n";
    for object in training {
        let _ = writeln!(
            text,
            "| {} | {}, {} | {} | {:.1} | {:.0} |",
            object["model"].as_str().unwrap_or_default(),
            object["key_type"].as_str().unwrap_or_default(),
            object["key_bits"],
            object["batch"],
            object["images_per_second"].as_f64().unwrap_or_default(),
            object["limit_ns"].as_f64().unwrap_or_default()
        );
    }
    text += END;
    Ok(text)
}

/// The lines around a section.
fn begin(machine: &str) -> String {
    format!("<!-- gelu bench report: {machine} -->")
}

const END: &str = "<!-- end of gelu bench report -->\n";

/// A text with the section on a machine in place of the one that it has, or at its end.
fn replaced(text: &str, machine: &str, section: &str) -> String {
    let parts = text.split_once(&format!("{}\n", begin(machine)));
    match parts.and_then(|(before, rest)| Some((before, rest.split_once(END)?.1))) {
        Some((before, after)) => format!("{before}{section}{after}"),
        None if text.is_empty() => section.to_owned(),
        None => format!("{}\n\n{section}", text.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_section_and_other_texts_stay() {
        let section = |machine: &str, figure: u32| format!("{}\n{figure}\n{END}", begin(machine));
        let one = replaced("", "Zen 4", &section("Zen 4", 1));
        assert_eq!(one, section("Zen 4", 1));
        let two = replaced(&format!("# Figures\n\n{one}Text.\n"), "Zen 3", &section("Zen 3", 2));
        assert!(
            two.starts_with("# Figures\n\n") && two.contains("Text.\n\n<!-- gelu bench report: Zen 3 -->")
        );
        let three = replaced(&two, "Zen 4", &section("Zen 4", 3));
        assert_eq!(three, two.replace("\n1\n", "\n3\n"));
    }
}
