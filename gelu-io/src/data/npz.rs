//! Archives of NumPy arrays, as MedMNIST and Keras ship data sets, and folders of such arrays.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::bufread::DeflateDecoder;
use rawzip::CompressionMethod;

use super::idx_folder::distinct_classes;
use super::numpy::{self, Array};
use super::{DataSet, Part, Role};
use crate::{Error, files};

/// The longest file that is read; MedMNIST's largest of 28x28 pixels has 200 million bytes.
const MAX_FILE_BYTES: u64 = 1 << 29;
/// The most that is unpacked from one archive.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;
/// The most entries of an archive.
const MAX_ENTRIES: usize = 100;
/// The first words of an array's name, and the part that they stand for.
const ROLES: [(&str, Role); 6] = [
    ("train", Role::Train),
    ("val", Role::Validation),
    ("valid", Role::Validation),
    ("validation", Role::Validation),
    ("test", Role::Test),
    ("t10k", Role::Test),
];
/// Words for inputs and for labels.
const WORDS: [(&str, bool); 11] = [
    ("images", false),
    ("image", false),
    ("x", false),
    ("inputs", false),
    ("features", false),
    ("data", false),
    ("labels", true),
    ("label", true),
    ("y", true),
    ("targets", true),
    ("target", true),
];

/// What an array's name says that it is: its part, and whether it holds labels.
fn meaning(name: &str) -> Option<(Role, bool)> {
    let lower = name.to_lowercase();
    let lower = lower.trim_end_matches(".npy");
    let role = |word: &str| ROLES.iter().find(|(known, _)| *known == word).map(|(_, role)| *role);
    let labels = |word: &str| WORDS.iter().find(|(known, _)| *known == word).map(|(_, labels)| *labels);
    match lower.split(['_', '-']).collect::<Vec<_>>()[..] {
        [word] => Some((Role::All, labels(word)?)),
        [first, second] => match (role(first), role(second)) {
            (Some(role), _) => Some((role, labels(second)?)),
            (None, Some(role)) => Some((role, labels(first)?)),
            (None, None) => None,
        },
        _ => None,
    }
}

/// Whether a folder has arrays whose names say what they are.
pub(super) fn arrays_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "list"))?;
    let mut arrays = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(folder, "list"))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.to_lowercase().ends_with(".npy") && meaning(&name).is_some() {
            arrays.push(path);
        }
    }
    arrays.sort();
    Ok(arrays)
}

/// Reads a folder's arrays.
pub(super) fn read_folder(folder: &Path) -> Result<DataSet, Error> {
    let mut arrays = BTreeMap::new();
    for path in arrays_in(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        arrays.insert(name, numpy::parse(&files::read_limited(&path, MAX_FILE_BYTES)?, &path)?);
    }
    from_arrays(folder, "folder of NumPy arrays", arrays)
}

/// Reads one array of inputs, and one of labels.
pub(super) fn read_pair(inputs: &Path, labels: Option<&Path>) -> Result<DataSet, Error> {
    let array = |path: &Path| numpy::parse(&files::read_limited(path, MAX_FILE_BYTES)?, path);
    let inputs_read = array(inputs)?.into_inputs(inputs)?;
    let labels = labels.map(|path| array(path)?.into_labels(path)).transpose()?;
    let (classes, mut places) = distinct_classes(inputs, &[labels.as_deref()])?;
    let part = Part { role: Role::All, inputs: inputs_read, labels: places.remove(0), names: vec![] };
    DataSet::new(inputs, "NumPy array", vec![part], classes)
}

/// Reads the archive `path`.
pub(super) fn read_archive(path: &Path) -> Result<DataSet, Error> {
    let bytes = files::read_limited(path, MAX_FILE_BYTES)?;
    from_arrays(path, "archive of NumPy arrays", unzip(&bytes, path)?)
}

