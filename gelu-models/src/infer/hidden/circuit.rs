//! What both sides compute behind a segment's sums, on garbled wires.

use gelu_garble::{Bits, Choices, Error, Ring, circuits};
use gelu_layers::StepWires;

use crate::plan::{Behind, HiddenSegment};

impl HiddenSegment {
    /// Circuits side by side in a block of so many sums: one for each, or one for all.
    pub(super) fn width(&self, sums: usize) -> usize {
        match self.behind {
            Behind::Class => 1,
            Behind::Step(..) | Behind::Sums => sums,
        }
    }

    /// The bits of a block's shares in the order of its circuits' inputs.
    pub(super) fn choices(&self, shares: &[u64]) -> Result<Choices, Error> {
        match self.behind {
            // One circuit has all sums: the bits of the first, then those of the next.
            Behind::Class => {
                let bits =
                    shares.iter().flat_map(|share| (0..self.shared.bits()).map(move |bit| share >> bit & 1));
                Choices::of_numbers(&zeroize::Zeroizing::new(bits.collect::<Vec<_>>()), 1)
            }
            Behind::Step(..) | Behind::Sums => Choices::of_numbers(shares, self.shared.bits()),
        }
    }

    /// Labels of a block of so many sums, of either side's shares.
    pub(super) fn labels(&self, sums: usize) -> usize {
        sums.saturating_mul(self.shared.bits() as usize)
    }

    /// The circuit, on the shares of both sides.
    pub(super) fn circuit<B: Bits>(&self, bits: &mut B, a: &[B::Wire], b: &[B::Wire]) -> StepWires<B::Wire> {
        let width = self.shared.bits() as usize;
        let shares = a.chunks(width).zip(b.chunks(width));
        let sums: Vec<Vec<B::Wire>> = shares.map(|(a, b)| circuits::add(bits, a, b)).collect();
        match (&self.behind, sums.first()) {
            (Behind::Step(step, _), Some(sum)) => step.circuit(bits, sum),
            _ => StepWires { wires: circuits::argmax(bits, &sums), signed: false, base: 0 },
        }
    }

    /// The rings in which the circuit's results go on, reader by reader.
    pub(super) fn reader_rings(&self) -> impl Iterator<Item = Ring> + '_ {
        let readers = match &self.behind {
            Behind::Step(_, readers) => &readers[..],
            Behind::Class | Behind::Sums => &[],
        };
        readers.iter().map(|reader| reader.ring)
    }
}
