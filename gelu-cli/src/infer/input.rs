//! What `gelu infer` classifies: images of a data set, or pictures in files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use gelu_io::data::{DataSet, Images, Inputs, ModelInputs, Part, Role};
use gelu_io::files;
use gelu_models::Interface;
use image::{DynamicImage, RgbImage};
use serde_json::{Value, json};

use super::Asked;
use crate::datasets::Form;
use crate::output::note;
use crate::report::write_png;

/// Inputs, and what is known about them.
pub(crate) struct Input {
    pub(crate) read: ModelInputs,
    pub(super) pictures: Pictures,
}

/// The files that the images come from; none where they are of a data set.
pub(crate) struct Pictures {
    usable: Vec<PathBuf>,
    /// With what is wrong with each.
    unusable: Vec<(PathBuf, String)>,
}

impl Input {
    pub(super) fn read(asked: &Asked, interface: &Interface) -> anyhow::Result<Self> {
        let Some(dataset) = &asked.dataset else { return Self::from_pictures(asked, interface) };
        let mut read = asked.options.for_model(dataset, interface, asked.split_seed)?;
        let all = read.names.len();
        if let Some(count) = asked.count {
            ensure!(count as usize <= all, "--count: expected at most {all}, found {count}");
        }
        // Rows and pictures have names, and whoever asks about them wants to hear about all.
        let are_numbered = read.names.first().is_some_and(|name| name == "0");
        let default = if are_numbered { 10 } else { all };
        read.truncate(asked.count.map_or(default, |count| count as usize));
        Ok(Self { read, pictures: Pictures { usable: vec![], unusable: vec![] } })
    }

    /// Pictures that cannot be used are named, and the others are used.
    fn from_pictures(asked: &Asked, interface: &Interface) -> anyhow::Result<Self> {
        let form = Form::of(interface)?;
        let (mut pixels, mut pictures) = (vec![], Pictures { usable: vec![], unusable: vec![] });
        for path in &asked.images {
            match form.read(path, asked.invert) {
                Ok(picture) => {
                    pixels.push(picture);
                    pictures.usable.push(path.clone());
                }
                // The only one: there is nothing to go on with.
                Err(error) if asked.images.len() == 1 => return Err(error),
                Err(error) => {
                    note!("error: {error:#}");
                    pictures.unusable.push((path.clone(), format!("{error:#}")));
                }
            }
        }
        if pixels.is_empty() {
            pictures.are_all_usable()?;
        }
        let images = form.images(pixels.concat())?;
        if let Some(folder) = &asked.save_inputs {
            save(folder, &pictures.usable, &images)?;
        }
        let names = pictures.usable.iter().map(|path| path.display().to_string()).collect();
        let part = Part { role: Role::All, inputs: Inputs::Pixels(images), labels: None, names };
        let set = DataSet::new(Path::new("pictures"), "pictures", vec![part], vec![])?;
        let read = set.for_model(&interface.info, &interface.input, interface.outputs)?;
        Ok(Self { read, pictures })
    }
}

impl Pictures {
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
fn save(folder: &Path, pictures: &[PathBuf], images: &Images) -> anyhow::Result<()> {
    files::make_folder(folder)?;
    let mut taken = BTreeSet::new();
    let ([height, width], channels) = (images.size(), images.channels());
    for (picture, planes) in pictures.iter().zip(images.iter()) {
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
        let color = |at: usize| {
            [0, 1, 2].map(|channel: usize| planes[channel.min(channels - 1) * height * width + at])
        };
        let rgb = (0..height * width).flat_map(color).collect();
        let image = RgbImage::from_raw(width as u32, height as u32, rgb).context("pixels of the picture")?;
        match channels {
            1 => write_png(&path, &DynamicImage::ImageRgb8(image).into_luma8())?,
            _ => write_png(&path, &image)?,
        }
        taken.insert(path);
    }
    Ok(())
}

/// Whether `path` is one of the pictures themselves, which are not to be overwritten.
fn is_same_file(path: &Path, pictures: &[PathBuf]) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    pictures.iter().any(|picture| picture.canonicalize().is_ok_and(|picture| picture == path))
}
