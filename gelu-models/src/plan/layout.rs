//! How a segment's tensors are laid out in ciphertexts and multiplied: the cheapest way by a count of both sides'
//! operations. Inference and private training choose by it, in either direction.

use std::sync::Arc;

use gelu_tensor::paillier::{Hiding, HidingExponents, KeyParameters};
use gelu_tensor::{
    Contents, EncTensorHeader, Error, LinearMap, Operations, Packing, Product, ProductWeights, Shape,
    SlotLayout, Workload,
};

use super::Deployment;

/// A map of one encrypted value.
pub(crate) struct MapOf<'a> {
    pub(crate) map: &'a Arc<LinearMap>,
    /// What goes up.
    pub(crate) contents: Contents,
    pub(crate) weights: ProductWeights,
}

impl MapOf<'_> {
    /// Multiplication of so many images.
    fn workload(&self, images: usize, deployment: Deployment) -> Workload {
        Workload { weights: self.weights, batch: images, lanes: deployment.lanes }
    }
}

/// How the sum of some maps is computed on ciphertexts, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the values of each term lie.
    pub ups: Vec<SlotLayout>,
    /// Where the sums lie.
    pub down: SlotLayout,
    /// The parts of a batch that the server works on one after another, so that its work comes in units of bounded size:
    /// as few images as share no ciphertext with others, or as many as take a few milliseconds.
    pub parts: Vec<Part>,
    /// Operations mod n^2 of the server for the whole batch: products, sums, repacking, re-randomization.
    pub operations: Operations,
}

/// Equal parts of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Images of one part.
    pub images: usize,
    /// How many such parts there are.
    pub times: usize,
    /// How each term is multiplied.
    pub products: Vec<Product>,
    /// Ciphertexts of the part's sums, and the bits that the exponents of h in them may have before they are hidden.
    pub hiding: Hiding,
    /// Operations mod n^2 of one part.
    pub operations: Operations,
}

