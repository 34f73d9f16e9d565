//! What clients train on.

use std::sync::Arc;

use gelu_tensor::Shape;
use ndarray::{ArrayView1, ArrayViewMut1};
use rand::{SeedableRng, rngs::ChaCha8Rng};

use crate::train::{Augmentation, Dataset};

/// What a client trains on.
pub trait Samples: Send + Sync {
    /// Returns the number of inputs.
    fn count(&self) -> usize;

    /// Returns the shape of one input.
    fn shape(&self) -> &Shape;

    /// Returns the number of classes.
    fn classes(&self) -> usize;

    /// Writes input `index` as it is to be seen in this epoch (counted from 0) to `out`, and gives its label.
    fn fetch(&self, index: usize, epoch: u64, out: &mut [f32]) -> usize;
}

impl Samples for Dataset {
    fn count(&self) -> usize {
        self.len()
    }

    fn shape(&self) -> &Shape {
        self.shape()
    }

    fn classes(&self) -> usize {
        self.classes()
    }

    fn fetch(&self, index: usize, _: u64, out: &mut [f32]) -> usize {
        out.iter_mut().zip(self.inputs().row(index)).for_each(|(to, &from)| *to = from);
        self.labels()[index]
    }
}

/// Every n-th sample of a data set: the shard of one client.
#[derive(Clone, Debug)]
pub struct Shard {
    data: Arc<Dataset>,
    first: usize,
    step: usize,
}

impl Shard {
    /// Returns the shards of `clients` clients, disjoint and of equal size as far as they go.
    pub fn divide(data: &Arc<Dataset>, clients: usize) -> Vec<Self> {
        (0..clients).map(|first| Self { data: data.clone(), first, step: clients }).collect()
    }
}

impl Samples for Shard {
    fn count(&self) -> usize {
        self.data.len().saturating_sub(self.first).div_ceil(self.step)
    }

    fn shape(&self) -> &Shape {
        self.data.shape()
    }

    fn classes(&self) -> usize {
        self.data.classes()
    }

    fn fetch(&self, index: usize, epoch: u64, out: &mut [f32]) -> usize {
        self.data.fetch(self.first + index * self.step, epoch, out)
    }
}

/// Images with a random change in every epoch.
#[derive(Clone, Debug)]
pub struct Augmented<S> {
    /// The images.
    pub samples: S,
    /// The changes.
    pub augmentation: Augmentation,
    /// Determines them.
    pub seed: u64,
}

impl<S: Samples> Samples for Augmented<S> {
    fn count(&self) -> usize {
        self.samples.count()
    }

    fn shape(&self) -> &Shape {
        self.samples.shape()
    }

    fn classes(&self) -> usize {
        self.samples.classes()
    }

    fn fetch(&self, index: usize, epoch: u64, out: &mut [f32]) -> usize {
        let Ok(image) = self.shape().as_image("an augmented input") else {
            return self.samples.fetch(index, epoch, out);
        };
        let mut source = vec![0.0; out.len()];
        let label = self.samples.fetch(index, epoch, &mut source);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream((epoch << 32) ^ index as u64);
        let (source, target) = (ArrayView1::from(&source[..]), ArrayViewMut1::from(out));
        self.augmentation.apply(source, target, image, &mut rng);
        label
    }
}
