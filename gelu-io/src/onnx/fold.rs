//! Nodes whose inputs are all known: what they compute, computed at once. These are the chains that exporters write to
//! find shapes, and weights that are rearranged.

use std::sync::Arc;

use super::constant::{Constant, Data, Reason, axis, elements, reshape, slice, squeeze, unsqueeze};
use super::proto::Node;

/// Elements that all folded tensors may have: enough for the weights of any network that runs encrypted.
const MOST_ELEMENTS: usize = 1 << 26;

/// The inputs of a node, all of them known; `None` for one that is left out.
pub(super) type Inputs<'a> = &'a [Option<Arc<Constant>>];

/// Computes nodes and counts what they make.
#[derive(Debug, Default)]
pub(super) struct Folder {
    elements: usize,
}

impl Folder {
    /// Returns what a node makes of known inputs; `None` when it is of an operator that is not folded.
    pub(super) fn fold(
        &mut self,
        node: &Node,
        inputs: Inputs<'_>,
        opset: i64,
    ) -> Result<Option<Arc<Constant>>, Reason> {
        let input = |at: usize| {
            let input = inputs.get(at).and_then(Option::as_ref);
            input.ok_or_else(|| format!("expected an input {}, found none", at + 1))
        };
        let result = match node.operator.as_str() {
            "Identity" => return Ok(Some(input(0)?.clone())),
            "Constant" => node.constant_value()?,
            "Shape" => {
                let shape: Vec<i64> = input(0)?.dims.iter().map(|&extent| extent as i64).collect();
                shape_part(&shape, node)?
            }
            "Size" => Constant::ints(vec![], vec![input(0)?.len() as i64]),
            "Cast" => cast(input(0)?, node.int("to").unwrap_or(0))?,
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                let dims = self::dims(node, &input(0)?.dims, inputs, opset)?;
                self.count(input(0)?.len())?;
                return input(0)?.reshaped(dims).map(Some);
            }
            "Gather" => {
                let (data, indices) = (input(0)?, input(1)?);
                self.gather(data, indices, node.int("axis").unwrap_or(0))?
            }
            "Concat" => {
                let parts = (0..inputs.len()).map(input).collect::<Result<Vec<_>, _>>()?;
                self.concat(&parts, node.int("axis").unwrap_or(0))?
            }
            "Slice" => self.slice(input(0)?, node, inputs)?,
            "Transpose" => self.transpose(input(0)?, node.ints("perm"))?,
            "ConstantOfShape" => {
                let dims = extents(input(0)?.as_ints("the shape")?)?;
                let count = self.count(elements(&dims).unwrap_or(usize::MAX))?;
                match node.tensor("value").map(|value| &value.data) {
                    Some(Data::Ints(values)) => {
                        Constant::ints(dims, vec![values.first().copied().unwrap_or(0); count])
                    }
                    Some(Data::Floats(values)) => {
                        Constant::floats(dims, vec![values.first().copied().unwrap_or(0.0); count])
                    }
                    Some(Data::Other(name)) => return Err(format!("a value of type {name}")),
                    None => Constant::floats(dims, vec![0.0; count]),
                }
            }
            "Range" => {
                let [start, limit, step] =
                    [input(0)?, input(1)?, input(2)?].map(|part| part.as_ints("a range"));
                let (start, limit, step) = (one(start?)?, one(limit?)?, one(step?)?);
                let span = i128::from(limit) - i128::from(start);
                let count =
                    if step == 0 { 0 } else { (span + i128::from(step - step.signum())) / i128::from(step) };
                let count = self.count(usize::try_from(count.max(0)).unwrap_or(usize::MAX))?;
                let values = (0..count as i64).map(|at| start.wrapping_add(at.wrapping_mul(step))).collect();
                Constant::ints(vec![count], values)
            }
            "Add" | "Sub" | "Mul" | "Div" | "Pow" => self.binary(&node.operator, input(0)?, input(1)?)?,
            "Neg" | "Abs" | "Sqrt" | "Exp" | "Reciprocal" | "Floor" | "Ceil" => {
                self.count(input(0)?.len())?;
                unary(&node.operator, input(0)?)?
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(result)))
    }

    /// Counts elements before memory is taken for them.
    fn count(&mut self, elements: usize) -> Result<usize, Reason> {
        self.elements = self.elements.saturating_add(elements);
        if self.elements > MOST_ELEMENTS {
            return Err(format!("constants of more than {MOST_ELEMENTS} elements in all"));
        }
        Ok(elements)
    }

    fn gather(&mut self, data: &Constant, indices: &Constant, number: i64) -> Result<Constant, Reason> {
        let at = axis(number, data.dims.len())?;
        let extent = data.dims[at];
        let wanted = indices.as_ints("the indices")?;
        let wanted = wanted.iter().map(|&index| axis(index, extent)).collect::<Result<Vec<_>, _>>()?;
        let (before, after) = (&data.dims[..at], &data.dims[at + 1..]);
        let dims = [before, &indices.dims, after].concat();
        let (outer, inner) = (elements(before).unwrap_or(0), elements(after).unwrap_or(0));
        if self.count(elements(&dims).unwrap_or(usize::MAX))? == 0 {
            return data.picked(dims, &[]);
        }
        let places: Vec<usize> = (0..outer)
            .flat_map(|outer| wanted.iter().map(move |&index| outer * extent + index))
            .flat_map(|row| (0..inner).map(move |inner_at| row * inner + inner_at))
            .collect();
        data.picked(dims, &places)
    }

    fn concat(&mut self, parts: &[&Arc<Constant>], number: i64) -> Result<Constant, Reason> {
        let first = *parts.first().ok_or("expected inputs, found none")?;
        let at = axis(number, first.dims.len())?;
        let mut dims = first.dims.clone();
        dims[at] = 0;
        for part in parts {
            let fits = part.dims.len() == dims.len()
                && (0..dims.len()).all(|other| other == at || part.dims[other] == dims[other]);
            if !fits {
                return Err(format!("joins {:?} and {:?}", first.dims, part.dims));
            }
            dims[at] = dims[at].checked_add(part.dims[at]).ok_or("too many elements")?;
        }
        let total = self.count(elements(&dims).unwrap_or(usize::MAX))?;
        let outer = if total == 0 { 0 } else { elements(&dims[..at]).unwrap_or(0) };
        let (mut ints, mut floats) = (vec![], vec![]);
        for row in 0..outer {
            for part in parts {
                let size = elements(&part.dims[at..]).unwrap_or(0);
                let range = row * size..(row + 1) * size;
                match (&first.data, &part.data) {
                    (Data::Ints(_), Data::Ints(values)) => ints.extend_from_slice(&values[range]),
                    (Data::Floats(_), Data::Floats(values)) => floats.extend_from_slice(&values[range]),
                    _ => return Err("joins tensors of different types".to_owned()),
                }
            }
        }
        Ok(match first.data {
            Data::Ints(_) => Constant::ints(dims, ints),
            _ => Constant::floats(dims, floats),
        })
    }

    fn slice(&mut self, data: &Constant, node: &Node, inputs: Inputs<'_>) -> Result<Constant, Reason> {
        let mut result = None;
        for (at, bounds) in slices(node, inputs, data.dims.len())? {
            let whole = result.as_ref().unwrap_or(data);
            let mut dims = whole.dims.clone();
            let extent = dims[at];
            let (outer, inner) = (elements(&dims[..at]).unwrap_or(0), elements(&dims[at + 1..]).unwrap_or(0));
            let (first, step, count) = slice(extent, bounds)?;
            dims[at] = count;
            if self.count(elements(&dims).unwrap_or(usize::MAX))? == 0 {
                result = Some(whole.picked(dims, &[])?);
                continue;
            }
            let along = move |index: usize| (first as i64 + index as i64 * step) as usize;
            let places: Vec<usize> = (0..outer)
                .flat_map(|outer| (0..count).map(move |index| outer * extent + along(index)))
                .flat_map(|row| (0..inner).map(move |inner_at| row * inner + inner_at))
                .collect();
            result = Some(whole.picked(dims, &places)?);
        }
        result.ok_or_else(|| "expected axes to slice, found none".to_owned())
    }

    fn transpose(&mut self, data: &Constant, order: Option<&[i64]>) -> Result<Constant, Reason> {
        let rank = data.dims.len();
        let order = permutation(order, rank)?;
        let dims: Vec<usize> = order.iter().map(|&from| data.dims[from]).collect();
        let count = self.count(data.len())?;
        let mut strides = vec![1; rank];
        for at in (1..rank).rev() {
            strides[at - 1] = strides[at] * data.dims[at];
        }
        let mut place = vec![0; rank];
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            places.push((0..rank).map(|at| place[at] * strides[order[at]]).sum());
            for at in (0..rank).rev() {
                place[at] += 1;
                if place[at] < dims[at] {
                    break;
                }
                place[at] = 0;
            }
        }
        data.picked(dims, &places)
    }

    /// A function of two tensors, of which either may have extents of 1 for any of the other's.
    fn binary(&mut self, operator: &str, a: &Constant, b: &Constant) -> Result<Constant, Reason> {
        let rank = a.dims.len().max(b.dims.len());
        let extent =
            |of: &Constant, at: usize| (at + of.dims.len()).checked_sub(rank).map_or(1, |at| of.dims[at]);
        let mut dims = vec![];
        for at in 0..rank {
            dims.push(match (extent(a, at), extent(b, at)) {
                (a, b) if a == b => a,
                (1, other) | (other, 1) => other,
                _ => return Err(format!("{operator} of {:?} and {:?}", a.dims, b.dims)),
            });
        }
        let count = self.count(elements(&dims).unwrap_or(usize::MAX))?;
        let place = |of: &Constant, mut index: usize| {
            let (mut place, mut stride) = (0, 1);
            for at in (0..rank).rev() {
                let (here, own) = (index % dims[at].max(1), extent(of, at));
                index /= dims[at].max(1);
                place += if own == 1 { 0 } else { here * stride };
                stride *= own;
            }
            place
        };
        match (&a.data, &b.data) {
            (Data::Ints(x), Data::Ints(y)) => {
                let values = (0..count).map(|at| integers(operator, x[place(a, at)], y[place(b, at)]));
                Ok(Constant::ints(dims.clone(), values.collect::<Result<_, _>>()?))
            }
            (Data::Other(name), _) | (_, Data::Other(name)) => Err(format!("{operator} of {name}")),
            _ => {
                let (x, y) = (a.reals("a term")?, b.reals("a term")?);
                let values = (0..count).map(|at| reals(operator, x[place(a, at)], y[place(b, at)]) as f32);
                Ok(Constant::floats(dims.clone(), values.collect()))
            }
        }
    }
}

