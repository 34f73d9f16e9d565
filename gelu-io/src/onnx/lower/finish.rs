//! From layers to a model with weights and a report.

use std::collections::HashMap;
use std::path::Path;

use gelu_layers::ClientOp;
use gelu_models::{Graph, Model, Node, Op, ValueId, WeightTensor, Weights};
use gelu_tensor::Shape;

use super::arithmetic::not_a_gelu;
use super::emit::MOST_SIZE;
use super::{Fate, Lowering, Numbers, Stop, Tensor, Value};
use crate::onnx::error::{ImportError, Open, Unsupported};
use crate::onnx::report::{Became, Operator, Port, Report};
use crate::onnx::{Imported, OUTPUT};

impl<'a> Lowering<'a> {
    /// Returns the model whose output is that of the file.
    pub(in crate::onnx) fn finish(
        mut self,
        path: &Path,
        input: &str,
        output: &'a str,
    ) -> Result<Imported, ImportError> {
        let found = match self.values.get(output) {
            Some(Value::Tensor(tensor)) => {
                // What is left to be done to the output is of the last node.
                self.at = self.proto.nodes.len().saturating_sub(1);
                let tensor = tensor.clone();
                self.settled(tensor).map(Some)
            }
            Some(Value::Unknown) => Ok(None),
            _ => Err("the output is a constant, or no node makes it".into()),
        };
        let found = match found {
            Err(Stop::Because { reason, .. }) if self.unsupported.is_empty() => {
                let path = path.to_owned();
                let open = (self.proto.outputs.len() > 1).then_some(Open::Output);
                return Err(ImportError::Interface { path, expected: OUTPUT, found: reason, open });
            }
            Ok(Some(tensor)) if self.unsupported.is_empty() => Some(tensor),
            _ => None,
        };
        let live = found.as_ref().map(|tensor| self.live(tensor)).unwrap_or_default();
        self.refuse_error_functions(&live);
        self.refuse_size();
        self.unsupported.sort_by_key(|(at, _)| *at);
        let (Some(tensor), true) = (found, self.unsupported.is_empty()) else {
            let is_needed = |fate: &&Fate| !matches!(fate, Fate::Unread);
            let nodes = self.fates.iter().filter(is_needed).count();
            return Err(ImportError::Unsupported {
                path: path.to_owned(),
                nodes,
                unsupported: self.unsupported.into_iter().map(|(_, one)| one).collect(),
            });
        };
        let shape = self.shape_of(tensor.id).clone();
        let report = self.report([(input, self.input.clone()), (output, shape)], &live);
        let (nodes, output, numbers) = self.nodes(&live, tensor.id);
        let refused = |source| ImportError::Graph { path: path.to_owned(), source: Box::new(source) };
        let graph = Graph::new(self.input, nodes, output).map_err(refused)?;
        let mut model = Model::new(graph).map_err(refused)?;
        let weights = weights(&model, numbers);
        let loaded = model.load(&weights);
        loaded.map_err(|source| ImportError::Weights { path: path.to_owned(), source })?;
        Ok(Imported { model, report })
    }

    /// Whether the output depends on each layer.
    fn live(&self, output: &Tensor) -> Vec<bool> {
        let mut live = vec![false; self.layers.len() + 1];
        live[output.id] = true;
        for id in (1..live.len()).rev().filter(|id| *id <= output.id) {
            if live[id] {
                self.layers[id - 1].inputs.iter().for_each(|&input| live[input] = true);
            }
        }
        live
    }

    /// Lists error functions that no GELU has made superfluous.
    fn refuse_error_functions(&mut self, live: &[bool]) {
        for (at, fate) in self.fates.iter().enumerate() {
            let Fate::Layer(id) = fate else { continue };
            let is_function = matches!(self.layers[id - 1].op, Op::Client(ClientOp::Function { .. }));
            if let (true, Some(true), Stop::Because { reason, advice }) =
                (is_function, live.get(*id), not_a_gelu())
                && self.proto.nodes[at].operator == "Erf"
            {
                let (node, operator) = (self.proto.nodes[at].name.clone(), "Erf".to_owned());
                self.unsupported.push((at, Unsupported { node, operator, reason, advice }));
            }
        }
    }

