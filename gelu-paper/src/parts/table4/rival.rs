//! CryptoNets' way: trained, made integers that cost it least, run and checked.

use anyhow::{Context, ensure};
use gelu_models::Model;
use gelu_models::train::Dataset;
use ndarray::Array2;

use super::{Data, Paper};
use crate::bfv::Parameters;
use crate::cryptonets::{Bits, Network, Pass, PassStep, Plan, run as pass, train};
use crate::parts::{Part, Setting};
use crate::report::digits;
use crate::results::Table;

/// Bits of pixels and weights among which those that cost the rival least are looked for.
pub(super) const INPUT_BITS: [u32; 3] = [2, 3, 4];
pub(super) const WEIGHT_BITS: [u32; 4] = [3, 4, 5, 6];
/// What the rival's accuracy on the images that the search uses may lose by rounding.
pub(super) const MOST_LOST: f64 = 0.002;
/// Bits by which outputs may be larger than the largest of those images.
pub(super) const SPARE_BITS: u32 = 2;
/// Passes of the rival, of which the one in the middle counts.
const PASSES: usize = 3;

/// CryptoNets' way, run.
pub(super) struct Rival {
    pub(super) plan: Plan,
    bits: Bits,
    network: Network,
    pub(super) pass: Pass,
    /// Of the test images, where they are MNIST's.
    pub(super) accuracy: Option<f64>,
}

impl Rival {
    pub(super) fn measure(setting: &Setting, data: &Data, paper: &Paper) -> anyhow::Result<Self> {
        let title = paper.title;
        let progress =
            |text: &str| setting.progress(Part::Table4, &format!("{title}, CryptoNets' way: {text}"));
        let epochs = if setting.quick { 2 } else { 8 };
        let model = train(paper.architecture, &data.train, epochs, progress)?;
        let Candidate { network, plan, bits } = cheapest(setting, &model, &data.train)?;
        let accuracy = network.trial(data.test.inputs(), data.test.labels()).accuracy;
        progress(&format!(
            "pixels of {} bits, weights of {}: {:.2} % of the test images",
            bits.input,
            bits.weight,
            100.0 * accuracy
        ));
        let (slots, images) = (plan.parameters.degree, data.test.inputs());
        let batch = Array2::from_shape_fn((slots, images.ncols()), |(slot, pixel)| {
            images[[slot % images.nrows(), pixel]]
        });
        let integers = network.integers(batch.view());
        let clear = network.run_clear(&integers);
        let mut passes = vec![];
        for _ in 0..if setting.quick { 1 } else { PASSES } {
            let pass = pass(&network, &plan, &integers, progress)?;
            ensure!(
                pass.outputs == clear,
                "{title}: the rival's ciphertexts do not give the integers of the clear run; please report this as a bug"
            );
            ensure!(
                pass.headroom > 0,
                "{title}: the rival's noise leaves no room; please report this as a bug"
            );
            passes.push(pass);
        }
        passes.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
        let pass = passes.swap_remove(passes.len() / 2);
        progress(&format!("{:.1} s for {slots} images", pass.seconds()));
        Ok(Self { plan, bits, network, pass, accuracy: data.is_mnist.then_some(accuracy) })
    }

    pub(super) fn table(&self, title: &str) -> Table {
        let Plan { parameters, switches_down, bits } = &self.plan;
        let Parameters { degree, limb_bits, plaintext_moduli, .. } = parameters;
        let plaintext_bits: f64 = plaintext_moduli.iter().map(|&modulus| (modulus as f64).log2()).sum();
        let products: Vec<String> =
            self.network.layers().iter().map(|layer| layer.products().to_string()).collect();
        let title = format!(
            "{title}, CryptoNets' way: pixels of {} bits and weights of {}; degree {degree}, a ciphertext modulus of {} bits in {} \
             primes{}, {} of {plaintext_bits:.1} bits for outputs of {bits} bits and a sign; {} products with \
             weights; all {degree} x {} integers equal those of the clear run, and {} bits of noise budget were left",
            self.bits.input,
            self.bits.weight,
            parameters.modulus_bits(),
            limb_bits.len(),
            if *switches_down { ", one less after the first square" } else { "" },
            match plaintext_moduli.len() {
                1 => "one plaintext modulus".to_owned(),
                count => format!("{count} plaintext moduli"),
            },
            products.join(", "),
            self.pass.outputs.nrows(),
            self.pass.headroom
        );
        let header = ["step, all moduli together", "ciphertexts", "s"].map(str::to_owned).to_vec();
        let row =
            |step: &PassStep| vec![step.name.clone(), step.ciphertexts.to_string(), digits(step.seconds)];
        Table { title, header, rows: self.pass.steps.iter().map(row).collect() }
    }
}

/// A network of integers, and how it is run.
struct Candidate {
    network: Network,
    plan: Plan,
    bits: Bits,
}

/// The integers of a model that cost the rival least, among those that lose hardly any accuracy.
fn cheapest(setting: &Setting, model: &Model, train: &Dataset) -> anyhow::Result<Candidate> {
    let images = train.first(if setting.quick { 2000 } else { 5000 });
    let wanted = model.evaluate(&images)?.accuracy - MOST_LOST;
    let mut best: Option<Candidate> = None;
    for (input, weight) in INPUT_BITS.into_iter().flat_map(|input| WEIGHT_BITS.map(|weight| (input, weight)))
    {
        let bits = Bits { input, weight };
        let network = Network::quantize(model, bits)?;
        let trial = network.trial(images.inputs(), images.labels());
        let Ok(plan) = network.plan(trial.bits + SPARE_BITS) else { continue };
        let cost = plan.parameters.cost_us;
        if trial.accuracy >= wanted && best.as_ref().is_none_or(|best| cost < best.plan.parameters.cost_us) {
            best = Some(Candidate { network, plan, bits });
        }
    }
    best.context("no integers of few bits come near the accuracy of the floats; please report this as a bug")
}
