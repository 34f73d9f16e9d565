//! Fig. 3: how stably networks of one hidden layer train with exact activations and with polynomials.

use gelu_io::data::TrainingData;
use gelu_layers::Activation;
use gelu_models::train::{Schedule, TrainConfig};

use super::dense::{Dense, train};
use super::{Part, Setting};
use crate::picture::{Line, Picture};
use crate::results::{Findings, Row, Table};

/// The exact activation, and what stands in for it under encryption.
const ACTIVATIONS: [(&str, Activation); 4] = [
    ("exact (sigmoid)", Activation::Sigmoid),
    ("square (CryptoNets)", Activation::Square),
    ("Taylor, order 3 (BGN-Net)", Activation::SigmoidTaylor3),
    ("Taylor, order 5 (BGN-Net)", Activation::SigmoidTaylor5),
];

/// Learning rates, without momentum.
const RATES: [f64; 4] = [0.1, 0.3, 0.5, 1.0];

/// The share of updates at the end whose mean loss says where a run has ended.
const TAIL: usize = 10;

/// How long a network is trained.
fn epochs(network: Dense) -> u32 {
    match network.data {
        "iris" => 60,
        "diabetes" => 30,
        "kr-vs-kp" => 20,
        _ => 1,
    }
}

/// Images of MNIST that are trained on.
fn images(setting: &Setting) -> usize {
    if setting.quick { 6_000 } else { 20_000 }
}

/// Where a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With less loss than guessing.
    Learned,
    /// With no less.
    Guessing,
    /// With a loss that is no longer finite.
    Diverged,
}

struct Run {
    end: End,
    losses: Vec<f64>,
}

pub(super) fn run(setting: &Setting) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let seeds = if setting.quick { 3 } else { 10 };
    let command = setting.command(Part::Fig3);
    for network in Dense::ALL {
        match network.read(setting, 0) {
            Ok(data) => stability(setting, (network, &data), (seeds, &command), &mut findings)?,
            Err(_) => findings.notes.push(network.missing()),
        }
    }
    findings.notes.extend(notes(setting, seeds));
    Ok(findings)
}

fn stability(
    setting: &Setting,
    (network, data): (Dense, &TrainingData),
    (seeds, command): (u64, &str),
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let Dense { title, hidden, .. } = network;
    let data = match network.is_large() {
        true => data.train.first(images(setting)),
        false => data.train.clone(),
    };
    let guessing = (data.classes() as f64).ln();
    // By rate and activation, a run for each seed.
    let mut runs: Vec<[Vec<Run>; ACTIVATIONS.len()]> = vec![];
    for rate in RATES {
        setting.progress(Part::Fig3, &format!("{title}, learning rate {rate}"));
        let mut of_rate = [const { vec![] }; ACTIVATIONS.len()];
        for ((_, activation), of_activation) in ACTIVATIONS.iter().zip(&mut of_rate) {
            for seed in 0..seeds {
                let config = TrainConfig {
                    learning_rate: rate,
                    momentum: 0.0,
                    weight_decay: 0.0,
                    batch_size: if network.is_large() { 60 } else { 16 },
                    epochs: epochs(network),
                    schedule: Schedule::Constant,
                    seed,
                    ..TrainConfig::default()
                };
                let trained = train(network.model(&data, *activation, seed)?, config, &data)?;
                let end = match &trained.model {
                    None => End::Diverged,
                    Some(_) if tail(&trained.losses) < guessing => End::Learned,
                    Some(_) => End::Guessing,
                };
                of_activation.push(Run { end, losses: trained.losses });
            }
        }
        runs.push(of_rate);
    }
    // The highest rate at which the exact activation always learns is where polynomials have to keep up.
    let exact =
        |of_rate: &[Vec<Run>; ACTIVATIONS.len()]| of_rate[0].iter().all(|run| run.end == End::Learned);
    let shown = runs.iter().rposition(exact).unwrap_or(0);
    let count = |runs: &[Run], end: End| runs.iter().filter(|run| run.end == end).count();
    for ((name, _), runs) in ACTIVATIONS.iter().zip(&runs[shown]) {
        findings.rows.push(Row {
            label: format!(
                "{title}, {hidden} hidden neurons, {name}: runs that fail, at rate {}",
                RATES[shown]
            ),
            unit: format!("of {seeds}"),
            paper: None,
            here: Some(((count(runs, End::Diverged) + count(runs, End::Guessing)) as f64).into()),
            command: command.to_owned(),
        });
    }
    let line = |((name, _), runs): (&(&str, Activation), &Vec<Run>)| Line {
        label: (*name).to_owned(),
        points: smooth(&runs[0].losses),
        breaks_off: runs[0].end == End::Diverged,
    };
    findings.pictures.push(Picture::Lines {
        title: format!("{title}, {hidden} hidden neurons, learning rate {}, first seed", RATES[shown]),
        x: "updates".to_owned(),
        y: "loss (nats)".to_owned(),
        lines: ACTIVATIONS.iter().zip(&runs[shown]).map(line).collect(),
    });
    let rows = RATES.iter().zip(&runs).map(|(rate, of_rate)| {
        let cells = of_rate.iter().map(|runs| {
            let [diverged, guessing] = [End::Diverged, End::Guessing].map(|end| count(runs, end));
            let first =
                runs.iter().filter(|run| run.end == End::Diverged).map(|run| run.losses.len() + 1).min();
            match (diverged, guessing, first) {
                (0, 0, _) => "0".to_owned(),
                (_, 0, Some(first)) => format!("{diverged}, the first at update {first}"),
                (_, _, Some(first)) => {
                    format!("{diverged}, the first at update {first}; {guessing} no better than guessing")
                }
                (_, _, None) => format!("{guessing} no better than guessing"),
            }
        });
        [rate.to_string()].into_iter().chain(cells).collect()
    });
    findings.tables.push(Table {
        title: format!(
            "{title}, {hidden} hidden neurons: of {seeds} runs, those whose loss leaves all bounds"
        ),
        header: ["learning rate"]
            .into_iter()
            .chain(ACTIVATIONS.map(|(name, _)| name))
            .map(str::to_owned)
            .collect(),
        rows: rows.collect(),
    });
    Ok(())
}

