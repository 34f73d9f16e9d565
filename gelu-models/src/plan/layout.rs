//! How a segment's tensors are laid out in ciphertexts and multiplied: the cheapest way by a count of both sides'
//! operations. Inference and private training choose by it, in either direction.

use std::ops::Range;
use std::sync::Arc;

use gelu_tensor::paillier::{Hiding, HidingExponents, KeyBits, KeyParameters};
use gelu_tensor::{
    Block, Contents, EncTensor, EncTensorHeader, Error, LinearMap, Operations, Packing, Product, Shape,
    SlotLayout, WeightRange, Workload,
};

use super::Deployment;

/// A map of one encrypted value.
pub(crate) struct MapOf<'a> {
    pub(crate) map: &'a Arc<LinearMap>,
    /// What goes up.
    pub(crate) contents: Contents,
    pub(crate) weights: WeightRange,
}

impl MapOf<'_> {
    /// Multiplication of so many groups.
    fn workload(&self, groups: usize, deployment: Deployment) -> Workload {
        Workload { weights: self.weights, groups, lanes: deployment.lanes }
    }
}

/// How the sum of some maps is computed on ciphertexts, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the values of each term lie.
    pub ups: Vec<SlotLayout>,
    /// Where the sums lie.
    pub down: SlotLayout,
    /// The parts of a batch that the server works on one after another, as their inputs come: as few groups as share no
    /// ciphertext with others, or as many as take a few milliseconds.
    pub parts: Vec<Part>,
    /// Operations mod n^2 of the server for the whole batch: products, sums, repacking, re-randomization.
    pub operations: Operations,
}

/// Equal parts of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// [Groups](SlotLayout::groups) of one part: images, or columns of all images, that share ciphertexts.
    pub groups: usize,
    /// How many such parts there are.
    pub times: usize,
    /// How each term is multiplied.
    pub products: Vec<Product>,
    /// Ciphertexts of the part's sums, and the bits that the exponents of h in them may have before they are hidden.
    pub hiding: Hiding,
    /// Operations mod n^2 of one part.
    pub operations: Operations,
}

/// What the sum of some maps is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) contents: Contents,
    /// Bits of the number that the client's correction of each value is multiplied with before it is added, if there are
    /// corrections. They come up as the values go down.
    pub(crate) correction: Option<u32>,
}

impl Output<'_> {
    /// Operations mod n^2 of correcting one ciphertext.
    fn correcting(self) -> Operations {
        self.correction.map_or(Operations::default(), |bits| {
            EncTensor::scaling(bits) + Operations { products: 1, squarings: 0 }
        })
    }
}

impl Layout {
    /// The cheapest layout of the sum of `terms`.
    ///
    /// # Errors
    /// [`Error::Overflow`] when not even one slot fits the key.
    pub(crate) fn cheapest(
        terms: &[MapOf<'_>],
        output: Output<'_>,
        deployment: Deployment,
    ) -> Result<Self, Error> {
        let contents = output.contents;
        let needed = terms.iter().map(|term| term.contents.slot_bits());
        let slot_bits = needed.fold(contents.slot_bits(), usize::max);
        let packing = Packing { batch: deployment.batch, slot_bits, key: deployment.key.size };
        let images: Vec<SlotLayout> =
            terms.iter().map(|term| SlotLayout::images(packing, term.contents)).collect::<Result<_, _>>()?;
        let mut search = Search { terms, output, deployment, best: None };
        search.stackings(&images)?;
        // Slots over columns, where the products of all terms then lie alike.
        if terms.iter().all(|term| term.map.columns().is_some() && term.map.has_outputs_of(terms[0].map)) {
            let patches = terms.iter().map(|term| SlotLayout::patches(term.map, packing, term.contents));
            let patches = patches.collect::<Result<Vec<_>, _>>()?;
            search.stackings(&patches)?;
            // Neither floods nor corrections can be added to replies that hide cross terms by masks.
            if contents.format().is_some() && output.correction.is_none() {
                search.packings(&patches)?;
            }
        }
        match search.best {
            Some((_, candidate)) => candidate.into_layout(terms, output, deployment),
            None => Err(Error::TooFew { what: "terms of a segment", least: 1, found: 0 }),
        }
    }

    /// A layout in which nothing is multiplied.
    pub(crate) fn nothing(contents: Contents, deployment: Deployment) -> Result<Self, Error> {
        let (key, slot_bits) = (deployment.key.size, contents.slot_bits());
        let down = SlotLayout::images(Packing { batch: deployment.batch, slot_bits, key }, contents)?;
        Ok(Self { ups: vec![], down, parts: vec![], operations: Operations::default() })
    }

    /// Returns the parts of the batch one by one, equal ones as often as there are, and which groups they are.
    pub fn each_part(&self) -> impl Iterator<Item = (Range<usize>, &Part)> {
        let each = self.parts.iter().flat_map(|part| std::iter::repeat_n(part, part.times));
        each.scan(0, |groups, part| {
            let first = *groups;
            *groups += part.groups;
            Some((first..*groups, part))
        })
    }

    /// Returns the groups of a part; the last may have fewer.
    pub fn groups_of_part(&self) -> usize {
        self.parts.first().map_or(1, |part| part.groups)
    }
}

/// The best layout so far.
struct Search<'a> {
    terms: &'a [MapOf<'a>],
    output: Output<'a>,
    deployment: Deployment,
    best: Option<((u64, u64), Candidate)>,
}

