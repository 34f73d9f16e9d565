//! Which activations between segments are computed on integers.

use gelu_layers::{ClientOp, IntegerStep};

use super::Segment;
use super::cut::{Cut, Step};
use crate::{Graph, Op, ValueId};

/// What a client makes of a segment's sums on integers alone, because nobody reads anything between them and the integers
/// that are encrypted next.
#[derive(Clone, Debug)]
pub(super) struct Lowering {
    /// The value whose integers the step gives.
    pub(super) output: ValueId,
    pub(super) step: IntegerStep,
}

/// Finds what can be done on integers with each segment's sums: their activation, or their rounding as they are.
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
    let kept = [cut.output, cut.logits];
    let lowering = |segment: &Segment| {
        let sums = segment.output;
        let (output, activation) = match &readers[sums.index()] {
            (clients, _) if clients.is_empty() => (sums, None),
            (clients, terms) if clients.len() == 1 && terms.is_empty() => {
                match &graph.nodes()[clients[0].node].op {
                    Op::Client(ClientOp::Activation(activation)) => (clients[0].output, Some(*activation)),
                    _ => return None,
                }
            }
            _ => return None,
        };
        let (clients, formats) = &readers[output.index()];
        if kept.contains(&sums) || kept.contains(&output) || !clients.is_empty() && output != sums {
            return None;
        }
        // A value has one format, whoever reads it.
        let step = IntegerStep::new(activation, segment.format, *formats.first()?)?;
        Some(Lowering { output, step })
    };
    segments.iter().map(lowering).collect()
}
