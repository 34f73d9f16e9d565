//! Maps one after another.

use std::collections::HashMap;

use super::{Block, Columns, LinearMap, MOST_INDICES, PADDING};
use crate::{Error, Shape};

/// Products of two weights that a composition may have: a few seconds of work.
const MOST_TERMS: usize = 1 << 30;

/// Where an output comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Source {
    block: u32,
    column: u32,
}

/// One product of a row of the second map with a row of the first.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Term {
    /// Which of the column's sources.
    source: u32,
    /// The row of its block.
    row: u32,
    /// The weight of the second map.
    weight: u32,
}

/// A column of the second map: its block, and for each tap which of the column's sources gives it, and which row of
/// that source's block.
type Taps = (usize, Vec<Option<(u32, u32)>>);

/// What columns of one matrix have in common: block and places of the taps of each source, and which lists of rows.
type Matrix = (Vec<(u32, Vec<u32>)>, Vec<usize>);

/// The columns under one window of a pooling, and the outputs of the rows.
type Pooled = (Vec<u32>, Vec<Option<u32>>);

impl LinearMap {
    /// For each output the source and the row that give it.
    fn sources(&self) -> Vec<Option<(Source, u32)>> {
        let mut sources = vec![None; self.output.elements()];
        for (at, block) in self.blocks.iter().enumerate() {
            for (column, outputs) in block.outputs.chunks_exact(block.rows()).enumerate() {
                let source = Source { block: at as u32, column: column as u32 };
                (0..).zip(outputs).for_each(|(row, &output)| sources[output as usize] = Some((source, row)));
            }
        }
        sources
    }

    fn inputs_of(&self, Source { block, column }: Source) -> &[u32] {
        let block = &self.blocks[block as usize];
        &block.inputs[column as usize * block.taps..][..block.taps]
    }

