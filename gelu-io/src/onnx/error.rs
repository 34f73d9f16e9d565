//! Why an ONNX model cannot be imported.

use std::fmt;
use std::path::PathBuf;

use gelu_models::{GraphError, LoadError};
use serde::Serialize;

/// One node that has no counterpart in a network on encrypted data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unsupported {
    /// The node's name in the file, or its output's where it has none.
    pub node: String,
    /// Its operator, with its domain where that is not ONNX's own.
    pub operator: String,
    /// Why it cannot be imported.
    pub reason: String,
    /// What to do about it; empty where the reason says it.
    pub advice: &'static str,
}

/// Prints ``node `pool1` (AveragePool): reason; advice``.
impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node `{}` ({}): {}", self.node, self.operator, self.reason)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

/// What a file leaves open, and [`ImportOptions`](super::ImportOptions) can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Extents of the input.
    Input,
    /// Which output is wanted.
    Output,
}

/// Why an ONNX model cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read, or is not what it should be.
    #[error(transparent)]
    File(#[from] crate::Error),
    /// The file is for another version of ONNX's operators.
    #[error("{}: expected an operator set from {least} to {most}, found {}; export the model anew for one of these", .path.display(), shown(*.found))]
    Opset {
        /// The file.
        path: PathBuf,
        /// The oldest operator set that is read.
        least: i64,
        /// The newest.
        most: i64,
        /// The file's; 0 where it has none of ONNX's own.
        found: i64,
    },
    /// The model has not one input and one output of known extents.
    #[error("{}: expected {expected}, found {found}", .path.display())]
    Interface {
        /// The file.
        path: PathBuf,
        /// What an input or output must be.
        expected: &'static str,
        /// What the file has.
        found: String,
        /// What of [`ImportOptions`](super::ImportOptions) can settle it; `None` where the file itself must change.
        open: Option<Open>,
    },
    /// Nodes that cannot be imported: all of those that the output depends on.
    #[error(
        "{}: {} of {nodes} nodes cannot be imported:{}",
        .path.display(),
        .unsupported.len(),
        .unsupported.iter().map(|one| format!("\n  {one}")).collect::<String>()
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// How many nodes the output depends on.
        nodes: usize,
        /// The nodes, in the file's order; never empty.
        unsupported: Vec<Unsupported>,
    },
    /// The nodes do not make a network.
    #[error("{}: the model makes no network", .path.display())]
    Graph {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<GraphError>,
    },
    /// Weights that are not finite.
    #[error("{}: the model has unusable weights", .path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Which.
        source: LoadError,
    },
}

fn shown(opset: i64) -> String {
    if opset == 0 { "none of ONNX's own".to_owned() } else { opset.to_string() }
}
