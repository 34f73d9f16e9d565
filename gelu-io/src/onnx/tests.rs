//! Small models made by hand, imported.

mod bytes;
mod operators;

use std::cell::RefCell;

use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};

use super::*;

/// A model over inputs `x` whose output is `y`.
struct Draft {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    input: Vec<Option<i64>>,
    opset: i64,
}

impl Draft {
    fn new(input: &[i64]) -> Self {
        let input = input.iter().map(|&extent| Some(extent)).collect();
        Self { nodes: vec![], initializers: vec![], input, opset: 17 }
    }

    fn node(
        mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) -> Self {
        self.nodes.push(NodeProto {
            op_type: Some(operator.to_owned()),
            name: Some(format!("{operator}_{}", self.nodes.len())),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: output.split(',').map(str::to_owned).collect(),
            attribute: attributes,
            ..NodeProto::default()
        });
        self
    }

    fn floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.initializers.push(TensorProto {
            name: Some(name.to_owned()),
            dims: dims.to_vec(),
            data_type: Some(DataType::FLOAT),
            raw_data: Some(RefCell::new(values.iter().flat_map(|x| x.to_le_bytes()).collect())),
            ..TensorProto::default()
        });
        self
    }

    fn ints(mut self, name: &str, values: &[i64]) -> Self {
        self.initializers.push(TensorProto {
            name: Some(name.to_owned()),
            dims: vec![values.len() as i64],
            data_type: Some(DataType::INT64),
            int64_data: values.to_vec(),
            ..TensorProto::default()
        });
        self
    }

    fn bytes(self) -> Vec<u8> {
        let dim = |dim_value: Option<i64>| Dimension { dim_value, dim_param: None };
        let shape = TensorShapeProto { dim: self.input.into_iter().map(dim).collect() };
        let tensor = TypeProtoTensor { elem_type: Some(DataType::FLOAT), shape: Some(shape) };
        let kind = TypeProto { tensor_type: Some(tensor), sequence: None };
        let graph = GraphProto {
            node: self.nodes,
            initializer: self.initializers,
            input: vec![ValueInfoProto { name: Some("x".to_owned()), r#type: Some(kind) }],
            output: vec![ValueInfoProto { name: Some("y".to_owned()), r#type: None }],
            value_info: vec![],
        };
        let model = ModelProto {
            ir_version: Some(8),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(self.opset) }],
            ..ModelProto::default()
        };
        model.write_buf().unwrap()
    }

    fn import(self) -> Result<Imported, ImportError> {
        Imported::parse(&self.bytes(), Path::new("test.onnx"), &ImportOptions::default())
    }

    /// The imported model's output of one input.
    fn output(self, x: &[f32]) -> Vec<f32> {
        let Imported { model, .. } = self.import().unwrap();
        let x = ndarray::ArrayView2::from_shape((1, x.len()), x).unwrap();
        model.forward(x).unwrap().into_raw_vec_and_offset().0
    }

    fn unsupported(self) -> Vec<Unsupported> {
        match self.import() {
            Err(ImportError::Unsupported { unsupported, .. }) => unsupported,
            other => panic!("{other:?}"),
        }
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let (name, kind) = (Some(name.to_owned()), Some(AttributeType::INTS));
    AttributeProto { name, r#type: kind, ints: values.to_vec(), ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    let (name, kind) = (Some(name.to_owned()), Some(AttributeType::INT));
    AttributeProto { name, r#type: kind, i: Some(value), ..AttributeProto::default() }
}

fn float(name: &str, value: f32) -> AttributeProto {
    let (name, kind) = (Some(name.to_owned()), Some(AttributeType::FLOAT));
    AttributeProto { name, r#type: kind, f: Some(value), ..AttributeProto::default() }
}

fn text(name: &str, value: &str) -> AttributeProto {
    let (name, kind) = (Some(name.to_owned()), Some(AttributeType::STRING));
    AttributeProto { name, r#type: kind, s: Some(value.to_owned()), ..AttributeProto::default() }
}

/// An image of 1 x 3 x 3.
const IMAGE: [f32; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];

#[test]
fn constants_before_and_after_a_dense_layer_become_part_of_it() {
    let draft = Draft::new(&[1, 2])
        .floats("half", &[], &[0.5])
        .floats("shift", &[2], &[1.0, -1.0])
        .floats("w", &[2, 1], &[3.0, 4.0])
        .node("Div", &["x", "half"], "a", vec![])
        .node("Sub", &["a", "shift"], "b", vec![])
        .node("MatMul", &["b", "w"], "c", vec![])
        .node("Add", &["half", "c"], "y", vec![]);
    let Imported { model, .. } = Draft { opset: 24, ..draft }.import().unwrap();
    assert_eq!(model.graph().nodes().len(), 1);
    // 3 (2 x0 - 1) + 4 (2 x1 + 1) + 0.5
    let x = ndarray::array![[1.0_f32, 2.0]];
    assert_eq!(model.logits(x.view()).unwrap(), ndarray::array![[23.5_f32]]);
}

#[test]
fn a_shift_before_a_padded_convolution_does_not_reach_the_zeros() {
    let draft = Draft::new(&[1, 1, 3, 3])
        .floats("one", &[1, 1, 1], &[1.0])
        .floats("w", &[1, 1, 3, 3], &[1.0; 9])
        .node("Add", &["x", "one"], "a", vec![])
        .node("Conv", &["a", "w"], "y", vec![ints("pads", &[1, 1, 1, 1])]);
    let y = draft.output(&IMAGE);
    assert!((y[0] - 16.0).abs() < 1e-4 && (y[4] - 54.0).abs() < 1e-4, "{y:?}");
}

#[test]
fn a_value_that_others_read_keeps_its_weights() {
    // y = relu(x w) + (x w + 5)
    let draft = Draft::new(&[1, 1])
        .floats("w", &[1, 1], &[-2.0])
        .floats("five", &[1], &[5.0])
        .node("MatMul", &["x", "w"], "a", vec![])
        .node("Add", &["a", "five"], "b", vec![])
        .node("Relu", &["a"], "c", vec![])
        .node("Add", &["c", "b"], "y", vec![]);
    assert_eq!(draft.output(&[3.0]), [-1.0]);
}

#[test]
fn padding_of_the_same_size_is_on_the_side_that_the_file_names() {
    let conv = |mode| {
        Draft::new(&[1, 1, 3, 3])
            .floats("w", &[1, 1, 2, 2], &[1.0; 4])
            .node("Conv", &["x", "w"], "y", vec![text("auto_pad", mode)])
            .output(&IMAGE)
    };
    assert_eq!(conv("SAME_UPPER"), [12.0, 16.0, 9.0, 24.0, 28.0, 15.0, 15.0, 17.0, 9.0]);
    assert_eq!(conv("SAME_LOWER"), [1.0, 3.0, 5.0, 5.0, 12.0, 16.0, 11.0, 24.0, 28.0]);
    assert_eq!(conv("VALID"), [12.0, 16.0, 24.0, 28.0]);
}

#[test]
fn an_input_with_its_channels_last_is_taken_with_its_channels_first() {
    let draft = |reader: &str| {
        Draft::new(&[1, 1, 3, 2])
            .floats("w", &[1, 2, 1, 1], &[1.0, 10.0])
            .floats("ones", &[1], &[1.0])
            .node("Add", &["x", "ones"], "s", vec![])
            .node("Transpose", &["s"], "a", vec![ints("perm", &[0, 3, 1, 2])])
            .node("Conv", &["a", "w"], "b", vec![])
            .node("Relu", &[reader], "c", vec![])
            .node("GlobalMaxPool", &["c"], "y", vec![])
    };
    let Imported { model, report } = draft("b").import().unwrap();
    assert_eq!((model.input_shape(), report.notes.len()), (&Shape::from([2, 1, 3]), 1));
    assert_eq!(draft("b").output(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), [74.0]);
    let read_twice = draft("x").node("Add", &["c", "b"], "y", vec![]);
    assert!(read_twice.unsupported()[0].reason.contains("moves the axes"));
}

#[test]
fn everything_that_is_not_supported_is_listed_at_once() {
    let unsupported = Draft::new(&[1, 1, 3, 3])
        .floats("w", &[1, 1, 1, 1], &[1.0])
        .node("Elu", &["x"], "a", vec![])
        .node("Conv", &["a", "w"], "b", vec![])
        .node("LRN", &["b"], "c", vec![])
        .node("Erf", &["x"], "e", vec![])
        .node("Resize", &["x"], "unread", vec![])
        .node("Add", &["c", "e"], "y", vec![])
        .unsupported();
    let found: Vec<&str> = unsupported.iter().map(|one| one.operator.as_str()).collect();
    assert_eq!(found, ["Elu", "LRN", "Erf"]);
    assert!(
        unsupported[0].to_string().starts_with("node `Elu_0` (Elu): the operator is not known; train with")
    );
}

#[test]
fn settings_that_compute_something_else_are_refused() {
    let pool = |settings: Vec<AttributeProto>| {
        let kernel = ints("kernel_shape", &[2, 2]);
        let settings = [vec![kernel], settings].concat();
        Draft::new(&[1, 1, 3, 3]).node("AveragePool", &["x"], "y", settings).unsupported().remove(0).reason
    };
    assert!(pool(vec![ints("dilations", &[3, 3])]).contains("larger than the padded input"));
    let padded = |settings: Vec<AttributeProto>| {
        let settings = [vec![ints("kernel_shape", &[2, 2])], settings].concat();
        Draft::new(&[1, 1, 3, 3])
            .ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1])
            .node("Pad", &["x", "pads"], "a", vec![])
            .node("AveragePool", &["a"], "y", settings)
            .unsupported()
            .remove(0)
            .reason
    };
    assert!(padded(vec![ints("pads", &[1, 1, 1, 1])]).contains("padding does not"));
    assert!(padded(vec![ints("strides", &[2, 2]), int("ceil_mode", 1)]).contains("incomplete"));
    let transposed =
        Draft::new(&[1, 2, 3, 4]).node("Transpose", &["x"], "y", vec![ints("perm", &[0, 2, 3, 1])]);
    assert!(transposed.unsupported()[0].advice.contains("[batch, channels, height, width]"));
    let sliced = |from: i64, axis: i64| {
        let draft = Draft::new(&[2, 1, 3, 3]).ints("from", &[from]).ints("to", &[3]).ints("at", &[axis]);
        draft.node("Slice", &["x", "from", "to", "at"], "y", vec![]).unsupported().remove(0).reason
    };
    assert_eq!(sliced(3, 2), "it takes nothing of [2, 1, 3, 3]: 3:3:1 of axis 2");
    assert!(sliced(1, 0).contains("some inputs of a batch"));
    let sums = Draft::new(&[1, 2]).node("Softmax", &["x"], "a", vec![]).node("Relu", &["a"], "y", vec![]);
    assert!(sums.unsupported()[0].reason.contains("softmax"));
}

#[test]
fn other_operator_sets_and_interfaces_are_refused() {
    for opset in [0, 8, 25] {
        let draft = Draft { opset, ..Draft::new(&[1, 2]).node("Relu", &["x"], "y", vec![]) };
        assert!(matches!(draft.import(), Err(ImportError::Opset { found, .. }) if found == opset));
    }
    let free = Draft { input: vec![None, Some(1), None, None], ..Draft::new(&[]) };
    let free = free.floats("w", &[1, 1, 1, 1], &[1.0]).node("Conv", &["x", "w"], "y", vec![]).bytes();
    let import = |input| {
        let options = ImportOptions { input, output: None };
        Imported::parse(&free, Path::new("test.onnx"), &options)
    };
    assert!(
        matches!(import(None), Err(ImportError::Interface { found, open: Some(Open::Input), .. }) if found == "`x` of [?, 1, ?, ?]")
    );
    assert!(import(Some([2, 5, 5].into())).is_err());
    // No shape can make a file another one.
    let volume = Draft::new(&[1, 2, 3, 4, 5]).node("Relu", &["x"], "y", vec![]).import();
    assert!(matches!(volume, Err(ImportError::Interface { open: None, .. })), "{volume:?}");
    let wanted = ImportOptions { output: Some("z".to_owned()), ..ImportOptions::default() };
    let bytes = Draft::new(&[1, 2]).node("Relu", &["x"], "y", vec![]).bytes();
    let other = Imported::parse(&bytes, Path::new("test.onnx"), &wanted);
    assert!(
        matches!(other, Err(ImportError::Interface { found, open: None, .. }) if found == "no `z` among `y`")
    );
    assert_eq!(import(Some([1, 5, 5].into())).unwrap().model.output_shape(), &Shape::from([1, 5, 5]));
    assert!(Draft::new(&[1, 2]).node("Identity", &["nowhere"], "y", vec![]).import().is_err());
}

#[test]
fn a_network_that_is_too_large_is_refused_with_all_its_numbers() {
    let draft = Draft::new(&[1, 1, 1000, 1000])
        .floats("w", &[4, 1, 5, 5], &[0.0; 100])
        .floats("v", &[9, 4, 3, 3], &[0.0; 324])
        .node("Conv", &["x", "w"], "a", vec![ints("pads", &[2, 2, 2, 2])])
        .node("Relu", &["a"], "b", vec![])
        .node("Conv", &["b", "v"], "c", vec![ints("pads", &[1, 1, 1, 1])])
        .node("Relu", &["c"], "y", vec![]);
    let unsupported = draft.unsupported();
    assert_eq!(unsupported.len(), 1);
    // 25 taps and 4 outputs of each pixel, 36 and 9, and the weights.
    let reason = &unsupported[0].reason;
    assert!(unsupported[0].node == "Conv_2" && reason.contains("27000000 elements"), "{reason}");
    assert!(reason.contains("74000552 indices, of at most 33554432"), "{reason}");
}

#[test]
fn weights_beside_the_file_must_be_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("model");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(folder.path().join("outside"), [0; 8]).unwrap();
    std::fs::write(inner.join("inside"), [1.5_f32, -2.0].map(f32::to_le_bytes).concat()).unwrap();
    let import = |location: &str, offset: &str| {
        let mut draft =
            Draft::new(&[1, 1]).floats("w", &[1, 1], &[]).node("MatMul", &["x", "w"], "y", vec![]);
        let entry = |key: &str, value: &str| rten_onnx::onnx::StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
        };
        draft.initializers[0].data_location = Some(rten_onnx::onnx::DataLocation::EXTERNAL);
        draft.initializers[0].external_data = vec![entry("location", location), entry("offset", offset)];
        std::fs::write(inner.join("test.onnx"), draft.bytes()).unwrap();
        Imported::read(inner.join("test.onnx"))
    };
    let model = import("inside", "4").unwrap().model;
    assert_eq!(model.layers().next().unwrap().1.parameters().weight, [-2.0]);
    for (location, offset) in
        [("../outside", "0"), ("/etc/hostname", "0"), ("", "0"), ("inside", "5"), ("inside", "-1")]
    {
        assert!(matches!(import(location, offset), Err(ImportError::File(_))), "{location} {offset}");
    }
}