    /// Returns the map that first does this one and then `next`. Each of its weights is a sum of products of a weight
    /// of this map and one of the next: `term(weight, first, second)` is called for each, so that the caller computes
    /// them, on reals that are rounded once at the end.
    ///
    /// What shares weights still shares them: a convolution followed by batch norm is a convolution again.
    ///
    /// # Errors
    /// [`Error::Shape`] when `next` does not take this map's output; [`Error::Count`] when the composition is too
    /// large.
    pub fn then(&self, next: &Self, mut term: impl FnMut(usize, usize, usize)) -> Result<Self, Error> {
        if self.output.elements() != next.input.elements() {
            let (expected, found) = (next.input.clone(), self.output.clone());
            return Err(Error::Shape { what: "input of the next layer", expected, found });
        }
        let sources = self.sources();
        // The rows of a column, as sums of terms: few of them are different.
        let mut by_rows: HashMap<Vec<Vec<Term>>, usize> = HashMap::new();
        let mut by_taps: HashMap<Taps, usize> = HashMap::new();
        // Columns of the composition by the columns of this map that they need: lists of rows, and their outputs.
        let mut columns: Vec<(Vec<Source>, Vec<usize>, Vec<u32>)> = vec![];
        let mut by_sources: HashMap<Vec<Source>, usize> = HashMap::new();
        for (at, block) in next.blocks.iter().enumerate() {
            for (inputs, outputs) in block.pairs() {
                let taps: Vec<_> =
                    inputs.iter().map(|&at| sources.get(at as usize).copied().flatten()).collect();
                let mut needed: Vec<Source> = taps.iter().flatten().map(|(source, _)| *source).collect();
                needed.sort_unstable();
                needed.dedup();
                let place = |source| needed.partition_point(|other| *other < source) as u32;
                let taps = taps.iter().map(|tap| tap.map(|(source, row)| (place(source), row))).collect();
                let rows = *by_taps.entry((at, taps)).or_insert_with_key(|(_, taps)| {
                    let row = |weights: &[u32]| {
                        let terms = taps.iter().zip(weights).filter_map(|(tap, &weight)| {
                            let (source, row) = (*tap)?;
                            Some(Term { source, row, weight })
                        });
                        terms.collect()
                    };
                    let rows = block.weights.chunks_exact(block.taps).map(row).collect();
                    let count = by_rows.len();
                    *by_rows.entry(rows).or_insert(count)
                });
                let column = *by_sources.entry(needed).or_insert_with_key(|needed| {
                    columns.push((needed.clone(), vec![], vec![]));
                    columns.len() - 1
                });
                columns[column].1.push(rows);
                columns[column].2.extend(outputs);
            }
        }
        let mut lists = vec![vec![]; by_rows.len()];
        by_rows.into_iter().for_each(|(rows, at)| lists[at] = rows);
        // Taps and weights, then inputs and outputs.
        let mut blocks: Vec<(usize, Vec<u32>, [Vec<u32>; 2])> = vec![];
        let (mut weights, mut work) = (0usize, 0usize);
        let mut by_matrix: HashMap<Matrix, usize> = HashMap::new();
        for (needed, rows, outputs) in columns {
            let inputs = match &needed[..] {
                [] => continue,
                &[only] => self.inputs_of(only).to_vec(),
                _ => {
                    // Padding stays zero: a weight for it would only have to be held by the scale of the others.
                    let taps = needed.iter().flat_map(|&source| self.inputs_of(source));
                    let mut union: Vec<u32> = taps.copied().filter(|&input| input != PADDING).collect();
                    union.sort_unstable();
                    union.dedup();
                    union
                }
            };
            if inputs.is_empty() {
                continue;
            }
            let place = |input: &u32| match *input {
                PADDING => PADDING,
                input => inputs.partition_point(|&other| other < input) as u32,
            };
            let places = |&source: &Source| {
                let taps = self.inputs_of(source);
                let places = if needed.len() == 1 {
                    (0..taps.len() as u32).collect()
                } else {
                    taps.iter().map(place).collect()
                };
                (source.block, places)
            };
            let matrix: Matrix = (needed.iter().map(places).collect(), rows);
            let size = outputs.len().saturating_mul(inputs.len());
            let block = match by_matrix.get(&matrix) {
                Some(&block) => block,
                None => {
                    weights = weights.saturating_add(size);
                    let rows = matrix.1.iter().flat_map(|&list| &lists[list]);
                    let taps = |term: &Term| matrix.0[term.source as usize].1.len();
                    work = rows.clone().flatten().fold(work, |work, term| work.saturating_add(taps(term)));
                    for (what, limit, found) in [
                        ("weights of a chain of linear layers as one map", MOST_INDICES, weights),
                        ("products of two weights in a chain of linear layers", MOST_TERMS, work),
                    ] {
                        if found > limit {
                            return Err(Error::Limit { what, limit, found });
                        }
                    }
                    let first = weights - size;
                    for (row, terms) in rows.enumerate() {
                        for Term { source, row: of, weight } in terms {
                            let (block, places) = &matrix.0[*source as usize];
                            let block = &self.blocks[*block as usize];
                            let own = &block.weights[*of as usize * block.taps..][..block.taps];
                            let taps = places.iter().zip(own).filter(|(place, _)| **place != PADDING);
                            for (place, &own) in taps {
                                let to = first + row * inputs.len() + *place as usize;
                                term(to, own as usize, *weight as usize);
                            }
                        }
                    }
                    let own = (first..weights).map(|weight| weight as u32).collect();
                    blocks.push((inputs.len(), own, Default::default()));
                    by_matrix.insert(matrix, blocks.len() - 1);
                    blocks.len() - 1
                }
            };
            blocks[block].2[0].extend(inputs);
            blocks[block].2[1].extend(outputs);
        }
        let elements = self.input.elements();
        let block = |(taps, weights, columns)| Block::new([taps, elements], weights, columns);
        let blocks = blocks.into_iter().map(block).collect();
        Ok(Self::new([self.input.clone(), next.output.clone()], weights, blocks))
    }

