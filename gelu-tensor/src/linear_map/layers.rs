//! The layers of a network as maps.

use std::collections::BTreeMap;

use super::{Block, LinearMap, PADDING, check_size};
use crate::{Error, Shape, Windows};

/// Why a mean over a window is of nothing.
const NOTHING_BUT_PADDING: &str = "dilation makes a window that reads nothing but padding";

/// The filters of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filters {
    /// Number of filters: channels of the output.
    pub count: usize,
    /// Groups that input channels and filters are divided into; a filter weighs the channels of its group. As many as
    /// there are channels make a depthwise convolution.
    pub groups: usize,
}

impl Filters {
    /// Checks that input channels and filters divide into the groups.
    ///
    /// # Errors
    /// [`Error::Count`] when they do not, or there is none.
    pub fn check(self, channels: usize) -> Result<Self, Error> {
        for (what, of) in
            [("channels that divide into groups", channels), ("filters that divide into groups", self.count)]
        {
            if of == 0 || self.groups == 0 || !of.is_multiple_of(self.groups) {
                return Err(Error::Multiple { what, of: self.groups.max(1), found: of });
            }
        }
        Ok(self)
    }
}

impl LinearMap {
    /// Returns a fully connected layer: every output weighs every element of the input. Weights are in the order of
    /// PyTorch's `[outputs, inputs]`.
    ///
    /// # Errors
    /// [`Error::Count`] when there is no output or input, or the layer has more than 2^26 weights.
    pub fn dense(input: &Shape, outputs: usize) -> Result<Self, Error> {
        let taps = input.elements();
        let weights = taps.saturating_mul(outputs);
        check_size("weights of a dense layer", weights)?;
        let block = Block::new([taps, taps], indices(weights), [indices(taps), indices(outputs)]);
        Ok(Self::new([input.clone(), Shape::from([outputs])], weights, vec![block]))
    }

    /// Returns a convolution (cross-correlation) over window positions: one block for each group, whose columns are the
    /// positions. Weights are in the order of PyTorch's `[filters, channels / groups, kernel height, kernel width]`.
    ///
    /// # Errors
    /// [`Error::Count`] when there is no filter, channels or filters do not divide into the groups, or the layer is too
    /// large.
    pub fn convolution(windows: &Windows, filters: Filters) -> Result<Self, Error> {
        let ([channels, ..], [height, width]) = (windows.input(), windows.output());
        let Filters { count, groups } = filters.check(channels)?;
        check_windows(windows)?;
        let (taps, rows, positions) = (windows.taps() / groups, count / groups, windows.positions());
        check_size("weights of a convolution", count.saturating_mul(taps))?;
        check_size("elements of a convolution's output", count.saturating_mul(positions))?;
        let elements = windows.input().iter().product();
        let block = |group: usize| {
            let own = channels / groups;
            let columns = (0..positions).map(|position| (position, group * own..(group + 1) * own));
            let output = |at: usize| ((group * rows + at % rows) * positions + at / rows) as u32;
            Block::new(
                [taps, elements],
                (0..rows * taps).map(|at| (group * rows * taps + at) as u32).collect(),
                [read(windows, columns, taps * positions), (0..positions * rows).map(output).collect()],
            )
        };
        let shapes = [Shape::from(windows.input()), Shape::from([count, height, width])];
        Ok(Self::new(shapes, count * taps, (0..groups).map(block).collect()))
    }

    /// Returns pooling by sums or means, channel by channel: one block of a single row, whose taps share one weight and
    /// whose columns are the positions of all channels.
    ///
    /// # Errors
    /// [`Error::Range`] when the layer is too large.
    pub fn pooling(windows: &Windows) -> Result<Self, Error> {
        Self::pooling_counting(windows, windows.window().padding)
    }

    /// Returns pooling by sums or means, channel by channel, in which only the `counted` rows and columns of padding
    /// next to the image (`[[top, bottom], [left, right]]`) are taps: windows of as many taps are the columns of one
    /// block, whose single row has one weight. Blocks are in the order of their taps, fewest first.
    ///
    /// # Errors
    /// [`Error::Range`] when the layer is too large; [`Error::Window`] when no tap of a window counts.
    pub fn pooling_counting(windows: &Windows, counted: [[usize; 2]; 2]) -> Result<Self, Error> {
        check_windows(windows)?;
        let ([channels, height, width], [rows, columns]) = (windows.input(), windows.output());
        let taps = [0, 1].map(|axis| counted_taps(windows, axis, counted[axis]));
        let mut blocks: BTreeMap<usize, [Vec<u32>; 2]> = BTreeMap::new();
        for channel in 0..channels {
            for (at, row) in taps[0].iter().enumerate() {
                for (to, column) in taps[1].iter().enumerate() {
                    let [inputs, outputs] = blocks.entry(row.len() * column.len()).or_default();
                    inputs.extend(row.iter().flat_map(|&y| {
                        column.iter().map(move |&x| match (y, x) {
                            (Some(y), Some(x)) => ((channel * height + y) * width + x) as u32,
                            _ => PADDING,
                        })
                    }));
                    outputs.push(((channel * rows + at) * columns + to) as u32);
                }
            }
        }
        if blocks.contains_key(&0) {
            let (window, input) = (windows.window().to_string(), Shape::from(windows.input()));
            return Err(Error::Window { window, input, why: NOTHING_BUT_PADDING });
        }
        let (weights, elements) = (blocks.len(), channels * height * width);
        let block = |(weight, (taps, columns)): (u32, (usize, [Vec<u32>; 2]))| {
            Block::new([taps, elements], vec![weight; taps], columns)
        };
        let blocks = (0..).zip(blocks).map(block).collect();
        let shapes = [Shape::from(windows.input()), Shape::from([channels, rows, columns])];
        Ok(Self::new(shapes, weights, blocks))
    }

