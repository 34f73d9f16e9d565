//! What a part found, and the files that keep it: a run that is stopped goes on with the part that it was at.

use std::path::{Path, PathBuf};

use anyhow::Context;
use gelu_io::files::{read_limited, write_atomic};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::machine::Machine;
use crate::parts::Part;
use crate::picture::Picture;

/// More than any part writes.
const MOST_BYTES: u64 = 16 << 20;

/// What a result depends on: a part is made anew where this has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conditions {
    /// Of this program.
    pub(crate) version: String,
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    /// The data sets that the part uses and that were found.
    pub(crate) data_sets: Vec<String>,
}

/// A figure, with its standard deviation where it is a mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) deviation: Option<f64>,
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self { value, deviation: None }
    }
}

impl Figure {
    pub(crate) fn with_deviation(value: f64, deviation: f64) -> Self {
        Self { value, deviation: Some(deviation) }
    }

    /// The mean of a sample with its standard deviation, if there are two values.
    pub(crate) fn mean(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        match values.len() {
            0 | 1 => mean.into(),
            count => Self::with_deviation(mean, (squares / (count - 1) as f64).sqrt()),
        }
    }
}

/// A row of the paper's table beside this machine's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) unit: String,
    /// What the paper has, if it has this row.
    pub(crate) paper: Option<Figure>,
    /// What was measured here, if it could be.
    pub(crate) here: Option<Figure>,
    /// What was run for it.
    pub(crate) command: String,
}

/// A table of details.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// What a part found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) rows: Vec<Row>,
    pub(crate) tables: Vec<Table>,
    pub(crate) pictures: Vec<Picture>,
    /// What was measured and how, what cannot be compared, what the paper leaves open and how it was decided; what is missing.
    pub(crate) notes: Vec<String>,
}

/// The findings of a part with what they depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartResult {
    pub(crate) part: Part,
    pub(crate) conditions: Conditions,
    /// When the part was done, in UTC (RFC 3339).
    pub(crate) date: String,
    /// Nanoseconds of a product mod n^2 (key of 2048 bits) at the machine's limit, before and after the part.
    pub(crate) limit_ns: [f64; 2],
    /// What the part took.
    pub(crate) seconds: f64,
    pub(crate) findings: Findings,
}

/// The file of a part's result.
fn path(folder: &Path, part: Part) -> PathBuf {
    folder.join(format!("{}.json", part.name()))
}

impl PartResult {
    /// Writes it into a folder, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(write_atomic(&path(folder, self.part), text.as_bytes())?)
    }

    /// The result of a part that a folder has, if it has one.
    pub(crate) fn read(folder: &Path, part: Part) -> anyhow::Result<Option<Self>> {
        let path = path(folder, part);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_limited(&path, MOST_BYTES)?;
        let result = serde_json::from_slice(&bytes);
        result.map(Some).with_context(|| format!("{}: not a result of this version", path.display()))
    }
}

/// Now, in UTC, to the second.
pub(crate) fn now() -> anyhow::Result<String> {
    Ok(OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_those_of_samples() {
        assert_eq!(Figure::mean(&[1.0, 2.0, 3.0]), Figure::with_deviation(2.0, 1.0));
        assert_eq!(Figure::mean(&[0.5]), 0.5.into());
    }
}
