//! Bytes that are no model, or none to be trusted.

use proptest::prelude::*;

use super::*;

/// A file with most kinds of messages, for changes of single bytes.
fn sample() -> Vec<u8> {
    Draft::new(&[1, 1, 3, 3])
        .floats("w", &[2, 1, 2, 2], &[0.5; 8])
        .floats("v", &[2, 8], &[0.25; 16])
        .ints("shape", &[0, -1])
        .node("Conv", &["x", "w"], "a", vec![ints("pads", &[0, 0, 0, 0]), text("auto_pad", "NOTSET")])
        .node("Relu", &["a"], "b", vec![])
        .node("Shape", &["b"], "s", vec![])
        .node("Reshape", &["b", "shape"], "c", vec![])
        .node("Gemm", &["c", "v"], "y", vec![int("transB", 1)])
        .bytes()
}

fn try_import(bytes: &[u8]) -> bool {
    Imported::parse(bytes, Path::new("test.onnx"), &ImportOptions::default()).is_ok()
}

#[test]
fn lengths_beyond_the_file_and_endless_nesting_are_refused() {
    assert!(try_import(&sample()));
    // A producer's name, a graph and a tensor's bytes of more than there is, and groups, which nothing writes.
    for bytes in [&[0x12, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &[0x3a, 0x7f, 0x0a], &[0x13, 0x14], &[0x80; 12]]
    {
        assert!(!try_import(bytes), "{bytes:?}");
    }
    // A graph in an attribute of a node of a graph, and so on.
    let mut nested: Vec<u8> = vec![];
    for tag in std::iter::repeat_n([0x0a, 0x32, 0x2a], 10).flatten().chain([0x0a]) {
        nested = [vec![tag, nested.len() as u8], nested].concat();
    }
    let model = [vec![0x3a, nested.len() as u8], nested].concat();
    assert!(framing::check(&model).is_err_and(|error| error.contains("levels of messages")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_a_model_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        try_import(&bytes);
    }

    #[test]
    fn a_changed_file_is_a_model_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = sample();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        try_import(&bytes);
    }
}
