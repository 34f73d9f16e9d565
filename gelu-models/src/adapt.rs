//! Weights that were saved by another program, brought under a model's own names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gelu_layers::BatchNorm2dConfig;
use gelu_tensor::Shape;

use crate::{Model, Op, Ranges, WeightTensor, Weights};

#[cfg(test)]
mod tests;

/// What wrappers of PyTorch's (DataParallel, `torch.compile`, Lightning) and habits of people put before all names.
const PREFIXES: [&str; 7] =
    ["module.", "_orig_mod.", "model.", "net.", "network.", "state_dict.", "backbone."];

/// Parts of a normalization, as PyTorch names them.
const RUNNING: [&str; 2] = ["running_mean", "running_var"];

/// One change that [`Weights::adapt`] made. Prints as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adaptation {
    /// What stood before all names was taken off.
    Prefix(String),
    /// A module, or a tensor, has another name now.
    Renamed {
        /// Its name in the file.
        from: String,
        /// Its name in the model.
        to: String,
    },
    /// A batch norm that the model does not have is part of the layer before it now.
    BatchNorm {
        /// The batch norm's name in the file.
        norm: String,
        /// The layer.
        layer: String,
    },
    /// A bias that the file does not have is zero.
    ZeroBias(String),
    /// Counters of a batch norm's batches, which nothing depends on, were left out.
    Counters(usize),
    /// Ranges that were noted in the order of the activations have names now.
    Ranges,
}

impl fmt::Display for Adaptation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "all names begin with `{prefix}`, which was taken off"),
            Self::Renamed { from, to } => write!(f, "`{from}` was read as `{to}`"),
            Self::BatchNorm { norm, layer } => {
                write!(f, "batch norm `{norm}`, taken to follow `{layer}`, was folded into it")
            }
            Self::ZeroBias(name) => write!(f, "`{name}` is not in the file and was set to zero"),
            Self::Counters(count) => {
                write!(f, "{count} counters of batches (num_batches_tracked) were ignored")
            }
            Self::Ranges => f.write_str("ranges without names were given to the activations in their order"),
        }
    }
}

/// A rename that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdaptError {
    /// Nothing in the file has that name.
    #[error("rename of `{from}`: expected a tensor or a module of the file, found none of that name")]
    NoSuchName {
        /// The name to be replaced.
        from: String,
    },
    /// Two tensors would have the same name.
    #[error("rename of `{from}`: expected a name that is free, found another tensor `{to}`")]
    Taken {
        /// The name to be replaced.
        from: String,
        /// The name that would be double.
        to: String,
    },
}

impl Weights {
    /// Brings tensors that another program saved under the names of `model`, and returns what was changed:
    ///
    /// 1. `renames`, from names of tensors or modules (`features.0`) to the model's (`conv1`);
    /// 2. counters of batches are left out;
    /// 3. a prefix that all names share, such as `module.`, is taken off;
    /// 4. numbered modules, as `torch.nn.Sequential` has them, go to the model's layers in their order, where shapes fit;
    /// 5. a batch norm that the model does not have is folded into the convolution or dense layer that it follows, by its
    ///    number or its name (`bn1` after `conv1`);
    /// 6. a bias that is not there is zero, as `bias=False` means.
    ///
    /// Whether the result fits is for [`Model::load`] to say.
    ///
    /// # Errors
    /// [`AdaptError`] when a rename does not fit.
    pub fn adapt(
        &mut self,
        model: &Model,
        renames: &[(String, String)],
    ) -> Result<Vec<Adaptation>, AdaptError> {
        let mut done = vec![];
        for (from, to) in renames {
            self.rename(from, to)?;
            done.push(Adaptation::Renamed { from: from.clone(), to: to.clone() });
        }
        let before = self.tensors.len();
        self.tensors.retain(|name, _| !name.ends_with("num_batches_tracked"));
        if self.tensors.len() < before {
            done.push(Adaptation::Counters(before - self.tensors.len()));
        }
        let expected = expected(model);
        self.take_off_prefixes(&expected, &mut done);
        self.name_numbered_modules(model, &expected, &mut done);
        self.fold_batch_norms(&expected, &mut done);
        for (name, shape) in &expected {
            let weight = name.strip_suffix(".bias").map(|layer| format!("{layer}.weight"));
            let present = weight.is_some_and(|weight| self.tensors.contains_key(&weight));
            if present && !self.tensors.contains_key(name) {
                let zeros = WeightTensor::new(shape.clone(), vec![0.0; shape.elements()]);
                self.tensors.extend(zeros.ok().map(|zeros| (name.clone(), zeros)));
                done.push(Adaptation::ZeroBias(name.clone()));
            }
        }
        if self.name_ranges(model) {
            done.push(Adaptation::Ranges);
        }
        Ok(done)
    }