fn integers(operator: &str, x: i64, y: i64) -> Result<i64, Reason> {
    let result = match operator {
        "Add" => x.checked_add(y),
        "Sub" => x.checked_sub(y),
        "Mul" => x.checked_mul(y),
        "Div" => x.checked_div(y),
        _ => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
    };
    result.ok_or_else(|| format!("{operator} of {x} and {y}"))
}

fn reals(operator: &str, x: f64, y: f64) -> f64 {
    match operator {
        "Add" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        _ => x.powf(y),
    }
}

fn unary(operator: &str, x: &Constant) -> Result<Constant, Reason> {
    if let (Data::Ints(values), "Neg" | "Abs") = (&x.data, operator) {
        let of = |&x: &i64| if operator == "Neg" { x.wrapping_neg() } else { x.wrapping_abs() };
        return Ok(Constant::ints(x.dims.clone(), values.iter().map(of).collect()));
    }
    let of = |&x: &f32| match operator {
        "Neg" => -x,
        "Abs" => x.abs(),
        "Sqrt" => x.sqrt(),
        "Exp" => x.exp(),
        "Reciprocal" => 1.0 / x,
        "Floor" => x.floor(),
        _ => x.ceil(),
    };
    Ok(Constant::floats(x.dims.clone(), x.as_floats("the input")?.iter().map(of).collect()))
}

