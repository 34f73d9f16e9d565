//! ONNX models, as PyTorch and other frameworks export them, turned into networks on encrypted data.
//!
//! [`Imported::read`] gives a [`Model`] with its weights and a [`Report`] on every node. What cannot be imported is listed
//! completely ([`ImportError::Unsupported`]). Known are operator sets 9 to 24, one input of one image or vector
//! (`[batch, channels, height, width]` or `[batch, features]`), one output, weights within the file or beside it, and these
//! operators:
//!
//! - layers with weights: Conv (groups, dilation, strides, padding by side, auto_pad), Gemm, MatMul by a constant,
//!   BatchNormalization;
//! - pooling: AveragePool and MaxPool (padding, count_include_pad, dilation, ceil_mode), GlobalAveragePool, GlobalMaxPool,
//!   ReduceMean and ReduceSum over pixels;
//! - activations: Relu, Clip, LeakyRelu, PRelu with one slope, Sigmoid, Tanh, Gelu (exact), HardSigmoid, HardSwish, and
//!   SiLU, GELU and hard swish where they are spelled out; Softmax and LogSoftmax as the last node;
//! - arithmetic: Add, Sub, Mul, Div and Neg with constants that have one number or one for each channel, Add, Sub and
//!   Sum of values, Mul of two values or of an image and a factor for each channel, Pow by 2;
//! - structure: Concat of channels, Split and Slice by constants, Pad by zeros, Flatten, Reshape, Squeeze, Unsqueeze,
//!   Transpose that moves nothing, shuffles channels, or puts the channels of the model's input first, Identity, Dropout,
//!   Cast;
//! - whatever of Shape, Gather, Range and the like does not depend on the input.
//!
//! A file is not trusted: lengths, counts and depths are checked before anything is decoded, weights beside the file must
//! lie in its folder, and what a network would take of memory is limited before any is taken.
//!
//! ```no_run
//! use gelu_io::onnx::Imported;
//!
//! let Imported { model, report } = Imported::read("resnet.onnx")?;
//! println!("{report}\n{} parameters", model.parameter_count());
//! # Ok::<(), gelu_io::onnx::ImportError>(())
//! ```

mod constant;
mod error;
mod fold;
mod framing;
mod lower;
mod proto;
mod report;
#[cfg(test)]
mod tests;

use std::path::Path;

use gelu_models::Model;
use gelu_tensor::Shape;

pub use self::error::{ImportError, Open, Unsupported};
use self::lower::Lowering;
use self::proto::{Input, Proto};
pub use self::report::{Became, Operator, Port, Report};
use crate::files;

/// The longest file that is read, and the most bytes of weights beside it: 512 MiB, far above what can run encrypted.
pub(crate) const MAX_BYTES: u64 = 1 << 29;
/// The operator sets that are read.
const OPSETS: std::ops::RangeInclusive<i64> = 9..=24;
/// Elements of an input.
const MOST_ELEMENTS: usize = 1 << 24;
/// The largest batch that a file may be for; what is imported takes batches of any size.
const MOST_BATCH: usize = 1 << 16;
const INPUT: &str = "one input of known extents, [batch, channels, height, width] or [batch, features]";
const OUTPUT: &str = "one output that depends on the input";

/// What a file leaves open.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The shape of one input, without the batch, where the file leaves extents free.
    pub input: Option<Shape>,
    /// The output that is wanted, by its name in the file, where it has several.
    pub output: Option<String>,
}

/// An imported model.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The network, with its weights.
    pub model: Model,
    /// What each node of the file became.
    pub report: Report,
}

impl Imported {
    /// Reads an ONNX file.
    ///
    /// # Errors
    /// [`ImportError`]; nothing that cannot be imported is passed over.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ImportError> {
        Self::read_with(path, &ImportOptions::default())
    }

    /// Reads an ONNX file that leaves the input's extents free, or has several outputs.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_with(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Self, ImportError> {
        let path = path.as_ref();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        import(&files::read_limited(path, MAX_BYTES)?, path, Some(folder), options)
    }

    /// Reads the bytes of an ONNX file with all its weights in it; `name` names it in errors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(bytes: &[u8], name: &Path, options: &ImportOptions) -> Result<Self, ImportError> {
        import(bytes, name, None, options)
    }
}

