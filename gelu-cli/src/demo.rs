//! `gelu demo`

use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use gelu_io::digits::SampleDigits;
use gelu_io::files::{make_folder, write_atomic};
use gelu_io::session::{Role, Seen, StepRecord};
use gelu_models::infer::ServerModel;
use gelu_models::plan::{Quantization, Reveal};
use gelu_net::LocalInference;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};
use serde_json::json;

use crate::calibrate::CalibrateArgs;
use crate::given::Given;
use crate::hide::{self, HideArgs};
use crate::infer::{pixels, progress_bar};
use crate::model::built_in_lenet5;
use crate::model_args::{Prefer, key_bits, key_type, new_key, warn_of_short_key};
use crate::output::{check_folders, out, outln};
use crate::report::{Bar, Canvas, Ink, TextTable, Verdict, bar_chart_svg, write_contact_sheet};

/// See it work: sample digits, classified by LeNet-5 on ciphertexts. Needs nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gelu demo
  gelu demo --hide-model
  gelu demo --key-bits 3072 --per-digit 1 --seed 5 --out pictures")]
pub(crate) struct DemoArgs {
    /// Bits of the client's key, which is made anew.
    #[arg(long, value_parser = key_bits(), default_value = "2048")]
    key_bits: KeyBits,
    /// How the key is made.
    #[arg(long, value_parser = key_type(), default_value = "djn")]
    key_type: KeyType,
    #[command(flatten)]
    prefer: Prefer,
    #[command(flatten)]
    hide: HideArgs,
    /// How many samples of each digit are drawn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    per_digit: u32,
    /// Seed of the drawings.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for the pictures.
    #[arg(long, default_value = "gelu-out", value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    calibrate: CalibrateArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DemoArgs, given: &Given) -> anyhow::Result<()> {
    args.hide.check(given)?;
    check_folders([args.out.as_path()])?;
    let (size, key_type) = (args.key_bits, args.key_type);
    warn_of_short_key(size);
    let model = built_in_lenet5()?;
    let samples = SampleDigits { seed: args.seed, per_digit: args.per_digit as usize }.draw();
    let count = samples.len();

    let start = Instant::now();
    let key = new_key(KeyParameters { size, key_type })?;
    let seconds_key = start.elapsed().as_secs_f64();
    let backend = key.public_key().backend();
    if !args.json {
        outln!(
            "{count} digits that this program drew, classified by LeNet-5 on ciphertexts.\n\
             The client has the digits and a new Paillier key of {} bits; the server has the network.\n\
             Only bytes go between them.\n",
            size.bits()
        )?;
    }
    let local = LocalInference::new(ServerModel::new(model, Quantization::default()), key, count)
        .preferring(args.prefer.into());
    let local = args.hide.local(local);
    let calibration = args.calibrate.start(backend);
    let bar = progress_bar(1);
    let report = local.run(pixels(samples.images())?.view(), &mut rand::rng(), |_| bar.tick())?;
    let calibrated =
        calibration.zip(report.server).map(|(calibration, server)| calibration.finish(&server, size.bits()));

    let verdicts: Vec<Verdict> = report
        .predictions
        .iter()
        .zip(samples.labels())
        .enumerate()
        .map(|(image, (&predicted, &label))| Verdict {
            label: Some(label),
            predicted: predicted as u8,
            confidence: report.outputs.get([image, predicted]).map(|&it| it as f32),
        })
        .collect();
    let correct = verdicts.iter().filter(|verdict| !verdict.is_wrong()).count();

    make_folder(&args.out)?;
    let steps = summed(&report.steps);
    let (sheet, chart) = (args.out.join("digits.png"), args.out.join("steps.svg"));
    write_contact_sheet(&sheet, samples.images(), &verdicts)?;
    write_atomic(&chart, chart_of(&steps)?.as_bytes())?;

