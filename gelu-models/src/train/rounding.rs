//! Training with few bits: in the second half of a run, every update is computed with rounded weights and rounded activations,
//! and applied to the weights behind the rounded ones.

use std::collections::BTreeMap;

use gelu_layers::{LinearConfig, Mode, exponent, rounded};
use gelu_tensor::{Error, Format};
use ndarray::ArrayView2;

use super::{TrainConfig, TrainError};
use crate::model::Reading;
use crate::plan::{Cut, Fusion};
use crate::{Model, Op, ValueId};

/// Which layers' weights are rounded and which values, to how many bits (straight-through estimation: Bengio, Léonard and Courville, 2013;
/// with a batch norm's factors as plans have them: Jacob et al., 2018, section 3.2).
#[derive(Clone, Debug)]
pub(super) struct Rounding {
    layers: Vec<RoundedLayer>,
    values: Vec<RoundedValue>,
}

/// A value that a client encrypts.
#[derive(Clone, Debug)]
struct RoundedValue {
    value: ValueId,
    name: String,
    bits: u32,
    scale: i32,
}

#[derive(Clone, Debug)]
struct RoundedLayer {
    node: usize,
    name: String,
    bits: u32,
    /// Weights are integers in units of 2^-`scale`.
    scale: i32,
    /// The batch norm that alone reads what the layer makes: a plan makes the two one.
    norm: Option<usize>,
}

impl Rounding {
    /// The rounding that a configuration asks for; `None` where it asks for none.
    pub(super) fn new(model: &Model, config: &TrainConfig) -> Result<Option<Self>, TrainError> {
        let mut layers = vec![];
        let graph = model.graph();
        for (node, description) in graph.nodes().iter().enumerate() {
            let name = &description.name;
            let Some(layer) = model.layer(node).filter(|layer| layer.weight_shape().is_some()) else {
                continue;
            };
            if matches!(layer.config(), LinearConfig::BatchNorm2d(_)) {
                continue;
            }
            let Some(bits) = config.layer_bits.get(name).copied().or(config.weight_bits) else { continue };
            if !(2..=24).contains(&bits) {
                return Err(TrainError::WeightBits { layer: name.clone(), found: bits });
            }
            let output = ValueId::of_node(node);
            let mut readers =
                graph.nodes().iter().enumerate().filter(|(_, reader)| reader.inputs.contains(&output));
            let norm = match (readers.next(), readers.next()) {
                (Some((at, reader)), None) => {
                    matches!(reader.op, Op::Linear(LinearConfig::BatchNorm2d(_))).then_some(at)
                }
                _ => None,
            };
            layers.push(RoundedLayer { node, name: name.clone(), bits, scale: 0, norm });
        }
        if let Some(name) =
            config.layer_bits.keys().find(|name| layers.iter().all(|layer| layer.name != **name))
        {
            return Err(TrainError::UnknownLayer { name: name.clone() });
        }
        let mut values = vec![];
        if config.activation_bits.is_some() || config.input_bits.is_some() {
            for value in Cut::of_graph(graph, Fusion::Chains)?.encrypted() {
                let bits = if value == ValueId::INPUT { config.input_bits } else { config.activation_bits };
                let name = graph.name(value).to_owned();
                values.extend(bits.map(|bits| RoundedValue { value, name, bits, scale: 0 }));
            }
        }
        let is_empty = layers.is_empty() && values.is_empty();
        Ok((!is_empty).then_some(Self { layers, values }))
    }

    /// Fixes the scales: those that were kept, and where none was, those that lose the least of the model's weights, and the
    /// finest ones that hold some inputs, and nearly all values that they lead to.
    pub(super) fn fix_scales(
        &mut self,
        model: &Model,
        kept: &BTreeMap<String, i32>,
        inputs: ArrayView2<'_, f32>,
    ) -> Result<(), Error> {
        // As far as formats go.
        let kept = |name: &str| kept.get(name).map(|&scale| scale.clamp(-120, 120));
        for layer in &mut self.layers {
            layer.scale = kept(&layer.name).unwrap_or_else(|| best_scale(&layer.reals(model), layer.bits));
        }
        let mut sizes = vec![Sizes::default(); self.values.len()];
        if self.values.iter().any(|value| kept(&value.name).is_none()) {
            let layers = Self { layers: self.layers.clone(), values: vec![] };
            layers.of(model).run(inputs, Mode::Inference, Reading::Exact, |value, x| {
                if let Some(at) = self.values.iter().position(|rounded| rounded.value == value) {
                    x.iter().for_each(|&x| sizes[at].note(x));
                }
            })?;
        }
        for (value, sizes) in self.values.iter_mut().zip(sizes) {
            let exponent = if value.value == ValueId::INPUT { sizes.largest() } else { sizes.exponent() };
            value.scale = kept(&value.name).unwrap_or(value.bits as i32 - exponent);
        }
        Ok(())
    }

