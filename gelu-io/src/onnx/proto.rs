//! From a file's bytes to nodes and constants, checked.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataLocation, DataType, GraphProto, ModelProto, NodeProto, TensorProto,
    ValueInfoProto,
};

use super::constant::{Constant, Data, Reason, elements};
use super::{MAX_BYTES, framing};
use crate::Error;

/// The nodes of a file; a large network has some thousands, most of them constants.
const MOST_NODES: usize = 1 << 16;

/// A model as it lies in the file.
#[derive(Debug)]
pub(super) struct Proto {
    pub(super) producer: String,
    pub(super) ir_version: i64,
    /// Of ONNX's own operators; `None` where the file does not say.
    pub(super) opset: Option<i64>,
    pub(super) nodes: Vec<Node>,
    pub(super) constants: HashMap<String, Arc<Constant>>,
    /// Inputs that are not constants.
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Input {
    pub(super) name: String,
    /// Extents, `None` for one that is free; all of it `None` where the file does not say.
    pub(super) dims: Option<Vec<Option<usize>>>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    /// With the domain before it, where that is not ONNX's own.
    pub(super) operator: String,
    /// Names of values; empty for one that is left out.
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    attributes: BTreeMap<String, Attribute>,
}

#[derive(Debug)]
enum Attribute {
    Int(i64),
    Float(f32),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Tensor(Arc<Constant>),
    Graph,
    Other,
}

impl Node {
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name)? {
            Attribute::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name)? {
            Attribute::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name)? {
            Attribute::Text(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name)? {
            Attribute::Ints(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Arc<Constant>> {
        match self.attributes.get(name)? {
            Attribute::Tensor(value) => Some(value),
            _ => None,
        }
    }

    /// Whether one of the attributes is a graph of its own (loops and branches).
    pub(super) fn has_graph(&self) -> bool {
        self.attributes.values().any(|value| matches!(value, Attribute::Graph))
    }

    /// Returns the tensor of a `Constant`.
    pub(super) fn constant_value(&self) -> Result<Constant, Reason> {
        let (name, value) = self.attributes.iter().next().ok_or("a constant without a value")?;
        Ok(match value {
            Attribute::Tensor(value) => Constant::clone(value),
            Attribute::Int(value) => Constant::ints(vec![], vec![*value]),
            Attribute::Float(value) => Constant::floats(vec![], vec![*value]),
            Attribute::Ints(values) => Constant::ints(vec![values.len()], values.clone()),
            Attribute::Floats(values) => Constant::floats(vec![values.len()], values.clone()),
            Attribute::Text(_) | Attribute::Graph | Attribute::Other => {
                return Err(format!("a constant of attribute `{name}`"));
            }
        })
    }
}

/// Reads the nodes and constants of a file's bytes; `folder` has the weights that lie beside it.
pub(super) fn decode(bytes: &[u8], path: &Path, folder: Option<&Path>) -> Result<Proto, Error> {
    framing::check(bytes).map_err(|found| Error::format(path, "an ONNX model", found))?;
    let model = ModelProto::parse_buf(bytes)
        .map_err(|error| Error::format(path, "an ONNX model", error.to_string()))?;
    let graph = model.graph.ok_or_else(|| Error::format(path, "an ONNX model", "one without a graph"))?;
    if graph.node.len() > MOST_NODES {
        let (what, limit) = ("number of nodes", MOST_NODES as u64);
        return Err(Error::TooLarge { path: path.into(), what, limit, found: graph.node.len() as u64 });
    }
    let mut tensors = Tensors { path, folder, outside: 0 };
    let GraphProto { node, initializer, input, output, .. } = graph;
    let mut constants = HashMap::new();
    for tensor in initializer {
        let name = tensor.name.clone().unwrap_or_default();
        constants.insert(name, Arc::new(tensors.constant(tensor)?));
    }
    let nodes = node.into_iter().map(|node| tensors.node(node)).collect::<Result<_, _>>()?;
    // Before version 4 of the format, initializers had to be inputs too.
    let inputs = input.into_iter().map(self::input).filter(|input| !constants.contains_key(&input.name));
    let own = |domain: &Option<String>| matches!(domain.as_deref(), None | Some("" | "ai.onnx"));
    let opset = model.opset_import.iter().find(|set| own(&set.domain)).and_then(|set| set.version);
    let producer = [model.producer_name, model.producer_version].into_iter().flatten();
    let producer = producer.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    Ok(Proto {
        producer,
        ir_version: model.ir_version.unwrap_or(0),
        opset,
        nodes,
        inputs: inputs.collect(),
        outputs: output.into_iter().filter_map(|output| output.name).collect(),
        constants,
    })
}

fn input(info: ValueInfoProto) -> Input {
    let shape = info.r#type.and_then(|kind| kind.tensor_type).and_then(|tensor| tensor.shape);
    let extent = |value: Option<i64>| value.and_then(|value| usize::try_from(value).ok()).filter(|&x| x > 0);
    let dims = shape.map(|shape| shape.dim.iter().map(|one| extent(one.dim_value)).collect());
    Input { name: info.name.unwrap_or_default(), dims }
}

/// Converts tensors, and counts the bytes of those outside of the file.
struct Tensors<'a> {
    path: &'a Path,
    folder: Option<&'a Path>,
    outside: u64,
}

impl Tensors<'_> {
    fn node(&mut self, node: NodeProto) -> Result<Node, Error> {
        let operator = node.op_type.unwrap_or_default();
        let operator = match node.domain.as_deref() {
            None | Some("" | "ai.onnx") => operator,
            Some(domain) => format!("{domain}.{operator}"),
        };
        let name = match node.name {
            Some(name) if !name.is_empty() => name,
            _ => node.output.first().cloned().unwrap_or_default(),
        };
        let attributes = node.attribute.into_iter().map(|attribute| self.attribute(attribute));
        Ok(Node {
            name,
            operator,
            inputs: node.input,
            outputs: node.output,
            attributes: attributes.collect::<Result<_, _>>()?,
        })
    }

    fn attribute(&mut self, attribute: AttributeProto) -> Result<(String, Attribute), Error> {
        let name = attribute.name.unwrap_or_default();
        let kind = attribute.r#type.unwrap_or(AttributeType::UNDEFINED);
        let value = match kind {
            AttributeType::INT => Attribute::Int(attribute.i.unwrap_or(0)),
            AttributeType::FLOAT => Attribute::Float(attribute.f.unwrap_or(0.0)),
            AttributeType::STRING => Attribute::Text(attribute.s.unwrap_or_default()),
            AttributeType::INTS => Attribute::Ints(attribute.ints),
            AttributeType::FLOATS => Attribute::Floats(attribute.floats),
            AttributeType::TENSOR => match attribute.t {
                Some(tensor) => Attribute::Tensor(Arc::new(self.constant(tensor)?)),
                None => Attribute::Other,
            },
            AttributeType::GRAPH => Attribute::Graph,
            _ => Attribute::Other,
        };
        Ok((name, value))
    }

    fn constant(&mut self, tensor: TensorProto) -> Result<Constant, Error> {
        let name = tensor.name.clone().unwrap_or_default();
        let wrong = |expected: String, found: String| Error::format(self.path, expected, found);
        let dims = tensor.dims.iter().map(|&extent| usize::try_from(extent)).collect::<Result<Vec<_>, _>>();
        let dims = dims
            .ok()
            .filter(|dims| elements(dims).is_some())
            .ok_or_else(|| wrong(format!("extents of tensor `{name}`"), format!("{:?}", tensor.dims)))?;
        let count = elements(&dims).unwrap_or(0);
        let kind = tensor.data_type.unwrap_or(DataType(0));
        let Some(width) = width(kind) else {
            return Ok(Constant { dims, data: Data::Other(format!("elements of type {kind}")) });
        };
        let raw = match (tensor.data_location, &tensor.raw_data) {
            (Some(DataLocation::EXTERNAL), _) => {
                Some(self.external(&tensor, &name, count.saturating_mul(width))?)
            }
            (_, Some(raw)) => Some(raw.take()),
            (_, None) => None,
        };
        let data = match &raw {
            Some(raw) if raw.len() != count.saturating_mul(width) => {
                let expected = format!("{} bytes of tensor `{name}`", count.saturating_mul(width));
                return Err(Error::format(self.path, expected, format!("{} bytes", raw.len())));
            }
            Some(raw) => from_raw(kind, raw),
            None => from_fields(kind, tensor),
        };
        let constant = Constant { dims, data };
        if constant.len() == count {
            Ok(constant)
        } else {
            let expected = format!("{count} elements of tensor `{name}`");
            Err(Error::format(self.path, expected, format!("{} elements", constant.len())))
        }
    }

    /// The bytes of a tensor that lie in another file of the model's folder.
    fn external(&mut self, tensor: &TensorProto, name: &str, length: usize) -> Result<Vec<u8>, Error> {
        let entry = |key: &str| {
            let entries = tensor.external_data.iter();
            entries
                .clone()
                .find(|entry| entry.key.as_deref() == Some(key))
                .and_then(|entry| entry.value.as_deref())
        };
        let wrong = |found: String| {
            let expected = format!("tensor `{name}` in a file of the model's own folder");
            Error::format(self.path, expected, found)
        };
        let location = entry("location").unwrap_or_default();
        let folder = self.folder.ok_or_else(|| wrong("bytes without a folder".to_owned()))?;
        let file = inside(folder, location).ok_or_else(|| wrong(format!("`{location}`")))?;
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| wrong(format!("{key} `{text}`"))),
        };
        let offset = number("offset")?.unwrap_or(0);
        if let Some(found) = number("length")?.filter(|&found| found != length as u64) {
            return Err(wrong(format!("{found} bytes of it where its extents ask for {length}")));
        }
        self.outside = self.outside.saturating_add(length as u64);
        if self.outside > MAX_BYTES {
            let what = "bytes of tensors beside the file";
            return Err(Error::TooLarge { path: file, what, limit: MAX_BYTES, found: self.outside });
        }
        let mut opened = File::open(&file).map_err(Error::io(&file, "open"))?;
        let found = opened.metadata().map_err(Error::io(&file, "read the length"))?.len();
        let expected = offset.saturating_add(length as u64);
        if found < expected {
            return Err(Error::Truncated { path: file, expected, found });
        }
        let mut bytes = vec![0; length];
        let read = opened.seek(SeekFrom::Start(offset)).and_then(|_| opened.read_exact(&mut bytes));
        read.map_err(Error::io(&file, "read"))?;
        Ok(bytes)
    }
}

