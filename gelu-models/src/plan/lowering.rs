//! What between segments is computed on integers.

use gelu_layers::{AvgPool2dConfig, ClientOp, IntegerStep, LinearConfig};
use gelu_tensor::{Shape, Window};

use super::Segment;
use super::cut::{Cut, Step};
use crate::{Graph, Op, ValueId};

/// What a client makes of a segment's sums on integers alone, because nobody reads anything between them and the integers
/// that are encrypted next.
#[derive(Clone, Debug)]
pub(super) struct Lowering {
    /// The value whose integers the step gives.
    pub(super) output: ValueId,
    /// The value between the two if there are two, which nobody has.
    pub(super) between: Option<ValueId>,
    /// Of which sums the largest go on, if not all do. A step never falls, so it is as well taken of them.
    pub(super) maxima: Option<Maxima>,
    pub(super) step: IntegerStep,
}

/// The largest elements of windows.
#[derive(Clone, Debug)]
pub(crate) struct Maxima {
    taps: usize,
    /// Elements of an image.
    elements: usize,
    /// The elements of each window. Where one reaches beyond the image, it has an element twice.
    windows: Vec<u32>,
}

impl Maxima {
    /// Those of max pooling.
    fn new(window: Window, shape: &Shape) -> Option<Self> {
        let map = LinearConfig::AvgPool2d(AvgPool2dConfig::new(window)).map(shape).ok()?;
        let [block] = map.blocks() else { return None };
        let mut windows = vec![];
        for column in 0..block.columns() {
            let inside = (0..block.taps()).filter_map(|tap| block.input(column, tap));
            let first = inside.clone().next()?;
            let window = (0..block.taps()).map(|tap| block.input(column, tap).unwrap_or(first) as u32);
            windows.extend(window);
        }
        Some(Self { taps: block.taps(), elements: shape.elements(), windows })
    }

    /// Elements of a window.
    pub(crate) fn taps(&self) -> usize {
        self.taps
    }

    /// The windows of an image, one after another.
    pub(crate) fn windows(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.windows.chunks_exact(self.taps)
    }

    /// The largest elements of images.
    pub(super) fn of(&self, values: &[i64]) -> Vec<i64> {
        let largest = |image: &[i64], window: &[u32]| {
            window.iter().filter_map(|&at| image.get(at as usize)).max().copied().unwrap_or(0)
        };
        let images = values.chunks_exact(self.elements);
        images.flat_map(|image| self.windows().map(move |window| largest(image, window))).collect()
    }
}

/// Finds what can be done on integers with each segment's sums: their activation and max pooling, or their rounding as they
/// are.
pub(super) fn lowerings(segments: &[Segment], cut: &Cut, graph: &Graph) -> Vec<Option<Lowering>> {
    // Of each value the steps that read it in the clear, and the formats in which it is encrypted.
    let mut readers = vec![(vec![], vec![]); graph.nodes().len() + 1];
    for step in &cut.steps {
        if let Step::Client(step) = step {
            step.inputs.iter().for_each(|input| readers[input.index()].0.push(step));
        }
    }
    for term in segments.iter().flat_map(|segment| &segment.terms) {
        readers[term.source.index()].1.push(term.values);
    }
    let lowering = |segment: &Segment| {
        let (mut output, mut between) = (segment.output, None);
        let (mut activation, mut maxima) = (None, None);
        let formats = loop {
            let (clients, formats) = &readers[output.index()];
            if [cut.output, cut.logits].contains(&output) {
                return None;
            }
            match (&clients[..], &formats[..]) {
                ([], formats) => break formats,
                ([client], []) => {
                    match &graph.nodes()[client.node].op {
                        Op::Client(ClientOp::Activation(own)) if activation.is_none() => {
                            activation = Some(*own);
                        }
                        Op::Client(ClientOp::MaxPool2d(window)) if maxima.is_none() => {
                            maxima = Some(Maxima::new(*window, graph.shape(output))?);
                        }
                        _ => return None,
                    }
                    between = (output != segment.output).then_some(output);
                    output = client.output;
                }
                _ => return None,
            }
        };
        // A value has one format, whoever reads it.
        let step = IntegerStep::new(activation, segment.format, *formats.first()?)?;
        Some(Lowering { output, between, maxima, step })
    };
    segments.iter().map(lowering).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn maxima_of_integers_are_those_of_max_pooling(
            size in (1usize..3, 3usize..6, 3usize..6), kernel in (1usize..4, 1usize..4),
            stride in (1usize..3, 1usize..3), padded: bool,
            values in prop::collection::vec(-9i64..9, 2 * 2 * 5 * 5),
        ) {
            let shape = Shape::from([size.0, size.1, size.2]);
            let padding = [usize::from(padded && kernel.0 > 1), usize::from(padded && kernel.1 > 1)];
            let window =
                Window::new([kernel.0, kernel.1]).with_stride([stride.0, stride.1]).with_padding(padding);
            let values = &values[..2 * shape.elements()];
            let reals: Vec<f64> = values.iter().map(|&x| x as f64).collect();
            let expected = ClientOp::MaxPool2d(window).forward(&[&shape], &[&reals[..]]).unwrap();
            let found = Maxima::new(window, &shape).unwrap().of(values);
            prop_assert_eq!(found.into_iter().map(|x| x as f64).collect::<Vec<_>>(), expected);
        }
    }
}