/// The arrays of an archive whose names say what they are.
fn unzip(bytes: &[u8], name: &Path) -> Result<BTreeMap<String, Array>, Error> {
    let bad =
        |error: rawzip::Error| Error::format(name, "an archive of NumPy arrays (.npz)", error.to_string());
    let archive = rawzip::ZipArchive::from_slice(bytes).map_err(bad)?;
    let mut arrays = BTreeMap::new();
    let (mut entries, mut others) = (archive.entries(), Vec::new());
    let (mut seen, mut left) = (0, MAX_UNPACKED_BYTES);
    while let Some(entry) = entries.next_entry().map_err(bad)? {
        seen += 1;
        if seen > MAX_ENTRIES {
            let (what, limit) = ("entries of the archive", MAX_ENTRIES as u64);
            return Err(Error::TooLarge { path: name.to_owned(), what, limit, found: seen as u64 });
        }
        let entry_name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
        if meaning(&entry_name).is_none() {
            others.push(entry_name);
            continue;
        }
        let within = PathBuf::from(format!("{}: {entry_name}", name.display()));
        let local = archive.get_entry(entry.wayfinder()).map_err(bad)?;
        let mut unpacked = Vec::new();
        let mut read = |source: &mut dyn Read| {
            source
                .take(left.saturating_add(1))
                .read_to_end(&mut unpacked)
                .map_err(|error| Error::format(&within, "a whole entry of the archive", error.to_string()))
        };
        match entry.compression_method() {
            CompressionMethod::Store => read(&mut local.verifying_reader(local.data()))?,
            CompressionMethod::Deflate => {
                read(&mut local.verifying_reader(DeflateDecoder::new(local.data())))?
            }
            other => {
                return Err(Error::format(
                    &within,
                    "an entry stored or deflated",
                    format!("method {other:?}"),
                ));
            }
        };
        let Some(rest) = left.checked_sub(unpacked.len() as u64) else {
            let (what, limit) = ("unpacked length in bytes", MAX_UNPACKED_BYTES);
            return Err(Error::TooLarge { path: name.to_owned(), what, limit, found: limit + 1 });
        };
        left = rest;
        if arrays.insert(entry_name, numpy::parse(&unpacked, &within)?).is_some() {
            return Err(Error::format(&within, "one entry of that name", "two"));
        }
    }
    if arrays.is_empty() {
        return Err(Error::format(
            name,
            "arrays named as train_images and train_labels, or x_train and y_train",
            if others.is_empty() { "an empty archive".to_owned() } else { others.join(", ") },
        ));
    }
    Ok(arrays)
}