fn import(
    bytes: &[u8],
    path: &Path,
    folder: Option<&Path>,
    options: &ImportOptions,
) -> Result<Imported, ImportError> {
    let proto = proto::decode(bytes, path, folder)?;
    let opset = proto.opset.unwrap_or(0);
    if !OPSETS.contains(&opset) {
        let (path, least, most) = (path.to_owned(), *OPSETS.start(), *OPSETS.end());
        return Err(ImportError::Opset { path, least, most, found: opset });
    }
    let wrong = |expected| {
        move |(found, open)| ImportError::Interface { path: path.to_owned(), expected, found, open }
    };
    let (input, dims) = input(&proto, options.input.as_ref()).map_err(wrong(INPUT))?;
    let output = output(&proto, options.output.as_deref()).map_err(wrong(OUTPUT))?;
    let mut lowering = Lowering::new(&proto, opset, &input.name, dims, output);
    lowering.run(output);
    lowering.finish(path, &input.name, output)
}

/// What is wrong with an input or output, and what of [`ImportOptions`] can settle it.
type Wrong = (String, Option<Open>);

/// The one input, with its extents.
fn input<'a>(proto: &'a Proto, shape: Option<&Shape>) -> Result<(&'a Input, Vec<usize>), Wrong> {
    let [input] = &proto.inputs[..] else {
        let names: Vec<&str> = proto.inputs.iter().map(|input| input.name.as_str()).collect();
        return Err((format!("{} inputs: {}", names.len(), listed(&names)), None));
    };
    let declared = input.dims.clone().unwrap_or_default();
    let batch = declared.first().copied().flatten().unwrap_or(1);
    let shown = |extent: &Option<usize>| extent.map_or("?".to_owned(), |extent| extent.to_string());
    let found =
        || format!("`{}` of [{}]", input.name, declared.iter().map(shown).collect::<Vec<_>>().join(", "));
    // Extents besides the batch's that a shape can fill in.
    let is_open = input.dims.is_none()
        || matches!(declared.len(), 2 | 4) && declared.iter().skip(1).any(Option::is_none);
    let open = is_open.then_some(Open::Input);
    let dims = match shape {
        None => declared.get(1..).unwrap_or_default().iter().copied().collect::<Option<Vec<_>>>(),
        Some(shape) => {
            let fits = |(declared, given): (&Option<usize>, &usize)| declared.is_none_or(|x| x == *given);
            let rank = declared.len() == shape.dims().len() + 1;
            let fits = input.dims.is_none() || rank && declared.iter().skip(1).zip(shape.dims()).all(fits);
            if !fits {
                return Err((format!("{}, which is not {shape}", found()), open));
            }
            Some(shape.dims().to_vec())
        }
    };
    let dims = dims.filter(|dims| matches!(dims.len(), 1 | 3) && !dims.contains(&0));
    let dims = dims.ok_or_else(|| (found(), open))?;
    let elements = constant::elements(&dims).unwrap_or(usize::MAX);
    if elements > MOST_ELEMENTS || batch > MOST_BATCH {
        let why = format!("which is more than {MOST_ELEMENTS} elements or a batch above {MOST_BATCH}");
        return Err((format!("{}, {why}", found()), open));
    }
    Ok((input, [vec![batch], dims].concat()))
}

/// The one output, or the one that is wanted.
fn output<'a>(proto: &'a Proto, wanted: Option<&str>) -> Result<&'a str, Wrong> {
    let names: Vec<&str> = proto.outputs.iter().map(String::as_str).collect();
    let open = (names.len() > 1).then_some(Open::Output);
    match (wanted, &names[..]) {
        (None, [output]) => Ok(output),
        (Some(wanted), names) => match names.iter().find(|name| **name == wanted) {
            Some(name) => Ok(name),
            None => Err((format!("no `{wanted}` among {}", listed(names)), open)),
        },
        (None, _) => Err((format!("{} outputs: {}", names.len(), listed(&names)), open)),
    }
}

/// Some of the names of a list, which may be long.
fn listed(names: &[&str]) -> String {
    const MOST: usize = 8;
    let some = names.iter().take(MOST).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{some} and others") } else { some }
}
