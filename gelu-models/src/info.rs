//! What travels with a model besides its graph and its numbers: how inputs are prepared, and what outputs mean.

use std::collections::BTreeMap;

use gelu_tensor::Shape;
use serde::{Deserialize, Serialize};

use crate::Normalization;
use crate::graph::MOST_ELEMENTS;

/// How inputs become what the model takes, the names of its classes, and where it comes from. It travels in the metadata
/// of the model's file.
///
/// ```
/// use gelu_models::{ModelInfo, PixelFormat, Preprocessing, zoo};
///
/// let mut model = zoo::lenet5()?;
/// let pixels = PixelFormat { digits: true, ..PixelFormat::default() };
/// *model.info_mut() = ModelInfo {
///     preprocessing: Some(Preprocessing::Pixels(pixels)),
///     classes: (0..10).map(|digit| digit.to_string()).collect(),
///     provenance: [("gelu.dataset".to_owned(), "mnist".to_owned())].into(),
/// };
/// let copy = gelu_models::Model::from_weights(&model.weights())?;
/// assert_eq!(copy.info(), model.info());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInfo {
    /// How inputs are prepared; `None` when nobody has said.
    pub preprocessing: Option<Preprocessing>,
    /// Names of the classes, in the order of the outputs; empty when nobody has said.
    pub classes: Vec<String>,
    /// Free text by key, such as the data set and the command that the model was trained with.
    pub provenance: BTreeMap<String, String>,
}

/// What someone has to know of a model who has inputs for it, and neither its graph nor its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// The shape of one input.
    pub input: Shape,
    /// Numbers that come out for each input.
    pub outputs: usize,
    /// How inputs are prepared, and what outputs mean.
    pub info: ModelInfo,
}

impl Interface {
    /// Returns what contradicts itself, in words, if anything does: for one that comes from outside.
    pub fn fault(&self) -> Option<String> {
        match self.input.dims() {
            [] => Some("a shape without extents".to_owned()),
            dims if dims.contains(&0) => Some(format!("the shape {}", self.input)),
            // As for values of a graph: whoever prepares inputs takes memory for them.
            _ if self.input.elements().max(self.outputs) > MOST_ELEMENTS => {
                Some(format!("the shape {} and {} outputs", self.input, self.outputs))
            }
            _ => self.info.fault(&self.input, self.outputs),
        }
    }
}

/// How inputs become what a model takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preprocessing {
    /// Numbers are taken as they are.
    Raw,
    /// Pictures, pixel by pixel.
    Pixels(PixelFormat),
    /// Rows of a table, column by column.
    Columns(Vec<Column>),
}

/// How the pixels of a picture become inputs: from 0..=255 to 0..=1, then normalized where that did not become part of
/// the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PixelFormat {
    /// What the client computes of pixels from 0 to 1: `(x - mean) / std` for each channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// A normalization that is part of the first layer already ([`Model::fold_normalization`]) and must not be applied
    /// again.
    ///
    /// [`Model::fold_normalization`]: crate::Model::fold_normalization
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folded: Option<Normalization>,
    /// Whether the model reads single digits in the form of MNIST: bright ink on black, cut out, scaled to 20 pixels and
    /// centered by its mass. Pictures are brought into that form first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub digits: bool,
}

/// How a column of a table becomes inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The column's name: that of the table's header, or `x0`, `x1` and so on.
    pub name: String,
    /// What it holds.
    pub values: ColumnValues,
}

/// What a column of a table holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ColumnValues {
    /// Numbers, which become one input: `(x - mean) / std`.
    Number {
        /// The mean over the rows that the model was trained on.
        mean: f32,
        /// Their standard deviation, or 1 where they are all alike; more than 0.
        std: f32,
        /// What stands in the place of a missing value; `None` when a value must be there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing: Option<f32>,
    },
    /// One of these categories, each of which becomes an input: 1 for the row's own, 0 for the others.
    Category(Vec<String>),
}

impl Column {
    /// Returns the number of inputs that the column becomes.
    pub fn inputs(&self) -> usize {
        match &self.values {
            ColumnValues::Number { .. } => 1,
            ColumnValues::Category(categories) => categories.len(),
        }
    }
}

impl ModelInfo {
    /// Returns what contradicts a model of these shapes, in words, if anything does.
    pub(crate) fn fault(&self, input: &Shape, outputs: usize) -> Option<String> {
        if !self.classes.is_empty() && self.classes.len() != outputs {
            return Some(format!("{} class names for {outputs} outputs", self.classes.len()));
        }
        let normalizations = |pixels: &PixelFormat| {
            [&pixels.normalization, &pixels.folded].into_iter().flatten().cloned().collect::<Vec<_>>()
        };
        match &self.preprocessing {
            Some(Preprocessing::Pixels(pixels)) => normalizations(pixels)
                .iter()
                .find_map(|normalization| normalization.per_channel(input.dims()[0]).err())
                .map(|error| error.to_string()),
            Some(Preprocessing::Columns(columns)) => {
                let inputs = columns.iter().map(Column::inputs).fold(0, usize::saturating_add);
                if inputs != input.elements() {
                    return Some(format!("columns of {inputs} inputs for a model of {input}"));
                }
                columns.iter().find_map(|column| match &column.values {
                    ColumnValues::Number { mean, std, missing } => {
                        let finite = mean.is_finite() && std.is_finite() && *std > 0.0;
                        let fault = !finite || missing.is_some_and(|value| !value.is_finite());
                        fault.then(|| format!("column {} with a mean or deviation out of range", column.name))
                    }
                    ColumnValues::Category(_) => None,
                })
            }
            Some(Preprocessing::Raw) | None => None,
        }
    }
}
