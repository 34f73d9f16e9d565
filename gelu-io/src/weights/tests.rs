//! Weight files of every type and from every program, and those that are none.

use gelu_models::WeightTensor;
use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

fn name() -> &'static Path {
    Path::new("test.safetensors")
}

fn sample() -> Weights {
    let tensor = |dims: &[usize], data: &[f32]| WeightTensor::new(Shape::from(dims), data.to_vec()).unwrap();
    Weights {
        tensors: BTreeMap::from([
            ("conv1.weight".into(), tensor(&[1, 1, 2, 2], &[0.5, -1.25, 3.0, 0.0])),
            ("conv1.bias".into(), tensor(&[1], &[-0.125])),
            ("empty".into(), tensor(&[0], &[])),
        ]),
        metadata: (0..8).map(|i| (format!("key {i}"), format!("\"value\" {i}"))).collect(),
    }
}

/// A file of one tensor, made without the code under test.
fn file(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!(
        r#"{{"fc1.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{}]}}}}"#,
        data.len()
    );
    raw(&header, data)
}

fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn every_type_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64] {
        sample().write(&path, dtype).unwrap();
        assert_eq!(Weights::read(&path).unwrap(), sample(), "{dtype:?}");
        let first = std::fs::read(&path).unwrap();
        sample().write(&path, dtype).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first, "the same weights give the same bytes");
        SafeTensors::deserialize(&first).unwrap();
    }
}

#[test]
fn bytes_of_other_programs_are_understood() {
    // struct.pack of 1.5 and -2.0 in each type
    let cases: [(&str, &[u8]); 4] = [
        ("F16", &[0x00, 0x3e, 0x00, 0xc0]),
        ("BF16", &[0xc0, 0x3f, 0x00, 0xc0]),
        ("F32", &[0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]),
        ("F64", &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0]),
    ];
    for (dtype, data) in cases {
        let weights = Weights::parse(&file(dtype, "[2]", data), name()).unwrap();
        assert_eq!(weights.tensors["fc1.weight"].data(), [1.5, -2.0], "{dtype}");
    }
}

#[test]
fn a_listing_tells_range_and_mean() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    sample().write(&path, Dtype::BF16).unwrap();
    let listing = Listing::read(&path).unwrap();
    assert_eq!(listing.metadata, sample().metadata);
    assert_eq!(listing.tensors.len(), 3);
    assert_eq!(
        listing.tensors[1],
        TensorSummary {
            name: "conv1.weight".into(),
            dtype: "BF16".into(),
            shape: Shape::from([1, 1, 2, 2]),
            min: -1.25,
            max: 3.0,
            mean: 0.5625,
        }
    );
    assert_eq!((listing.tensors[2].min, listing.tensors[2].mean), (0.0, 0.0));
}

#[test]
fn other_types_are_named() {
    let error = Weights::parse(&file("I64", "[1]", &[0; 8]), name()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test.safetensors: tensor `fc1.weight`: expected elements of type F16, BF16, F32 or F64, found I64"
    );
}

#[test]
fn what_is_not_finite_is_refused() {
    let with = |value: f32| file("F32", "[2]", &[0f32.to_le_bytes(), value.to_le_bytes()].concat());
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = Weights::parse(&with(value), name()).unwrap_err();
        assert!(matches!(&error, Error::Value { tensor, index: 1, .. } if tensor == "fc1.weight"), "{error}");
    }
    let wide = Weights::parse(&file("F64", "[1]", &1e39f64.to_le_bytes()), name()).unwrap_err();
    assert!(wide.to_string().contains("in the range of f32"), "{wide}");
    let mut large = sample();
    let tensor = WeightTensor::new(Shape::from([1]), vec![1e6]).unwrap();
    large.tensors.insert("large".into(), tensor);
    assert!(matches!(large.encode(Dtype::F16, name()), Err(Error::Value { .. })));
    assert!(large.encode(Dtype::BF16, name()).is_ok());
}