    /// Returns the scales, by the nodes' names.
    pub(super) fn scales(&self) -> BTreeMap<String, i32> {
        let layers = self.layers.iter().map(|layer| (layer.name.clone(), layer.scale));
        layers.chain(self.values.iter().map(|value| (value.name.clone(), value.scale))).collect()
    }

    /// Returns the model with rounded weights and values, and with the bits to which they are.
    pub(super) fn of(&self, model: &Model) -> Model {
        let mut rounded_model = model.clone();
        for layer in &self.layers {
            // Where it meets a factor again it may not come out above the largest integer, for which a plan would take a
            // coarser scale; the integers are the same.
            let below = if layer.norm.is_some() { 1.0 - BELOW } else { 1.0 };
            layer.map(model, &mut rounded_model, |real| rounded(real, layer.bits, layer.scale) * below);
        }
        rounded_model
            .set_layer_bits(self.layers.iter().map(|layer| (layer.name.clone(), layer.bits)).collect());
        if !self.values.is_empty() {
            rounded_model.set_formats(self.values.iter().filter_map(RoundedValue::format).collect());
        }
        rounded_model
    }

    /// Keeps the weights behind the rounded ones within half a step of the integers that there are: beyond, nothing would
    /// change until they come back.
    pub(super) fn clip(&self, model: &mut Model) {
        let before = model.clone();
        for layer in &self.layers {
            let unit = f64::from(-layer.scale).exp2();
            let limit = f64::from(layer.bits - 1).exp2();
            layer.map(&before, model, |real| real.clamp((-limit - 0.5) * unit, (limit - 0.5) * unit));
        }
    }
}

impl RoundedValue {
    /// Integers of all its bits; of inputs also the power of two that bounds them, for none is to be cut off.
    fn format(&self) -> Option<(String, Format)> {
        let bound = (1 << self.bits) - u64::from(self.value != ValueId::INPUT);
        let format = Format::integers(bound).and_then(|all| all.with_scale_bits(self.scale));
        Some((self.name.clone(), format.ok()?))
    }
}

/// How large the elements of a value are: how many have which exponent.
#[derive(Clone, Debug, Default)]
struct Sizes {
    by_exponent: BTreeMap<i32, u64>,
    all: u64,
}

/// One element of so many may be cut off: a tenth of those at which users are warned.
const CUT_OFF: u64 = 10_000;

impl Sizes {
    fn note(&mut self, x: f32) {
        self.all += 1;
        // One of zero would be no number, and one below that of f32's least says nothing.
        if x != 0.0 {
            *self.by_exponent.entry(x.abs().log2().ceil().clamp(-126.0, 128.0) as i32).or_default() += 1;
        }
    }

    /// The exponent of the power of two that bounds all elements; 0 without any.
    fn largest(&self) -> i32 {
        self.by_exponent.keys().next_back().copied().unwrap_or(0)
    }

    /// The exponent of the one that bounds nearly all; 0 without any.
    fn exponent(&self) -> i32 {
        let mut above = 0;
        for (&exponent, count) in self.by_exponent.iter().rev() {
            above += count;
            if above * CUT_OFF > self.all {
                return exponent;
            }
        }
        0
    }
}

impl RoundedLayer {
    /// The weights as a plan has them: with the factors of the batch norm.
    fn reals(&self, model: &Model) -> Vec<f64> {
        let Some(layer) = model.layer(self.node) else { return vec![] };
        let weights = &layer.parameters().weight;
        let factors = self.factors(model, weights.len());
        weights.iter().zip(factors).map(|(&weight, factor)| f64::from(weight) * factor).collect()
    }

    /// Sets the weights of `to` to those of `from`, changed by `change` as a plan has them.
    fn map(&self, from: &Model, to: &mut Model, change: impl Fn(f64) -> f64) {
        let reals = self.reals(from);
        let factors = self.factors(from, reals.len());
        let Some(layer) = to.layer_mut(self.node) else { return };
        for ((weight, real), factor) in layer.parameters_mut().weight.iter_mut().zip(reals).zip(factors) {
            // A channel that is multiplied with zero has no weights that matter.
            if factor != 0.0 {
                *weight = (change(real) / factor) as f32;
            }
        }
    }