fn cast(x: &Constant, to: i64) -> Result<Constant, Reason> {
    const FLOATS: [i64; 4] = [1, 10, 11, 16];
    const INTEGERS: [i64; 8] = [2, 3, 4, 5, 6, 7, 12, 13];
    const TRUTH: i64 = 9;
    let values = x.reals("the input")?;
    let data = match (to, &x.data) {
        (to, Data::Ints(_)) if INTEGERS.contains(&to) => x.data.clone(),
        (to, _) if FLOATS.contains(&to) => Data::Floats(values.iter().map(|&x| x as f32).collect()),
        (to, _) if INTEGERS.contains(&to) => Data::Ints(values.iter().map(|&x| x as i64).collect()),
        (TRUTH, _) => Data::Ints(values.iter().map(|&x| i64::from(x != 0.0)).collect()),
        _ => return Err(format!("a cast to type {to}")),
    };
    Ok(Constant { dims: x.dims.clone(), data })
}

fn one(values: &[i64]) -> Result<i64, Reason> {
    match values {
        &[value] => Ok(value),
        _ => Err(format!("expected one number, found {}", values.len())),
    }
}

fn extents(values: &[i64]) -> Result<Vec<usize>, Reason> {
    values.iter().map(|&x| usize::try_from(x).map_err(|_| format!("an extent of {x}"))).collect()
}

