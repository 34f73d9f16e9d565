//! Folders of pictures, a folder for each class.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use gelu_io::data::{DataSet, Images, Inputs, Part, Role};
use gelu_io::digits::{PIXELS, SIDE};
use gelu_io::files;
use gelu_models::{Interface, Preprocessing};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageReader, RgbImage};
use rayon::prelude::*;

use crate::images::{Invert, decode_whole, read_digit};

#[cfg(test)]
mod tests;

/// The longest picture file that is read.
const MAX_FILE_BYTES: u64 = 1 << 26;
/// The most pictures of a data set.
const MAX_PICTURES: usize = 500_000;
/// The most bytes that all of them take once they have one size.
const MAX_BYTES: usize = 1 << 30;
/// The largest height and width of an input, where nobody has named another.
const MAX_INPUT: usize = 1024;
/// How far apart red, green and blue of a grey pixel may be: JPEG mixes them a little.
const GREY: u8 = 16;
/// Skipped files that are named one by one.
const MOST_NAMED: usize = 10;
/// What folders of parts are called.
const PARTS: [(&str, Role); 7] = [
    ("train", Role::Train),
    ("training", Role::Train),
    ("test", Role::Test),
    ("testing", Role::Test),
    ("val", Role::Validation),
    ("valid", Role::Validation),
    ("validation", Role::Validation),
];

/// What pictures are brought into.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Form {
    /// Height and width; the most frequent size when `None`.
    pub(crate) size: Option<[usize; 2]>,
    /// 1 for grey, 3 for red, green and blue; what the pictures are when `None`.
    pub(crate) channels: Option<usize>,
    /// Whether they are single digits, to be cut out and centered as MNIST's are.
    pub(crate) digits: bool,
}

impl Form {
    /// The form that a model takes pictures in. One that says nothing about its inputs, but takes 28x28 in grey, reads
    /// digits.
    pub(crate) fn of(interface: &Interface) -> anyhow::Result<Self> {
        let shape = &interface.input;
        let (channels, size) = match (shape.dims(), shape.elements()) {
            (&[channels, height, width], _) => (channels, [height, width]),
            (_, PIXELS) => (1, [SIDE, SIDE]),
            _ => bail!(
                "--images: the model takes {shape}, which is no picture; --dataset reads tables and arrays"
            ),
        };
        ensure!(
            matches!(channels, 1 | 3),
            "--images: pictures have 1 or 3 channels, the model takes {channels}"
        );
        let digits = match &interface.info.preprocessing {
            Some(Preprocessing::Pixels(format)) => format.digits,
            Some(Preprocessing::Raw | Preprocessing::Columns(_)) => {
                bail!(
                    "--images: the model takes numbers of a scale of its own; --dataset reads tables and arrays"
                )
            }
            None => (channels, size) == (1, [SIDE, SIDE]),
        };
        Ok(Self { size: Some(size), channels: Some(channels), digits })
    }

    /// The pixels of one picture, channel by channel.
    pub(crate) fn read(&self, path: &Path, invert: Invert) -> anyhow::Result<Vec<u8>> {
        let size = self.size.unwrap_or([SIDE, SIDE]);
        let mut pixels = vec![];
        Picture::read(path, size, self.digits.then_some(invert))?
            .append_to(&mut pixels, self.channels.unwrap_or(1));
        Ok(pixels)
    }

    /// Pictures as images, from their pixels one after another.
    pub(crate) fn images(&self, pixels: Vec<u8>) -> anyhow::Result<Images> {
        let size = self.size.unwrap_or([SIDE, SIDE]);
        Images::with_channels(self.channels.unwrap_or(1), size, pixels).context("pixels of the pictures")
    }
}

/// Pixels, labels and names of a part's pictures.
type Gathered = (Vec<u8>, Vec<usize>, Vec<String>);

/// A picture's file, what part it is in, and its class.
struct Entry {
    path: PathBuf,
    role: Role,
    class: String,
}