    /// Lists the node with which a network became too large, with how large it is in all.
    fn refuse_size(&mut self) {
        let Some(at) = self.too_large else { return };
        let [elements, indices] = self.sizes;
        let least = if self.unsupported.is_empty() { "" } else { "at least " };
        let reason = format!(
            "with it, the network is too large: in all its values have {least}{elements} elements and its linear maps \
             {least}{indices} indices, of at most {MOST_SIZE} each"
        );
        let node = &self.proto.nodes[at];
        let (node, operator) = (node.name.clone(), node.operator.clone());
        let advice = "take smaller inputs or fewer channels";
        self.unsupported.push((at, Unsupported { node, operator, reason, advice }));
    }

    fn report(&self, ports: [(&str, Shape); 2], live: &[bool]) -> Report {
        let became = |fate: &Fate| match *fate {
            Fate::Layer(id) if live[id] => Became::Layer(self.layers[id - 1].name.clone()),
            Fate::PartOf(id) if live[id] => Became::PartOf(self.layers[id - 1].name.clone()),
            Fate::Constant => Became::Constant,
            Fate::View | Fate::Pending | Fate::Layer(_) | Fate::PartOf(_) => Became::Nothing,
            Fate::Unread => Became::Unread,
        };
        let operators = self.proto.nodes.iter().zip(&self.fates).map(|(node, fate)| Operator {
            node: node.name.clone(),
            operator: node.operator.clone(),
            became: became(fate),
        });
        let [input, output] = ports.map(|(name, shape)| Port { name: name.to_owned(), shape });
        Report {
            producer: self.proto.producer.clone(),
            ir_version: self.proto.ir_version,
            opset: self.opset,
            input,
            output,
            operators: operators.collect(),
            notes: self.notes.clone(),
        }
    }

    /// The graph's nodes, its output, and the weights of its layers by name.
    fn nodes(&mut self, live: &[bool], output: usize) -> (Vec<Node>, ValueId, HashMap<String, Numbers>) {
        let mut places = vec![ValueId::INPUT; live.len()];
        let (mut nodes, mut numbers) = (vec![], HashMap::new());
        for (at, layer) in std::mem::take(&mut self.layers).into_iter().enumerate() {
            let id = at + 1;
            if live[id] {
                places[id] = ValueId::of_node(nodes.len());
                let inputs = layer.inputs.iter().map(|&input| places[input]).collect();
                numbers.insert(layer.name.clone(), layer.numbers);
                nodes.push(Node { name: layer.name, op: layer.op, inputs });
            }
        }
        (nodes, places[output], numbers)
    }
}

/// Weights under the names that the model loads them by.
fn weights(model: &Model, mut numbers: HashMap<String, Numbers>) -> Weights {
    let mut weights = Weights::default();
    for (name, layer) in model.layers() {
        let (Some(shape), Some(numbers)) = (layer.weight_shape(), numbers.remove(name)) else { continue };
        let vector = Shape::from([shape.dims()[0]]);
        let mut add = |part: &str, shape: &Shape, data: Vec<f32>| {
            // A number of elements that does not fit is missing when the model is loaded.
            let tensor = WeightTensor::new(shape.clone(), data).ok();
            weights.tensors.extend(tensor.map(|tensor| (format!("{name}.{part}"), tensor)));
        };
        add("weight", &shape, numbers.weight);
        if !layer.parameters().bias.is_empty() {
            add("bias", &vector, numbers.bias);
        }
        if let Some([mean, variance]) = numbers.statistics {
            add("running_mean", &vector, mean);
            add("running_var", &vector, variance);
        }
    }
    weights
}
