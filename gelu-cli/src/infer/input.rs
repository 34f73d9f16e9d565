//! What `gelu infer` classifies: images of a data set, or pictures in files.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use gelu_io::data::{DataDir, Images, LabelledImages, Split};
use gelu_io::digits::{PIXELS, SIDE};
use gelu_io::files;
use image::{GrayImage, ImageFormat};
use serde_json::{Value, json};

use super::InferArgs;
use crate::images::read_digit;
use crate::output::note;

/// Images, and what is known about them.
pub(super) struct Input {
    pub(super) images: Images,
    /// Those of a data set.
    pub(super) labels: Option<Vec<u8>>,
    pub(super) pictures: Pictures,
}

/// The files that the images come from; none where they are of a data set.
pub(super) struct Pictures {
    usable: Vec<PathBuf>,
    /// With what is wrong with each.
    unusable: Vec<(PathBuf, String)>,
}

impl Input {
    pub(super) fn read(args: &InferArgs) -> anyhow::Result<Self> {
        if !args.images.is_empty() {
            return Self::from_pictures(args);
        }
        let all: LabelledImages = DataDir::locate(args.data.clone()).mnist(Split::Test)?;
        let some = all.first(args.count as usize);
        ensure!(
            some.len() == args.count as usize,
            "--count: expected at most {}, found {}",
            all.len(),
            args.count
        );
        let pictures = Pictures { usable: vec![], unusable: vec![] };
        Ok(Self { images: some.images().clone(), labels: Some(some.labels().to_vec()), pictures })
    }

    /// Pictures that cannot be used are named, and the others are used.
    fn from_pictures(args: &InferArgs) -> anyhow::Result<Self> {
        let (mut digits, mut pictures) = (vec![], Pictures { usable: vec![], unusable: vec![] });
        for path in &args.images {
            match read_digit(path, args.invert.into()) {
                Ok(digit) => {
                    digits.push(digit);
                    pictures.usable.push(path.clone());
                }
                // The only one: there is nothing to go on with.
                Err(error) if args.images.len() == 1 => return Err(error),
                Err(error) => {
                    note!("error: {error:#}");
                    pictures.unusable.push((path.clone(), format!("{error:#}")));
                }
            }
        }
        if digits.is_empty() {
            pictures.are_all_usable()?;
        }
        if let Some(folder) = &args.save_inputs {
            save(folder, &pictures.usable, &digits)?;
        }
        let images = Images::new([SIDE, SIDE], digits.concat()).context("pixels of the pictures")?;
        Ok(Self { images, labels: None, pictures })
    }
}

impl Pictures {
    /// The name of the picture that an image comes from.
    pub(super) fn name(&self, image: usize) -> Option<String> {
        self.usable.get(image).map(|path| path.display().to_string())
    }

    /// Adds the names to a report.
    pub(super) fn add_to(&self, object: &mut Value) {
        if self.usable.is_empty() {
            return;
        }
        let names: Vec<String> = self.usable.iter().map(|path| path.display().to_string()).collect();
        let unusable: Vec<Value> = self
            .unusable
            .iter()
            .map(|(path, error)| json!({ "image": path.display().to_string(), "error": error }))
            .collect();
        object["images"] = names.into();
        object["unusable"] = unusable.into();
    }

    /// The error at the end of a run with pictures that could not be used.
    pub(super) fn are_all_usable(&self) -> anyhow::Result<()> {
        match self.unusable.len() {
            0 => Ok(()),
            unusable => {
                let all = unusable + self.usable.len();
                bail!("{unusable} of {all} pictures cannot be used, as said above")
            }
        }
    }
}

/// Writes what the network sees of each picture into `folder`, as PNG under the picture's name. Pictures of one name get
/// numbers.
fn save(folder: &Path, pictures: &[PathBuf], digits: &[[u8; PIXELS]]) -> anyhow::Result<()> {
    files::make_folder(folder)?;
    let mut taken = BTreeSet::new();
    for (picture, digit) in pictures.iter().zip(digits) {
        let stem = picture.file_stem().unwrap_or_default();
        let path = (1..)
            .map(|number| {
                let mut name = stem.to_owned();
                if number > 1 {
                    name.push(format!("-{number}"));
                }
                name.push(".png");
                folder.join(name)
            })
            .find(|path| !taken.contains(path) && !is_same_file(path, pictures))
            .context("a name for the picture")?;
        let image = GrayImage::from_raw(SIDE as u32, SIDE as u32, digit.to_vec()).context("28x28 pixels")?;
        let mut png = Cursor::new(vec![]);
        image
            .write_to(&mut png, ImageFormat::Png)
            .with_context(|| format!("{}: cannot encode", path.display()))?;
        files::write_atomic(&path, png.get_ref())?;
        taken.insert(path);
    }
    Ok(())
}

/// Whether `path` is one of the pictures themselves, which are not to be overwritten.
fn is_same_file(path: &Path, pictures: &[PathBuf]) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    pictures.iter().any(|picture| picture.canonicalize().is_ok_and(|picture| picture == path))
}
