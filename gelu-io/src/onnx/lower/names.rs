//! What layers are called: as in PyTorch, where the file tells.

use std::collections::{HashMap, HashSet};

use gelu_models::Ranges;

use super::{Lowering, Node};

/// Names longer than this say nothing to people.
const MOST_BYTES: usize = 100;

/// The names that are taken.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    counts: HashMap<String, usize>,
}

impl Names {
    /// Returns `relu1`, `relu2` and so on, but `relu6_1`.
    pub(super) fn numbered(&mut self, kind: &str) -> String {
        let separator = if kind.ends_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
        self.free(kind, separator, 1)
    }

    /// Returns the name, or with a number after it when it is taken.
    pub(super) fn unique(&mut self, name: &str) -> String {
        if name != Ranges::INPUT && self.taken.insert(name.to_owned()) {
            return name.to_owned();
        }
        self.free(name, "_", 2)
    }

    fn free(&mut self, name: &str, separator: &str, first: usize) -> String {
        let count = self.counts.entry(format!("{name}{separator}")).or_insert(first);
        loop {
            let numbered = format!("{name}{separator}{count}");
            *count += 1;
            if self.taken.insert(numbered.clone()) {
                return numbered;
            }
        }
    }
}

impl Lowering<'_> {
    /// A name for the layer of a node: that of its weights (`conv1.weight`), or the node's own, or one of its kind.
    pub(super) fn name(&mut self, node: &Node, kind: &str) -> String {
        let weight = node.inputs.get(1).and_then(|name| self.sources.get(name.as_str()));
        let module =
            weight.and_then(|name| name.strip_suffix(".weight")).filter(|name| name.len() <= MOST_BYTES);
        match module.map(str::to_owned).or_else(|| own_name(node)) {
            Some(name) => self.names.unique(&name),
            None => self.names.numbered(kind),
        }
    }
}

/// The node's own name, without what exporters add: `/layers/layers.0/relu/Relu` is that of `layers.0.relu`, and
/// `node_relu_1` is `relu_1`.
fn own_name(node: &Node) -> Option<String> {
    let is_counted = |text: &str, name: &str| {
        let rest = text.strip_prefix(name);
        rest.is_some_and(|rest| rest.chars().all(|c| c == '_' || c.is_ascii_digit()))
    };
    let name = node.name.strip_prefix("node_").unwrap_or(&node.name);
    if node.outputs.first() == Some(&node.name) || name.len() > MOST_BYTES || is_counted(name, "n") {
        return None;
    }
    let mut path = String::new();
    for part in name.split('/').filter(|part| !part.is_empty() && !is_counted(part, &node.operator)) {
        if path.is_empty() || part.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.')) {
            path = part.to_owned();
        } else {
            path = format!("{path}.{part}");
        }
    }
    let says_something = path.chars().any(char::is_alphabetic);
    says_something.then_some(path)
}
