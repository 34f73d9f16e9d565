use proptest::prelude::*;

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
        let weights = parse_safetensors(&file(dtype, "[2]", data), name()).unwrap();
        assert_eq!(weights.tensors["fc1.weight"].data(), [1.5, -2.0], "{dtype}");
    }
}

#[test]
fn a_listing_tells_range_and_mean() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    sample().write(&path, Dtype::BF16).unwrap();
    let listing = list_safetensors(&path).unwrap();
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
    let error = parse_safetensors(&file("I64", "[1]", &[0; 8]), name()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test.safetensors: tensor `fc1.weight`: expected elements of type F16, BF16, F32 or F64, found I64"
    );
}

#[test]
fn what_is_not_finite_is_refused() {
    let with = |value: f32| file("F32", "[2]", &[0f32.to_le_bytes(), value.to_le_bytes()].concat());
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = parse_safetensors(&with(value), name()).unwrap_err();
        assert!(matches!(&error, Error::Value { tensor, index: 1, .. } if tensor == "fc1.weight"), "{error}");
    }
    let wide = parse_safetensors(&file("F64", "[1]", &1e39f64.to_le_bytes()), name()).unwrap_err();
    assert!(wide.to_string().contains("in the range of f32"), "{wide}");
    let mut large = sample();
    let tensor = WeightTensor::new(Shape::from([1]), vec![1e6]).unwrap();
    large.tensors.insert("large".into(), tensor);
    assert!(matches!(encode(&large, Dtype::F16, name()), Err(Error::Value { .. })));
    assert!(encode(&large, Dtype::BF16, name()).is_ok());
}

#[test]
fn headers_are_checked_before_anything_is_believed() {
    let good = file("F32", "[2]", &[0; 8]);
    let longer = [&good[..], &[0]].concat();
    assert!(matches!(parse_safetensors(&longer, name()), Err(Error::Trailing { .. })));
    let mut huge_header = good.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(parse_safetensors(&huge_header, name()), Err(Error::TooLarge { .. })));
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
    assert!(matches!(parse_safetensors(&overflow, name()), Err(Error::Truncated { .. })));
    for header in ["", "{", "[]", "null", r#"{"a":3}"#, r#"{"__metadata__":{"a":1}}"#] {
        assert!(
            matches!(parse_safetensors(&raw(header, &[]), name()), Err(Error::Format { .. })),
            "{header}"
        );
    }
    let wrong_shape = file("F32", "[3]", &[0; 8]);
    assert!(matches!(parse_safetensors(&wrong_shape, name()), Err(Error::Format { .. })));
}

#[test]
fn truncation_anywhere_is_an_error() {
    let bytes = encode(&sample(), Dtype::F32, name()).unwrap();
    for length in 0..bytes.len() {
        let error = parse_safetensors(&bytes[..length], name()).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{length}: {error}");
    }
}

proptest! {
    #[test]
    fn corruption_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = encode(&sample(), Dtype::F32, name()).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(weights) = parse_safetensors(&bytes, name()) {
            prop_assert!(weights.tensors.values().all(|tensor| tensor.data().iter().all(|x| x.is_finite())));
        }
    }
}
