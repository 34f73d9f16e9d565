//! What both sides do with shares: where they come from and go, and what is computed of them on garbled wires.

use gelu_garble::{Bits, Choices, Error, Ring, circuits};
use gelu_layers::StepWires;
use gelu_tensor::EncTensorHeader;
use zeroize::Zeroizing;

use crate::plan::{Behind, HiddenPlan, HiddenSegment, Reader, Segment, Term, header};

impl HiddenPlan {
    /// Returns the segment whose results a term reads, and as which of its readers; `None` if the client has them from the
    /// image alone.
    pub(super) fn source(&self, segment: usize, term: usize) -> Option<(usize, usize)> {
        self.segments().iter().enumerate().find_map(|(from, own)| {
            let Behind::Step(_, readers) = &own.behind else { return None };
            let is_reader = |reader: &Reader| (reader.segment, reader.term) == (segment, term);
            readers.iter().position(is_reader).map(|reader| (from, reader))
        })
    }
}

/// Shares of what goes into a term: of the elements themselves, or of their sums.
pub(super) fn sum_shares(term: &Term, shares: &[u64]) -> Result<Zeroizing<Vec<u64>>, gelu_tensor::Error> {
    let Some(sums) = term.sums.as_deref() else { return Ok(Zeroizing::new(shares.to_vec())) };
    let shares: Zeroizing<Vec<i64>> = Zeroizing::new(shares.iter().map(|&share| share as i64).collect());
    sums.apply_wrapping(&[1], &shares).map(Zeroizing::new)
}

impl HiddenSegment {
    /// Returns the header of the masks that go up for a term, for so many images.
    pub(super) fn up_header(&self, segment: &Segment, term: usize, images: usize) -> EncTensorHeader {
        header(&self.layout.ups[term], segment.terms[term].map.input(), images)
    }

    /// Returns the header of their sums.
    pub(super) fn down_header(&self, segment: &Segment, images: usize) -> EncTensorHeader {
        header(&self.layout.down, &segment.shape, images)
    }

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
                Choices::of_numbers(&Zeroizing::new(bits.collect::<Vec<_>>()), 1)
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