impl Layout {
    /// The cheapest layout of the sum of `terms`, which all give a tensor of `output` with these contents.
    ///
    /// # Errors
    /// [`Error::Overflow`] when not even one slot fits the key.
    pub(crate) fn cheapest(
        terms: &[MapOf<'_>],
        (output, contents): (&Shape, Contents),
        deployment: Deployment,
    ) -> Result<Self, Error> {
        let needed = terms.iter().map(|term| term.contents.slot_bits());
        let slot_bits = needed.fold(contents.slot_bits(), usize::max);
        let packing = Packing { batch: deployment.batch, slot_bits, key: deployment.key.size };
        let images: Vec<SlotLayout> =
            terms.iter().map(|term| SlotLayout::images(packing, term.contents)).collect::<Result<_, _>>()?;
        let mut candidates = vec![images];
        // Slots over columns, where the products of all terms then lie alike.
        if terms.iter().all(|term| term.map.columns().is_some() && term.map.has_outputs_of(terms[0].map)) {
            let patches = terms.iter().map(|term| SlotLayout::patches(term.map, packing, term.contents));
            candidates.push(patches.collect::<Result<_, _>>()?);
        }
        let mut best: Option<(u64, Candidate)> = None;
        for ups in candidates {
            let candidate = Candidate::new(terms, ups, (output, contents), deployment)?;
            if best.as_ref().is_none_or(|(weight, _)| candidate.weight < *weight) {
                best = Some((candidate.weight, candidate));
            }
        }
        let Some((_, candidate)) = best else {
            return Err(Error::TooFew { what: "terms of a segment", least: 1, found: 0 });
        };
        candidate.into_layout(terms, output, deployment)
    }

    /// Returns the parts of the batch one by one, equal ones as often as there are.
    pub fn images(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().flat_map(|part| std::iter::repeat_n(part, part.times))
    }
}

struct Candidate {
    ups: Vec<SlotLayout>,
    down: SlotLayout,
    operations: Operations,
    weight: u64,
}

impl Candidate {
    fn new(
        terms: &[MapOf<'_>],
        ups: Vec<SlotLayout>,
        (output, contents): (&Shape, Contents),
        deployment: Deployment,
    ) -> Result<Self, Error> {
        let loose = ups[0].after(terms[0].map, contents)?;
        let (mut multiply, mut weight, mut encryptions) = (Operations::default(), 0u64, 0usize);
        for (term, up) in terms.iter().zip(&ups) {
            let product = Product::cheapest(term.map, up, term.workload(deployment.batch, deployment))?;
            multiply = multiply + product.operations();
            weight = weight.saturating_add(product.weight());
            let filled = up.ciphertexts(deployment.batch, term.map.input());
            encryptions = encryptions.saturating_add(filled);
        }
        // Stacking more units costs the server squarings and saves ciphertexts on both sides.
        let key = deployment.key;
        let stacked = (1..=loose.most_stacked(key.size)).map(|stacked| {
            let down = loose.with_stacked(stacked, key.size)?;
            let count = down.ciphertexts(deployment.batch, output);
            let exponent_bits = exponent_bits(terms, &down, key);
            let reply =
                reply(&down, count, key.hiding_exponent(Hiding { ciphertexts: count, exponent_bits }));
            // Lanes that stay empty take as much time as full ones.
            let filled = |count: usize| count.next_multiple_of(deployment.lanes) as u64;
            let time = filled(count)
                .saturating_mul(reply.cost() + decryption(key))
                .saturating_add(filled(encryptions).saturating_mul(encryption(key)))
                .saturating_add((encryptions + count) as u64 * TRANSFER);
            Ok((time, down, reply * count as u64))
        });
        let stacked: Vec<_> = stacked.collect::<Result<_, Error>>()?;
        let Some((time, down, reply)) = stacked.into_iter().min_by_key(|(time, ..)| *time) else {
            return Err(Error::TooFew { what: "units of a ciphertext", least: 1, found: 0 });
        };
        Ok(Self { ups, down, operations: multiply + reply, weight: weight.saturating_add(time) })
    }

    /// Cuts the batch, and chooses for each part anew how it is multiplied.
    fn into_layout(
        self,
        terms: &[MapOf<'_>],
        output: &Shape,
        deployment: Deployment,
    ) -> Result<Layout, Error> {
        const OPERATIONS: u64 = 1 << 14;
        let Self { ups, down, operations, .. } = self;
        let (batch, key) = (deployment.batch, deployment.key);
        let apart = ups[0].images_apart().saturating_mul(down.stacked());
        let runs = batch.div_ceil(apart) as u64;
        let together = OPERATIONS.saturating_mul(runs) / operations.total().max(1);
        let images = apart.saturating_mul(together.max(1) as usize).min(batch);
        let sizes = [(images, batch / images), (batch % images, 1)];
        let part = |(images, times): (usize, usize)| {
            let mut products = vec![];
            for (term, up) in terms.iter().zip(&ups) {
                products.push(Product::cheapest(term.map, up, term.workload(images, deployment))?);
            }
            let ciphertexts = down.ciphertexts(images, output);
            let hiding = Hiding { ciphertexts, exponent_bits: exponent_bits(terms, &down, key) };
            let reply = reply(&down, ciphertexts, key.hiding_exponent(hiding));
            let units = down.with_stacked(1, key.size)?.ciphertexts(images, output);
            let sums = Operations { products: ((terms.len() - 1) * units) as u64, squarings: 0 };
            let operations = products
                .iter()
                .fold(sums + reply * ciphertexts as u64, |sum, product| sum + product.operations());
            Ok(Part { images, times, products, hiding, operations })
        };
        let parts: Vec<Part> =
            sizes.into_iter().filter(|(images, _)| *images > 0).map(part).collect::<Result<_, Error>>()?;
        let all =
            parts.iter().fold(Operations::default(), |sum, part| sum + part.operations * part.times as u64);
        Ok(Layout { ups, down, parts, operations: all })
    }
}

/// The header of a tensor of a whole batch in a layout.
pub(crate) fn header(layout: &SlotLayout, shape: &Shape, batch: usize) -> EncTensorHeader {
    EncTensorHeader { shape: shape.clone(), batch, layout: layout.clone() }
}

/// Bits that the exponents of h in a segment's sums may have: what products, sums and stacking make of those of the
/// client's encryptions.
fn exponent_bits(terms: &[MapOf<'_>], down: &SlotLayout, key: KeyParameters) -> usize {
    let growth = terms.iter().map(|term| term.weights.growth(term.map)).max().unwrap_or(0);
    let moved = match down.stacked() {
        1 => 0,
        stacked => (stacked - 1) * down.width() * down.slot_bits() + 1,
    };
    key.encryption_exponent() + growth + terms.len().saturating_sub(1) + moved
}

/// A ciphertext on its way in hundredths of a product: 200 products, or some 65 us, which half a kilobyte takes at 60
/// Mbit/s. Without it single images would be stacked less, for hardly any gain of time.
const TRANSFER: u64 = 20_000;

/// Operations mod n^2 of one ciphertext of a reply: moving units together, and re-randomization, which is a comb over an
/// exponent of so many bits and one product.
fn reply(down: &SlotLayout, count: usize, exponent: usize) -> Operations {
    debug_assert!(count > 0);
    let moves = (down.stacked() - 1) as u64;
    let comb = HidingExponents::operations_each(exponent);
    Operations {
        products: moves + comb.products + 1,
        squarings: moves * (down.width() * down.slot_bits()) as u64 + comb.squarings,
    }
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
