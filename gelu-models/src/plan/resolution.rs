//! Layers whose weights a few large ones leave without resolution.

use gelu_layers::{finest_scale, rounded};

use super::Quantization;
use crate::Model;

/// A layer of which rounding would keep next to nothing: its step follows from its largest weights, and most others are
/// far below that.
#[derive(Clone, Debug, PartialEq)]
pub struct LostResolution {
    /// The layer's name.
    pub layer: String,
    /// Bits of its integer weights.
    pub bits: u32,
    /// The largest magnitude of its weights.
    pub largest: f32,
    /// The root mean square of all but the largest hundredth.
    pub typical: f32,
    /// The fewest bits that would keep the others, at most 24.
    pub needed_bits: u32,
}

/// The share of a layer's energy, without its largest weights, that rounding may take.
const MOST_LOST: f64 = 0.25;

impl Model {
    /// Returns the layers whose weights would lose their resolution to a few large ones, in order.
    pub fn lost_resolution(&self, quantization: &Quantization) -> Vec<LostResolution> {
        let layers = self.layers().filter(|(_, layer)| !layer.parameters().weight.is_empty());
        layers
            .filter_map(|(name, layer)| {
                let bits = quantization.bits_of(self, [name]).clamp(2, 24);
                let mut weights: Vec<f64> = layer.parameters().weight.iter().map(|&x| x.into()).collect();
                weights.sort_unstable_by(|a, b| b.abs().total_cmp(&a.abs()));
                let (largest, rest) = (weights.first()?.abs(), &weights[weights.len().div_ceil(100)..]);
                let energy: f64 = rest.iter().map(|weight| weight.powi(2)).sum();
                if energy == 0.0 || !largest.is_finite() {
                    return None;
                }
                let lost = |bits: u32| -> f64 {
                    let scale = finest_scale(&weights, bits);
                    rest.iter().map(|&weight| (rounded(weight, bits, scale) - weight).powi(2)).sum()
                };
                let keeps = |bits: u32| lost(bits) <= MOST_LOST * energy;
                (!keeps(bits)).then(|| LostResolution {
                    layer: name.to_owned(),
                    bits,
                    largest: largest as f32,
                    typical: (energy / rest.len() as f64).sqrt() as f32,
                    needed_bits: (bits..24).find(|&bits| keeps(bits)).unwrap_or(24),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use gelu_layers::Initializer;
    use rand::{SeedableRng, rngs::ChaCha8Rng};

    use super::*;
    use crate::zoo;

    #[test]
    fn one_huge_weight_is_named_with_its_layer_and_the_bits_that_would_do() {
        let mut model = zoo::lenet5().unwrap();
        model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1));
        let quantization = Quantization::default();
        assert_eq!(model.lost_resolution(&quantization), []);
        // Few bits are a choice, and harmless where weights are of one size.
        assert_eq!(model.lost_resolution(&Quantization { weight_bits: 4, ..Quantization::default() }), []);
        let (_, layer) = model.layers_mut().find(|(name, _)| *name == "fc2").unwrap();
        layer.parameters_mut().weight[77] = -500.0;
        let found = model.lost_resolution(&quantization);
        let [LostResolution { layer, bits: 9, largest: 500.0, typical, needed_bits }] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(layer == "fc2" && *typical < 0.2 && (13..24).contains(needed_bits), "{found:?}");
        let enough = Quantization {
            layer_bits: Some([("fc2".to_owned(), *needed_bits)].into()),
            ..Quantization::default()
        };
        assert_eq!(model.lost_resolution(&enough), []);
        // Weights of few integers lose nothing with as few bits.
        let (_, layer) = model.layers_mut().find(|(name, _)| *name == "fc2").unwrap();
        let ternary = layer.parameters_mut().weight.iter_mut().enumerate();
        ternary.for_each(|(at, weight)| *weight = [0.0, 0.25, 0.0, 0.0, -0.25][at % 5]);
        let few =
            Quantization { layer_bits: Some([("fc2".to_owned(), 2)].into()), ..Quantization::default() };
        assert_eq!(model.lost_resolution(&few), []);
        // Nothing at all loses nothing.
        model.layers_mut().for_each(|(_, layer)| layer.parameters_mut().weight.fill(0.0));
        assert_eq!(model.lost_resolution(&quantization), []);
    }
}
