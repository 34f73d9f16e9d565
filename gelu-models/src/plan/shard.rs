//! A server's work on a part of a batch, cut into shards that several machines can compute.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use gelu_tensor::paillier::Hiding;
use gelu_tensor::{
    Arrangement, EncTensor, EncTensorHeader, Error, IntWeights, LinearMap, Masks, Product, Shape, Workload,
};
use rand::CryptoRng;

use super::{Part, Program, Segment};
use crate::peer::exchange::{TensorProduct, sum_of_products};

/// Some of a segment's sums on one part of a batch: a unit of a server's work that takes nothing but weights, ciphertexts
/// and random numbers, so that any machine that has the model can do it, and another one again if it is lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Which segment.
    pub segment: usize,
    /// Which of the [parts](super::Layout::each_part) of a batch.
    pub part: usize,
    /// Which units of each group: elements of the output where slots run over images, rows of the layer where they run over
    /// its columns.
    pub units: Range<usize>,
}

/// A segment as if its layers had the outputs of a shard only.
struct Cutout<'a> {
    segment: Cow<'a, Segment>,
    groups: Range<usize>,
    /// Which outputs these are; `None` for all.
    outputs: Option<Vec<u32>>,
}

/// What a shard is computed from.
struct Piece<'a> {
    segment: Cow<'a, Segment>,
    groups: Range<usize>,
    part: Cow<'a, Part>,
    weights: &'a [IntWeights],
    bias: Cow<'a, [f64]>,
}

impl Program {
    /// Returns all of the work on a part as one shard.
    ///
    /// # Errors
    /// [`Error::Limit`] when there is no such segment or part.
    pub fn shard(&self, segment: usize, part: usize) -> Result<Shard, Error> {
        let (planned, groups, _) = self.part(segment, part)?;
        Ok(Shard { segment, part, units: 0..planned.down_header().part(groups).units() })
    }

    /// Returns the work on a part as at most so many shards of about the same size: fewer where a reply's ciphertexts hold
    /// the sums of several rows, and one where a layer is many small matrices.
    ///
    /// # Errors
    /// As [`shard`](Self::shard).
    pub fn shards(&self, segment: usize, part: usize, most: usize) -> Result<Vec<Shard>, Error> {
        let whole = self.shard(segment, part)?;
        let (planned, groups, _) = self.part(segment, part)?;
        let (units, stacked) = (whole.units.end, planned.layout.down.stacked());
        let across_groups = groups.len() > 1 && !units.is_multiple_of(stacked);
        if most < 2 || across_groups {
            return Ok(vec![whole]);
        }
        let free = planned.cuts(units);
        let cut = |at: usize| (at..units).find(|&at| at.is_multiple_of(stacked) && free[at]);
        let mut ends: Vec<usize> = (1..most).filter_map(|index| cut(index * units / most)).collect();
        ends.push(units);
        ends.dedup();
        let mut first = 0;
        let shards = ends.into_iter().filter(|&end| end > 0).map(|end| {
            let units = std::mem::replace(&mut first, end)..end;
            Shard { units, ..whole }
        });
        Ok(shards.collect())
    }

    /// Returns the headers of the tensors that a shard is computed from: those of the part, term by term.
    ///
    /// # Errors
    /// [`Error::Limit`] and [`Error::Layout`] when it is no shard of this program.
    pub fn shard_inputs(&self, shard: &Shard) -> Result<Vec<EncTensorHeader>, Error> {
        let Cutout { segment, groups, .. } = self.cutout(shard)?;
        Ok((0..segment.terms.len()).map(|term| segment.up_header(term).part(groups.clone())).collect())
    }

    /// Returns the header of what a shard gives.
    ///
    /// # Errors
    /// As [`shard_inputs`](Self::shard_inputs).
    pub fn shard_reply(&self, shard: &Shard) -> Result<EncTensorHeader, Error> {
        let Cutout { segment, groups, .. } = self.cutout(shard)?;
        Ok(segment.down_header().part(groups))
    }

    /// Computes a shard, on the inputs of its part, as it leaves the server: products, sums, biases, repacking,
    /// re-randomization. The same random numbers give the same ciphertexts.
    ///
    /// # Errors
    /// [`Error`] when it is no shard of this program, or the inputs are not its own.
    pub fn reply(
        &self,
        shard: &Shard,
        inputs: &[EncTensor],
        rng: &mut dyn CryptoRng,
    ) -> Result<EncTensor, Error> {
        let piece = self.piece(shard)?;
        let (expected, found) = (piece.segment.terms.len(), inputs.len());
        let key = inputs.first().filter(|_| expected == found).map(EncTensor::key);
        let key = key.ok_or(Error::Count { what: "tensors of a segment", expected, found })?;
        let exponents = key.hiding_exponents(rng, piece.part.hiding);
        let masks = piece.segment.masks(piece.groups.clone(), key, rng)?;
        // Stacking leaves cores idle, which make the random factors meanwhile.
        let (sums, fresh) = rayon::join(|| piece.sums(inputs, masks), || exponents.powers());
        Ok(sums?.rerandomize_with(fresh, rng))
    }

