use fhe::bfv::Ciphertext;
use fhe_math::rq::{Poly, Representation, traits::TryConvertFrom};
use ndarray::{Array2, ArrayView1, Axis, Slice};
use rayon::prelude::*;

use super::Channel;

/// Coefficients that are worked on together: those of all inputs stay in a cache.
const BLOCK: usize = 512;
/// Residues have at most 62 bits, and are summed in halves.
const HALF: u32 = 31;

/// An input with its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Which input.
    pub input: u32,
    /// Its factor.
    pub weight: i32,
}

/// One output: a sum of inputs with weights, and a bias.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SumRow {
    /// The inputs that are not left out.
    pub terms: Vec<Term>,
    /// What is added.
    pub bias: i128,
}

/// An affine map of integers: what a linear layer does, to integers and to ciphertexts of one input each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// The outputs.
    pub rows: Vec<SumRow>,
}

impl Sums {
    /// Returns the outputs of integers.
    pub fn apply_clear(&self, inputs: &[i128]) -> Vec<i128> {
        let sum = |row: &SumRow| {
            let products = row.terms.iter().map(|term| inputs[term.input as usize] * i128::from(term.weight));
            row.bias + products.sum::<i128>()
        };
        self.rows.iter().map(sum).collect()
    }

    /// Returns the number of products of an input and a weight.
    pub fn products(&self) -> usize {
        self.rows.iter().map(|row| row.terms.len()).sum()
    }

    /// Returns the least number of bits b for which no output's weights have a root of their sum of squares above 2^b: what
    /// noise grows by, which is independent from ciphertext to ciphertext.
    pub fn growth_bits(&self) -> u32 {
        let squares = |row: &SumRow| row.terms.iter().map(|term| f64::from(term.weight).powi(2)).sum::<f64>();
        let most = self.rows.iter().map(squares).fold(1.0, f64::max);
        most.sqrt().log2().ceil() as u32
    }

    /// Returns the outputs of ciphertexts, which are all of the same level and number of polynomials.
    ///
    /// A weight is the same in all slots, so that it multiplies the coefficients of a ciphertext as an integer, without
    /// a plaintext polynomial; sums are reduced once.
    ///
    /// # Errors
    /// The crate's, for ciphertexts of another channel.
    pub fn apply(&self, channel: &Channel, inputs: &[Ciphertext]) -> fhe::Result<Vec<Ciphertext>> {
        let Some(first) = inputs.first() else { return Ok(vec![]) };
        let context = first[0].ctx();
        let (polynomials, limbs, degree) = (first.len(), context.moduli().len(), channel.slots());
        let length = BLOCK.min(degree);
        let starts = || (0..degree).step_by(length);
        let jobs: Vec<[usize; 3]> = (0..polynomials)
            .flat_map(|polynomial| (0..limbs).map(move |limb| [polynomial, limb]))
            .flat_map(|[polynomial, limb]| starts().map(move |start| [polynomial, limb, start]))
            .collect();
        let biases: Vec<Vec<u64>> = self.rows.iter().map(|row| channel.constant(context, row.bias)).collect();
        let blocks: Vec<Vec<u64>> = jobs
            .par_iter()
            .map(|&[polynomial, limb, start]| {
                let halves = Halves::of(inputs, [polynomial, limb, start], length);
                let modulus = &context.moduli_operators()[limb];
                // Added to sums, so that they are not negative: |sums| < 2^(62 + 32).
                let offset = u128::from(context.moduli()[limb]) << 40;
                let mut out = Vec::with_capacity(self.rows.len() * length);
                for (row, bias) in self.rows.iter().zip(&biases) {
                    let bias = if polynomial == 0 { offset + u128::from(bias[limb]) } else { offset };
                    out.extend(
                        halves.sum(&row.terms).map(|sum| modulus.reduce_u128(bias.wrapping_add_signed(sum))),
                    );
                }
                out
            })
            .collect();
        (0..self.rows.len())
            .into_par_iter()
            .map(|output| {
                let mut polys = vec![Array2::zeros((limbs, degree)); polynomials];
                for (&[polynomial, limb, start], block) in jobs.iter().zip(&blocks) {
                    let part = &block[output * length..][..length];
                    let row = polys[polynomial].row_mut(limb);
                    let mut block = row.slice_axis_move(Axis(0), Slice::from(start..start + length));
                    block.assign(&ArrayView1::from(part));
                }
                let poly =
                    |coefficients| Poly::try_convert_from(coefficients, context, true, Representation::Ntt);
                let polys = polys.into_iter().map(poly).collect::<Result<_, _>>()?;
                Ciphertext::new(polys, channel.parameters())
            })
            .collect()
    }
}

/// The lower and upper halves of a block of residues of all inputs.
struct Halves {
    length: usize,
    low: Vec<i32>,
    high: Vec<i32>,
}

impl Halves {
    fn of(inputs: &[Ciphertext], [polynomial, limb, start]: [usize; 3], length: usize) -> Self {
        let count = inputs.len() * length;
        let (mut low, mut high) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for input in inputs {
            let row = input[polynomial].coefficients().index_axis_move(Axis(0), limb);
            for &residue in row.slice_axis(Axis(0), Slice::from(start..start + length)) {
                low.push((residue & ((1 << HALF) - 1)) as i32);
                high.push((residue >> HALF) as i32);
            }
        }
        Self { length, low, high }
    }

    /// The sums of one output, not reduced.
    fn sum(&self, terms: &[Term]) -> impl Iterator<Item = i128> + use<> {
        let mut sums = [vec![0_i64; self.length], vec![0_i64; self.length]];
        // With the vectors that the processor has.
        pulp::Arch::new().dispatch(|| {
            for (half, sums) in [&self.low, &self.high].into_iter().zip(&mut sums) {
                for term in terms {
                    let weight = i64::from(term.weight);
                    let block = &half[term.input as usize * self.length..][..self.length];
                    for (sum, &x) in sums.iter_mut().zip(block) {
                        *sum = sum.wrapping_add(i64::from(x).wrapping_mul(weight));
                    }
                }
            }
        });
        let [low, high] = sums;
        low.into_iter().zip(high).map(|(low, high)| i128::from(low) + (i128::from(high) << HALF))
    }
}