struct Candidate {
    ups: Vec<SlotLayout>,
    down: SlotLayout,
    operations: Operations,
}

/// The products of all terms: operations, and their time in hundredths of a product.
#[derive(Clone, Copy)]
struct Multiplied {
    operations: Operations,
    time: u64,
}

impl Search<'_> {
    /// One value, or one tap, to a ciphertext. Stacking more units of the reply costs the server squarings and saves
    /// ciphertexts on both sides.
    fn stackings(&mut self, ups: &[SlotLayout]) -> Result<(), Error> {
        let key = self.deployment.key;
        let multiplied = self.multiplied(ups)?;
        let loose = ups[0].after(self.terms[0].map, self.output.contents)?;
        for stacked in 1..=loose.most_stacked(key.size) {
            self.consider(ups, loose.with_stacked(stacked, key.size)?, multiplied);
        }
        Ok(())
    }

    /// Several taps to a ciphertext, and as many rows of a reply as fit. More taps save encryptions and leave room for
    /// fewer rows.
    fn packings(&mut self, patches: &[SlotLayout]) -> Result<(), Error> {
        let Deployment { key, batch, .. } = self.deployment;
        let taps = self.terms.iter().flat_map(|term| term.map.blocks()).map(Block::taps).max().unwrap_or(0);
        let Output { shape, contents, .. } = self.output;
        let rows = patches[0].after(self.terms[0].map, contents)?.ciphertexts(batch, shape);
        for fields in 2..=taps {
            // How products are computed depends on the taps of a ciphertext only.
            let mut multiplied = None;
            for rows in 1..=rows {
                let ups = patches.iter().map(|up| up.with_fields(fields, rows, key.size));
                let Ok(ups) = ups.collect::<Result<Vec<_>, Error>>() else { break };
                let known = match multiplied {
                    Some(known) => known,
                    None => self.multiplied(&ups)?,
                };
                multiplied = Some(known);
                let down = ups[0].after(self.terms[0].map, contents)?.combined()?;
                self.consider(&ups, down, known);
            }
            if multiplied.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn multiplied(&self, ups: &[SlotLayout]) -> Result<Multiplied, Error> {
        let mut all = Multiplied { operations: Operations::default(), time: 0 };
        for (term, up) in self.terms.iter().zip(ups) {
            let workload = term.workload(up.groups(self.deployment.batch), self.deployment);
            let product = Product::cheapest(term.map, up, workload)?;
            all.operations = all.operations + product.operations();
            all.time = all.time.saturating_add(product.weight());
        }
        Ok(all)
    }

    fn consider(&mut self, ups: &[SlotLayout], down: SlotLayout, multiplied: Multiplied) {
        let Deployment { key, batch, lanes, prefer } = self.deployment;
        let filled = |(term, up): (&MapOf<'_>, &SlotLayout)| up.ciphertexts(batch, term.map.input());
        let count = down.ciphertexts(batch, self.output.shape);
        let corrections = if self.output.correction.is_some() { count } else { 0 };
        let encryptions = self.terms.iter().zip(ups).map(filled).fold(corrections, usize::saturating_add);
        let exponent_bits = exponent_bits(self.terms, (&down, self.output), key);
        let reply =
            reply(&down, key.hiding_exponent(Hiding::of(count, exponent_bits))) + self.output.correcting();
        let filled = |count: usize| Workload::filled(count, lanes) as u64;
        let time = filled(count)
            .saturating_mul(reply.cost() + decryption(key))
            .saturating_add(filled(encryptions).saturating_mul(encryption(key)))
            .saturating_add(multiplied.time);
        let weight = prefer.weight(time, encryptions.saturating_add(count));
        if self.best.as_ref().is_none_or(|(least, _)| weight < *least) {
            let operations = multiplied.operations + reply * count as u64;
            self.best = Some((weight, Candidate { ups: ups.to_vec(), down, operations }));
        }
    }
}

impl Candidate {
    /// Cuts the batch, and chooses for each part anew how it is multiplied.
    fn into_layout(
        self,
        terms: &[MapOf<'_>],
        output: Output<'_>,
        deployment: Deployment,
    ) -> Result<Layout, Error> {
        const OPERATIONS: u64 = 1 << 14;
        let Self { ups, down, operations } = self;
        let loose = ups[0].after(terms[0].map, down.contents())?;
        let all = loose.groups(deployment.batch);
        let apart = down.groups_apart(output.shape);
        let runs = all.div_ceil(apart) as u64;
        let together = OPERATIONS.saturating_mul(runs) / operations.total().max(1);
        let groups = apart.saturating_mul(together.max(1) as usize).min(all);
        let sizes = [(groups, all / groups), (all % groups, 1)].into_iter().filter(|(groups, _)| *groups > 0);
        Layout::of_parts((ups, down), sizes, terms, output, deployment)
    }
}

impl Layout {
    /// The layout whose parts have so many groups, and are there so often.
    fn of_parts(
        (ups, down): (Vec<SlotLayout>, SlotLayout),
        sizes: impl Iterator<Item = (usize, usize)>,
        terms: &[MapOf<'_>],
        output: Output<'_>,
        deployment: Deployment,
    ) -> Result<Self, Error> {
        let (batch, key) = (deployment.batch, deployment.key);
        let loose = ups[0].after(terms[0].map, down.contents())?;
        let count =
            |layout: &SlotLayout, groups| header(layout, output.shape, batch).part(0..groups).ciphertexts();
        let part = |(groups, times): (usize, usize)| {
            let mut products = vec![];
            for (term, up) in terms.iter().zip(&ups) {
                products.push(Product::cheapest(term.map, up, term.workload(groups, deployment))?);
            }
            let ciphertexts = count(&down, groups);
            let among = down.ciphertexts(batch, output.shape);
            let hiding =
                Hiding { ciphertexts, among, exponent_bits: exponent_bits(terms, (&down, output), key) };
            let reply = reply(&down, key.hiding_exponent(hiding)) + output.correcting();
            let units = count(&loose, groups);
            let sums = Operations { products: ((terms.len() - 1) * units) as u64, squarings: 0 };
            let operations = products
                .iter()
                .fold(sums + reply * ciphertexts as u64, |sum, product| sum + product.operations());
            Ok(Part { groups, times, products, hiding, operations })
        };
        let parts: Vec<Part> = sizes.map(part).collect::<Result<_, Error>>()?;
        let operations =
            parts.iter().fold(Operations::default(), |sum, part| sum + part.operations * part.times as u64);
        Ok(Self { ups, down, parts, operations })
    }

    /// The same layout and parts, with products that are the cheapest for weights of these ranges.
    pub(crate) fn for_weights(
        &self,
        terms: &[MapOf<'_>],
        output: Output<'_>,
        deployment: Deployment,
    ) -> Result<Self, Error> {
        let sizes = self.parts.iter().map(|part| (part.groups, part.times));
        Self::of_parts((self.ups.clone(), self.down.clone()), sizes, terms, output, deployment)
    }
}

/// How many images fill the slots of a ciphertext, where the slots are as wide as the widest of these layouts.
pub(crate) fn full_batch<'a>(layouts: impl IntoIterator<Item = &'a Layout>, key: KeyBits) -> usize {
    let widest = layouts.into_iter().map(|layout| layout.down.slot_bits()).max().unwrap_or(1);
    (key.slot_capacity_bits() / widest).max(1)
}

/// The header of a tensor of a whole batch in a layout.
pub(crate) fn header(layout: &SlotLayout, shape: &Shape, batch: usize) -> EncTensorHeader {
    EncTensorHeader::new(shape.clone(), batch, layout.clone())
}

/// Bits that the exponents of h in a segment's sums may have: what products, sums and stacking make of those of the
/// client's encryptions.
fn exponent_bits(
    terms: &[MapOf<'_>],
    (down, output): (&SlotLayout, Output<'_>),
    key: KeyParameters,
) -> usize {
    let growth = terms.iter().map(|term| term.weights.growth(term.map)).max().unwrap_or(0);
    let moved = match down.moves() {
        Operations { products: 0, .. } => 0,
        moves => moves.squarings as usize + 1,
    };
    // The exponents of corrections grow by fewer bits than those of products.
    let corrected = usize::from(output.correction.is_some());
    key.encryption_exponent() + growth + terms.len().saturating_sub(1) + moved + corrected
}

/// Operations mod n^2 of one ciphertext of a reply: moving units and fields together, and re-randomization, which is a comb
/// over an exponent of so many bits and one product.
fn reply(down: &SlotLayout, exponent: usize) -> Operations {
    let hiding = HidingExponents::operations_each(exponent);
    down.moves() + hiding + Operations { products: 1, squarings: 0 }
}

/// An encryption in hundredths of a product mod n^2: a product mod p^2, a quarter of one, per 6 bits of the exponent,
/// which has no more bits than that of a decryption, and the same mod q^2.
fn encryption(key: KeyParameters) -> u64 {
    key.decryption_exponent() as u64 * 2 * 100 / 24
}

/// A decryption in the same unit: a squaring (0.7) per bit of the exponent and a product per 4 bits, mod p^2 and q^2.
fn decryption(key: KeyParameters) -> u64 {
    key.decryption_exponent() as u64 * 2 * 95 / 4
}
