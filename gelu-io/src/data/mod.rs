//! Data sets: MNIST as IDX files, UCI tables as CSV files, and where they are looked for.

mod dir;
mod idx;
mod table;

use ndarray::Array4;

pub use dir::{DataDir, Place, Split};
pub use idx::{parse_images, parse_labels, read_images, read_labels};
pub use table::{Columns, Encoding, Table, TableFormat, parse_table, read_table};

/// Grey images of one size: `count x height x width` bytes, row-major, 0 for paper and 255 for ink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    size: [usize; 2],
    pixels: Vec<u8>,
}

impl Images {
    /// Images of `[height, width]`, one behind the other in `pixels`; `None` when they do not come out even or an
    /// extent is 0.
    pub fn new(size: [usize; 2], pixels: Vec<u8>) -> Option<Self> {
        let area = size[0].checked_mul(size[1])?;
        (area > 0 && pixels.len().is_multiple_of(area)).then_some(Self { size, pixels })
    }

    /// `[height, width]` of each, in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pixels.len() / self.area()
    }

    /// All pixels, image after image.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Returns the images as a network takes them, `[images, 1, height, width]`, with pixels from 0 to 1.
    pub fn to_inputs(&self) -> Array4<f32> {
        let [height, width] = self.size;
        let pixel =
            |(at, y, x): (usize, usize, usize)| f32::from(self.pixels[(at * height + y) * width + x]) / 255.0;
        Array4::from_shape_fn((self.count(), 1, height, width), |(at, _, y, x)| pixel((at, y, x)))
    }

    /// The images one by one, `height * width` pixels each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.pixels.chunks_exact(self.area())
    }

    fn area(&self) -> usize {
        self.size[0] * self.size[1]
    }
}

/// Images and the class of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledImages {
    images: Images,
    labels: Vec<u8>,
}

impl LabelledImages {
    /// Pairs `images` with `labels`; `None` when their numbers differ.
    pub fn new(images: Images, labels: Vec<u8>) -> Option<Self> {
        (images.count() == labels.len()).then_some(Self { images, labels })
    }

    /// None yet, of `[height, width]` each.
    pub(crate) fn empty(size: [usize; 2]) -> Self {
        Self { images: Images { size, pixels: Vec::new() }, labels: Vec::new() }
    }

    /// Adds one image of the right size.
    pub(crate) fn push(&mut self, image: &[u8], label: u8) {
        debug_assert_eq!(image.len(), self.images.area());
        self.images.pixels.extend_from_slice(image);
        self.labels.push(label);
    }

    /// The images.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The classes, one for each image.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Image and class, one by one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], u8)> {
        self.images.iter().zip(self.labels.iter().copied())
    }

    /// The first `count` of them (all, if there are fewer).
    pub fn first(&self, count: usize) -> Self {
        let count = count.min(self.len());
        let pixels = self.images.pixels[..count * self.images.area()].to_vec();
        Self { images: Images { size: self.images.size, pixels }, labels: self.labels[..count].to_vec() }
    }
}
