//! NumPy's array files: a header with type and shape, then the elements.

use std::path::Path;

use gelu_tensor::Shape;
use half::f16;

use super::{Images, Inputs};
use crate::Error;

/// The first bytes of an array file.
pub(super) const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The most elements of an array.
const MAX_ELEMENTS: usize = 1 << 29;
/// The most dimensions.
const MAX_RANK: usize = 8;

/// Elements of an array, as far as data sets need them apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Elements {
    /// Unsigned bytes.
    Bytes(Vec<u8>),
    /// Other whole numbers, and truth values.
    Whole(Vec<i64>),
    /// Numbers with a fraction.
    Real(Vec<f32>),
}

/// An array in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) elements: Elements,
}

/// Returns the array in `bytes`, the contents of a `.npy` file; `name` names it in errors.
///
/// # Errors
/// [`Error::Format`] for other files, for Python objects and for types that no data set has; [`Error::Truncated`],
/// [`Error::Trailing`] and [`Error::TooLarge`] when header and length disagree or go too far.
pub(super) fn parse(bytes: &[u8], name: &Path) -> Result<Array, Error> {
    let expected = "an array of NumPy (.npy)";
    let bad = |found: String| Error::format(name, expected, found);
    let no_header = || bad("a file without a NumPy header".to_owned());
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(no_header)?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => {
            (usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX), rest)
        }
        [version, _, ..] => return Err(bad(format!("version {version} of that format"))),
        _ => return Err(no_header()),
    };
    let (header, body) =
        rest.split_at_checked(length).ok_or_else(|| bad("a header that is cut off".to_owned()))?;
    let header = std::str::from_utf8(header).map_err(|_| bad("a header that is no text".to_owned()))?;
    let field = |key: &str| value_of(header, key).ok_or_else(|| bad(format!("a header without `{key}`")));
    let descr = field("descr")?;
    let descr = descr
        .strip_prefix(['\'', '"'])
        .and_then(|rest| rest.split(['\'', '"']).next())
        .ok_or_else(|| bad("records of several fields".to_owned()))?;
    let fortran = field("fortran_order")?.starts_with("True");
    let shape =
        shape_of(field("shape")?).ok_or_else(|| bad(format!("a header without a usable shape: {header}")))?;
    let count =
        shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent)).unwrap_or(usize::MAX);
    if count > MAX_ELEMENTS {
        let (what, limit) = ("elements of the array", MAX_ELEMENTS as u64);
        return Err(Error::TooLarge { path: name.to_owned(), what, limit, found: count as u64 });
    }
    let (order, kind) = descr.split_at_checked(1).unwrap_or(("", ""));
    let is_big = order == ">";
    let width = |width: usize| -> Result<(), Error> {
        let expected = (bytes.len() - body.len() + count * width) as u64;
        match body.len() as u64 {
            found if found < (count * width) as u64 => {
                Err(Error::Truncated { path: name.to_owned(), expected, found: bytes.len() as u64 })
            }
            found if found > (count * width) as u64 => {
                Err(Error::Trailing { path: name.to_owned(), expected })
            }
            _ => Ok(()),
        }
    };
    macro_rules! numbers {
        ($type:ty, $into:expr) => {{
            const WIDTH: usize = size_of::<$type>();
            width(WIDTH)?;
            let number = |bytes: &[u8; WIDTH]| match is_big {
                true => <$type>::from_be_bytes(*bytes),
                false => <$type>::from_le_bytes(*bytes),
            };
            body.as_chunks::<WIDTH>().0.iter().map(|bytes| $into(number(bytes))).collect()
        }};
    }
    let elements = match kind {
        "u1" => {
            width(1)?;
            Elements::Bytes(body.to_vec())
        }
        "b1" => Elements::Whole(numbers!(u8, |value| i64::from(value != 0))),
        "i1" => Elements::Whole(numbers!(i8, i64::from)),
        "i2" => Elements::Whole(numbers!(i16, i64::from)),
        "u2" => Elements::Whole(numbers!(u16, i64::from)),
        "i4" => Elements::Whole(numbers!(i32, i64::from)),
        "u4" => Elements::Whole(numbers!(u32, i64::from)),
        "i8" => Elements::Whole(numbers!(i64, |value| value)),
        "u8" => Elements::Whole(numbers!(u64, |value| i64::try_from(value).unwrap_or(i64::MAX))),
        "f2" => Elements::Real(numbers!(f16, f16::to_f32)),
        "f4" => Elements::Real(numbers!(f32, |value| value)),
        "f8" => Elements::Real(numbers!(f64, |value| value as f32)),
        _ if kind.starts_with('O') => return Err(bad("Python objects, which are not read".to_owned())),
        _ => return Err(bad(format!("elements of type `{descr}`"))),
    };
    if !fortran || shape.len() < 2 {
        return Ok(Array { shape, elements });
    }
    let elements = match elements {
        Elements::Bytes(values) => Elements::Bytes(row_major(&values, &shape)),
        Elements::Whole(values) => Elements::Whole(row_major(&values, &shape)),
        Elements::Real(values) => Elements::Real(row_major(&values, &shape)),
    };
    Ok(Array { shape, elements })
}

