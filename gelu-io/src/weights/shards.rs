//! Models in several files with an index, as Hugging Face's libraries write large ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use gelu_models::Weights;
use serde::Deserialize;

use super::{MAX_BYTES, WeightsFile};
use crate::{Error, files};

/// The longest index that is read.
const MAX_INDEX_BYTES: u64 = 1 << 24;

#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// Whether a path names an index.
pub(super) fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".safetensors.index.json"))
}

/// Reads the files that an index names, which must lie beside it and hold just the tensors that it lists.
pub(super) fn read(path: &Path) -> Result<Weights, Error> {
    let bytes = files::read_limited(path, MAX_INDEX_BYTES)?;
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| Error::format(path, "an index of safetensors files in JSON", error.to_string()))?;
    let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    let mut weights = Weights::default();
    let mut left = MAX_BYTES;
    for name in names {
        let mut components = Path::new(name).components();
        let (Some(Component::Normal(_)), None) = (components.next(), components.next()) else {
            return Err(Error::format(path, "names of files beside the index", format!("`{name}`")));
        };
        let shard = path.with_file_name(name);
        let bytes = files::read_limited(&shard, left)?;
        left -= bytes.len() as u64;
        let part = Weights::parse(&bytes, &shard)?;
        for (tensor, data) in part.tensors {
            if index.weight_map.get(&tensor).map(String::as_str) != Some(name) {
                let found = format!("tensor `{tensor}`, which the index does not place there");
                return Err(Error::format(&shard, "the tensors of the index", found));
            }
            weights.tensors.insert(tensor, data);
        }
        weights.metadata.extend(part.metadata);
    }
    match index.weight_map.keys().find(|tensor| !weights.tensors.contains_key(*tensor)) {
        Some(tensor) => {
            let expected = format!("tensor `{tensor}` in {}", index.weight_map[tensor]);
            Err(Error::format(path, expected, "none of that name"))
        }
        None => Ok(weights),
    }
}
