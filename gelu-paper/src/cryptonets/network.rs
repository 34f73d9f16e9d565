use gelu_layers::{Activation, Affine, ClientOp};
use gelu_models::{Model, Op, ValueId};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use crate::bfv::{Parameters, ParametersError, Step, SumRow, Sums, Term};

/// How a network's numbers become integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Bits of a pixel: 2^bits - 1 stands for 1.
    pub input: u32,
    /// Bits of a weight, its sign included.
    pub weight: u32,
}

/// A network of affine maps of integers with squares between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    inputs: usize,
    /// The integer of a pixel that is 1.
    white: i128,
    layers: Vec<Sums>,
}

/// A model that cannot be run in this way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError(String);

impl std::fmt::Display for NetworkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: CryptoNets' way has linear layers in a row, with squares between them", self.0)
    }
}

impl std::error::Error for NetworkError {}

impl Network {
    /// Returns the integers of a trained model, each affine map's at the finest scale of so many bits.
    ///
    /// # Errors
    /// [`NetworkError`] when the model has other nodes than linear layers in a row, squares between them, and shapes and
    /// a softmax, which change no order of the outputs.
    pub fn quantize(model: &Model, bits: Bits) -> Result<Self, NetworkError> {
        let graph = model.graph();
        let refuse = |what: &str| NetworkError(what.to_owned());
        let white = (1_i128 << bits.input) - 1;
        let inputs = graph.input().elements();
        let mut layers = vec![];
        let mut affine: Option<Affine> = None;
        // What an integer of the present value stands for: so many to one.
        let mut scale = white as f64;
        for (place, node) in graph.nodes().iter().enumerate() {
            let follows = if place == 0 { ValueId::INPUT } else { ValueId::of_node(place - 1) };
            if node.inputs[..] != [follows] {
                return Err(refuse(&node.name));
            }
            match &node.op {
                Op::Linear(_) => {
                    let layer = model.layer(place).ok_or_else(|| refuse(&node.name))?.affine();
                    affine = Some(match affine {
                        Some(before) => before.then(&layer).map_err(|error| refuse(&error.to_string()))?,
                        None => layer,
                    });
                }
                Op::Client(ClientOp::Activation(Activation::Square)) => {
                    let affine = affine.take().ok_or_else(|| refuse(&node.name))?;
                    layers.push(integers(&affine, bits.weight, &mut scale));
                    scale *= scale;
                }
                Op::Client(ClientOp::Softmax) => {}
                _ => return Err(refuse(&node.name)),
            }
        }
        layers.push(integers(&affine.ok_or_else(|| refuse("the end"))?, bits.weight, &mut scale));
        Ok(Self { inputs, white, layers })
    }

    /// Returns the number of elements of an image.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Returns the affine maps; a square follows each but the last.
    pub fn layers(&self) -> &[Sums] {
        &self.layers
    }

    /// Returns what is done to ciphertexts on their way, with the modulus switched down after the first squares or not.
    fn steps(&self, switches_down: bool) -> Vec<Step> {
        let (mut steps, last) = (vec![], self.layers.len() - 1);
        for (place, layer) in self.layers.iter().enumerate() {
            steps.push(Step::Sums { growth_bits: layer.growth_bits(), products: layer.products() });
            // After the sums there are fewer to relinearize than before; the last square's are never.
            if place > 0 && place < last {
                steps.push(Step::Relinearize);
            }
            if place < last {
                steps.push(Step::Products(layer.rows.len()));
            }
            if place == 0 && switches_down {
                steps.push(Step::SwitchDown);
            }
        }
        steps
    }

    /// Returns how the network costs least, where outputs stay below 2^`bits` in absolute value.
    ///
    /// # Errors
    /// [`ParametersError`].
    pub fn plan(&self, bits: u32) -> Result<Plan, ParametersError> {
        let plan = |switches_down: bool| {
            let parameters = Parameters::choose(bits, &self.steps(switches_down))?;
            Ok(Plan { parameters, switches_down, bits })
        };
        match [plan(true), plan(false)] {
            [Ok(a), Ok(b)] => Ok(if a.parameters.cost_us <= b.parameters.cost_us { a } else { b }),
            [Ok(plan), Err(_)] | [Err(_), Ok(plan)] => Ok(plan),
            [Err(error), Err(_)] => Err(error),
        }
    }

    /// Returns the integers of pixels from 0 to 1, `[elements, images]`: a row is what a ciphertext holds.
    pub fn integers(&self, images: ArrayView2<'_, f32>) -> Array2<i128> {
        let white = self.white as f32;
        images.t().mapv(|pixel| (pixel.clamp(0.0, 1.0) * white).round() as i128)
    }

    /// Returns the outputs, `[outputs, images]`, of integers as [`integers`](Self::integers) gives them.
    pub fn run_clear(&self, integers: &Array2<i128>) -> Array2<i128> {
        let outputs: Vec<Vec<i128>> = (0..integers.ncols())
            .into_par_iter()
            .map(|image| {
                let mut values = integers.column(image).to_vec();
                for (place, layer) in self.layers.iter().enumerate() {
                    values = layer.apply_clear(&values);
                    if place + 1 < self.layers.len() {
                        values.iter_mut().for_each(|x| *x *= *x);
                    }
                }
                values
            })
            .collect();
        let classes = self.layers.last().map_or(0, |layer| layer.rows.len());
        Array2::from_shape_fn((classes, outputs.len()), |(class, image)| outputs[image][class])
    }

    /// Returns what the network makes of images in the clear.
    pub fn trial(&self, images: ArrayView2<'_, f32>, labels: &[usize]) -> Trial {
        let outputs = self.run_clear(&self.integers(images));
        let read = |column: ArrayView1<'_, i128>| {
            (0..column.len()).max_by_key(|&class| (column[class], std::cmp::Reverse(class)))
        };
        let images = outputs.axis_iter(Axis(1)).zip(labels);
        let right = images.filter(|(column, label)| read(*column) == Some(**label)).count();
        let largest = outputs.iter().map(|x| x.unsigned_abs()).max().unwrap_or(0);
        Trial { accuracy: right as f64 / labels.len().max(1) as f64, bits: 128 - largest.leading_zeros() }
    }
}

/// How a network is run on ciphertexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The scheme's.
    pub parameters: Parameters,
    /// Whether the ciphertext modulus is switched down after the first squares.
    pub switches_down: bool,
    /// Bits that outputs have room for.
    pub bits: u32,
}

/// What a network made of images in the clear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// The share whose largest output is that of their label.
    pub accuracy: f64,
    /// Bits of the largest output's absolute value.
    pub bits: u32,
}

/// The integers of an affine map whose input has a scale, which becomes the output's.
fn integers(affine: &Affine, bits: u32, scale: &mut f64) -> Sums {
    let largest =
        affine.weights().iter().fold(f64::MIN_POSITIVE, |largest: f64, weight| largest.max(weight.abs()));
    // Any factor will do, since nothing is ever rounded after this.
    let factor = f64::from((1_i32 << (bits - 1)) - 1) / largest;
    *scale *= factor;
    let bias = |output: usize| affine.bias().get(output).map_or(0, |bias| (bias * *scale).round() as i128);
    let outputs = affine.map().output().elements();
    let mut rows: Vec<SumRow> =
        (0..outputs).map(|output| SumRow { terms: vec![], bias: bias(output) }).collect();
    for entry in affine.map().entries() {
        let weight = (affine.weights()[entry.weight as usize] * factor).round() as i32;
        if weight != 0 {
            rows[entry.output as usize].terms.push(Term { input: entry.input, weight });
        }
    }
    Sums { rows }
}
