//! What every conversation does with tensors: chunks out of one, tensors out of chunks, and sums of products between.

use std::sync::Arc;

use gelu_tensor::paillier::Randomizer;
use gelu_tensor::{
    EncChunk, EncTensor, EncTensorBuilder, Encryption, Error, IntWeights, LinearMap, Product, Shape,
};
use rand::CryptoRng;

/// A tensor that is encrypted and sent chunk by chunk.
pub(crate) struct Outgoing {
    encryption: Encryption,
    chunks: u32,
}

impl Outgoing {
    pub(crate) fn new(encryption: Encryption) -> Self {
        Self { encryption, chunks: 0 }
    }

    /// The next chunk, and how many came before it.
    pub(crate) fn next(
        &mut self,
        randomizer: &dyn Randomizer,
        rng: &mut dyn CryptoRng,
    ) -> Option<(u32, EncChunk)> {
        let chunk = self.encryption.next_chunk(randomizer, rng)?;
        self.chunks += 1;
        Some((self.chunks - 1, chunk))
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.encryption.is_complete()
    }

    /// Ciphertexts of all chunks so far.
    pub(crate) fn ciphertexts(&self) -> usize {
        self.encryption.ciphertexts_made()
    }
}

/// The tensors that an answer is computed from, as they arrive one after another, and how much was answered.
#[derive(Debug)]
pub(crate) struct Incoming {
    expected: usize,
    tensors: Vec<EncTensorBuilder>,
    parts: usize,
    chunks: u32,
}

impl Incoming {
    pub(crate) fn new(expected: usize) -> Self {
        Self { expected, tensors: vec![], parts: 0, chunks: 0 }
    }

    /// The tensor whose chunk is due; `None` once all have arrived.
    pub(crate) fn due(&self) -> Option<usize> {
        let begun = self.tensors.last().is_some_and(|tensor| !tensor.is_complete());
        let due = self.tensors.len() - usize::from(begun);
        (due < self.expected).then_some(due)
    }

    /// Takes a chunk of the tensor that is due, which `begin` gives a builder for at its first chunk.
    pub(crate) fn push(
        &mut self,
        (index, ciphertexts): (u32, &EncChunk),
        begin: impl FnOnce() -> Result<EncTensorBuilder, Error>,
    ) -> Result<(), Error> {
        if self.due() == Some(self.tensors.len()) {
            self.tensors.push(begin()?);
        }
        match self.tensors.last_mut() {
            Some(tensor) => tensor.push(index, ciphertexts),
            None => Err(Error::TooFew { what: "tensors of an exchange", least: 1, found: 0 }),
        }
    }

    /// Whether the next part has arrived, of every tensor.
    pub(crate) fn has_part(&self) -> bool {
        self.tensors.len() == self.expected && self.tensors.iter().all(EncTensorBuilder::has_part)
    }

    /// The next part's number, and every tensor's of it, if they have arrived.
    pub(crate) fn next_part(&mut self) -> Option<(usize, Vec<EncTensor>)> {
        if !self.has_part() {
            return None;
        }
        self.parts += 1;
        Some((self.parts - 1, self.tensors.iter_mut().filter_map(EncTensorBuilder::next_part).collect()))
    }

    /// Numbers the chunks of an answer on.
    pub(crate) fn number(&mut self, chunks: Vec<EncChunk>) -> Vec<(u32, EncChunk)> {
        let numbered: Vec<_> = (self.chunks..).zip(chunks).collect();
        self.chunks += numbered.len() as u32;
        numbered
    }

    /// Whether the whole answer has been computed.
    pub(crate) fn is_answered(&self) -> bool {
        self.due().is_none() && self.tensors.iter().all(EncTensorBuilder::is_empty)
    }
}

/// A product of an encrypted tensor with a map.
pub(crate) struct TensorProduct<'a> {
    pub(crate) input: &'a EncTensor,
    pub(crate) map: &'a Arc<LinearMap>,
    pub(crate) weights: &'a IntWeights,
    pub(crate) product: &'a Product,
}

/// The sum of products, as a tensor of `shape`: of a layer before and one after flattening the shapes differ.
pub(crate) fn sum_of_products<'a>(
    products: impl Iterator<Item = TensorProduct<'a>>,
    shape: &Shape,
) -> Result<EncTensor, Error> {
    let terms = products.map(|TensorProduct { input, map, weights, product }| {
        input.apply(map, weights, product)?.reshape(shape.clone())
    });
    sum_of_terms(terms, EncTensor::add)
}

/// The sum of the terms of a segment, on ciphertexts or in the clear, computed one after another.
pub(crate) fn sum_of_terms<T>(
    mut terms: impl Iterator<Item = Result<T, Error>>,
    add: impl Fn(&T, &T) -> Result<T, Error>,
) -> Result<T, Error> {
    let first = terms.next().ok_or(Error::TooFew { what: "terms of a segment", least: 1, found: 0 })?;
    terms.try_fold(first?, |sum, term| add(&sum, &term?))
}
