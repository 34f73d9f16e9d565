//! Linear maps of encrypted tensors, as products of integer matrices with matrices of ciphertexts.

use std::sync::Arc;

use rayon::prelude::*;

use super::EncTensor;
use crate::arith::Residues;
use crate::layout::Extent;
use crate::matmul::{self, Columns};
use crate::{Arrangement, Error, IntWeights, LinearMap, Product};

impl EncTensor {
    /// Returns the map of every image, multiplied as `product` says, which [`Product::cheapest`] has chosen for this
    /// layout and number of groups.
    ///
    /// # Errors
    /// [`Error::Count`] when the map takes other images or the weights are not its own; [`Error::Layout`] when the
    /// tensor is not laid out for it; [`Error::Overflow`] when the result could overflow its slots.
    pub fn apply(
        &self,
        map: &Arc<LinearMap>,
        weights: &IntWeights,
        product: &Product,
    ) -> Result<Self, Error> {
        for (what, expected, found) in [
            ("elements of an image", map.input().elements(), self.shape().elements()),
            ("weights of a linear map", map.weights(), weights.values().len()),
            ("strategies of a product", map.blocks().len(), product.strategies().len()),
        ] {
            if expected != found {
                return Err(Error::Count { what, expected, found });
            }
        }
        // Checked before the work, so that nothing is multiplied that could overflow its slot.
        let contents = weights.contents(map, self.layout().contents())?;
        let layout = self.layout().after(map, contents)?;
        let groups = self.header.groups();
        let fields = layout.fields();
        let parts: Vec<Residues> = map
            .blocks()
            .par_iter()
            .enumerate()
            .map(|(at, block)| {
                let columns = self.columns(map, at);
                let matrix = weights.matrix(block).with_fields(fields);
                matmul::multiply(self.key.ring(), &matrix, &columns, product.strategies()[at])
            })
            .collect::<Result<_, Error>>()?;
        let ciphertexts = match (layout.arrangement(), &parts[..]) {
            // Outputs come group by group, column by column; the tensor's units are group by group, output by output.
            (Arrangement::Images, parts) => {
                let outputs = map.output().elements();
                let mut order = vec![0; groups * outputs];
                // Outputs without any input are zeros.
                let mut all = self.key.ring().ones(1);
                for (block, part) in map.blocks().iter().zip(parts) {
                    let (columns, rows) = (block.columns(), block.rows());
                    for at in 0..part.len() {
                        let (group, column, row) = (at / (columns * rows), at / rows % columns, at % rows);
                        order[group * outputs + block.output(column, row)] = all.len() + at;
                    }
                    all.append(part);
                }
                all.gather(order)
            }
            (_, [only]) => only.clone(),
            (_, parts) => {
                let mut all = self
                    .key
                    .ring()
                    .empty(layout.count(Extent::new(self.batch(), map.output()).part(self.header.part)));
                for group in 0..groups {
                    for (block, part) in map.blocks().iter().zip(parts) {
                        let rows = block.rows() * fields;
                        all.append(&part.gather(group * rows..(group + 1) * rows));
                    }
                }
                all
            }
        };
        Ok(self.derive(ciphertexts, weights.range().growth(map), (map.output().clone(), layout)))
    }

    /// The ciphertexts that a block of a map multiplies, group by group, column by column.
    fn columns(&self, map: &LinearMap, at: usize) -> Columns {
        let (block, ring) = (&map.blocks()[at], self.key.ring());
        let groups = self.header.groups();
        if let Arrangement::Patches(_) = self.layout().arrangement() {
            let packs = self.layout().packs(map);
            let first: usize = map.blocks()[..at].iter().map(|block| self.layout().packs_of(block)).sum();
            let own = first..first + self.layout().packs_of(block);
            let pool = match map.blocks().len() {
                1 => self.ciphertexts.clone(),
                _ => self
                    .ciphertexts
                    .gather((0..groups).flat_map(|group| own.clone().map(move |pack| group * packs + pack))),
            };
            let count = pool.len();
            return Columns::new(ring, pool, own.len(), (0..count).map(Some));
        }
        let units = self.layout().units_per_group(self.header.extent());
        // The ciphertexts that the block reads at all, and where among them each element lies.
        let mut places = vec![None; units];
        let mut used = vec![];
        for column in 0..block.columns() {
            for input in (0..block.taps()).filter_map(|tap| block.input(column, tap)) {
                places[input].get_or_insert_with(|| {
                    used.push(input);
                    used.len() - 1
                });
            }
        }
        let pool = self
            .ciphertexts
            .gather((0..groups).flat_map(|group| used.iter().map(move |&input| group * units + input)));
        let count = used.len();
        let indices = (0..groups).flat_map(|group| {
            let place = {
                let places = &places;
                move |input: usize| places[input].map(|place| group * count + place)
            };
            (0..block.columns()).flat_map(move |column| {
                (0..block.taps()).map(move |tap| block.input(column, tap).and_then(place))
            })
        });
        Columns::new(ring, pool, block.taps(), indices)
    }
}