/// Reads the folders of `root`, a class each, sorted by name; with folders of parts (train, test, val) above or below
/// them. Files that are hidden or no pictures are named and skipped.
///
/// # Errors
/// When there are no pictures, or too many; when a folder cannot be read.
pub(super) fn read(root: &Path, form: &Form) -> anyhow::Result<DataSet> {
    let (entries, mut skipped) = list(root)?;
    let (size, note) = match form.size {
        Some(size) => (size, None),
        None => most_frequent(&entries).with_context(|| {
            format!("{}: expected folders of classes with pictures in them, found none", root.display())
        })?,
    };
    ensure!(
        entries.len().saturating_mul(3 * size[0] * size[1]) <= MAX_BYTES,
        "{}: expected at most {MAX_BYTES} bytes of pictures, found {} of {}x{}; a smaller --size makes room",
        root.display(),
        entries.len(),
        size[0],
        size[1],
    );
    let decoded: Vec<anyhow::Result<Picture>> = entries
        .par_iter()
        .map(|entry| Picture::read(&entry.path, size, form.digits.then_some(Invert::Auto)))
        .collect();
    let mut classes: Vec<String> = entries.iter().map(|entry| entry.class.clone()).collect();
    classes.sort();
    classes.dedup();
    let mut found: Vec<(&Entry, Picture)> = Vec::new();
    for (entry, picture) in entries.iter().zip(decoded) {
        match picture {
            Ok(picture) => found.push((entry, picture)),
            Err(why) => skipped.push(format!("{why:#}")),
        }
    }
    ensure!(
        !found.is_empty(),
        "{}: expected folders of classes with pictures in them, found none{}",
        root.display(),
        skipped.first().map_or(String::new(), |first| format!("; {first}")),
    );
    let channels =
        form.channels.unwrap_or(if found.iter().any(|(_, picture)| picture.is_colored) { 3 } else { 1 });
    ensure!(
        matches!(channels, 1 | 3),
        "{}: pictures have 1 or 3 channels, the model takes {channels}",
        root.display()
    );
    let mut parts: BTreeMap<Role, Gathered> = BTreeMap::new();
    for (entry, picture) in &found {
        let (pixels, labels, names) = parts.entry(entry.role).or_default();
        picture.append_to(pixels, channels);
        labels.push(classes.partition_point(|class| *class < entry.class));
        names.push(entry.path.strip_prefix(root).unwrap_or(&entry.path).display().to_string());
    }
    let parts = parts.into_iter().map(|(role, (pixels, labels, names))| {
        let images = Images::with_channels(channels, size, pixels).context("pixels of the pictures")?;
        Ok(Part { role, inputs: Inputs::Pixels(images), labels: Some(labels), names })
    });
    let set = DataSet::new(root, "folder of pictures", parts.collect::<anyhow::Result<_>>()?, classes)?;
    let colors = if channels == 3 { "in color" } else { "in grey" };
    let mut set = set.with_digits(form.digits).with_note(format!("{} pictures {colors}", found.len()));
    if let Some(note) = note {
        set = set.with_note(note);
    }
    let count = skipped.len();
    for name in skipped.into_iter().take(MOST_NAMED) {
        set = set.with_note(format!("skipped: {name}"));
    }
    if count > MOST_NAMED {
        set = set.with_note(format!("skipped: {} more", count - MOST_NAMED));
    }
    Ok(set)
}

/// All files in folders of classes, and what was skipped.
fn list(root: &Path) -> anyhow::Result<(Vec<Entry>, Vec<String>)> {
    let mut skipped = Vec::new();
    let mut entries = Vec::new();
    let (folders, files) = contents(root, &mut skipped)?;
    skipped.extend(files.iter().map(|path| format!("{}: not in a folder of a class", path.display())));
    // Parts above the classes, when there is nothing else; then a class of its own may be called `test`.
    let are_parts = !folders.is_empty() && folders.iter().all(|folder| role_of(folder).is_some());
    let mut classes: Vec<(Role, PathBuf)> = Vec::new();
    for folder in folders {
        match role_of(&folder).filter(|_| are_parts) {
            Some(role) => {
                let (inner, files) = contents(&folder, &mut skipped)?;
                skipped.extend(
                    files.iter().map(|path| format!("{}: not in a folder of a class", path.display())),
                );
                classes.extend(inner.into_iter().map(|class| (role, class)));
            }
            None => classes.push((Role::All, folder)),
        }
    }
    for (role, folder) in classes {
        let class = name_of(&folder);
        let (inner, mut files) = contents(&folder, &mut skipped)?;
        let mut add = |role: Role, files: &mut Vec<PathBuf>| {
            entries.extend(files.drain(..).map(|path| Entry { path, role, class: class.clone() }));
        };
        add(role, &mut files);
        for inner in inner {
            let (_, mut files) = contents(&inner, &mut skipped)?;
            // Folders within a class that are no parts are the class's own.
            add(role_of(&inner).filter(|_| role == Role::All).unwrap_or(role), &mut files);
        }
        ensure!(
            entries.len() <= MAX_PICTURES,
            "{}: expected at most {MAX_PICTURES} pictures, found more",
            root.display()
        );
    }
    // Pictures beside the parts of their class are to train with.
    if entries.iter().any(|entry| matches!(entry.role, Role::Test | Role::Train)) {
        entries.iter_mut().filter(|entry| entry.role == Role::All).for_each(|entry| entry.role = Role::Train);
    }
    Ok((entries, skipped))
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn role_of(folder: &Path) -> Option<Role> {
    let name = name_of(folder).to_lowercase();
    PARTS.iter().find(|(known, _)| *known == name).map(|(_, role)| *role)
}

/// Folders and files, sorted; hidden ones are skipped.
fn contents(folder: &Path, skipped: &mut Vec<String>) -> anyhow::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let cannot = || format!("{}: cannot list the folder", folder.display());
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(cannot)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .with_context(cannot)?;
    paths.sort();
    paths.retain(|path| {
        let is_hidden = name_of(path).starts_with('.');
        if is_hidden {
            skipped.push(format!("{}: hidden", path.display()));
        }
        !is_hidden
    });
    Ok(paths.into_iter().partition(|path| path.is_dir()))
}