    /// What the batch norm multiplies each of so many weights with; ones without it.
    fn factors(&self, model: &Model, weights: usize) -> Vec<f64> {
        let factors = self.norm.and_then(|norm| {
            let layer = model.layer(norm)?;
            let LinearConfig::BatchNorm2d(config) = layer.config() else { return None };
            let variances = layer.statistics()?.variance.iter();
            let factors =
                layer.parameters().weight.iter().zip(variances).map(|(&scale, &variance)| {
                    f64::from(scale) / (f64::from(variance) + config.epsilon).sqrt()
                });
            Some(factors.collect::<Vec<_>>())
        });
        match factors {
            Some(factors) if !factors.is_empty() => {
                let columns = (weights / factors.len()).max(1);
                factors.iter().flat_map(|&factor| std::iter::repeat_n(factor, columns)).collect()
            }
            _ => vec![1.0; weights],
        }
    }
}

/// More than the rounding to `f32` of a weight, of a factor and of their product.
const BELOW: f64 = 1.0 / (1u32 << 20) as f64;

/// Scales that are tried, each half as coarse as the one before: clipping a few large weights can leave more to the others.
const SCALES: i32 = 6;

/// The scale at which integers of so many bits, their sign included, lose the least.
fn best_scale(weights: &[f64], bits: u32) -> i32 {
    let coarsest = bits as i32 - 2 - exponent(weights);
    let lost = |scale: i32| -> f64 {
        weights.iter().map(|&weight| (rounded(weight, bits, scale) - weight).powi(2)).sum()
    };
    let scales = (coarsest..coarsest + SCALES).map(|scale| (lost(scale), scale));
    scales.min_by(|(a, _), (b, _)| a.total_cmp(b)).map_or(coarsest, |(_, scale)| scale)
}

#[cfg(test)]
mod tests {
    use gelu_layers::{Activation, Conv2dConfig, Initializer};
    use rand::{SeedableRng, rngs::ChaCha8Rng};

    use super::*;
    use crate::ModelBuilder;
    use crate::plan::{Deployment, Quantization};
    use crate::train::tests::corners;
    use crate::train::{Dataset, Trainer};

    #[test]
    fn the_scale_that_loses_the_least_is_taken() {
        let ternary = [0.5, -0.5, 0.1, 0.4, -0.1];
        let scale = best_scale(&ternary, 2);
        assert_eq!(ternary.map(|weight| rounded(weight, 2, scale)), [0.5, -0.5, 0.0, 0.5, 0.0]);
        // One outlier is clipped where there are many others.
        let mut many = vec![0.25; 999];
        many.push(4.0);
        let scale = best_scale(&many, 3);
        assert!(many[..999].iter().all(|&weight| rounded(weight, 3, scale) == 0.25), "{scale}");
        assert_eq!(rounded(0.0, 2, best_scale(&[0.0; 3], 2)), 0.0);
    }

    /// With so many bits in place of a model's few, nothing changes but what biases are rounded to.
    #[track_caller]
    fn assert_weights_are_kept(trained: &Model, data: &Dataset, weight_bits: u32) {
        let many = Quantization { weight_bits, layer_bits: Some([].into()), ..Quantization::default() };
        let [few, many] = [Quantization::default(), many].map(|bits| {
            let program = trained.compile(&bits, &Deployment::default()).unwrap();
            program.run_clear(data.inputs()).unwrap().logits
        });
        let largest = many.iter().fold(0.0f64, |largest, logit| largest.max(logit.abs()));
        for (few, many) in few.iter().zip(&many) {
            let what = trained.layer_bits();
            assert!((few - many).abs() < 0.01 * largest, "{what:?}: {few} {many}");
        }
    }

