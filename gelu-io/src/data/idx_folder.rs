//! Folders of IDX files, by the names that MNIST, EMNIST, torchvision and their followers give them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::rows::MAX_CLASSES;
use super::{DataSet, Inputs, Part, Role, read_images, read_labels};
use crate::Error;

/// Labels are bytes.
const BYTES: usize = 256;
/// Folders within the named one that may hold the files, as torchvision lays them out.
const INNER: [&str; 3] = ["raw", "MNIST/raw", "gzip"];

/// What a file's name says.
struct Meaning {
    /// What stands before the part's name, such as `emnist-letters`.
    prefix: String,
    role: Role,
    is_labels: bool,
}

/// What a file's name says, if it is one of the usual ones: `train-images-idx3-ubyte`, `t10k-labels.idx1-ubyte.gz`,
/// `emnist-letters-test-images-idx3-ubyte` and their like.
fn meaning(name: &str) -> Option<Meaning> {
    let lower = name.to_lowercase().replace(['.', '_'], "-");
    let stem = lower.strip_suffix("-gz").unwrap_or(&lower);
    let stem = stem.strip_suffix("-ubyte").unwrap_or(stem);
    let (stem, is_labels) = match stem.strip_suffix("-idx3").map(|stem| (stem, false)) {
        Some(found) => found,
        None => (stem.strip_suffix("-idx1")?, true),
    };
    let stem = stem.strip_suffix(if is_labels { "-labels" } else { "-images" })?;
    let (prefix, role) = stem.rsplit_once('-').unwrap_or(("", stem));
    let role = match role {
        "train" => Role::Train,
        "t10k" | "test" => Role::Test,
        "val" | "valid" | "validation" => Role::Validation,
        _ => return None,
    };
    Some(Meaning { prefix: prefix.to_owned(), role, is_labels })
}

/// The files of one set in a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct IdxFiles {
    /// Images and labels of each part.
    parts: BTreeMap<Role, [Option<PathBuf>; 2]>,
}

impl IdxFiles {
    /// Images and labels of one part, where both are there.
    pub(super) fn part(&self, role: Role) -> Option<[PathBuf; 2]> {
        match self.parts.get(&role)? {
            [Some(images), Some(labels)] => Some([images.clone(), labels.clone()]),
            _ => None,
        }
    }
}

/// The sets of IDX files in `folder` or in torchvision's folder within, by what their names begin with.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn files_in(folder: &Path) -> Result<BTreeMap<String, IdxFiles>, Error> {
    let inner = INNER.iter().map(|inner| folder.join(inner)).filter(|inner| inner.is_dir());
    for folder in std::iter::once(folder.to_owned()).chain(inner) {
        let mut sets: BTreeMap<String, IdxFiles> = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "list"))? {
            let path = entry.map_err(Error::io(&folder, "list"))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let Some(Meaning { prefix, role, is_labels }) = meaning(&name).filter(|_| path.is_file()) else {
                continue;
            };
            let place =
                &mut sets.entry(prefix).or_default().parts.entry(role).or_default()[usize::from(is_labels)];
            // Of a plain file and its gzip, the plain one; they sort that way.
            if place.as_ref().is_none_or(|other| path < *other) {
                *place = Some(path);
            }
        }
        if !sets.is_empty() {
            return Ok(sets);
        }
    }
    Ok(BTreeMap::new())
}

/// Reads a set's images and labels; `path` names it.
///
/// # Errors
/// [`Error::DataNotFound`] for a part without images; [`Error::LabelCount`]; [`Error::TooFew`] for no images;
/// [`Error::Label`] for a label that is none of `names`; whatever the files' readers find.
pub(super) fn read_set(
    path: &Path,
    set: IdxFiles,
    names: Option<&[&str]>,
    transpose: bool,
) -> Result<DataSet, Error> {
    let mut parts = Vec::new();
    let mut all_labels = Vec::new();
    for (role, [images, labels]) in set.parts {
        let Some(images) = images else {
            let found = format!("no {} images beside their labels", role.name());
            return Err(Error::format(path, "images and labels", found));
        };
        let (part, labels) =
            read_part(role, &images, labels.as_deref(), names.map_or(BYTES, <[&str]>::len), transpose)?;
        parts.push(part);
        all_labels.push(labels);
    }
    assemble(path, parts, all_labels, names)
}

