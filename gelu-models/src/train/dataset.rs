use std::collections::BTreeMap;

use gelu_tensor::Shape;
use ndarray::{Array2, ArrayView2, Axis};
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};

/// Why inputs and labels make no [`Dataset`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// Inputs are not rows of the shape.
    #[error("inputs: expected {expected} elements a row, found {found}")]
    Columns {
        /// Elements of the shape.
        expected: usize,
        /// Columns of the inputs.
        found: usize,
    },
    /// Not one label an input.
    #[error("labels: expected {expected}, one for each input, found {found}")]
    Labels {
        /// Rows of the inputs.
        expected: usize,
        /// Labels given.
        found: usize,
    },
    /// A label is no class.
    #[error("label of input {index}: expected one below {classes}, found {found}")]
    Label {
        /// Which input, from 0.
        index: usize,
        /// The number of classes.
        classes: usize,
        /// The label.
        found: usize,
    },
    /// An input is NaN or infinite.
    #[error("input {index}: expected finite numbers, found one that is not")]
    NotFinite {
        /// Which input, from 0.
        index: usize,
    },
}

/// Labelled inputs.
///
/// ```
/// use gelu_models::train::Dataset;
/// use gelu_tensor::Shape;
/// use ndarray::array;
///
/// let inputs = array![[0.0, 1.0], [1.0, 0.0], [0.2, 0.9], [0.8, 0.1]];
/// let data = Dataset::new(Shape::from([2]), inputs, vec![0, 1, 0, 1], 2)?;
/// let [training, held_out] = data.split(0.25, 7);
/// assert_eq!((training.len(), held_out.len()), (3, 1));
/// # Ok::<(), gelu_models::train::DatasetError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    shape: Shape,
    inputs: Array2<f32>,
    labels: Vec<usize>,
    classes: usize,
}

impl Dataset {
    /// Returns a data set of `inputs`, `[images, elements of shape]` with one label each, from 0 up to `classes` - 1.
    ///
    /// # Errors
    /// See [`DatasetError`].
    pub fn new(
        shape: Shape,
        inputs: Array2<f32>,
        labels: Vec<usize>,
        classes: usize,
    ) -> Result<Self, DatasetError> {
        if inputs.ncols() != shape.elements() {
            return Err(DatasetError::Columns { expected: shape.elements(), found: inputs.ncols() });
        }
        if inputs.nrows() != labels.len() {
            return Err(DatasetError::Labels { expected: inputs.nrows(), found: labels.len() });
        }
        if let Some(index) = labels.iter().position(|&label| label >= classes) {
            return Err(DatasetError::Label { index, classes, found: labels[index] });
        }
        if let Some(index) = inputs.outer_iter().position(|row| row.iter().any(|x| !x.is_finite())) {
            return Err(DatasetError::NotFinite { index });
        }
        Ok(Self { shape, inputs, labels, classes })
    }

    /// Returns the shape of one input.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns the inputs, `[images, elements]`.
    pub fn inputs(&self) -> ArrayView2<'_, f32> {
        self.inputs.view()
    }

    /// Returns the labels, one for each input.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the number of inputs.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns whether there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns the same inputs, shuffled by `seed` and divided by [`stratified_split`]: `held_out` of them, from 0 to 1,
    /// in the second part.
    pub fn split(&self, held_out: f64, seed: u64) -> [Self; 2] {
        stratified_split(&self.labels, held_out, seed).map(|indices| self.select(&indices))
    }

    /// Returns the first `count` inputs, or all if there are fewer.
    pub fn first(&self, count: usize) -> Self {
        self.select(&(0..self.len().min(count)).collect::<Vec<_>>())
    }

    fn select(&self, indices: &[usize]) -> Self {
        Self {
            shape: self.shape.clone(),
            inputs: self.inputs.select(Axis(0), indices),
            labels: indices.iter().map(|&index| self.labels[index]).collect(),
            classes: self.classes,
        }
    }
}

/// Returns which inputs go into each of two parts, in an order shuffled by `seed`: `held_out` of them, from 0 to 1, into
/// the second, with the same share of every class as near as whole inputs allow. A class never loses its last input to
/// the second part.
pub fn stratified_split(labels: &[usize], held_out: f64, seed: u64) -> [Vec<usize>; 2] {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    labels.iter().for_each(|&label| *counts.entry(label).or_default() += 1);
    let share = |count: usize| count as f64 * held_out.clamp(0.0, 1.0);
    let mut quotas: BTreeMap<usize, usize> = BTreeMap::new();
    for (&label, &count) in &counts {
        quotas.insert(label, (share(count) as usize).min(count - 1));
    }
    // Whole inputs that the shares leave over go to the classes that were cut the most.
    let mut cut: Vec<(usize, f64)> =
        counts.iter().map(|(&label, &count)| (label, share(count) - share(count).floor())).collect();
    cut.sort_by(|a, b| b.1.total_cmp(&a.1));
    let wanted = share(labels.len()).round() as usize;
    let mut missing = wanted.saturating_sub(quotas.values().sum());
    for (label, _) in cut {
        if let (Some(quota), Some(count)) = (quotas.get_mut(&label), counts.get(&label))
            && missing > 0
            && *quota + 1 < *count
        {
            *quota += 1;
            missing -= 1;
        }
    }
    let mut parts = [Vec::new(), Vec::new()];
    for index in order {
        let part = match quotas.get_mut(&labels[index]) {
            Some(quota) if *quota > 0 => {
                *quota -= 1;
                1
            }
            _ => 0,
        };
        parts[part].push(index);
    }
    parts
}
