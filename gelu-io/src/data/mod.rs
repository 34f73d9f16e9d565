//! Data sets: tables as text, images as IDX files, arrays of NumPy; what they hold, and where known ones are looked for.

mod columns;
mod dir;
mod gzip;
mod idx;
mod idx_folder;
mod known;
mod model_inputs;
mod npz;
mod numpy;
mod rows;
mod set;
mod source;
mod summary;
mod table;
mod text;
mod training;

use ndarray::Array4;

pub use dir::{DataDir, Place, Split};
pub(crate) use idx::{read_images, read_labels};
pub use known::KnownSet;
pub use model_inputs::ModelInputs;
pub use rows::Missing;
pub use set::{DataSet, Inputs, Part, Role};
pub use source::{Kind, ReadOptions};
pub use summary::{ColumnSummary, PartSummary, Summary};
pub use table::{Table, TableFormat};
pub use text::TextEncoding;
pub use training::TrainingData;

/// Images of one size: `count x channels x height x width` bytes, row-major. Digits have one channel, 0 for paper and 255
/// for ink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    channels: usize,
    size: [usize; 2],
    pixels: Vec<u8>,
}

impl Images {
    /// Returns grey images of `[height, width]`, one behind the other in `pixels`; `None` when they do not come out even or an
    /// extent is 0.
    pub fn new(size: [usize; 2], pixels: Vec<u8>) -> Option<Self> {
        Self::with_channels(1, size, pixels)
    }

    /// Returns images of `[height, width]` with so many channels, each a plane of its own: all of an image's channels, then the
    /// next image's. `None` when they do not come out even or an extent is 0.
    pub fn with_channels(channels: usize, size: [usize; 2], pixels: Vec<u8>) -> Option<Self> {
        let area = size[0].checked_mul(size[1])?.checked_mul(channels)?;
        (area > 0 && pixels.len().is_multiple_of(area)).then_some(Self { channels, size, pixels })
    }

    /// Returns the channels of each: 1 for grey, 3 for red, green and blue.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns `[height, width]` of each image, in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Returns the number of images.
    pub fn count(&self) -> usize {
        self.pixels.len() / self.area()
    }

    /// Returns all pixels, image after image.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Returns the images as a network takes them, `[images, channels, height, width]`, with pixels from 0 to 1.
    pub fn to_inputs(&self) -> Array4<f32> {
        let [height, width] = self.size;
        Array4::from_shape_fn((self.count(), self.channels, height, width), |(at, channel, y, x)| {
            f32::from(self.pixels[((at * self.channels + channel) * height + y) * width + x]) / 255.0
        })
    }

    /// Returns the images turned over their diagonal, rows for columns, as EMNIST's files have them.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let [height, width] = self.size;
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for plane in self.pixels.chunks_exact(height * width) {
            pixels.extend((0..width).flat_map(|x| (0..height).map(move |y| plane[y * width + x])));
        }
        Self { channels: self.channels, size: [width, height], pixels }
    }

    /// Returns the images one by one, `channels * height * width` pixels each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.pixels.chunks_exact(self.area())
    }

    fn area(&self) -> usize {
        self.channels * self.size[0] * self.size[1]
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
        Self { images: Images { channels: 1, size, pixels: Vec::new() }, labels: Vec::new() }
    }

    /// Adds one image of the right size.
    pub(crate) fn push(&mut self, image: &[u8], label: u8) {
        debug_assert_eq!(image.len(), self.images.area());
        self.images.pixels.extend_from_slice(image);
        self.labels.push(label);
    }

    /// Returns the images.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Returns the classes, one for each image.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns image and class, one by one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], u8)> {
        self.images.iter().zip(self.labels.iter().copied())
    }

    /// Returns the first `count` of them, or all if there are fewer.
    pub fn first(&self, count: usize) -> Self {
        let count = count.min(self.len());
        let pixels = self.images.pixels[..count * self.images.area()].to_vec();
        Self {
            images: Images { channels: self.images.channels, size: self.images.size, pixels },
            labels: self.labels[..count].to_vec(),
        }
    }
}