/// What follows `'key':` in a header, which is a Python dictionary as text.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{key}'")).or_else(|| header.find(&format!("\"{key}\"")))?;
    let rest = header.get(at + key.len() + 2..)?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// The extents in `(2, 3), ...`.
fn shape_of(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let extents = inside.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let shape: Vec<usize> =
        extents.map(|extent| extent.trim_end_matches('L').parse().ok()).collect::<Option<_>>()?;
    (shape.len() <= MAX_RANK).then_some(shape)
}

/// Elements whose first extent runs fastest, in row-major order.
fn row_major<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut place = vec![0usize; shape.len()];
    (0..values.len())
        .map(|_| {
            let at = place.iter().zip(shape).rev().fold(0, |at, (&place, &extent)| at * extent + place);
            for (place, &extent) in place.iter_mut().zip(shape).rev() {
                *place += 1;
                if *place < extent {
                    break;
                }
                *place = 0;
            }
            values[at]
        })
        .collect()
}

impl Array {
    /// The array as inputs: bytes of `[N, H, W]`, `[N, H, W, 1 or 3]` or `[N, 1 or 3, H, W]` as images, numbers of
    /// `[N, C, H, W]`, `[N, H, W]` or `[N, features]` as they are.
    pub(super) fn into_inputs(self, name: &Path) -> Result<Inputs, Error> {
        let shape = self.shape.clone();
        let unusable = || {
            let expected = "inputs of [N, features], [N, H, W], [N, C, H, W] or, as bytes, [N, H, W, C]";
            Error::format(name, expected, format!("an array of {shape:?}"))
        };
        match (self.elements, &self.shape[..]) {
            (Elements::Bytes(bytes), &[_, height, width]) => {
                Images::new([height, width], bytes).map(Inputs::Pixels).ok_or_else(unusable)
            }
            (Elements::Bytes(bytes), &[_, height, width, channels @ (1 | 3)]) => {
                let area = height * width;
                let planes = bytes.chunks_exact((area * channels).max(1)).flat_map(|image| {
                    (0..channels)
                        .flat_map(move |channel| image.iter().skip(channel).step_by(channels).copied())
                });
                Images::with_channels(channels, [height, width], planes.collect())
                    .map(Inputs::Pixels)
                    .ok_or_else(unusable)
            }
            (Elements::Bytes(bytes), &[_, channels @ (1 | 3), height, width]) => {
                Images::with_channels(channels, [height, width], bytes)
                    .map(Inputs::Pixels)
                    .ok_or_else(unusable)
            }
            (elements, dims @ ([_, _] | [_, _, _] | [_, _, _, _])) => {
                let values: Vec<f32> = match elements {
                    Elements::Bytes(bytes) => bytes.into_iter().map(f32::from).collect(),
                    Elements::Whole(values) => values.into_iter().map(|value| value as f32).collect(),
                    Elements::Real(values) => values,
                };
                let features: usize = dims[1..].iter().product();
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    let found = format!("{} in input {}", values[at], at / features.max(1));
                    return Err(Error::format(name, "finite numbers", found));
                }
                let shape = match *dims {
                    [_, height, width] => vec![1, height, width],
                    _ => dims[1..].to_vec(),
                };
                let values =
                    ndarray::Array2::from_shape_vec((dims[0], features), values).map_err(|_| unusable())?;
                if features == 0 {
                    return Err(unusable());
                }
                Ok(Inputs::Numbers { shape: Shape::from(&shape[..]), values })
            }
            _ => Err(unusable()),
        }
    }

    /// The array as labels: whole numbers of `[N]` or `[N, 1]`.
    pub(super) fn into_labels(self, name: &Path) -> Result<Vec<i64>, Error> {
        let bad = |expected: &str, found: String| Error::format(name, expected, found);
        match self.shape[..] {
            [_] | [_, 1] => {}
            [_, several] => {
                return Err(bad("one label an input", format!("{several} labels an input (multi-label)")));
            }
            _ => return Err(bad("labels of [N] or [N, 1]", format!("an array of {:?}", self.shape))),
        }
        match self.elements {
            Elements::Bytes(bytes) => Ok(bytes.into_iter().map(i64::from).collect()),
            Elements::Whole(values) => Ok(values),
            Elements::Real(values) => {
                match values.iter().find(|value| value.fract() != 0.0 || value.abs() > 1e9) {
                    Some(value) => Err(bad("whole numbers as labels", value.to_string())),
                    None => Ok(values.into_iter().map(|value| value as i64).collect()),
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn npy(descr: &str, fortran: bool, shape: &str, body: &[u8]) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        [&MAGIC[..], &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), body].concat()
    }

    fn parsed(bytes: &[u8]) -> Result<Array, Error> {
        parse(bytes, Path::new("test-array"))
    }

    #[test]
    fn types_and_orders_are_read() {
        let real = |values: &[f32]| Elements::Real(values.to_vec());
        let little: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let big: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|value| value.to_be_bytes()).collect();
        for (descr, body, expected) in [
            ("<f4", little, real(&[1.5, -2.0])),
            (">f8", big, real(&[1.5, -2.0])),
            ("|u1", vec![7, 255], Elements::Bytes(vec![7, 255])),
            ("|b1", vec![0, 1], Elements::Whole(vec![0, 1])),
            ("|i1", vec![255, 1], Elements::Whole(vec![-1, 1])),
            (">i2", vec![1, 0, 0, 2], Elements::Whole(vec![256, 2])),
            ("<u4", vec![1, 0, 0, 0, 0, 0, 0, 128], Elements::Whole(vec![1, 1 << 31])),
            ("<i8", vec![255; 16], Elements::Whole(vec![-1, -1])),
        ] {
            let array = parsed(&npy(descr, false, "(2,)", &body)).unwrap();
            assert_eq!((array.shape, array.elements), (vec![2], expected), "{descr}");
        }
    }

    #[test]
    fn fortran_order_becomes_row_major() {
        // [[1, 2, 3], [4, 5, 6]], column by column.
        let array = parsed(&npy("|u1", true, "(2, 3)", &[1, 4, 2, 5, 3, 6])).unwrap();
        assert_eq!(array.elements, Elements::Bytes(vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn channels_last_become_planes() {
        let array = parsed(&npy("|u1", false, "(1, 1, 2, 3)", &[1, 2, 3, 4, 5, 6])).unwrap();
        let Inputs::Pixels(images) = array.into_inputs(Path::new("x")).unwrap() else { panic!("no images") };
        assert_eq!((images.channels(), images.size(), images.pixels()), (3, [1, 2], &[1, 4, 2, 5, 3, 6][..]));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let whole = npy("|u1", false, "(3,)", &[1, 2, 3]);
        let said = |bytes: &[u8]| parsed(bytes).unwrap_err().to_string();
        assert!(said(&whole[..whole.len() - 1]).contains("truncated"));
        assert!(said(&[&whole[..], &[0]].concat()).contains("found more"));
        assert!(said(&npy("|O", false, "(1,)", &[0])).contains("Python objects"));
        assert!(said(&npy("<c8", false, "(1,)", &[0; 8])).contains("`<c8`"));
        assert!(said(&npy("|u1", false, "(99999999999, 9999999999)", &[])).contains("at most"));
        assert!(said(b"PK").contains("without a NumPy header"));
        let nan = npy("<f4", false, "(1, 1)", &f32::NAN.to_le_bytes());
        assert!(parsed(&nan).unwrap().into_inputs(Path::new("x")).unwrap_err().to_string().contains("NaN"));
        let several = npy("|u1", false, "(1, 2)", &[0, 1]);
        assert!(
            parsed(&several)
                .unwrap()
                .into_labels(Path::new("x"))
                .unwrap_err()
                .to_string()
                .contains("multi-label")
        );
    }

    proptest! {
        #[test]
        fn corruption_never_panics(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = npy("|u1", true, "(2, 3, 2, 1)", &[7; 12]);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                if let Ok(array) = parsed(bytes) {
                    let _ = array.clone().into_inputs(Path::new("x"));
                    let _ = array.into_labels(Path::new("x"));
                }
            }
        }
    }
}