/// The file at a place given relative to a folder, if it is in that folder, links followed.
fn inside(folder: &Path, location: &str) -> Option<PathBuf> {
    let location = Path::new(location);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if location.as_os_str().is_empty() || !location.components().all(plain) {
        return None;
    }
    let file = folder.join(location);
    match (folder.canonicalize(), file.canonicalize()) {
        (Ok(folder), Ok(real)) => real.starts_with(folder).then_some(real),
        // Opening it says what is wrong.
        _ => Some(file),
    }
}

/// Bytes of an element in raw data; `None` for types without a use here.
fn width(kind: DataType) -> Option<usize> {
    Some(match kind {
        DataType::BOOL | DataType::UINT8 | DataType::INT8 => 1,
        DataType::UINT16 | DataType::INT16 | DataType::FLOAT16 | DataType::BFLOAT16 => 2,
        DataType::FLOAT | DataType::INT32 | DataType::UINT32 => 4,
        DataType::DOUBLE | DataType::INT64 | DataType::UINT64 => 8,
        _ => return None,
    })
}

fn from_raw(kind: DataType, raw: &[u8]) -> Data {
    fn all<const BYTES: usize, T>(raw: &[u8], from: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
        raw.as_chunks::<BYTES>().0.iter().map(|bytes| from(*bytes)).collect()
    }
    match kind {
        DataType::FLOAT => Data::Floats(all(raw, f32::from_le_bytes)),
        DataType::DOUBLE => Data::Floats(all(raw, |bytes| f64::from_le_bytes(bytes) as f32)),
        DataType::FLOAT16 => Data::Floats(all(raw, |bytes| f16::from_le_bytes(bytes).to_f32())),
        DataType::BFLOAT16 => Data::Floats(all(raw, |bytes| bf16::from_le_bytes(bytes).to_f32())),
        DataType::BOOL | DataType::UINT8 => Data::Ints(raw.iter().map(|&byte| i64::from(byte)).collect()),
        DataType::INT8 => Data::Ints(all(raw, |bytes| i64::from(i8::from_le_bytes(bytes)))),
        DataType::UINT16 => Data::Ints(all(raw, |bytes| i64::from(u16::from_le_bytes(bytes)))),
        DataType::INT16 => Data::Ints(all(raw, |bytes| i64::from(i16::from_le_bytes(bytes)))),
        DataType::UINT32 => Data::Ints(all(raw, |bytes| i64::from(u32::from_le_bytes(bytes)))),
        DataType::INT32 => Data::Ints(all(raw, |bytes| i64::from(i32::from_le_bytes(bytes)))),
        // Those above the signed range are no extent, and no index, of anything.
        _ => Data::Ints(all(raw, i64::from_le_bytes)),
    }
}

fn from_fields(kind: DataType, tensor: TensorProto) -> Data {
    let bits = || tensor.int32_data.iter().map(|&bits| bits as u16);
    match kind {
        DataType::FLOAT => Data::Floats(tensor.float_data),
        DataType::DOUBLE => Data::Floats(tensor.double_data.iter().map(|&x| x as f32).collect()),
        DataType::FLOAT16 => Data::Floats(bits().map(|bits| f16::from_bits(bits).to_f32()).collect()),
        DataType::BFLOAT16 => Data::Floats(bits().map(|bits| bf16::from_bits(bits).to_f32()).collect()),
        DataType::INT64 => Data::Ints(tensor.int64_data),
        _ => Data::Ints(tensor.int32_data.iter().map(|&x| i64::from(x)).collect()),
    }
}
