use fhe::bfv::Ciphertext;
use fhe_math::rq::{Poly, Representation, traits::TryConvertFrom};
use ndarray::{Array2, ArrayView1, Axis, Slice};
use pulp::{Simd, WithSimd};
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
                let modulus = context.moduli()[limb];
                let mut out = vec![0; self.rows.len() * length];
                for ((row, bias), out) in self.rows.iter().zip(&biases).zip(out.chunks_exact_mut(length)) {
                    let bias = if polynomial == 0 { bias[limb] } else { 0 };
                    halves.sum(&row.terms, bias, modulus, out);
                }
                out
            })
            .collect();
        // A new ciphertext would be searched for its level, which takes longer than the sums.
        let zero = first + &-first;
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
                let mut sum = zero.clone();
                for (to, coefficients) in sum.iter_mut().zip(polys) {
                    *to = Poly::try_convert_from(coefficients, context, true, Representation::Ntt)?;
                }
                Ok(sum)
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

    /// The sums of one output, with the residue that is added to them.
    fn sum(&self, terms: &[Term], bias: u64, modulus: u64, out: &mut [u64]) {
        let (mut low, mut high) = ([0_i64; BLOCK], [0_i64; BLOCK]);
        let (low, high) = (&mut low[..self.length], &mut high[..self.length]);
        // With the vectors that the processor has: hence inlined.
        for (half, sums) in [(&self.low, &mut *low), (&self.high, &mut *high)] {
            pulp::Arch::new().dispatch(Accumulate { half, terms, sums });
        }
        let inverse = 1.0 / modulus as f64;
        for ((out, &low), &high) in out.iter_mut().zip(&*low).zip(&*high) {
            // Below 2^41, so that it is off by less than two; what is left has 64 bits, whatever the sum has.
            let quotient = ((high as f64 * f64::from(1_u32 << HALF) + low as f64) * inverse) as i64;
            let sum = (high << HALF).wrapping_add(low);
            let rest = sum.wrapping_sub(quotient.wrapping_mul(modulus as i64));
            *out = reduced(reduced(rest, modulus as i64) + bias as i64, modulus as i64) as u64;
        }
    }
}

/// Adds inputs with their weights to sums, with the vectors that the processor has.
struct Accumulate<'a> {
    half: &'a [i32],
    terms: &'a [Term],
    sums: &'a mut [i64],
}

impl WithSimd for Accumulate<'_> {
    type Output = ();

    // Only what is inlined is compiled for those vectors.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let length = self.sums.len();
        for term in self.terms {
            let weight = i64::from(term.weight);
            let block = &self.half[term.input as usize * length..][..length];
            for (sum, &x) in self.sums.iter_mut().zip(block) {
                *sum = sum.wrapping_add(i64::from(x).wrapping_mul(weight));
            }
        }
    }
}

/// The residue of a number less than twice a modulus, of at most 62 bits, from zero.
fn reduced(rest: i64, modulus: i64) -> i64 {
    let rest = if rest < 0 { rest + modulus } else { rest };
    let rest = if rest < 0 { rest + modulus } else { rest };
    if rest >= modulus { rest - modulus } else { rest }
}