#[test]
fn headers_are_checked_before_anything_is_believed() {
    let good = file("F32", "[2]", &[0; 8]);
    let longer = [&good[..], &[0]].concat();
    assert!(matches!(Weights::parse(&longer, name()), Err(Error::Trailing { .. })));
    let mut huge_header = good.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(Weights::parse(&huge_header, name()), Err(Error::TooLarge { .. })));
    // Nine tensors whose lengths add up to nearly 2^64: the sum of header and data would overflow.
    let step = 1u64 << 60;
    let tensors: Vec<String> = (0..16)
        .map(|i| {
            let end = (u128::from(step) * (i + 1)).min(u128::from(u64::MAX));
            let length = end - u128::from(step) * i;
            let start = u128::from(step) * i;
            format!(r#""t{i}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    let overflow = raw(&format!("{{{}}}", tensors.join(",")), &[]);
    assert!(matches!(Weights::parse(&overflow, name()), Err(Error::Truncated { .. })));
    for header in ["", "{", "[]", "null", r#"{"a":3}"#, r#"{"__metadata__":{"a":1}}"#] {
        assert!(matches!(Weights::parse(&raw(header, &[]), name()), Err(Error::Format { .. })), "{header}");
    }
    let wrong_shape = file("F32", "[3]", &[0; 8]);
    assert!(matches!(Weights::parse(&wrong_shape, name()), Err(Error::Format { .. })));
}

#[test]
fn truncation_anywhere_is_an_error() {
    let bytes = sample().encode(Dtype::F32, name()).unwrap();
    for length in 1..bytes.len() {
        let error = Weights::parse(&bytes[..length], name()).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{length}: {error}");
    }
}

proptest! {
    #[test]
    fn corruption_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = sample().encode(Dtype::F32, name()).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(weights) = Weights::parse(&bytes, name()) {
            prop_assert!(weights.tensors.values().all(|tensor| tensor.data().iter().all(|x| x.is_finite())));
        }
    }
}

#[test]
fn files_of_other_kinds_are_named_for_what_they_are() {
    let zip = |member: &str| [b"PK\x03\x04\x14\0\0\0".as_slice(), member.as_bytes(), &[0; 40]].concat();
    let cases: [(&str, Vec<u8>, FileKind); 16] = [
        ("m.pt", zip("archive/data.pkl"), FileKind::Pickle),
        ("m.safetensors", zip("m/data.pkl"), FileKind::Pickle),
        ("m.pth", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), FileKind::Pickle),
        ("m.safetensors", b"\x80\x04\x95\x10\0\0\0\0\0\0\0}".to_vec(), FileKind::Pickle),
        ("m.onnx", b"\x08\x08\x12\x07pytorch\x1a\x032.1".to_vec(), FileKind::Onnx),
        ("m.safetensors", b"\x08\x0a\x3a\x0e\x0a\x04main".to_vec(), FileKind::Onnx),
        ("m.npz", zip("conv1.weight.npy"), FileKind::Numpy),
        ("m.npy", b"\x93NUMPY\x01\0v\0{'descr': '<f4'".to_vec(), FileKind::Numpy),
        ("m.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0".to_vec(), FileKind::Hdf5),
        ("m.safetensors", b"\n<!DOCTYPE html><html><body>Sign in".to_vec(), FileKind::Html),
        ("m.safetensors", b"<HTML><head>".to_vec(), FileKind::Html),
        (
            "m.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec(),
            FileKind::LfsPointer,
        ),
        ("m.safetensors.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), FileKind::Gzip),
        ("m.safetensors", vec![], FileKind::Empty),
        ("m.zip", zip("readme.txt"), FileKind::Zip),
        ("index.json", br#"{"weight_map": {"a": "b"}}"#.to_vec(), FileKind::Index),
    ];
    for (name, bytes, kind) in cases {
        let error = Weights::parse(&bytes, Path::new(name)).unwrap_err();
        assert!(matches!(error, Error::Kind { found, .. } if found == kind), "{name}: {error}");
        assert!(error.to_string().contains(kind.advice()), "{error}");
    }
}

#[test]
fn lengths_that_look_like_other_files_are_lengths() {
    // A header of 0x280 bytes begins as a pickle of protocol 2, one of 0x8b1f as a gzip file.
    for length in [0x280, 0x8b1f, 0x0108] {
        let data = [1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat();
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let bytes = raw(&format!("{header:length$}"), &data);
        assert_eq!(Weights::parse(&bytes, name()).unwrap().tensors["a"].data(), [1.5, -2.0]);
    }
}

#[test]
fn metadata_may_be_null() {
    let data = 1.5f32.to_le_bytes();
    let header = r#"{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let weights = Weights::parse(&raw(header, &data), name()).unwrap();
    assert_eq!((weights.tensors["a"].data(), weights.metadata.len()), (&[1.5][..], 0));
}

#[test]
fn counters_are_read_and_all_integers_are_listed() {
    let weights = Weights::parse(&file("I64", "[]", &938i64.to_le_bytes()), name()).unwrap();
    assert_eq!(weights.tensors["fc1.weight"].data(), [938.0]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    for (dtype, data) in [
        ("I64", [7i64.to_le_bytes(), (-3i64).to_le_bytes()].concat()),
        ("I32", [7i32.to_le_bytes(), (-3i32).to_le_bytes()].concat()),
        ("I16", [7i16.to_le_bytes(), (-3i16).to_le_bytes()].concat()),
        ("I8", [7i8.to_le_bytes(), (-3i8).to_le_bytes()].concat()),
    ] {
        std::fs::write(&path, file(dtype, "[2]", &data)).unwrap();
        let tensor = &Listing::read(&path).unwrap().tensors[0];
        assert_eq!((tensor.dtype.as_str(), tensor.min, tensor.max, tensor.mean), (dtype, -3.0, 7.0, 2.0));
        // They are no weights, though.
        assert!(matches!(Weights::read(&path), Err(Error::Dtype { .. })), "{dtype}");
    }
}

#[test]
fn numbers_that_a_type_cannot_hold_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let weights = |data: Vec<f32>| {
        let tensor = WeightTensor::new(Shape::from([data.len()]), data).unwrap();
        Weights { tensors: [("fc1.weight".to_owned(), tensor)].into(), ..Weights::default() }
    };
    for (data, dtype) in
        [(vec![1e-30, -2e-30], Dtype::F16), (vec![3e-8; 4], Dtype::F16), (vec![1e-40, 0.0], Dtype::BF16)]
    {
        let error = weights(data.clone()).write(&path, dtype).unwrap_err();
        assert!(matches!(error, Error::Underflow { .. }), "{data:?}: {error}");
        assert!(!path.exists());
        weights(data).write(&path, Dtype::F32).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
    // A few small numbers among larger ones are lost in rounding, as everywhere.
    for data in [vec![0.5, 1e-9], vec![0.0; 3], vec![1e-6; 3], vec![]] {
        weights(data).write(&path, Dtype::F16).unwrap();
    }
}

#[test]
fn a_model_in_several_files_is_read_by_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let tensor = |value: f32| WeightTensor::new([1].into(), vec![value]).unwrap();
    let shard = |name: &str, tensors: &[(&str, f32)]| {
        let tensors = tensors.iter().map(|(name, value)| ((*name).to_owned(), tensor(*value))).collect();
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        Weights { tensors, metadata }.write(place(name), Dtype::F32).unwrap();
    };
    shard("model-1.safetensors", &[("a", 1.0), ("b", 2.0)]);
    shard("model-2.safetensors", &[("c", 3.0)]);
    let index = place("model.safetensors.index.json");
    let write = |json: &str| std::fs::write(&index, json).unwrap();
    let (one, two) =
        (r#""a":"model-1.safetensors","b":"model-1.safetensors""#, r#""c":"model-2.safetensors""#);
    write(&format!(r#"{{"metadata":{{"total_size":12}},"weight_map":{{{one},{two}}}}}"#));
    let weights = Weights::read(&index).unwrap();
    assert_eq!(weights.tensors.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(weights.metadata["format"], "pt");
    for bad in [
        format!(r#"{{"weight_map":{{{two}}}"#),
        format!(r#"{{"weight_map":{{{one},{two},"d":"model-2.safetensors"}}}}"#),
        format!(r#"{{"weight_map":{{"a":"model-1.safetensors",{two}}}}}"#),
        r#"{"weight_map":{"a":"../model-1.safetensors"}}"#.to_owned(),
        r#"{"weight_map":{"a":"/etc/passwd"}}"#.to_owned(),
        r#"{"weight_map":{"a":"absent.safetensors"}}"#.to_owned(),
        r#"{"weight_map":{"a":".."}}"#.to_owned(),
    ] {
        write(&bad);
        assert!(Weights::read(&index).is_err(), "{bad}");
    }
}
