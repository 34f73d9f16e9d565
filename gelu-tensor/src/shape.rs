//! Shapes of tensors, without the batch.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The shape of one image or feature vector, without the batch: `[channels, height, width]` or `[features]`.
///
/// Elements are stored in row-major order (channel first), as in PyTorch.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// Returns the extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Returns the number of elements: the product of the extents (1 for the empty shape), saturating.
    pub fn elements(&self) -> usize {
        self.0.iter().fold(1, |product, &extent| product.saturating_mul(extent))
    }

    /// Returns the shape as `[channels, height, width]`, or an error that names what was found.
    pub fn as_image(&self, what: &'static str) -> Result<[usize; 3], Error> {
        <[usize; 3]>::try_from(self.dims()).map_err(|_| Error::Count {
            what,
            expected: 3,
            found: self.0.len(),
        })
    }
}

impl<const RANK: usize> From<[usize; RANK]> for Shape {
    fn from(dims: [usize; RANK]) -> Self {
        Self(dims.to_vec())
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Self(dims.to_vec())
    }
}

/// Prints `6x24x24`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, extent) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("x")?;
            }
            write!(f, "{extent}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shape({self})")
    }
}
