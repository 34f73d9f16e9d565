//! What a server multiplies with in a turn: weights of as few bits as hold them.

use std::sync::Arc;

use gelu_tensor::{Error, FixedTensor, Format, IntWeights, LinearMap, Shape, WeightRange};

use super::{PrivateError, TrainPlan, TrainSegment, TrainTerm};
use crate::peer::Part;
use crate::plan::{Layout, MapOf, Output};

/// How the answer to an exchange is computed on weights that stay as they are for a turn.
#[derive(Debug)]
pub(in crate::train::private) struct Multiplication {
    /// The planned layout, with the cheapest products for these weights.
    pub(in crate::train::private) layout: Layout,
    /// The maps, and their weights.
    pub(in crate::train::private) terms: Vec<(Arc<LinearMap>, IntWeights)>,
    /// What is added to the sums of each image.
    pub(in crate::train::private) bias: Option<FixedTensor>,
    /// Of the answer.
    pub(in crate::train::private) shape: Shape,
    /// Of the answer.
    pub(in crate::train::private) format: Format,
}

impl TrainPlan {
    /// How all exchanges are answered with these parameters, in order.
    pub(in crate::train::private) fn multiplications(
        &self,
        parameters: &[i64],
    ) -> Result<Vec<Multiplication>, PrivateError> {
        self.check_parameters(parameters)?;
        let parameters = &self.rounded(parameters)[..];
        let answer = |down: Part| {
            let absent =
                || PrivateError::Model { rule: "the plan must have the tensor", found: down.to_string() };
            let segment = |index: u32| self.segments.get(index as usize).ok_or_else(absent);
            match down {
                Part::Sums { segment: index } => Ok(self.forward(segment(index)?, parameters)?),
                Part::Products { segment: index, term } => {
                    let term = segment(index)?.terms.get(term as usize).ok_or_else(absent)?;
                    self.backward(term, parameters)?.ok_or_else(absent)
                }
                _ => Err(absent()),
            }
        };
        self.exchanges.iter().map(|exchange| answer(exchange.down)).collect()
    }

    fn forward(&self, segment: &TrainSegment, parameters: &[i64]) -> Result<Multiplication, Error> {
        let weights =
            segment.terms.iter().map(|term| weights(&term.map, &parameters[term.layer.weights.clone()]));
        let weights = weights.collect::<Result<Vec<_>, Error>>()?;
        let maps: Vec<MapOf<'_>> =
            segment.terms.iter().zip(&weights).map(|(term, weights)| term.forward(weights.range())).collect();
        let output = self.numbers().output(&segment.shape, segment.terms.len())?;
        let layout = segment.layout.for_weights(&maps, output, self.description.deployment())?;
        let terms = segment.terms.iter().map(|term| term.map.clone()).zip(weights).collect();
        let bias = segment.bias(parameters);
        let bias = match bias.iter().map(|bias| bias.unsigned_abs()).max() {
            None => None,
            Some(bound) => Some(FixedTensor::new(segment.shape.clone(), Format::integers(bound)?, bias)?),
        };
        Self::multiplication(layout, terms, bias, output)
    }

    fn backward(&self, term: &TrainTerm, parameters: &[i64]) -> Result<Option<Multiplication>, Error> {
        let Some(back) = &term.back else { return Ok(None) };
        let weights = weights(&back.map, &parameters[term.layer.weights.clone()])?;
        let maps = [MapOf { map: &back.map, contents: self.numbers().errors()?, weights: weights.range() }];
        let output = self.numbers().output(back.map.output(), 1)?;
        let layout = back.layout.for_weights(&maps, output, self.description.deployment())?;
        Self::multiplication(layout, vec![(back.map.clone(), weights)], None, output).map(Some)
    }

    fn multiplication(
        layout: Layout,
        terms: Vec<(Arc<LinearMap>, IntWeights)>,
        bias: Option<FixedTensor>,
        Output { shape, contents, .. }: Output<'_>,
    ) -> Result<Multiplication, Error> {
        let format = contents.format().unwrap_or(Format::integers(0)?);
        Ok(Multiplication { layout, terms, bias, shape: shape.clone(), format })
    }
}

/// Weights of a map in the fewest bits, with what their rows sum to.
fn weights(map: &LinearMap, parameters: &[i64]) -> Result<IntWeights, Error> {
    let largest = parameters.iter().map(|weight| weight.unsigned_abs()).max().unwrap_or(0);
    let bits = (65 - largest.leading_zeros()).max(2);
    let values = parameters.iter().map(|&weight| weight as i32).collect();
    IntWeights::new(WeightRange::signed(bits)?, values)?.summed(map)
}