    /// Renames a tensor, or all of a module's.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), AdaptError> {
        let renamed = |name: &String| {
            let rest = name.strip_prefix(from)?;
            (rest.is_empty() || rest.starts_with('.')).then(|| (name.clone(), format!("{to}{rest}")))
        };
        let pairs: Vec<(String, String)> = self.tensors.keys().filter_map(renamed).collect();
        if pairs.is_empty() {
            return Err(AdaptError::NoSuchName { from: from.to_owned() });
        }
        let moved: Vec<_> =
            pairs.iter().filter_map(|(old, new)| Some((new, self.tensors.remove(old)?))).collect();
        for (new, tensor) in moved {
            if self.tensors.insert(new.clone(), tensor).is_some() {
                return Err(AdaptError::Taken { from: from.to_owned(), to: new.clone() });
            }
        }
        Ok(())
    }

    fn take_off_prefixes(&mut self, expected: &BTreeMap<String, Shape>, done: &mut Vec<Adaptation>) {
        let mut taken_off = String::new();
        // One wrapper may hold another.
        while !self.tensors.is_empty() && !self.tensors.keys().any(|name| expected.contains_key(name)) {
            let shared = |prefix: &&&str| self.tensors.keys().all(|name| name.starts_with(**prefix));
            let Some(prefix) = PREFIXES.iter().find(shared) else { break };
            let tensors = std::mem::take(&mut self.tensors).into_iter();
            self.tensors = tensors.map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect();
            taken_off += prefix;
        }
        if !taken_off.is_empty() {
            done.push(Adaptation::Prefix(taken_off));
        }
    }

    fn name_numbered_modules(
        &mut self,
        model: &Model,
        expected: &BTreeMap<String, Shape>,
        done: &mut Vec<Adaptation>,
    ) {
        let numbers = self.modules().into_iter().map(|module| Some((module.parse::<u32>().ok()?, module)));
        let Some(mut numbered) = numbers.collect::<Option<Vec<_>>>() else { return };
        numbered.sort_unstable();
        let shape = |name: String| self.tensors.get(&name).map(WeightTensor::shape);
        let fits = |module: &str, layer: &str| {
            shape(format!("{module}.weight")) == expected.get(&format!("{layer}.weight"))
                && self.is_norm(module) == expected.contains_key(&format!("{layer}.running_mean"))
        };
        // Batch norms that the model does not have are for a later step.
        let mut modules = numbered.iter().map(|(_, module)| module.as_str()).peekable();
        let mut pairs = vec![];
        for (layer, _) in model.layers().filter(|(_, layer)| layer.has_parameters()) {
            while modules.next_if(|module| self.is_norm(module) && !fits(module, layer)).is_some() {}
            match modules.next_if(|module| fits(module, layer)) {
                Some(module) => pairs.push((module.to_owned(), layer.to_owned())),
                None => return,
            }
        }
        if modules.any(|module| !self.is_norm(module)) {
            return;
        }
        // Only what comes right after a layer may be folded into it: with an activation between, it is another function.
        let layer_before = |number: u32| {
            let (_, before) = numbered.iter().find(|(other, _)| other.checked_add(1) == Some(number))?;
            Some(pairs.iter().find(|(from, _)| from == before)?.1.clone())
        };
        let named = |module: &String| pairs.iter().any(|(from, _)| from == module);
        let norms: Vec<(String, String)> = numbered
            .iter()
            .filter(|(_, module)| !named(module))
            .filter_map(|(number, module)| Some((module.clone(), layer_before(*number)?)))
            .collect();
        for (from, to) in pairs {
            if self.rename(&from, &to).is_ok() {
                done.push(Adaptation::Renamed { from, to });
            }
        }
        for (norm, layer) in norms {
            if self.fold(&norm, &layer) {
                done.push(Adaptation::BatchNorm { norm, layer });
            }
        }
    }

    fn fold_batch_norms(&mut self, expected: &BTreeMap<String, Shape>, done: &mut Vec<Adaptation>) {
        for norm in self.modules() {
            let known = expected.contains_key(&format!("{norm}.running_mean"));
            if known || !self.is_norm(&norm) {
                continue;
            }
            let layers = layers_before(&norm);
            let layer = layers.into_iter().find(|layer| expected.contains_key(&format!("{layer}.weight")));
            if let Some(layer) = layer
                && self.fold(&norm, &layer)
            {
                done.push(Adaptation::BatchNorm { norm, layer });
            }
        }
    }

    /// Makes a batch norm part of the layer before it; returns whether both were there and of one width.
    fn fold(&mut self, norm: &str, layer: &str) -> bool {
        let vector =
            |name: &str| self.tensors.get(&format!("{norm}.{name}")).map(|tensor| tensor.data().to_vec());
        let (Some(mean), Some(variance)) = (vector(RUNNING[0]), vector(RUNNING[1])) else { return false };
        let channels = mean.len();
        let (scale, shift) = (vector("weight"), vector("bias"));
        let (scale, shift) = (scale.unwrap_or(vec![1.0; channels]), shift.unwrap_or(vec![0.0; channels]));
        let (weight, bias) = (format!("{layer}.weight"), format!("{layer}.bias"));
        let Some(old) = self.tensors.get(&weight) else { return false };
        let old_bias = self.tensors.get(&bias).map_or(vec![0.0; channels], |bias| bias.data().to_vec());
        let shape = old.shape().clone();
        let widths = [shape.dims().first().copied().unwrap_or(0), variance.len(), scale.len(), shift.len()];
        if channels == 0 || widths != [channels; 4] || old_bias.len() != channels {
            return false;
        }
        let epsilon = BatchNorm2dConfig::default().epsilon;
        let factor = |row: usize| f64::from(scale[row]) / (f64::from(variance[row]) + epsilon).sqrt();
        let mut data = old.data().to_vec();
        for (row, weights) in data.chunks_exact_mut(old.data().len() / channels).enumerate() {
            weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * factor(row)) as f32);
        }
        let new_bias = |row: usize| {
            let centered = f64::from(old_bias[row]) - f64::from(mean[row]);
            (centered * factor(row) + f64::from(shift[row])) as f32
        };
        let data_bias = (0..channels).map(new_bias).collect();
        let (Ok(new), Ok(new_bias)) =
            (WeightTensor::new(shape, data), WeightTensor::new(Shape::from([channels]), data_bias))
        else {
            return false;
        };
        self.tensors.retain(|name, _| name.rsplit_once('.').is_none_or(|(module, _)| module != norm));
        self.tensors.extend([(weight, new), (bias, new_bias)]);
        true
    }

    /// Gives ranges that were noted as a list, one for each activation in order, their names.
    fn name_ranges(&mut self, model: &Model) -> bool {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Listed {
            input: f32,
            activations: Vec<f32>,
        }
        let json = self.metadata.get(Ranges::METADATA_KEY);
        let Some(Ok(listed)) = json.map(|json| serde_json::from_str::<Listed>(json)) else { return false };
        let nodes = model.graph().nodes().iter().filter(|node| matches!(node.op, Op::Client(_)));
        let named = nodes.map(|node| node.name.clone()).zip(listed.activations);
        let ranges: Ranges = [(Ranges::INPUT.to_owned(), listed.input)].into_iter().chain(named).collect();
        let json = serde_json::to_string(&ranges);
        json.is_ok_and(|json| self.metadata.insert(Ranges::METADATA_KEY.to_owned(), json).is_some())
    }

    /// The modules that have tensors, by name.
    fn modules(&self) -> BTreeSet<String> {
        let module = |name: &String| name.rsplit_once('.').map(|(module, _)| module.to_owned());
        self.tensors.keys().map(|name| module(name).unwrap_or_default()).collect()
    }

    fn is_norm(&self, module: &str) -> bool {
        RUNNING.iter().all(|part| self.tensors.contains_key(&format!("{module}.{part}")))
    }
}

