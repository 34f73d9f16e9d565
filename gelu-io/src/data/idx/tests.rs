use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

fn name() -> &'static Path {
    Path::new("test-idx")
}

fn idx(magic: [u8; 4], dims: &[u32], body: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|extent| extent.to_be_bytes()).collect();
    [&magic[..], &dims, body].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn sample() -> Vec<u8> {
    idx(IMAGES, &[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
}

#[test]
fn plain_and_gzip_read_alike() {
    for bytes in [sample(), gzip(&sample())] {
        let images = Images::parse(&bytes, name()).unwrap();
        assert_eq!((images.count(), images.size()), (2, [2, 3]));
        assert_eq!(images.iter().nth(1).unwrap(), [7, 8, 9, 10, 11, 12]);
    }
    let labels = idx(LABELS, &[3], &[0, 9, 4]);
    assert_eq!(Images::parse_labels(&labels, name(), 10).unwrap(), [0, 9, 4]);
    assert_eq!(Images::parse_labels(&gzip(&labels), name(), 10).unwrap(), [0, 9, 4]);
}

#[test]
fn zeros_behind_gzip_and_streams_in_pieces_are_read() {
    let (first, second) = (&sample()[..13], &sample()[13..]);
    for bytes in [
        [gzip(&sample()), vec![0; 512]].concat(),
        [gzip(first), gzip(second)].concat(),
        [gzip(first), gzip(second), vec![0]].concat(),
    ] {
        assert_eq!(Images::parse(&bytes, name()).unwrap().count(), 2);
        assert!(is_idx(&bytes));
    }
    assert!(!is_idx(b"1,2,3") && !is_idx(&gzip(b"1,2,3")) && !is_idx(&[]));
}

#[test]
fn mislabelled_files_are_told_apart() {
    let labels = idx(LABELS, &[1], &[3]);
    assert_eq!(
        Images::parse(&labels, name()).unwrap_err().to_string(),
        "test-idx: expected an IDX file of images (first bytes 00 00 08 03), \
         found an IDX file of labels (first bytes 00 00 08 01)"
    );
    assert!(
        Images::parse_labels(&sample(), name(), 10)
            .unwrap_err()
            .to_string()
            .contains("found an IDX file of images")
    );
    assert!(
        Images::parse_labels(b"\x89PNG....", name(), 10).unwrap_err().to_string().contains("of another kind")
    );
}

#[test]
fn lengths_and_labels_are_checked() {
    let longer = [sample(), vec![0]].concat();
    for bytes in [gzip(&longer), longer] {
        let error = Images::parse(&bytes, name()).unwrap_err();
        assert!(matches!(error, Error::Trailing { expected: 28, .. }), "{error}");
    }
    for junk in [&b"junk"[..], &[0, 0, 0, 1], &[0x1f, 0x8b, 7]] {
        let behind_gzip = [gzip(&sample()), junk.to_vec()].concat();
        assert!(Images::parse(&behind_gzip, name()).is_err(), "{junk:?}");
    }
    let error = Images::parse(&idx(IMAGES, &[u32::MAX, u32::MAX, u32::MAX], &[]), name()).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let error = Images::parse(&idx(IMAGES, &[5, 0, 28], &[]), name()).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
    let error = Images::parse_labels(&idx(LABELS, &[2], &[1, 10]), name(), 10).unwrap_err();
    assert_eq!(error.to_string(), "test-idx: label 1: expected a class below 10, found 10");
}

#[test]
fn truncation_anywhere_is_an_error() {
    let plain = sample();
    for length in 0..plain.len() {
        let error = Images::parse(&plain[..length], name()).unwrap_err();
        assert!(
            matches!(error, Error::Truncated { found, .. } if found == length as u64),
            "{length}: {error}"
        );
    }
    let packed = gzip(&plain);
    for length in 0..packed.len() {
        assert!(Images::parse(&packed[..length], name()).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn corruption_never_panics(
        packed: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = if packed { gzip(&sample()) } else { sample() };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(images) = Images::parse(&bytes, name()) {
            prop_assert_eq!(images.pixels().len(), images.count() * images.size()[0] * images.size()[1]);
        }
        let _ = Images::parse_labels(&bytes, name(), 10);
    }
}