    /// Returns the reply to a part from those of all its shards, in their order.
    ///
    /// # Errors
    /// [`Error`] when these are not all of it.
    pub fn join(&self, segment: usize, part: usize, replies: &[EncTensor]) -> Result<EncTensor, Error> {
        let (planned, groups, _) = self.part(segment, part)?;
        EncTensor::join(planned.down_header().part(groups), replies)
    }

    /// Computes a segment on a part of a batch: products, sums, biases, repacking. The masks are [those of the
    /// part](Segment::masks). What comes out is yet to be re-randomized.
    ///
    /// # Errors
    /// [`Error`] when there is no such segment or part, or inputs and masks are not those of the plan.
    pub fn sums(
        &self,
        (segment, part): (usize, usize),
        inputs: &[EncTensor],
        masks: Masks,
    ) -> Result<EncTensor, Error> {
        self.piece(&self.shard(segment, part)?)?.sums(inputs, masks)
    }

    /// Computes a segment on a part of a batch of masks: products and sums mod 2^l, yet to be flooded and re-randomized.
    #[cfg(feature = "hidden")]
    pub(crate) fn sums_of_masks(
        &self,
        segment: usize,
        own: &super::HiddenSegment,
        (part, masks): (&Part, &[EncTensor]),
    ) -> Result<EncTensor, Error> {
        let (terms, weights) = (&self.plan.segments()[segment].terms, self.weights(segment));
        let multiplied = own.multiplied.iter().zip(&part.products).zip(masks);
        let products = multiplied.map(|((&term, product), input)| {
            let weights = &weights[term];
            TensorProduct { input, map: &terms[term].map, weights, product }
        });
        let sums = sum_of_products(products, &self.plan.segments()[segment].shape)?;
        sums.into_residues(own.flood)?.repack(own.layout.down.stacked())
    }

    fn part(&self, segment: usize, part: usize) -> Result<(&Segment, Range<usize>, &Part), Error> {
        let segments = self.plan.segments();
        let planned = segments.get(segment).ok_or(Error::Limit {
            what: "segments of a plan",
            limit: segments.len(),
            found: segment.saturating_add(1),
        })?;
        let (groups, found) = planned.layout.each_part().nth(part).ok_or_else(|| Error::Limit {
            what: "parts of a batch",
            limit: planned.layout.each_part().count(),
            found: part.saturating_add(1),
        })?;
        Ok((planned, groups, found))
    }

    /// The segment as far as a shard goes.
    fn cutout(&self, shard: &Shard) -> Result<Cutout<'_>, Error> {
        let (planned, groups, _) = self.part(shard.segment, shard.part)?;
        if *shard == self.shard(shard.segment, shard.part)? {
            return Ok(Cutout { segment: Cow::Borrowed(planned), groups, outputs: None });
        }
        let outputs = planned.outputs(&shard.units)?;
        let segment = Cow::Owned(planned.to_outputs(&outputs)?);
        Ok(Cutout { segment, groups, outputs: Some(outputs) })
    }

    fn piece(&self, shard: &Shard) -> Result<Piece<'_>, Error> {
        let Cutout { segment, groups, outputs } = self.cutout(shard)?;
        let (_, _, part) = self.part(shard.segment, shard.part)?;
        let lowered = &self.lowered.segments[shard.segment];
        let (weights, bias) = (&lowered.weights[..], &lowered.bias[..]);
        let Some(outputs) = outputs else {
            let (part, bias) = (Cow::Borrowed(part), Cow::Borrowed(bias));
            return Ok(Piece { segment, groups, part, weights, bias });
        };
        let lanes = self.plan.description().lanes;
        let products = segment.terms.iter().zip(&segment.layout.ups).map(|(term, up)| {
            let weights = term.weights;
            Product::cheapest(&term.map, up, Workload { weights, groups: groups.len(), lanes })
        });
        let products = products.collect::<Result<_, _>>()?;
        let ciphertexts = segment.down_header().part(groups.clone()).ciphertexts();
        let hiding = Hiding { ciphertexts, ..part.hiding };
        let part = Cow::Owned(Part { products, hiding, ..part.clone() });
        let bias = match bias {
            [] => Cow::Borrowed(bias),
            _ => Cow::Owned(outputs.iter().map(|&output| bias[output as usize]).collect()),
        };
        Ok(Piece { segment, groups, part, weights, bias })
    }
}