/// The model's tensors, with their shapes.
fn expected(model: &Model) -> BTreeMap<String, Shape> {
    let tensors = model.weights().tensors.into_iter();
    tensors.map(|(name, tensor)| (name, tensor.shape().clone())).collect()
}

/// The layers that a batch norm of that name may follow: `bn1` and `norm1` come after `conv1` or `fc1`, `conv1_bn` after
/// `conv1`, `downsample.1` after `downsample.0`.
fn layers_before(norm: &str) -> Vec<String> {
    let (parent, own) = norm.rsplit_once('.').map_or(("", norm), |(parent, own)| (parent, own));
    let within = |name: String| if parent.is_empty() { name } else { format!("{parent}.{name}") };
    if let Some(before) = own.parse::<u32>().ok().and_then(|number| number.checked_sub(1)) {
        return vec![within(before.to_string())];
    }
    let kinds = ["batch_norm", "batchnorm", "norm", "bn"];
    for kind in kinds {
        if let Some(number) = own.strip_prefix(kind) {
            let number = number.trim_start_matches('_');
            return ["conv", "fc", "linear", "dense"]
                .map(|layer| within(format!("{layer}{number}")))
                .to_vec();
        }
        let layer = own.strip_suffix(kind).map(|layer| layer.trim_end_matches('_'));
        if let Some(layer) = layer.filter(|layer| !layer.is_empty()) {
            return vec![within(layer.to_owned())];
        }
    }
    vec![]
}