/// Reads one file of images, and its labels: those of a file, or of the file beside it that goes with it by name.
pub(super) fn read_one(images: &Path, labels: Option<&Path>, transpose: bool) -> Result<DataSet, Error> {
    let name = images.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = images.with_file_name(name.replace("images", "labels").replace("idx3", "idx1"));
    let beside = Some(beside).filter(|path| path != images && path.is_file());
    let labels = labels.map(Path::to_owned).or(beside);
    let (part, labels) = read_part(Role::All, images, labels.as_deref(), BYTES, transpose)?;
    assemble(images, vec![part], vec![labels], None)
}

fn read_part(
    role: Role,
    images_path: &Path,
    labels_path: Option<&Path>,
    classes: usize,
    transpose: bool,
) -> Result<(Part, Option<Vec<i64>>), Error> {
    let images = read_images(images_path)?;
    let labels = labels_path.map(|path| read_labels(path, classes)).transpose()?;
    if images.count() == 0 {
        let (expected, found) = ("images", "0 images".to_owned());
        return Err(Error::TooFew { path: images_path.to_owned(), expected, found });
    }
    if let (Some(labels), Some(path)) = (&labels, labels_path)
        && labels.len() != images.count()
    {
        let (expected, found) = (images.count(), labels.len());
        return Err(Error::LabelCount { path: path.to_owned(), expected, found });
    }
    let images = if transpose { images.transposed() } else { images };
    let part = Part { role, inputs: Inputs::Pixels(images), labels: None, names: vec![] };
    Ok((part, labels.map(|labels| labels.into_iter().map(i64::from).collect())))
}

fn assemble(
    path: &Path,
    mut parts: Vec<Part>,
    labels: Vec<Option<Vec<i64>>>,
    names: Option<&[&str]>,
) -> Result<DataSet, Error> {
    let by_part: Vec<Option<&[i64]>> = labels.iter().map(Option::as_deref).collect();
    let (classes, places) = match names {
        Some(names) => {
            let place = |labels: &[i64]| labels.iter().map(|&label| label as usize).collect();
            let places = by_part.iter().map(|labels| labels.map(place)).collect();
            (names.iter().map(|&name| name.to_owned()).collect(), places)
        }
        None => distinct_classes(path, &by_part)?,
    };
    for (part, places) in parts.iter_mut().zip(places) {
        part.labels = places;
    }
    DataSet::new(path, "IDX images", parts, classes)
}

/// The different labels of all parts, as names in their order, and each label's place among them.
#[expect(clippy::type_complexity, reason = "names, and places by part")]
pub(super) fn distinct_classes(
    path: &Path,
    parts: &[Option<&[i64]>],
) -> Result<(Vec<String>, Vec<Option<Vec<usize>>>), Error> {
    let mut distinct: BTreeSet<i64> = BTreeSet::new();
    for &label in parts.iter().flatten().copied().flatten() {
        distinct.insert(label);
        if distinct.len() > MAX_CLASSES {
            let (what, limit) = ("different labels", MAX_CLASSES as u64);
            return Err(Error::TooLarge { path: path.to_owned(), what, limit, found: limit + 1 });
        }
    }
    let sorted: Vec<i64> = distinct.into_iter().collect();
    // Every label is among them.
    let place = |label: &i64| sorted.partition_point(|other| other < label);
    let places = parts.iter().map(|labels| labels.map(|labels| labels.iter().map(place).collect())).collect();
    Ok((sorted.iter().map(i64::to_string).collect(), places))
}
