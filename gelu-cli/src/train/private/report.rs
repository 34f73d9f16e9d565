//! What a run has to tell.

use std::fmt::Write as _;

use gelu_io::files::{make_folder, write_atomic};
use gelu_io::session::TrainingAccount;
use gelu_io::weights::{Dtype, WeightsFile};
use gelu_models::peer::Part;
use serde_json::json;

use super::progress::Point;
use super::{Done, Setting};
use crate::output::{note, outln};
use crate::report::{EpochPoint, TextTable, training_curves_svg};
use crate::train::{Args, command, with_metadata};

/// Tells how the run went, and writes what was asked for.
pub(super) fn finish(
    args: &Args,
    setting: &mut Setting,
    done: &Done,
    seconds: f64,
    limits: Option<[f64; 2]>,
) -> anyhow::Result<()> {
    setting.load(&done.coordinator.parameters)?;
    let test = setting.model.evaluate(&setting.data.test)?;
    let train = setting.model.evaluate(&setting.train)?;
    let account = done.account.clone().unwrap_or_default();
    let key_bits = done.account.is_some().then(|| args.private.turns.key_bits.bits());
    let mut object = json!({
        "model": args.name(),
        "dataset": args.dataset.name(),
        "clients": args.private.turns.clients,
        "epochs": args.descent.epochs,
        "iterations": done.coordinator.iterations,
        "images": done.statistics.images,
        "images_per_second": done.statistics.images as f64 / seconds,
        "train_accuracy": train.accuracy,
        "test_accuracy": test.accuracy,
        "seconds": {
            "server": account.server_seconds(),
            "client": account.client_seconds(),
            "steps": account.steps_seconds(),
            "all": seconds,
        },
        "bytes_up": account.bytes_up(),
        "bytes_down": account.bytes_down(),
        "clamped": done.statistics.clamped,
        "key_bits": key_bits,
        "key_type": key_bits.map(|_| args.private.turns.key_type.name()),
        "sum_bits": args.private.turns.sum_bits,
        "product_bits": args.private.turns.product_bits,
        "batch": setting.batch(),
        "turns": done.coordinator.turns,
        "parameters": setting.setup.plan.parameters(),
        "command": command(args),
        "ledger": done.coordinator.ledger,
        "leakage_of_an_iteration": done.leakage,
    });
    if let Some([before, after]) = limits {
        object["limit_ns"] = json!((before + after) / 2.0);
    }
    let weights = || with_metadata(args, &setting.model, &setting.data, test);
    if let Some(path) = &args.out {
        weights()?.write(path, Dtype::F32)?;
        note!("wrote {}", path.display());
    }
    let curves = || -> anyhow::Result<String> {
        let point = |point: &Point| EpochPoint {
            epoch: point.epoch,
            train_loss: point.train_loss,
            test_loss: point.test_loss,
            train_accuracy: point.train_accuracy,
            test_accuracy: point.test_accuracy,
        };
        training_curves_svg(&done.curve.iter().map(point).collect::<Vec<_>>())
    };
    if let Some(path) = &args.plot {
        write_atomic(path, curves()?.as_bytes())?;
        note!("wrote {}", path.display());
    }
    if let Some(folder) = &args.private.report {
        make_folder(folder)?;
        write_atomic(&folder.join("report.json"), &serde_json::to_vec_pretty(&object)?)?;
        write_atomic(&folder.join("curves.svg"), curves()?.as_bytes())?;
        weights()?.write(folder.join("weights.safetensors"), Dtype::F32)?;
        let text = report(args, setting, done, [test.accuracy, train.accuracy], seconds);
        write_atomic(&folder.join("report.md"), text.as_bytes())?;
        note!("wrote {}", folder.join("report.md").display());
    }
    if args.json {
        outln!("{object}")?;
    } else {
        outln!(
            "test accuracy {:.2} %, loss {:.4}; {} images in {seconds:.1} s ({:.1} images/s)",
            100.0 * test.accuracy,
            test.loss,
            done.statistics.images,
            done.statistics.images as f64 / seconds
        )?;
        if done.account.is_some() {
            outln!("\n{}", shares(&account))?;
        }
        if let Some([before, after]) = limits {
            outln!("limit_ns {:.0} ({before:.0} before, {after:.0} after)", (before + after) / 2.0)?;
        }
    }
    Ok(())
}

