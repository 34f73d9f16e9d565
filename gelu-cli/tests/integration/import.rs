//! `gelu import` as a user runs it: every ONNX file that comes with the project's tests, what was made of it, and what
//! cannot be made.

use std::path::{Path, PathBuf};

use gelu_io::weights::WeightsFile as _;
use gelu_models::Weights;
use serde_json::Value;

use crate::common::{Folder, fail, gelu, project, succeed};

/// The project's ONNX files, in order.
fn files() -> Vec<PathBuf> {
    let folder = project().join("tests/onnx/models");
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ext| ext == "onnx")).collect();
    files.sort();
    files
}

fn json(arguments: &[&str], data: &Path) -> Value {
    serde_json::from_str(&succeed(arguments, data)).unwrap()
}

/// The bytes of a NumPy array of single-precision numbers.
fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({extents}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes =
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

fn largest(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best })
}

#[test]
fn every_file_is_imported_planned_and_run_on_ciphertexts() {
    let folder = Folder::new();
    let data = folder.0.path();
    let all = files();
    assert_eq!(all.len(), 12);
    for file in all {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let [out, inputs] = ["model.safetensors", "inputs.npy"].map(|part| folder.text(part));
        let import = ["import", file.to_str().unwrap(), "--out", &out, "--key-bits", "1024", "--json"];
        let imported = json(&import, data);
        assert!(imported["parameters"].as_u64().unwrap() > 100, "{name}");
        assert!(imported["report"]["operators"].as_array().unwrap().len() > 3, "{name}");
        let [same, tried] = ["same_class", "inputs"].map(|key| imported[key].as_u64().unwrap());
        assert!(same <= tried && tried > 0, "{name}: {same} of {tried}");
        for key in ["largest_logit", "logit_spread", "logit_difference"] {
            assert!(imported[key].as_f64().unwrap() > 0.0, "{name}: {key}");
        }
        // The file that was written is the model of the report.
        let plan = json(&["plan", "--model", &out, "--key-bits", "1024", "--json"], data);
        assert_eq!(plan["segments"], imported["plan"]["segments"], "{name}");

        let stem = name.split('.').next().unwrap();
        let expected = Weights::read(file.with_file_name(format!("{stem}.safetensors"))).unwrap();
        let [x, y] = ["inputs", "outputs"].map(|part| &expected.tensors[part]);
        std::fs::write(&inputs, npy(x.shape().dims(), x.data())).unwrap();
        let bits = ["--weight-bits", "16", "--activation-bits", "16", "--input-bits", "16"];
        let infer =
            ["infer", "--model", &out, "--dataset", &inputs, "--count", "1", "--key-bits", "1024", "--json"];
        let found = json(&[&infer[..], &bits].concat(), data);
        let class = largest(&y.data()[..y.shape().dims()[1]]);
        assert_eq!(found["predictions"], serde_json::json!([class]), "{name}");
    }
}

#[test]
fn an_import_prints_every_layer_the_plan_and_how_near_fixed_point_comes() {
    let folder = Folder::new();
    let file = project().join("tests/onnx/models/lenet5.dynamo.onnx");
    let out = folder.text("model.safetensors");
    let text = succeed(&["import", file.to_str().unwrap(), "--out", &out], folder.0.path());
    for part in ["conv1", "avg_pool", "operator set 18", "5910 parameters written", "with the same class for"]
    {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    // As few bits as there can be give other logits, and the way out is said.
    let coarse = ["--weight-bits", "2", "--activation-bits", "2"];
    let output =
        gelu(&[&["import", file.to_str().unwrap(), "--out", &out], &coarse[..]].concat(), folder.0.path());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{message}");
    assert!(message.contains("--weight-bits 5 --activation-bits 5 --input-bits 11"), "{message}");
}

/// A field of a protocol buffer: bytes, behind their length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    // Lengths of two bytes are enough for a test.
    let length = if length < 128 { vec![length] } else { vec![length, 1] };
    [&[number << 3 | 2][..], &length, bytes].concat()
}

