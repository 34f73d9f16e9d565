use gelu_layers::{Activation, TrainableMap};
use gelu_tensor::{Flood, Shape};

use super::{FixedPoint, LayerSpan, NodeDescription, TrainSegment};
use crate::train::private::PrivateError;

/// Turns the steps of a network into segments, one after another.
pub(super) struct Compiler {
    pub(super) numbers: FixedPoint,
    pub(super) shape: Shape,
    pub(super) segments: Vec<TrainSegment>,
    pub(super) prologue: Vec<Activation>,
    pub(super) parameters: usize,
}

impl Compiler {
    pub(super) fn add(
        &mut self,
        node: &NodeDescription,
        pool: Option<&NodeDescription>,
    ) -> Result<(), PrivateError> {
        let name = match node {
            NodeDescription::Flatten => {
                self.shape = Shape::from([self.shape.elements()]);
                return Ok(());
            }
            NodeDescription::Activation(Activation::Softmax) => {
                let rule = "a softmax must be the last node of a model";
                return Err(PrivateError::Model { rule, found: "one before the end".to_owned() });
            }
            NodeDescription::Activation(activation) => {
                let last = self.segments.last_mut().map(|segment| &mut segment.activations);
                last.unwrap_or(&mut self.prologue).push(*activation);
                return Ok(());
            }
            NodeDescription::Convolution { name, .. }
            | NodeDescription::Pooling { name, .. }
            | NodeDescription::Dense { name, .. } => name.clone(),
        };
        self.linear(name.clone(), node, pool).map_err(|source| PrivateError::Layer { layer: name, source })
    }

    fn linear(
        &mut self,
        name: String,
        node: &NodeDescription,
        pool: Option<&NodeDescription>,
    ) -> Result<(), gelu_tensor::Error> {
        let mut segment_name = name.clone();
        let (map, rows, shape) = match node {
            NodeDescription::Convolution { kernels, window, .. } => {
                let input = self.shape.as_image("a convolution's input")?;
                let pool = match pool {
                    Some(NodeDescription::Pooling { name, window }) => {
                        segment_name = format!("{segment_name}+{name}");
                        Some(*window)
                    }
                    _ => None,
                };
                let map = TrainableMap::convolution(input, *kernels, *window, pool)?;
                let [height, width] = window.over(input)?.output();
                let mut output = [*kernels, height, width];
                if let Some(pool) = pool {
                    let [height, width] = pool.over(output)?.output();
                    output = [*kernels, height, width];
                }
                let weights = Shape::from([*kernels, input[0], window.kernel[0], window.kernel[1]]);
                self.shape = Shape::from(output);
                (map, *kernels, weights)
            }
            NodeDescription::Pooling { window, .. } => {
                let input = self.shape.as_image("a pooling's input")?;
                let map = TrainableMap::pooling(input, *window)?;
                let [height, width] = window.over(input)?.output();
                self.shape = Shape::from([input[0], height, width]);
                (map, 0, Shape::from([0]))
            }
            NodeDescription::Dense { outputs, .. } => {
                let inputs = self.shape.elements();
                let map = TrainableMap::dense([inputs, *outputs])?;
                self.shape = Shape::from([*outputs]);
                (map, *outputs, Shape::from([*outputs, inputs]))
            }
            NodeDescription::Flatten | NodeDescription::Activation(_) => return Ok(()),
        };
        let numbers = self.numbers;
        let input = match self.segments.is_empty() {
            true => (numbers.input_bits as i32 - numbers.input_range, 1 << numbers.input_bits),
            false => {
                (numbers.activation_bits as i32 - numbers.activation_range, 1 << numbers.activation_bits)
            }
        };
        let weight_scale = if map.is_fixed() { 0 } else { numbers.weight_bits as i32 };
        let flood = |taps: usize, bound: u64| {
            let quotient = (taps as u64).saturating_mul(bound).saturating_add(1);
            Flood { ring: numbers.ring, quotient, bits: numbers.flood_bits }.check()
        };
        let [most_sum, most_product] = map.most_terms();
        let layer = (!map.is_fixed()).then(|| {
            let weights = self.parameters..self.parameters + map.weights();
            let biases = weights.end..weights.end + rows;
            self.parameters = biases.end;
            LayerSpan { name, rows, shape, weights, biases }
        });
        if input.0 + (map.scale_bits() as i32) < 0 {
            return Err(gelu_tensor::Error::Scale { expected: 0, found: input.0 });
        }
        self.segments.push(TrainSegment {
            name: segment_name,
            layer,
            input,
            sum_scale: input.0 + weight_scale + map.scale_bits() as i32,
            product_scale: numbers.error_bits as i32 + weight_scale + map.scale_bits() as i32,
            forward_flood: flood(most_sum, input.1)?,
            backward_flood: Some(flood(most_product, 1 << numbers.error_bits)?),
            map,
            activations: vec![],
        });
        Ok(())
    }
}