    /// A plan finds the very integers that were trained with, behind a batch norm too.
    #[test]
    fn plans_take_the_rounded_weights_as_they_are() {
        for norm in [false, true] {
            let conv = |builder: ModelBuilder| match norm {
                false => builder.conv2d("conv1", Conv2dConfig::new(4, [3, 3])),
                true => {
                    builder.conv2d("conv1", Conv2dConfig::new(4, [3, 3]).without_bias()).batch_norm2d("bn1")
                }
            };
            let builder = conv(ModelBuilder::new([1, 8, 8])).relu().avg_pool2d("pool1", [2, 2]).flatten();
            let mut model = builder.dense("fc1", 4).softmax().build().unwrap();
            model.initialize(Initializer::HeUniform, &mut ChaCha8Rng::seed_from_u64(3));
            let data = corners(200);
            for bits in [2, 3, 5] {
                let config = TrainConfig {
                    batch_size: 10,
                    epochs: 6,
                    weight_bits: Some(3),
                    layer_bits: [("conv1".to_owned(), bits)].into(),
                    ..TrainConfig::default()
                };
                let mut trainer = Trainer::new(model.clone(), config).unwrap();
                for _ in 0..6 {
                    trainer.train_epoch(&data, |_| ()).unwrap();
                }
                let mut trained = trainer.into_model();
                assert!(trained.evaluate(&data).unwrap().accuracy > 0.9, "{norm} {bits}");
                trained.calibrate(data.inputs()).unwrap();
                let expected = [("conv1".to_owned(), bits), ("fc1".to_owned(), 3)].into();
                assert_eq!(trained.layer_bits(), &expected);
                assert_weights_are_kept(&trained, &data, 20);
            }
        }
    }