/// The part of a shape that a `Shape` node asks for.
pub(super) fn shape_part(shape: &[i64], node: &Node) -> Result<Constant, Reason> {
    let end = node.int("end").unwrap_or(i64::MAX);
    let (first, _, count) = slice(shape.len(), [node.int("start").unwrap_or(0), end, 1])?;
    Ok(Constant::ints(vec![count], shape.iter().skip(first).take(count).copied().collect()))
}

/// The order of axes that a `Transpose` node asks for.
pub(super) fn permutation(order: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, Reason> {
    let Some(order) = order else { return Ok((0..rank).rev().collect()) };
    let axes = order.iter().map(|&number| axis(number, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if sorted.into_iter().eq(0..rank) { Ok(axes) } else { Err(format!("an order of axes {order:?}")) }
}

/// The extents that `Reshape`, `Flatten`, `Squeeze` or `Unsqueeze` leaves.
pub(super) fn dims(
    node: &Node,
    dims: &[usize],
    inputs: Inputs<'_>,
    opset: i64,
) -> Result<Vec<usize>, Reason> {
    let second = inputs.get(1).and_then(Option::as_ref);
    let axes = match (node.ints("axes"), second) {
        (None, Some(axes)) if opset >= 13 => Some(axes.as_ints("axes")?),
        (axes, _) => axes,
    };
    match node.operator.as_str() {
        "Reshape" => {
            let wanted = second.ok_or("expected a shape, found none")?.as_ints("the shape")?;
            reshape(dims, wanted, node.int("allowzero") == Some(1))
        }
        "Flatten" => {
            let number = node.int("axis").unwrap_or(1);
            let rank = dims.len();
            let at = if number == rank as i64 { rank } else { axis(number, rank)? };
            let count = |part: &[usize]| elements(part).ok_or("too many elements");
            Ok(vec![count(&dims[..at])?, count(&dims[at..])?])
        }
        "Squeeze" => squeeze(dims, axes),
        _ => unsqueeze(dims, axes.ok_or("expected axes, found none")?),
    }
}

/// The axes that a `Slice` node slices, each with its start, end and step.
pub(super) fn slices(node: &Node, inputs: Inputs<'_>, rank: usize) -> Result<Vec<(usize, [i64; 3])>, Reason> {
    let of = |name: &str, at: usize| -> Result<Option<Vec<i64>>, Reason> {
        match (node.ints(name), inputs.get(at).and_then(Option::as_ref)) {
            (Some(values), _) => Ok(Some(values.to_vec())),
            (None, Some(values)) => values.as_ints(name).map(|values| Some(values.to_vec())),
            (None, None) => Ok(None),
        }
    };
    let (starts, ends) = (of("starts", 1)?, of("ends", 2)?);
    let (Some(starts), Some(ends)) = (starts, ends) else {
        return Err("expected starts and ends, found none".to_owned());
    };
    let axes = of("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = of("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || starts.len() > rank {
        return Err("starts, ends, axes and steps of different numbers".to_owned());
    }
    let at = |index: usize| Ok((axis(axes[index], rank)?, [starts[index], ends[index], steps[index]]));
    (0..starts.len()).map(at).collect()
}