impl Piece<'_> {
    fn sums(&self, inputs: &[EncTensor], masks: Masks) -> Result<EncTensor, Error> {
        let Self { segment, part, weights, bias, .. } = self;
        let laid_out: Vec<EncTensor>;
        let inputs = match segment {
            Cow::Borrowed(_) => inputs,
            // The ciphertexts of the part, whose layout speaks of the whole map.
            Cow::Owned(segment) => {
                let terms = segment.terms.iter().zip(inputs);
                let inputs = terms.map(|(term, input)| input.clone().for_map(&term.map));
                laid_out = inputs.collect::<Result<_, _>>()?;
                &laid_out
            }
        };
        let terms = segment.terms.iter().zip(*weights).zip(&part.products).zip(inputs);
        let products = terms.map(|(((term, weights), product), input)| TensorProduct {
            input,
            map: &term.map,
            weights,
            product,
        });
        let sums = sum_of_products(products, &segment.shape)?;
        let packed = segment.layout.down.fields() > 1;
        let sums = if packed { sums.combine(masks)? } else { sums };
        let sums = match segment.bias(bias)? {
            Some(bias) => sums.add_plain(&bias)?,
            None => sums,
        };
        if packed { Ok(sums) } else { sums.repack(segment.layout.down.stacked()) }
    }
}

impl Segment {
    /// For each unit of a reply whether a shard may begin with it: no row of a layer has some of its outputs in one shard
    /// and others in another.
    fn cuts(&self, units: usize) -> Vec<bool> {
        let Arrangement::Images = self.layout.down.arrangement() else {
            // The taps of several blocks are ciphertexts of their own, of which a shard would need some.
            let alone = self.terms.iter().all(|term| term.map.blocks().len() == 1);
            return vec![alone; units];
        };
        // Where rows begin and end that go over an output.
        let mut over = vec![0i64; units + 1];
        for block in self.terms.iter().flat_map(|term| term.map.blocks()) {
            for row in 0..block.rows() {
                let outputs = (0..block.columns()).map(|column| block.output(column, row));
                let bounds = outputs.fold(None, |bounds: Option<(usize, usize)>, output| {
                    let (first, last) = bounds.unwrap_or((output, output));
                    Some((first.min(output), last.max(output)))
                });
                if let Some((first, last)) = bounds {
                    over[first + 1] += 1;
                    over[last + 1] -= 1;
                }
            }
        }
        let mut rows = 0;
        over.truncate(units);
        over.into_iter()
            .map(|change| {
                rows += change;
                rows == 0
            })
            .collect()
    }

    /// The outputs of some units, in ascending order.
    fn outputs(&self, units: &Range<usize>) -> Result<Vec<u32>, Error> {
        let all = self.down_header().units();
        if units.start >= units.end || units.end > all {
            return Err(Error::Limit { what: "units of a shard", limit: all, found: units.end });
        }
        let mut outputs: Vec<u32> = match (self.layout.down.arrangement(), self.terms[0].map.blocks()) {
            (Arrangement::Images, _) => units.clone().map(|unit| unit as u32).collect(),
            (_, [block]) => {
                let columns = 0..block.columns();
                let of_rows = |column| units.clone().map(move |row| block.output(column, row) as u32);
                columns.flat_map(of_rows).collect()
            }
            _ => {
                return Err(Error::Layout {
                    operation: "a shard of a segment",
                    expected: "one matrix, or slots that run over images",
                    found: self.layout.down.to_string(),
                });
            }
        };
        outputs.sort_unstable();
        Ok(outputs)
    }

    /// The same sums for some of the outputs only.
    fn to_outputs(&self, outputs: &[u32]) -> Result<Self, Error> {
        let mut shorter = self.clone();
        shorter.shape = Shape::from([outputs.len()]);
        for term in &mut shorter.terms {
            let map = LinearMap::to_outputs(&term.map, outputs)?;
            term.map = Arc::new(map);
        }
        let layout = &mut shorter.layout;
        for (up, term) in layout.ups.iter_mut().zip(&shorter.terms) {
            *up = up.with_map(&term.map);
        }
        layout.down = layout.down.with_map(&shorter.terms[0].map);
        Ok(shorter)
    }
}
