//! Tensors that are known when a model is imported: weights, and the numbers that shapes are computed from.

use std::sync::Arc;

/// A tensor of known elements, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constant {
    pub(super) dims: Vec<usize>,
    pub(super) data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    /// Of half, single or double precision.
    Floats(Vec<f32>),
    /// Of any width; also truth values.
    Ints(Vec<i64>),
    /// A type that networks here have no use for, by its name.
    Other(String),
}

/// A reason, in words.
pub(super) type Reason = String;

impl Constant {
    pub(super) fn ints(dims: Vec<usize>, values: Vec<i64>) -> Self {
        Self { dims, data: Data::Ints(values) }
    }

    pub(super) fn floats(dims: Vec<usize>, values: Vec<f32>) -> Self {
        Self { dims, data: Data::Floats(values) }
    }

    /// Returns the number of elements.
    pub(super) fn len(&self) -> usize {
        match &self.data {
            Data::Floats(values) => values.len(),
            Data::Ints(values) => values.len(),
            Data::Other(_) => 0,
        }
    }

    /// Returns the elements, which must be of a floating-point type.
    pub(super) fn as_floats(&self, what: &str) -> Result<&[f32], Reason> {
        match &self.data {
            Data::Floats(values) => Ok(values),
            Data::Ints(_) => Err(format!("{what}: expected floating-point numbers, found integers")),
            Data::Other(name) => Err(format!("{what}: expected floating-point numbers, found {name}")),
        }
    }

    /// Returns the elements, which must be integers.
    pub(super) fn as_ints(&self, what: &str) -> Result<&[i64], Reason> {
        match &self.data {
            Data::Ints(values) => Ok(values),
            Data::Floats(_) => Err(format!("{what}: expected integers, found floating-point numbers")),
            Data::Other(name) => Err(format!("{what}: expected integers, found {name}")),
        }
    }

    /// Returns the elements as reals, whatever their type.
    pub(super) fn reals(&self, what: &str) -> Result<Vec<f64>, Reason> {
        match &self.data {
            Data::Floats(values) => Ok(values.iter().map(|&x| f64::from(x)).collect()),
            Data::Ints(values) => Ok(values.iter().map(|&x| x as f64).collect()),
            Data::Other(name) => Err(format!("{what}: expected numbers, found {name}")),
        }
    }

    /// Returns the one element.
    pub(super) fn scalar(&self, what: &str) -> Result<f64, Reason> {
        match self.reals(what)?[..] {
            [value] => Ok(value),
            ref values => Err(format!("{what}: expected one number, found {}", values.len())),
        }
    }

    /// Returns the tensor with elements picked from this one, by their places.
    pub(super) fn picked(&self, dims: Vec<usize>, places: &[usize]) -> Result<Self, Reason> {
        fn pick<T: Copy>(values: &[T], places: &[usize]) -> Option<Vec<T>> {
            places.iter().map(|&place| values.get(place).copied()).collect()
        }
        let data = match &self.data {
            Data::Floats(values) => pick(values, places).map(Data::Floats),
            Data::Ints(values) => pick(values, places).map(Data::Ints),
            Data::Other(name) => return Err(format!("expected numbers, found {name}")),
        };
        let data = data.ok_or("an index beyond the tensor's end")?;
        Ok(Self { dims, data })
    }

    /// Returns the same elements under other extents.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Result<Arc<Self>, Reason> {
        if elements(&dims) != Some(self.len()) {
            return Err(format!("expected {} elements, found extents {dims:?}", self.len()));
        }
        Ok(Arc::new(Self { dims, data: self.data.clone() }))
    }
}

/// Extents that a tensor may have, multiplied, those of zero left out: no index into one can overflow.
const MOST_ELEMENTS: usize = 1 << 40;

/// Returns the product of extents, if any machine can count so far.
pub(super) fn elements(dims: &[usize]) -> Option<usize> {
    let counted = dims.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent.max(1)))?;
    let product = if dims.contains(&0) { 0 } else { counted };
    (counted <= MOST_ELEMENTS).then_some(product)
}

/// Returns the axis that a number means, counted from the end where it is negative.
pub(super) fn axis(number: i64, rank: usize) -> Result<usize, Reason> {
    let from_start = if number < 0 { number.checked_add_unsigned(rank as u64) } else { Some(number) };
    from_start
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|&axis| axis < rank)
        .ok_or_else(|| format!("axis {number} of a tensor of {rank} dimensions"))
}

/// Returns the extents that a reshape asks for: 0 keeps an extent, -1 stands for what is left.
pub(super) fn reshape(dims: &[usize], wanted: &[i64], zero_is_zero: bool) -> Result<Vec<usize>, Reason> {
    let total = elements(dims).ok_or("too many elements")?;
    let mut result = vec![];
    let mut free = None;
    for (at, &extent) in wanted.iter().enumerate() {
        result.push(match extent {
            0 if !zero_is_zero => *dims.get(at).ok_or_else(|| format!("no extent {at} to keep"))?,
            -1 if free.is_none() => {
                free = Some(at);
                1
            }
            extent => usize::try_from(extent).map_err(|_| format!("an extent of {extent}"))?,
        });
    }
    let known = elements(&result).ok_or("too many elements")?;
    if let Some(at) = free {
        result[at] = total.checked_div(known).unwrap_or(0);
    }
    if elements(&result) == Some(total) {
        Ok(result)
    } else {
        Err(format!("reshapes {dims:?} into {wanted:?}"))
    }
}

/// Returns the extents after `Squeeze`: without those of 1 at `axes`, or without all of 1.
pub(super) fn squeeze(dims: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, Reason> {
    let removed: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|&number| axis(number, dims.len())).collect::<Result<_, _>>()?,
        None => (0..dims.len()).filter(|&at| dims[at] == 1).collect(),
    };
    if let Some(&at) = removed.iter().find(|&&at| dims[at] != 1) {
        return Err(format!("removes axis {at} of {dims:?}"));
    }
    Ok((0..dims.len()).filter(|at| !removed.contains(at)).map(|at| dims[at]).collect())
}

/// Returns the extents after `Unsqueeze`: with those of 1 that are at `axes` of the result.
pub(super) fn unsqueeze(dims: &[usize], axes: &[i64]) -> Result<Vec<usize>, Reason> {
    let rank = dims.len() + axes.len();
    let added = axes.iter().map(|&number| axis(number, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut old = dims.iter();
    let result: Vec<usize> =
        (0..rank).filter_map(|at| if added.contains(&at) { Some(1) } else { old.next().copied() }).collect();
    if result.len() == rank { Ok(result) } else { Err(format!("adds an axis twice: {axes:?}")) }
}

/// Returns the first element, the step and the number of elements that a slice takes of an axis.
pub(super) fn slice(extent: usize, [start, end, step]: [i64; 3]) -> Result<(usize, i64, usize), Reason> {
    let extent = i64::try_from(extent).map_err(|_| "too many elements")?;
    let from_start = |place: i64| if place < 0 { place.saturating_add(extent) } else { place };
    if step == 0 || step == i64::MIN {
        return Err(format!("a step of {step}"));
    }
    // A slice that goes backward may end before the first element.
    let (least, most) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
    let first = from_start(start).clamp(if step > 0 { 0 } else { least }, most);
    let last = from_start(end).clamp(least, most);
    let span = if step > 0 { last - first } else { first - last };
    let count = if span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
    Ok((usize::try_from(first).unwrap_or(0), step, usize::try_from(count).unwrap_or(0)))
}