    if args.json {
        let mut object = json!({
            "model": "lenet5", "count": count, "correct": correct, "key_bits": size.bits(), "key_type": key_type,
            "backend": backend.name(), "seconds_key": seconds_key, "seconds_total": report.seconds,
            "predictions": report.predictions, "steps": report.steps, "saturations": report.saturations.total(),
            "server": report.server, "client": report.client,
            "bytes_up": report.bytes_up, "bytes_down": report.bytes_down,
            "pictures": [sheet.display().to_string(), chart.display().to_string()],
        });
        hide::add_to(&mut object, &report);
        if let Some(calibrated) = &calibrated {
            calibrated.add_to(&mut object);
        }
        outln!("{object}")?;
        return Ok(());
    }
    let captions: Vec<String> = verdicts
        .iter()
        .map(|verdict| {
            let mark = if verdict.is_wrong() { "  WRONG" } else { "" };
            format!("{} {}{mark}", verdict.predicted, verdict.percent())
        })
        .collect();
    let canvas = Canvas { ink: Ink::detect(stdout().is_terminal()), columns: 116 };
    outln!("{}", canvas.draw(samples.images(), &captions))?;
    outln!("{}", table_of(&steps))?;
    outln!(
        "{correct} of {count} correct in {:.2} s ({:.1} ms an image, key of {} bits made in {seconds_key:.2} s)",
        report.seconds,
        1e3 * report.seconds / count as f64,
        size.bits()
    )?;
    match &report.hidden {
        None => outln!(
            "The server saw ciphertexts only. The client saw every layer's weighted sums (see SECURITY.md)."
        )?,
        Some(hidden) => outln!(
            "{}The server saw ciphertexts and masked numbers only. The client saw of the network the {} only (see \
             SECURITY.md).",
            hide::text(&report),
            match hidden.reveal() {
                Reveal::Logits => "logits",
                Reveal::Class => "classes",
            }
        )?,
    }
    if let Some(calibrated) = &calibrated {
        out!("{}", calibrated.line())?;
    }
    outln!("Pictures: {} and {}", sheet.display(), chart.display())?;
    Ok(())
}

/// The same step of all batches as one. Steps of one name within a batch are of several layers, and stay apart.
pub(crate) fn summed(steps: &[StepRecord]) -> Vec<StepRecord> {
    let mut sums: Vec<(StepRecord, usize)> = vec![];
    let mut so_far: BTreeMap<_, usize> = BTreeMap::new();
    for step in steps {
        let is_server = step.party == Role::Server;
        let before = so_far.entry((step.batch, step.phase, is_server, &step.step)).or_default();
        let place = *before;
        *before += 1;
        let is_same = |(sum, of): &&mut (StepRecord, usize)| {
            (&sum.step, sum.party, *of) == (&step.step, step.party, place)
        };
        match sums.iter_mut().find(is_same) {
            None => sums.push((step.clone(), place)),
            Some((sum, _)) => {
                sum.ciphertexts_in += step.ciphertexts_in;
                sum.ciphertexts_out += step.ciphertexts_out;
                sum.bytes_in += step.bytes_in;
                sum.bytes_out += step.bytes_out;
                sum.products += step.products;
                sum.checks += step.checks;
                sum.seconds += step.seconds;
            }
        }
    }
    sums.into_iter().map(|(sum, _)| sum).collect()
}

fn table_of(steps: &[StepRecord]) -> TextTable {
    let mut table = TextTable::new(["step", "at", "sees", "ct in", "ct out", "kB sent", "products", "ms"]);
    for step in steps {
        let seen = match step.saw {
            Seen::Plaintext => "plaintext",
            Seen::Ciphertext => "ciphertext",
            Seen::Masked => "masked",
        };
        table.row([
            step.step.clone(),
            step.party.to_string(),
            seen.to_owned(),
            step.ciphertexts_in.to_string(),
            step.ciphertexts_out.to_string(),
            format!("{:.1}", step.bytes_out as f64 / 1e3),
            step.products.to_string(),
            format!("{:.1}", 1e3 * step.seconds),
        ]);
    }
    table
}

fn chart_of(steps: &[StepRecord]) -> anyhow::Result<String> {
    let bars: Vec<Bar> = steps
        .iter()
        .map(|step| Bar {
            label: match step.party {
                Role::Server => format!("server: {}", step.step),
                Role::Client => step.step.clone(),
            },
            value: 1e3 * step.seconds,
            role: step.party,
        })
        .collect();
    bar_chart_svg("LeNet-5 on ciphertexts: time per step", "ms", &bars)
}
