//! What an import made of a file, node by node.

use std::fmt;

use gelu_tensor::Shape;
use serde::Serialize;

/// What an import made of an ONNX file. Prints as a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The program that wrote the file, with its version.
    pub producer: String,
    /// The version of the file format.
    pub ir_version: i64,
    /// The version of ONNX's operators.
    pub opset: i64,
    /// The name and the shape of the input, without the batch.
    pub input: Port,
    /// The name and the shape of the output, without the batch.
    pub output: Port,
    /// The file's nodes, in its order.
    pub operators: Vec<Operator>,
    /// What the imported model does otherwise than the file's.
    pub notes: Vec<String>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the imported model.
    pub shape: Shape,
}

/// One node of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// Its name, or its output's where it has none.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// What became of it.
    pub became: Became,
}

/// What became of a node of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Became {
    /// A layer, by name.
    Layer(String),
    /// Part of a layer that stands for other nodes too, by its name.
    PartOf(String),
    /// A constant: it does not depend on the input.
    Constant,
    /// Nothing: it changes no number.
    Nothing,
    /// Nothing: the output does not depend on it.
    Unread,
}

/// Prints `conv1`, `part of conv1` and the like.
impl fmt::Display for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(name) => f.pad(name),
            Self::PartOf(name) => write!(f, "part of {name}"),
            Self::Constant => f.pad("constant"),
            Self::Nothing => f.pad("nothing: it changes no number"),
            Self::Unread => f.pad("nothing: the output does not depend on it"),
        }
    }
}

impl Report {
    /// Returns the nodes that became layers or parts of layers, the others being constants and the like.
    pub(crate) fn in_layers(&self) -> impl Iterator<Item = &Operator> {
        let in_layer = |one: &&Operator| matches!(one.became, Became::Layer(_) | Became::PartOf(_));
        self.operators.iter().filter(in_layer)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let producer = if self.producer.is_empty() { "an unnamed program" } else { &self.producer };
        writeln!(f, "written by {producer}, operator set {}, format {}", self.opset, self.ir_version)?;
        for (what, port) in [("input", &self.input), ("output", &self.output)] {
            writeln!(f, "{what} `{}`: {}", port.name, port.shape)?;
        }
        let width = |of: fn(&Operator) -> &str| self.in_layers().map(|one| of(one).chars().count()).max();
        let node = width(|one| &one.node).unwrap_or(0).max("node".len());
        let operator = width(|one| &one.operator).unwrap_or(0).max("operator".len());
        write!(f, "\n{:node$}  {:operator$}  became", "node", "operator")?;
        for one in self.in_layers() {
            write!(f, "\n{:node$}  {:operator$}  {}", one.node, one.operator, one.became)?;
        }
        let count = |became: &Became| self.operators.iter().filter(|one| one.became == *became).count();
        let (constants, views, unread) =
            (count(&Became::Constant), count(&Became::Nothing), count(&Became::Unread));
        write!(
            f,
            "\nof {} nodes: {constants} are constants, {views} change no number",
            self.operators.len()
        )?;
        if unread > 0 {
            write!(f, ", {unread} the output does not depend on")?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\nnote: {note}"))
    }
}