/// The most frequent size of the pictures, the larger of two; and a note when there are others.
fn most_frequent(entries: &[Entry]) -> Option<([usize; 2], Option<String>)> {
    let size = |entry: &Entry| {
        let reader = ImageReader::open(&entry.path).ok()?.with_guessed_format().ok()?;
        let (width, height) = reader.into_dimensions().ok()?;
        Some([height as usize, width as usize])
    };
    let mut counts: BTreeMap<[usize; 2], usize> = BTreeMap::new();
    for size in entries.par_iter().filter_map(size).collect::<Vec<_>>() {
        *counts.entry(size).or_default() += 1;
    }
    let (&[height, width], &count) = counts.iter().max_by_key(|(_, count)| **count)?;
    let all: usize = counts.values().sum();
    let size = [height.min(MAX_INPUT), width.min(MAX_INPUT)];
    let note = (all > count || size != [height, width]).then(|| {
        format!("{} sizes; all scaled to {}x{}, that of {count} of {all}", counts.len(), size[0], size[1])
    });
    Some((size, note))
}

/// A picture in the size of all.
struct Picture {
    pixels: RgbImage,
    is_colored: bool,
}

impl Picture {
    fn read(path: &Path, [height, width]: [usize; 2], digits: Option<Invert>) -> anyhow::Result<Self> {
        if let Some(invert) = digits {
            let grey = read_digit(path, invert)?;
            let rgb = grey.iter().flat_map(|&pixel| [pixel; 3]).collect();
            let pixels = RgbImage::from_raw(width as u32, height as u32, rgb)
                .with_context(|| format!("digits of {height}x{width}"))?;
            return Ok(Self { pixels, is_colored: false });
        }
        let rgb = on_white(&decode_whole(&files::read_limited(path, MAX_FILE_BYTES)?, path)?);
        let spread = |pixel: &image::Rgb<u8>| {
            let [r, g, b] = pixel.0;
            r.max(g).max(b) - r.min(g).min(b)
        };
        let is_colored = rgb.pixels().any(|pixel| spread(pixel) > GREY);
        let size = (width as u32, height as u32);
        let pixels = match rgb.dimensions() == size {
            true => rgb,
            false => imageops::resize(&rgb, size.0, size.1, FilterType::Triangle),
        };
        Ok(Self { pixels, is_colored })
    }

    /// Appends its planes.
    fn append_to(&self, bytes: &mut Vec<u8>, channels: usize) {
        if channels == 1 {
            bytes.extend_from_slice(DynamicImage::ImageRgb8(self.pixels.clone()).to_luma8().as_raw());
        } else {
            for channel in 0..3 {
                bytes.extend(self.pixels.pixels().map(|pixel| pixel.0[channel]));
            }
        }
    }
}

fn on_white(picture: &DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let rgba = picture.to_rgba8();
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (target, source) in rgb.pixels_mut().zip(rgba.pixels()) {
        let [r, g, b, alpha] = source.0.map(u16::from);
        target.0 = [r, g, b].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
    }
    rgb
}