fn from_arrays(path: &Path, format: &str, arrays: BTreeMap<String, Array>) -> Result<DataSet, Error> {
    let mut found: BTreeMap<Role, [Option<(PathBuf, Array)>; 2]> = BTreeMap::new();
    for (name, array) in arrays {
        let Some((role, is_labels)) = meaning(&name) else { continue };
        let within = PathBuf::from(format!("{}: {name}", path.display()));
        let place = &mut found.entry(role).or_default()[usize::from(is_labels)];
        if place.is_some() {
            let what = if is_labels { "labels" } else { "inputs" };
            return Err(Error::format(&within, format!("one array of {} {what}", role.name()), "two"));
        }
        *place = Some((within, array));
    }
    let mut parts = Vec::new();
    let mut labels = Vec::new();
    for (role, [inputs, own_labels]) in found {
        let Some((name, inputs)) = inputs else {
            return Err(Error::format(
                path,
                format!("{} inputs beside their labels", role.name()),
                "labels alone",
            ));
        };
        let count = inputs.shape.first().copied().unwrap_or(0);
        let own_labels = own_labels.map(|(name, array)| {
            let labels = array.into_labels(&name)?;
            let found = labels.len();
            if found != count {
                return Err(Error::LabelCount { path: name, expected: count, found });
            }
            Ok(labels)
        });
        labels.push(own_labels.transpose()?);
        if count == 0 {
            let (expected, found) = ("examples in every part", "0 images or rows".to_owned());
            return Err(Error::TooFew { path: name, expected, found });
        }
        parts.push(Part { role, inputs: inputs.into_inputs(&name)?, labels: None, names: vec![] });
    }
    let by_part: Vec<Option<&[i64]>> = labels.iter().map(Option::as_deref).collect();
    let (classes, places) = distinct_classes(path, &by_part)?;
    for (part, places) in parts.iter_mut().zip(places) {
        part.labels = places;
    }
    DataSet::new(path, format, parts, classes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::numpy::tests::npy;
    use super::*;

    fn zip(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut archive = rawzip::ZipArchiveWriter::new(&mut bytes);
        for (at, (name, contents)) in entries.iter().enumerate() {
            let method = if at % 2 == 0 { CompressionMethod::Deflate } else { CompressionMethod::Store };
            let (mut entry, config) = archive.new_file(name).compression_method(method).start().unwrap();
            let descriptor = if at % 2 == 0 {
                let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::default());
                let mut writer = config.wrap(encoder);
                writer.write_all(contents).unwrap();
                let (encoder, descriptor) = writer.finish().unwrap();
                encoder.finish().unwrap();
                descriptor
            } else {
                let mut writer = config.wrap(&mut entry);
                writer.write_all(contents).unwrap();
                writer.finish().unwrap().1
            };
            entry.finish(descriptor).unwrap();
        }
        archive.finish().unwrap();
        bytes
    }

    fn medmnist() -> Vec<u8> {
        zip(&[
            ("train_images.npy", npy("|u1", false, "(3, 2, 2)", &[9; 12])),
            ("train_labels.npy", npy("|u1", false, "(3, 1)", &[0, 1, 0])),
            ("test_images.npy", npy("|u1", false, "(1, 2, 2)", &[1; 4])),
            ("test_labels.npy", npy("|u1", false, "(1, 1)", &[1])),
        ])
    }

    fn read(bytes: &[u8]) -> Result<DataSet, Error> {
        let name = Path::new("test.npz");
        from_arrays(name, "archive", unzip(bytes, name)?)
    }

    #[test]
    fn archives_of_medmnist_and_keras_are_read() {
        let data = read(&medmnist()).unwrap().training(0.2, 0).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.train.classes()), (3, 1, 2));
        assert_eq!(data.test.labels(), [1]);
        let keras = zip(&[
            ("x_train.npy", npy("|u1", false, "(2, 2, 2)", &[9; 8])),
            (
                "y_train.npy",
                npy("<i8", false, "(2,)", &[&5i64.to_le_bytes()[..], &7i64.to_le_bytes()].concat()),
            ),
            ("x_test.npy", npy("|u1", false, "(1, 2, 2)", &[9; 4])),
            ("y_test.npy", npy("<i8", false, "(1,)", &7i64.to_le_bytes())),
        ]);
        let data = read(&keras).unwrap().training(0.2, 0).unwrap();
        assert_eq!((data.classes, data.test.labels()), (vec!["5".to_owned(), "7".to_owned()], &[1][..]));
    }

    #[test]
    fn what_is_missing_or_twice_is_named() {
        let images = || npy("|u1", false, "(2, 2, 2)", &[9; 8]);
        let said = |entries: &[(&str, Vec<u8>)]| read(&zip(entries)).unwrap_err().to_string();
        assert!(said(&[("weights.npy", images())]).contains("weights.npy"));
        assert!(said(&[("train_labels.npy", npy("|u1", false, "(2,)", &[0, 1]))]).contains("labels alone"));
        assert!(said(&[("x_train.npy", images()), ("train_images.npy", images())]).contains("two"));
        let short = npy("|u1", false, "(1,)", &[0]);
        assert!(said(&[("x_train.npy", images()), ("y_train.npy", short)]).contains("expected 2 labels"));
        let none = npy("|u1", false, "(0, 2, 2)", &[]);
        assert!(said(&[("train_images.npy", none)]).contains("0 images"));
    }

    #[test]
    fn a_wrong_sum_is_found() {
        let mut bytes = medmnist();
        let at = bytes.windows(2).rposition(|pair| pair == [b'\n', 1]).unwrap();
        bytes[at + 1] = 0;
        assert!(read(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn corruption_never_panics(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = medmnist();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = read(&bytes);
            let _ = read(&bytes[..cut.index(bytes.len())]);
        }
    }
}