    /// So it does where two layers' sums are added, of which each has a scale of its own.
    #[test]
    fn plans_take_the_rounded_weights_of_sums_as_they_are() {
        let same = |channels: usize| Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1]).without_bias();
        let strided = |config: Conv2dConfig| config.with_stride([2, 2]);
        let main = |main: ModelBuilder| {
            let first = main.conv2d("a", strided(same(4))).batch_norm2d("an").relu();
            first.conv2d("b", same(4)).batch_norm2d("bn")
        };
        let projection = strided(Conv2dConfig::new(4, [1, 1]).without_bias());
        let stem = ModelBuilder::new([1, 8, 8]).conv2d("stem", same(2)).relu();
        let block = stem.residual_with(main, |shortcut| shortcut.conv2d("c", projection).batch_norm2d("cn"));
        let mut model = block.relu().flatten().dense("fc", 4).softmax().build().unwrap();
        model.initialize(Initializer::HeUniform, &mut ChaCha8Rng::seed_from_u64(3));
        let data = corners(200);
        // Finer by 2^-5 than the shortcut's.
        let (_, norm) = model.layers_mut().find(|(name, _)| *name == "bn").unwrap();
        norm.parameters_mut().weight.fill(1.0 / 32.0);
        let config =
            TrainConfig { batch_size: 10, epochs: 6, weight_bits: Some(3), ..TrainConfig::default() };
        let mut trainer = Trainer::new(model, config).unwrap();
        for _ in 0..6 {
            trainer.train_epoch(&data, |_| ()).unwrap();
        }
        let mut trained = trainer.into_model();
        trained.calibrate(data.inputs()).unwrap();
        let program = trained.compile(&Quantization::default(), &Deployment::default()).unwrap();
        let sum = program.plan().segments().iter().find(|segment| segment.terms.len() == 2).unwrap();
        assert_eq!([0, 1].map(|at| &sum.terms[at].layers[0]), ["b", "c"]);
        let bits = [0, 1].map(|at| sum.terms[at].weights.bits());
        assert!(bits[0] == 3 && bits[1] <= 3, "{bits:?}");
        let factors = [0, 1].map(|at| sum.terms[at].factor);
        assert!(factors[0] == 1 && factors[1] > 1, "the main branch is the finer: {factors:?}");
        assert_weights_are_kept(&trained, &data, 16);
    }

    /// A plan takes the formats that were trained with, and computes what floats do.
    #[test]
    fn plans_take_the_formats_of_rounded_values() {
        let conv = ModelBuilder::new([1, 8, 8]).conv2d("conv1", Conv2dConfig::new(4, [3, 3])).relu();
        let dense = conv.max_pool2d([2, 2]).flatten().dense("fc1", 8).activation(Activation::Tanh);
        let mut model = dense.dense("fc2", 4).softmax().build().unwrap();
        model.initialize(Initializer::HeUniform, &mut ChaCha8Rng::seed_from_u64(3));
        let data = corners(200);
        for bits in [2, 3, 6] {
            let config = TrainConfig {
                batch_size: 10,
                epochs: 6,
                activation_bits: Some(bits),
                input_bits: Some(bits),
                ..TrainConfig::default()
            };
            let mut trainer = Trainer::new(model.clone(), config).unwrap();
            for epoch in 0..6 {
                trainer.train_epoch(&data, |_| ()).unwrap();
                assert_eq!(trainer.model().formats().is_empty(), epoch < 3);
            }
            let mut trained = trainer.into_model();
            assert!(trained.evaluate(&data).unwrap().accuracy > 0.9, "{bits}");
            let formats = trained.formats().clone();
            assert_eq!(formats.keys().collect::<Vec<_>>(), ["input", "max_pool1", "tanh1"]);
            let bounds: Vec<u64> = formats.values().map(|format| format.bound()).collect();
            assert_eq!(bounds, [1 << bits, (1 << bits) - 1, (1 << bits) - 1]);
            // Nearly all of tanh's values are between -1 and 1.
            assert_eq!(formats["tanh1"].scale_bits(), bits as i32);

            trained.calibrate(data.inputs()).unwrap();
            let fine = Quantization { weight_bits: 16, ..Quantization::default() };
            let program = trained.compile(&fine, &Deployment::default()).unwrap();
            let values = [0, 1, 2].map(|at| program.plan().segments()[at].terms[0].values);
            assert_eq!(values, ["input", "max_pool1", "tanh1"].map(|name| formats[name]));
            let clamps = |at: usize| {
                let plan = program.plan();
                plan.description().numbers.clamps(plan.segments()[at].terms[0].source)
            };
            assert_eq!([0, 1, 2].map(clamps), [false, true, true]);
            let integers = program.run_clear(data.inputs()).unwrap().logits;
            let floats = trained.run(data.inputs(), Mode::Inference, Reading::Rounded, |_, _| ()).unwrap();
            let largest = floats.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
            // Where a value is nearly between two integers, the two can round it to another.
            let near = |(a, b): (&f64, &f32)| (a - f64::from(*b)).abs() < 1e-3 * f64::from(largest);
            let same = integers.iter().zip(&floats).filter(|pair| near(*pair)).count();
            assert!(same * 20 > integers.len() * 19, "{bits}: {same} of {}", integers.len());
            // Other bits are taken where they are asked for.
            let coarse = Quantization { activation_bits: Some(10), input_bits: Some(10), ..fine };
            let program = trained.compile(&coarse, &Deployment::default()).unwrap();
            assert!([0, 2].iter().all(|&at| program.plan().segments()[at].terms[0].values.bound() > 500));
            assert!(program.plan().description().numbers.clamped.is_empty());
        }
        for bits in [0, 1, 25] {
            for (what, config) in [
                ("activation bits", TrainConfig { activation_bits: Some(bits), ..TrainConfig::default() }),
                ("input bits", TrainConfig { input_bits: Some(bits), ..TrainConfig::default() }),
            ] {
                let error = Trainer::new(model.clone(), config).unwrap_err();
                assert!(matches!(error, TrainError::Config { what: found, .. } if found == what), "{error}");
            }
        }
    }

    #[test]
    fn scales_hold_nearly_all_values() {
        let exponent = |values: &[(f32, usize)]| {
            let mut sizes = Sizes::default();
            for &(value, count) in values {
                (0..count).for_each(|_| sizes.note(value));
            }
            sizes.exponent()
        };
        assert_eq!(exponent(&[]), 0);
        assert_eq!(exponent(&[(0.0, 9)]), 0);
        assert_eq!(exponent(&[(0.0, 9), (-3.0, 1), (0.5, 3)]), 2);
        assert_eq!(exponent(&[(4.0, 1)]), 2);
        // One in more than ten thousand is cut off.
        assert_eq!(exponent(&[(0.3, 10_000), (100.0, 1)]), -1);
        assert_eq!(exponent(&[(0.3, 9_000), (100.0, 1)]), 7);
    }

    #[test]
    fn layers_and_bits_that_cannot_be_are_refused() {
        let model = ModelBuilder::new([4]).dense("fc1", 2).softmax().build().unwrap();
        let with = |layer: &str, bits| {
            let layer_bits = [(layer.to_owned(), bits)].into();
            Trainer::new(model.clone(), TrainConfig { layer_bits, ..TrainConfig::default() }).unwrap_err()
        };
        assert_eq!(with("fc2", 3), TrainError::UnknownLayer { name: "fc2".to_owned() });
        for found in [0, 1, 25] {
            assert_eq!(with("fc1", found), TrainError::WeightBits { layer: "fc1".to_owned(), found });
        }
    }
}