/// The mean loss at the end of a run.
fn tail(losses: &[f64]) -> f64 {
    let last = &losses[losses.len() - losses.len().div_ceil(TAIL)..];
    last.iter().sum::<f64>() / last.len() as f64
}

/// Updates, and the mean of the losses at them and before, of as many as a hundredth of a run: two of them in each hundredth, as
/// a picture shows no more.
fn smooth(losses: &[f64]) -> Vec<(f64, f64)> {
    let width = losses.len().div_ceil(100);
    let mean = |end: usize| {
        let window = &losses[end.saturating_sub(width)..end];
        (end as f64, window.iter().sum::<f64>() / window.len() as f64)
    };
    let ends = (1..losses.len()).step_by(width.div_ceil(2).max(1));
    ends.chain((!losses.is_empty()).then_some(losses.len())).map(mean).collect()
}

fn notes(setting: &Setting, seeds: u64) -> Vec<String> {
    vec![
        format!(
            "Networks with one hidden layer of 5, 12, 15 and 300 neurons, trained on floats in the clear by stochastic gradient descent \
             without momentum and decay: as the paper says of its rivals, and as exact activations are on ciphertexts but for rounding. \
             The same first weights (PyTorch's default) and the same order of inputs for all activations; seeds 0 to {}; 16 inputs to an update, \
             60 of MNIST ({} images, once).",
            seeds - 1,
            images(setting)
        ),
        "A run fails where its loss is no longer finite, or where the mean loss of the last tenth of its updates is that of guessing or \
         more. The first table has the highest of the learning rates at which every run with the exact activation learns; pictures show \
         the first seed, a mean over a hundredth of the run."
            .to_owned(),
        "The paper gives no figures, and states neither learning rates nor first weights nor which data set belongs to which network: \
         this is told by Table 3's data sets in their order. Its picture shows squares failing at once and both Taylor polynomials \
         breaking off later. With small learning rates polynomials can train: how stable they are is a matter of the rate, which the \
         tables show."
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_runs_are_judged_by_their_last_tenth() {
        let mut losses = vec![9.0; 90];
        losses.extend([1.0; 10]);
        assert_eq!(tail(&losses), 1.0);
        assert_eq!(tail(&[3.0]), 3.0);
        assert_eq!(smooth(&[]), []);
        assert_eq!(smooth(&[1.0, 3.0]), [(1.0, 1.0), (2.0, 3.0)]);
        let smoothed = smooth(&losses.repeat(3));
        assert_eq!((smoothed.len(), smoothed[0], smoothed[150]), (151, (1.0, 9.0), (300.0, 1.0)));
    }
}
