//! What both sides do with shares: where they come from and go, and what is computed of them on garbled wires.

use std::ops::Range;

use gelu_garble::{Bits, Choices, Error, circuits};
use gelu_layers::StepWires;
use gelu_tensor::EncTensorHeader;
use zeroize::Zeroizing;

use crate::plan::{Behind, HiddenPlan, HiddenSegment, Reader, Segment, Term, encrypted, header};

impl HiddenPlan {
    /// Returns the segment whose results a term reads, and as which of its readers; `None` if the client has them from the
    /// image alone.
    pub(super) fn source(&self, segment: usize, term: usize) -> Option<(usize, usize)> {
        self.segments().iter().enumerate().find_map(|(from, own)| {
            let Behind::Step { readers, .. } = &own.behind else { return None };
            let is_reader = |reader: &Reader| (reader.segment, reader.term) == (segment, term);
            readers.iter().position(is_reader).map(|reader| (from, reader))
        })
    }
}

/// Shares of what goes into a term, of shares of the value's elements.
pub(super) fn shares_of_term(term: &Term, shares: &[u64]) -> Result<Zeroizing<Vec<u64>>, gelu_tensor::Error> {
    let shares = shares.iter().map(|&share| share as i64).collect();
    let shares = Zeroizing::new(encrypted(shares, term.sums.as_deref(), term.factor)?);
    Ok(Zeroizing::new(shares.iter().map(|&share| share as u64).collect()))
}

/// What terms that follow from the graph give of a side's own shares is added to its shares of the sums.
pub(super) fn add_multiples(
    segment: &Segment,
    inputs: &[Zeroizing<Vec<u64>>],
    sums: &mut [u64],
) -> Result<(), gelu_tensor::Error> {
    for (term, inputs) in segment.terms.iter().zip(inputs) {
        let Some(multiples) = term.multiples.as_deref() else { continue };
        let inputs = Zeroizing::new(inputs.iter().map(|&share| share as i64).collect::<Vec<_>>());
        let products = Zeroizing::new(term.map.apply_wrapping(multiples, &inputs)?);
        sums.iter_mut().zip(products.iter()).for_each(|(sum, product)| *sum = sum.wrapping_add(*product));
    }
    Ok(())
}

impl HiddenSegment {
    /// Returns the header of the masks that go up for one of the multiplied terms, for so many images.
    pub(super) fn up_header(&self, segment: &Segment, at: usize, images: usize) -> EncTensorHeader {
        header(&self.layout.ups[at], segment.terms[self.multiplied[at]].map.input(), images)
    }

    /// Returns the header of their sums.
    pub(super) fn down_header(&self, segment: &Segment, images: usize) -> EncTensorHeader {
        header(&self.layout.down, &segment.shape, images)
    }

    /// The bits of a side's shares in the order of the inputs of some circuits: those of the first sum of each, then of the
    /// next.
    pub(super) fn choices(&self, shares: &[u64], circuits: Range<usize>) -> Result<Choices, Error> {
        let wanted = circuits.len().saturating_mul(self.taps());
        let found = |shares: &[u64]| match shares.len() == wanted {
            true => Choices::of_numbers(shares, self.shared.bits()),
            false => Err(Error::Length { what: "shares of sums", expected: wanted, found: shares.len() }),
        };
        let windows = match &self.behind {
            Behind::Step { maxima: Some(maxima), .. } => maxima,
            Behind::Step { .. } => return found(shares.get(circuits).unwrap_or(&[])),
            // Of the one circuit all sums follow each other.
            Behind::Class | Behind::Sums => return self.bits_of(shares.iter().map(std::slice::from_ref)),
        };
        let mut taps = vec![Zeroizing::new(Vec::with_capacity(circuits.len())); self.taps()];
        for window in windows.windows().skip(circuits.start).take(circuits.len()) {
            for (tap, &at) in taps.iter_mut().zip(window) {
                tap.extend(shares.get(at as usize));
            }
        }
        self.bits_of(taps.iter().map(|tap| &tap[..]))
    }

    /// The bits of numbers: the lowest of the first of them, the next of these, and so on; then those of the next.
    fn bits_of<'a>(&self, numbers: impl Iterator<Item = &'a [u64]>) -> Result<Choices, Error> {
        let bits = |numbers: &'a [u64]| {
            (0..self.shared.bits()).flat_map(move |bit| numbers.iter().map(move |number| number >> bit & 1))
        };
        Choices::of_numbers(&Zeroizing::new(numbers.flat_map(bits).collect::<Vec<_>>()), 1)
    }

    /// The circuit, on the shares of both sides.
    pub(super) fn circuit<B: Bits>(&self, bits: &mut B, a: &[B::Wire], b: &[B::Wire]) -> StepWires<B::Wire> {
        let width = self.shared.bits() as usize;
        let shares = a.chunks(width).zip(b.chunks(width));
        let sums: Vec<Vec<B::Wire>> = shares.map(|(a, b)| circuits::add(bits, a, b)).collect();
        self.result(bits, &sums)
    }
}
