//! `gelu bench --hide-model`

use std::sync::Arc;

use gelu_io::session::{Phase, Role, StepRecord};
use gelu_models::infer::ServerModel;
use gelu_net::{InferenceReport, LocalInference};
use gelu_tensor::paillier::KeyParameters;
use serde_json::json;

use super::measure::{images, median, peak_memory};
use super::{BenchArgs, time};
use crate::calibrate::Calibration;
use crate::demo::summed;
use crate::hide::{ands, reveal_name};
use crate::model::Loaded;
use crate::model_args::{new_key, warn_of_short_key};
use crate::output::{out, outln};
use crate::report::TextTable;

/// Queries of a run that has no number given.
const QUERIES: usize = 25;

/// Times sessions in which the client does not see the model: ahead and online apart, each run in a session of its own.
pub(super) fn run(args: &BenchArgs, parameters: KeyParameters) -> anyhow::Result<()> {
    warn_of_short_key(parameters.size);
    let Loaded { model, name, .. } = args.model.load_or_initialize()?;
    let quantization = args.numbers.quantization(&model);
    let elements = model.graph().input().elements();
    let key = Arc::new(new_key(parameters)?);
    let backend = key.public_key().backend();
    let queries = args.hide.prepare().unwrap_or(QUERIES);
    let local = LocalInference::shared(Arc::new(ServerModel::new(model, quantization)), key, 1);
    let local = args.hide.local(local.preferring(args.prefer.into())).preparing(queries);
    let images = images([queries, elements]);

    let calibration = Calibration::start(backend);
    let mut reports = vec![];
    for run in 0..=args.runs {
        let report = local.run(images.view(), &mut rand::rng(), |_| ())?;
        // The first does not count.
        if run > 0 {
            reports.push(report);
        }
    }
    let limits = calibration.limits();
    let limit = limits.iter().sum::<f64>() / 2.0;
    // The last queries that are prepared may have no image.
    let each = |report: &InferenceReport, phase| match phase {
        Phase::Ahead => report.prepared() as f64,
        Phase::Opening | Phase::Online => queries as f64,
    };
    let seconds = |phase, of: fn(&InferenceReport) -> f64| {
        median(reports.iter().map(|report| of(report) / each(report, phase)).collect())
    };
    let ahead = seconds(Phase::Ahead, |report| report.seconds_ahead);
    let online = seconds(Phase::Online, |report| report.seconds_online);
    let computing = seconds(Phase::Online, |report| {
        let online = report.phase(Phase::Online);
        online.client_seconds + online.server_seconds.unwrap_or(0.0)
    });
    let bytes = |phase| match reports.last() {
        Some(report) => {
            let (totals, each) = (report.phase(phase), each(report, phase));
            (totals.bytes_up as f64 / each, totals.bytes_down as f64 / each)
        }
        None => (0.0, 0.0),
    };
    let (of_ahead, of_online) = (bytes(Phase::Ahead), bytes(Phase::Online));
    let Some(first) = reports.first() else { return Ok(()) };
    let Some(hidden) = &first.hidden else { return Ok(()) };
    let together = first.plan.description().batch;
    let sums: Vec<Vec<StepRecord>> = reports.iter().map(|report| summed(&report.steps)).collect();
    let steps = sums[0].iter().enumerate().filter(|(_, step)| step.batch.is_some()).map(|(place, of)| {
        // Of the same layer, where several have steps of one name.
        let is_same = |step: &&StepRecord| (&step.step, step.party) == (&of.step, of.party);
        let before = sums[0][..place].iter().filter(is_same).count();
        let same = |sums: &Vec<StepRecord>| {
            let found = sums.iter().filter(is_same).nth(before);
            found.map_or(0.0, |step| step.seconds) / each(first, of.phase)
        };
        (&of.step, of.party, of.phase, median(sums.iter().map(same).collect()))
    });
    let steps: Vec<(&String, Role, Phase, f64)> = steps.collect();
    if args.json {
        let steps: Vec<_> = steps
            .iter()
            .map(|(name, party, phase, seconds)| {
                json!({ "step": name, "party": party, "phase": phase, "seconds_a_query": seconds })
            })
            .collect();
        outln!(
            "{}",
            json!({
                "model": name, "mode": "hidden", "reveal": reveal_name(hidden.reveal()),
                "key_bits": parameters.size.bits(), "key_type": parameters.key_type, "backend": backend.name(),
                "prepared_together": together, "prepared": first.prepared(), "runs": args.runs, "threads": rayon::current_num_threads(),
                "limit_ns": limit, "limit_ns_before": limits[0], "limit_ns_after": limits[1],
                "seconds_ahead_a_query": ahead, "seconds_online": online, "computing_seconds_online": computing,
                "bytes_up_ahead": of_ahead.0, "bytes_down_ahead": of_ahead.1,
                "bytes_up_online": of_online.0, "bytes_down_online": of_online.1,
                "round_trips": hidden.round_trips(), "ands": ands(hidden), "steps": steps,
                "peak_memory": peak_memory(),
            })
        )?;
        return Ok(());
    }
    let mut table = TextTable::new(["step", "at", "phase", "a query"]);
    for (name, party, phase, seconds) in &steps {
        let phase = if *phase == Phase::Online { "online" } else { "ahead" };
        table.row([name.to_string(), party.to_string(), phase.to_owned(), time(*seconds)]);
    }
    let kilobytes = |(up, down): (f64, f64)| format!("{:.1} kB up, {:.1} kB down", up / 1e3, down / 1e3);
    out!(
        "{name}, hidden from the client but for the {}, {} key of {} bits, {backend} arithmetic, {together} queries prepared \
         together, medians of {} runs\n\n{table}\n\
         ahead           {} a query, {}\n\
         online          {} an image, of which both sides compute {}; {}, {} round trips\n\
         circuits        {} ANDs an image\n",
        reveal_name(hidden.reveal()),
        parameters.key_type.name(),
        parameters.size.bits(),
        args.runs,
        time(ahead),
        kilobytes(of_ahead),
        time(online),
        time(computing),
        kilobytes(of_online),
        hidden.round_trips(),
        ands(hidden),
    )?;
    if let Some(bytes) = peak_memory() {
        outln!("memory          {:.0} MB at most, both sides together", bytes as f64 / 1e6)?;
    }
    outln!("limit           limit_ns {limit:.0} ({:.0} before, {:.0} after)", limits[0], limits[1])?;
    Ok(())
}