    /// Returns a product with one weight for each channel (the first extent of a shape), which is what batch norm is:
    /// one block for each channel, whose columns are its elements.
    ///
    /// # Errors
    /// [`Error::Count`] when the shape has no elements or too many.
    pub fn per_channel(shape: &Shape) -> Result<Self, Error> {
        check_size("elements of a tensor", shape.elements())?;
        let channels = shape.dims().first().copied().unwrap_or(1);
        let elements = shape.elements() / channels;
        let block = |channel: usize| {
            let elements: Vec<u32> =
                (channel * elements..(channel + 1) * elements).map(|at| at as u32).collect();
            Block::new([1, shape.elements()], vec![channel as u32], [elements.clone(), elements])
        };
        let blocks = (0..channels).map(block).collect();
        Ok(Self::new([shape.clone(), shape.clone()], channels, blocks))
    }

    /// Returns a product of some elements, in the order of the output's, with the same one weight: a selection where that
    /// is one. `elements` are of the input, one for each of the output, and may repeat.
    ///
    /// # Errors
    /// [`Error::Range`] when a shape has no elements or too many; [`Error::Limit`] for an element that the input does not
    /// have; [`Error::Count`] when there are more or fewer than the output has.
    pub fn selection(
        [input, output]: [&Shape; 2],
        elements: impl Iterator<Item = usize>,
    ) -> Result<Self, Error> {
        let (limit, expected) = (input.elements(), output.elements());
        check_size("elements of a tensor", limit)?;
        check_size("elements of a tensor", expected)?;
        let mut selected = Vec::with_capacity(expected);
        for element in elements.take(expected + 1) {
            if element >= limit {
                let what = "elements of a tensor that are selected from";
                return Err(Error::Limit { what, limit, found: element.saturating_add(1) });
            }
            selected.push(element as u32);
        }
        if selected.len() != expected {
            return Err(Error::Count { what: "selected elements", expected, found: selected.len() });
        }
        let block = Block::new([1, limit], vec![0], [selected, indices(expected)]);
        Ok(Self::new([input.clone(), output.clone()], 1, vec![block]))
    }

    /// Returns a product of every element with the same one weight: the identity where that is one.
    ///
    /// # Errors
    /// [`Error::Count`] when the shape has no elements or too many.
    pub fn identity(shape: &Shape) -> Result<Self, Error> {
        check_size("elements of a tensor", shape.elements())?;
        let elements = indices(shape.elements());
        let block = Block::new([1, shape.elements()], vec![0], [elements.clone(), elements]);
        Ok(Self::new([shape.clone(), shape.clone()], 1, vec![block]))
    }
}

/// Of every window position along an axis the taps that count: the pixel that each reads, or none for one of padding.
fn counted_taps(windows: &Windows, axis: usize, [before, after]: [usize; 2]) -> Vec<Vec<Option<usize>>> {
    let (window, size) = (windows.window(), windows.input()[axis + 1]);
    let padding = window.padding[axis][0];
    let tap = |at: usize| match at.checked_sub(padding) {
        Some(pixel) if pixel < size => Some(Some(pixel)),
        Some(pixel) => (pixel - size < after).then_some(None),
        None => (padding - at <= before).then_some(None),
    };
    let taps = |position: usize| {
        let first = position * window.stride[axis];
        (0..window.kernel[axis]).filter_map(|at| tap(first + at * window.dilation[axis])).collect()
    };
    (0..windows.output()[axis]).map(taps).collect()
}

/// The inputs of columns, each a position over some channels.
fn read(
    windows: &Windows,
    columns: impl Iterator<Item = (usize, std::ops::Range<usize>)>,
    count: usize,
) -> Vec<u32> {
    let mut inputs = Vec::with_capacity(count);
    for (position, channels) in columns {
        windows.each_tap(position, channels, |element| {
            inputs.push(element.map_or(PADDING, |element| element as u32));
        });
    }
    inputs
}

/// 0, 1, 2 and so on.
fn indices(count: usize) -> Vec<u32> {
    (0..count as u32).collect()
}

/// Comes before [`Windows::taps`] and [`Windows::positions`] are multiplied.
fn check_windows(windows: &Windows) -> Result<(), Error> {
    check_size("elements of an image", Shape::from(windows.input()).elements())?;
    check_size("taps x positions of a window", windows.taps().saturating_mul(windows.positions()))
}