/// Where the time of a run went, in percent.
pub(crate) fn shares(account: &TrainingAccount) -> String {
    let (up, down) = (account.up(), account.down());
    let rows = [
        ("server: products, corrections, re-randomization", down.making),
        ("server: decoding and checks", up.taking),
        ("client: activations, encryption", up.making),
        ("client: decryption", down.taking),
        ("sums of steps: encryption by the client", account.steps().making),
        ("sums of steps: decryption by the server", account.steps().taking),
    ];
    let all: f64 = rows.iter().map(|(_, seconds)| seconds).sum();
    let mut table = TextTable::new(["part", "seconds", "share"]);
    for (name, seconds) in rows {
        table.row([
            name.to_owned(),
            format!("{seconds:.2}"),
            format!("{:.1} %", 100.0 * seconds / all.max(1e-9)),
        ]);
    }
    table.to_string()
}

/// The report for people, as Markdown.
fn report(args: &Args, setting: &Setting, done: &Done, [test, train]: [f64; 2], seconds: f64) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# {} on {}, trained {}\n\n```\n{}\n```\n\n{} iterations of {} images in {} turns, {seconds:.1} s, {:.1} images/s. \
         Accuracy {:.2} % on the {} test images, {:.2} % on the {} training images. {} numbers were clamped to their \
         range.\n\n![curves](curves.svg)\n",
        args.name(),
        args.dataset.name(),
        if done.account.is_some() {
            let size = args.private.turns.key_bits.bits();
            format!("privately, keys of {size} bits ({})", args.private.turns.key_type.name())
        } else {
            "in the clear, on the same integers".to_owned()
        },
        command(args),
        done.coordinator.iterations,
        setting.batch(),
        done.coordinator.turns,
        done.statistics.images as f64 / seconds,
        100.0 * test,
        setting.data.test.len(),
        100.0 * train,
        setting.train.len(),
        done.statistics.clamped,
    );
    if let Some(account) = &done.account {
        let _ = write!(text, "\n## Time\n\n```text\n{}```\n\n## What crossed\n\n", shares(account));
        let mut table = TextTable::new([
            "layer",
            "tensor",
            "direction",
            "values an image",
            "slots x bits",
            "ciphertexts",
            "bytes",
        ]);
        let plan = &setting.setup.plan;
        for (index, segment) in (0u32..).zip(plan.segments()) {
            let mut add = |part, direction: &str| {
                let totals = account.of(Some(part));
                let what = match part {
                    Part::Inputs { .. } => "inputs",
                    Part::Sums { .. } => "sums",
                    Part::Errors { .. } => "errors",
                    _ => "products",
                };
                let header = plan.header(part).ok();
                let values = header.as_ref().map_or(0, |header| header.shape.elements());
                let layout = header.map(|header| header.layout);
                table.row([
                    segment.name.clone(),
                    what.to_owned(),
                    direction.to_owned(),
                    values.to_string(),
                    layout.map_or(String::new(), |l| {
                        format!("{} x {}", l.width() * l.stacked(), l.slot_bits())
                    }),
                    totals.ciphertexts.to_string(),
                    totals.bytes.to_string(),
                ]);
            };
            add(Part::Inputs { segment: index, term: 0 }, "up");
            add(Part::Sums { segment: index }, "down");
            let back = (0u32..).zip(&segment.terms).find(|(_, term)| term.back.is_some());
            if let Some((term, _)) = back {
                add(Part::Errors { segment: index, term }, "up");
                add(Part::Products { segment: index, term }, "down");
            }
        }
        for (totals, name) in [(account.corrections(), "corrections"), (account.steps(), "sums of steps")] {
            table.row([
                "all".to_owned(),
                name.to_owned(),
                "up".to_owned(),
                String::new(),
                String::new(),
                totals.ciphertexts.to_string(),
                totals.bytes.to_string(),
            ]);
        }
        let _ = write!(text, "```text\n{table}```\n");
    }
    let _ = write!(
        text,
        "\n## What clients have seen\n\nThe most linear equations in one turn, for each row of weights and its bias \
         (forward) and for the weights of each input channel (backward), beside the unknowns in them. With as many \
         equations as unknowns, a client can solve for the layer.\n\n"
    );
    let mut table =
        TextTable::new(["client", "layer", "turns", "iterations", "forward", "backward", "solvable"]);
    for entry in &done.coordinator.ledger.entries {
        let [forward, backward] =
            [entry.forward, entry.backward].map(|[equations, unknowns]| format!("{equations} / {unknowns}"));
        table.row([
            entry.client.to_string(),
            entry.layer.clone(),
            entry.turns.to_string(),
            entry.most_iterations.to_string(),
            forward,
            backward,
            if entry.solvable { "yes" } else { "no" }.to_owned(),
        ]);
    }
    let _ = write!(text, "```text\n{table}```\n");
    text
}