/// A field of a protocol buffer: a number below 128, or none where the extent is open.
fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// An ONNX file of `nodes` (operator, inputs, output) over an input `x`, whose open extents are 0.
fn onnx(input: &[u8], nodes: &[(&str, &[&str], &str)], outputs: &[&str]) -> Vec<u8> {
    let mut graph = vec![];
    for (operator, inputs, output) in nodes {
        let mut node: Vec<u8> = inputs.iter().flat_map(|name| field(1, name.as_bytes())).collect();
        node.extend([field(2, output.as_bytes()), field(4, operator.as_bytes())].concat());
        graph.extend(field(1, &node));
    }
    let dim = |&extent: &u8| field(1, &if extent > 0 { number(1, extent) } else { vec![] });
    let shape: Vec<u8> = input.iter().flat_map(dim).collect();
    let kind = field(1, &[number(1, 1), field(2, &shape)].concat());
    graph.extend(field(11, &[field(1, b"x"), field(2, &kind)].concat()));
    graph.extend(outputs.iter().flat_map(|name| field(12, &field(1, name.as_bytes()))));
    [number(1, 8), field(7, &graph), field(8, &number(2, 17))].concat()
}

#[test]
fn what_cannot_be_imported_is_listed_and_nothing_is_written() {
    let folder = Folder::new();
    let [file, out] = ["model.onnx", "model.safetensors"].map(|name| folder.text(name));
    let nodes: &[(&str, &[&str], &str)] = &[
        ("Elu", &["x"], "a"),
        ("GlobalAveragePool", &["a"], "b"),
        ("LRN", &["b"], "c"),
        ("Resize", &["x"], "unread"),
        ("GlobalAveragePool", &["x"], "d"),
        ("Exp", &["d"], "e"),
        ("Add", &["c", "e"], "y"),
    ];
    std::fs::write(&file, onnx(&[1, 2, 4, 4], nodes, &["y"])).unwrap();
    for json in [&[][..], &["--json"]] {
        let import = ["import", &file, "--out", &out];
        let message = fail(&[&import[..], json].concat(), folder.0.path(), 1);
        assert!(message.contains("3 of 6 nodes cannot be imported"), "{message}");
        let listed: Vec<&str> = message.lines().filter_map(|line| line.strip_prefix("  node ")).collect();
        let starts = ["`a` (Elu): ", "`c` (LRN): ", "`e` (Exp): "];
        assert_eq!(listed.len(), 3, "{message}");
        assert!(listed.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{message}");
        assert!(!Path::new(&out).exists());
    }
}

#[test]
fn options_are_offered_where_they_can_help() {
    let folder = Folder::new();
    let [file, out] = ["model.onnx", "model.safetensors"].map(|name| folder.text(name));
    let pool: &[(&str, &[&str], &str)] = &[("GlobalAveragePool", &["x"], "y")];
    let import = |bytes: Vec<u8>, options: &[&str]| {
        std::fs::write(&file, bytes).unwrap();
        fail(&[&["import", &file, "--out", &out], options].concat(), folder.0.path(), 1)
    };
    let open = || onnx(&[1, 2, 0, 0], pool, &["y"]);
    let message = import(open(), &[]);
    assert!(message.contains("help: --input") && !message.contains("--output NAME"), "{message}");
    assert!(import(open(), &["--input", "3x4x4"]).contains("which is not 3x4x4"));
    let message = import(onnx(&[1, 2, 4, 4], pool, &["y", "x"]), &[]);
    assert!(message.contains("help: --output NAME") && !message.contains("--input CxHxW"), "{message}");
    let message = import(onnx(&[1, 2, 4], pool, &["y"]), &[]);
    assert!(message.contains("`x` of [1, 2, 4]") && !message.contains("--input CxHxW"), "{message}");
}

#[test]
fn an_array_of_one_input_without_its_batch_axis_is_named_as_that() {
    let folder = Folder::new();
    let [out, inputs] = ["model.safetensors", "inputs.npy"].map(|name| folder.text(name));
    let file = project().join("tests/onnx/models/mobilenet.dynamo.onnx");
    succeed(&["import", file.to_str().unwrap(), "--out", &out], folder.0.path());
    std::fs::write(&inputs, npy(&[3, 16, 16], &[0.5; 768])).unwrap();
    let message = fail(&["infer", "--model", &out, "--dataset", &inputs], folder.0.path(), 1);
    assert!(message.contains("without an axis for the number of inputs"), "{message}");
    assert!(message.contains("must be [1, 3, ...]"), "{message}");
    std::fs::write(&inputs, npy(&[2, 16, 16], &[0.5; 512])).unwrap();
    let message = fail(&["infer", "--model", &out, "--dataset", &inputs], folder.0.path(), 1);
    assert!(!message.contains("without an axis"), "{message}");
}