    /// Splits this map followed by a pooling into sums of inputs and the map's own weights: the mean of a convolution
    /// over shifted windows is the convolution of the means of shifted inputs. Returns the sums (whose one weight is
    /// one) and the map from them to the pooling's outputs, in which every weight is used once for each output instead
    /// of once for each position under the pooling's window.
    ///
    /// `None` where the pooling does not pool whole channels, position by position, a window covers nothing but padding,
    /// or the sums would be too large; then [`then`](Self::then) applies.
    pub fn pooled(&self, pooling: &Self) -> Option<[Self; 2]> {
        let [pool] = pooling.blocks.as_slice() else { return None };
        if pool.rows() != 1 || pooling.input.elements() != self.output.elements() {
            return None;
        }
        let sources = self.sources();
        // For each block its windows, with padding in its place: there windows differ that cover the same columns.
        let mut columns: Vec<Vec<Pooled>> = vec![vec![]; self.blocks.len()];
        let mut by_window: HashMap<(u32, Vec<u32>), usize> = HashMap::new();
        for (inputs, output) in pool.pairs() {
            let mut window = vec![PADDING; inputs.len()];
            let mut of = None;
            for (tap, &input) in window.iter_mut().zip(inputs).filter(|(_, input)| **input != PADDING) {
                let (Source { block, column }, row) = sources.get(input as usize).copied().flatten()?;
                if *of.get_or_insert((block, row)) != (block, row) {
                    return None;
                }
                *tap = column;
            }
            let (block, row) = of?;
            let columns = &mut columns[block as usize];
            let column = *by_window.entry((block, window)).or_insert_with_key(|(_, window)| {
                columns.push((window.clone(), vec![None; self.blocks[block as usize].rows()]));
                columns.len() - 1
            });
            if columns[column].1[row as usize].replace(output[0]).is_some() {
                return None;
            }
        }
        let windows =
            columns.iter().map(|columns| columns.iter().map(|(window, _)| window.len()).sum::<usize>());
        let sizes =
            self.blocks.iter().zip(windows).map(|(block, windows)| windows.saturating_mul(block.taps));
        if sizes.fold(0, usize::saturating_add) > MOST_INDICES {
            return None;
        }
        // The sums by the smallest input of each, in which few are alike.
        let mut sums: Vec<Vec<u32>> = vec![];
        let mut by_first: Vec<Vec<u32>> = vec![vec![]; self.input.elements()];
        let mut blocks = vec![];
        let mut of: Vec<u32> = vec![];
        for (block, columns) in self.blocks.iter().zip(columns) {
            let (mut inputs, mut outputs) = (vec![], vec![]);
            for (window, rows) in columns {
                for tap in 0..block.taps {
                    of.clear();
                    of.extend(
                        window
                            .iter()
                            .filter(|&&column| column != PADDING)
                            .map(|&column| block.inputs[column as usize * block.taps + tap])
                            .filter(|&input| input != PADDING),
                    );
                    of.sort_unstable();
                    let Some(&first) = of.first() else {
                        inputs.push(PADDING);
                        continue;
                    };
                    let alike = &mut by_first[first as usize];
                    let known = alike.iter().copied().find(|&at| sums[at as usize] == of);
                    inputs.push(known.unwrap_or_else(|| {
                        let at = sums.len() as u32;
                        alike.push(at);
                        sums.push(of.clone());
                        at
                    }));
                }
                outputs.extend(rows.into_iter().collect::<Option<Vec<_>>>()?);
            }
            if !inputs.is_empty() {
                blocks.push((block.taps, block.weights.clone(), [inputs, outputs]));
            }
        }
        let count = sums.len();
        if count == 0 {
            return None;
        }
        let block = |(taps, weights, columns)| Block::new([taps, count], weights, columns);
        let blocks = blocks.into_iter().map(block).collect();
        let shape = Shape::from([count]);
        let mut columns = Columns::default();
        for (at, inputs) in (0..).zip(sums) {
            columns.add(inputs, at);
        }
        let sums =
            Self::new([self.input.clone(), shape.clone()], 1, columns.into_blocks(self.input.elements()));
        Some([sums, Self::new([shape, pooling.output.clone()], self.weights, blocks)])
    }
}
