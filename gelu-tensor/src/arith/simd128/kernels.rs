//! Products and squares, four rows at a time.

use core::arch::wasm32::*;

use super::BLOCK;
use super::limbs::{LIMB_BITS, MASK};

/// A number in blocks of four limbs, each below 2^28.
pub(super) type Half<const N: usize> = [v128; N];

/// Four columns: sums of products, of 64 bits each.
type Columns = [v128; 2];

/// Blocks of rows after which columns carry once.
const BLOCKS_AT_ONCE: usize = 16;

/// A factor, moved up by no limb, one, two and three, so that rows add to whole blocks of columns.
struct Rows<const N: usize> {
    blocks: [[v128; BLOCK]; N],
    /// What is moved out at the top.
    top: [v128; BLOCK],
    /// Its four lowest limbs.
    low: [u64; BLOCK],
}

/// The constants of a modulus.
pub(super) struct Tables<const N: usize> {
    n: Rows<N>,
    lift: Half<N>,
    negative_inverse: u32,
}

impl<const N: usize> Tables<N> {
    pub(super) fn new(n: &[u64], lift: &[u64], negative_inverse: u32) -> Self {
        Self { n: Rows::new(&load_half(n)), lift: load_half(lift), negative_inverse }
    }
}

#[inline(always)]
fn load_half<const N: usize>(pairs: &[u64]) -> Half<N> {
    let blocks = pairs.as_chunks::<2>().0;
    core::array::from_fn(|k| u64x2(blocks[k][0], blocks[k][1]))
}

/// Both halves of a residue.
#[inline(always)]
pub(super) fn load<const N: usize>(residue: &[u64]) -> [Half<N>; 2] {
    let (a, b) = residue.split_at(2 * N);
    [load_half(a), load_half(b)]
}

#[inline(always)]
pub(super) fn store<const N: usize>(residue: &mut [u64], halves: &[Half<N>; 2]) {
    for (pair, &block) in residue.as_chunks_mut::<2>().0.iter_mut().zip(halves.as_flattened()) {
        *pair = [u64x2_extract_lane::<0>(block), u64x2_extract_lane::<1>(block)];
    }
}

#[inline(always)]
fn limbs(block: v128) -> [u64; BLOCK] {
    [
        u32x4_extract_lane::<0>(block),
        u32x4_extract_lane::<1>(block),
        u32x4_extract_lane::<2>(block),
        u32x4_extract_lane::<3>(block),
    ]
    .map(u64::from)
}

/// Each limb in all lanes of a vector.
#[inline(always)]
fn splats(block: v128) -> [v128; BLOCK] {
    [
        u32x4_shuffle::<0, 0, 0, 0>(block, block),
        u32x4_shuffle::<1, 1, 1, 1>(block, block),
        u32x4_shuffle::<2, 2, 2, 2>(block, block),
        u32x4_shuffle::<3, 3, 3, 3>(block, block),
    ]
}

/// Four limbs from a block on and from the one below, moved up by 0 to 3.
#[inline(always)]
fn moved(below: v128, block: v128) -> [v128; BLOCK] {
    [
        block,
        u32x4_shuffle::<3, 4, 5, 6>(below, block),
        u32x4_shuffle::<2, 3, 4, 5>(below, block),
        u32x4_shuffle::<1, 2, 3, 4>(below, block),
    ]
}

impl<const N: usize> Rows<N> {
    #[inline(always)]
    fn new(number: &Half<N>) -> Self {
        let zero = u64x2_splat(0);
        let blocks = core::array::from_fn(|k| moved(if k == 0 { zero } else { number[k - 1] }, number[k]));
        Self { blocks, top: moved(number[N - 1], zero), low: limbs(number[0]) }
    }
}

/// Adds the products of four limbs, each in all lanes, with the rows' four blocks.
#[inline(always)]
fn multiply_add(columns: &mut Columns, x: &[v128; BLOCK], rows: &[v128; BLOCK]) {
    for (&x, &row) in x.iter().zip(rows) {
        columns[0] = u64x2_add(columns[0], u64x2_extmul_low_u32x4(x, row));
        columns[1] = u64x2_add(columns[1], u64x2_extmul_high_u32x4(x, row));
    }
}

/// A reduction in progress: the columns from the next quotient digit on.
struct Reduction<'a, const N: usize> {
    tables: &'a Tables<N>,
    columns: [Columns; N],
}

impl<'a, const N: usize> Reduction<'a, N> {
    /// Begins with 0.
    #[inline(always)]
    fn new(tables: &'a Tables<N>) -> Self {
        Self { tables, columns: [[u64x2_splat(0); 2]; N] }
    }

    /// Begins with a multiple of n that is at least R, less the quotient of a low half.
    #[inline(always)]
    fn lifted(tables: &'a Tables<N>, quotient: &Half<N>) -> Self {
        let columns = core::array::from_fn(|k| {
            let limbs = u32x4_sub(tables.lift[k], quotient[k]);
            [u64x2_extend_low_u32x4(limbs), u64x2_extend_high_u32x4(limbs)]
        });
        Self { tables, columns }
    }

    /// Adds four rows of each product, and the multiples of n that make the four lowest columns vanish: those four quotient
    /// digits.
    #[inline(always)]
    fn step<const K: usize>(&mut self, x: [v128; K], rows: [&Rows<N>; K]) -> v128 {
        let mask = u64::from(MASK);
        let [first, second] = self.columns[0];
        let mut lowest = [
            u64x2_extract_lane::<0>(first),
            u64x2_extract_lane::<1>(first),
            u64x2_extract_lane::<0>(second),
            u64x2_extract_lane::<1>(second),
        ];
        for k in 0..K {
            let x = limbs(x[k]);
            for i in 0..BLOCK {
                for j in 0..=i {
                    lowest[i] = lowest[i].wrapping_add(x[j].wrapping_mul(rows[k].low[i - j]));
                }
            }
        }
        let n = &self.tables.n;
        let (mut digits, mut carry) = ([0_u64; BLOCK], 0);
        for i in 0..BLOCK {
            let mut column = lowest[i].wrapping_add(carry);
            for j in 0..i {
                column = column.wrapping_add(digits[j].wrapping_mul(n.low[i - j]));
            }
            digits[i] = u64::from((column as u32).wrapping_mul(self.tables.negative_inverse)) & mask;
            carry = column.wrapping_add(digits[i].wrapping_mul(n.low[0])) >> LIMB_BITS;
        }
        let [d0, d1, d2, d3] = digits.map(|digit| digit as u32);
        let quotient = u32x4(d0, d1, d2, d3);
        let digits = splats(quotient);
        let x = x.map(splats);
        for block in 1..N {
            let mut columns = self.columns[block];
            for k in 0..K {
                multiply_add(&mut columns, &x[k], &rows[k].blocks[block]);
            }
            multiply_add(&mut columns, &digits, &n.blocks[block]);
            self.columns[block - 1] = columns;
        }
        let mut top = [u64x2_splat(0); 2];
        for k in 0..K {
            multiply_add(&mut top, &x[k], &rows[k].top);
        }
        multiply_add(&mut top, &digits, &n.top);
        self.columns[N - 1] = top;
        self.columns[0][0] = u64x2_add(self.columns[0][0], u64x2(carry, 0));
        quotient
    }

    /// Lets every column but those of the highest block, which have few products yet, carry into the next, once.
    #[inline(always)]
    fn carry(&mut self) {
        let mask = u64x2_splat(u64::from(MASK));
        let mut below = u64x2_splat(0);
        for columns in &mut self.columns[..N - 1] {
            for pair in columns {
                let carried = u64x2_shr(*pair, LIMB_BITS as u32);
                *pair = u64x2_add(v128_and(*pair, mask), u64x2_shuffle::<1, 2>(below, carried));
                below = carried;
            }
        }
        let lowest = &mut self.columns[N - 1][0];
        *lowest = u64x2_add(*lowest, u64x2_shuffle::<1, 2>(below, u64x2_splat(0)));
    }

    /// All rows of products, and the quotient.
    #[inline(always)]
    fn run<const K: usize>(&mut self, x: [&Half<N>; K], rows: [&Rows<N>; K]) -> Half<N> {
        let mut quotient = [u64x2_splat(0); N];
        for block in 0..N {
            if block > 0 && block % BLOCKS_AT_ONCE == 0 {
                self.carry();
            }
            quotient[block] = self.step(x.map(|x| x[block]), rows);
        }
        quotient
    }

    /// The columns as limbs of 28 bits.
    #[inline(always)]
    fn settle(&self) -> Half<N> {
        let (mask, mut carry) = (u64::from(MASK), 0);
        self.columns.map(|[first, second]| {
            let columns = [
                u64x2_extract_lane::<0>(first),
                u64x2_extract_lane::<1>(first),
                u64x2_extract_lane::<0>(second),
                u64x2_extract_lane::<1>(second),
            ];
            let [l0, l1, l2, l3] = columns.map(|column| {
                let column = column.wrapping_add(carry);
                carry = column >> LIMB_BITS;
                (column & mask) as u32
            });
            u32x4(l0, l1, l2, l3)
        })
    }
}

/// The n-adic Montgomery product: 5 L^2 limb products.
#[inline(never)]
pub(super) fn mul<const N: usize>(
    tables: &Tables<N>,
    [a, b]: &[Half<N>; 2],
    [c, d]: &[Half<N>; 2],
) -> [Half<N>; 2] {
    let (c, d) = (Rows::new(c), Rows::new(d));
    let mut low = Reduction::new(tables);
    let quotient = low.run([a], [&c]);
    let mut high = Reduction::lifted(tables, &quotient);
    high.run([a, b], [&d, &c]);
    [low.settle(), high.settle()]
}

/// The n-adic Montgomery square: as the product, with one row in place of two for the high half.
#[inline(never)]
pub(super) fn square<const N: usize>(tables: &Tables<N>, [a, b]: &[Half<N>; 2]) -> [Half<N>; 2] {
    let mut low = Reduction::new(tables);
    let quotient = low.run([a], [&Rows::new(a)]);
    let mut high = Reduction::lifted(tables, &quotient);
    // Twice a limb is below 2^29.
    let twice = a.map(|block| u32x4_add(block, block));
    high.run([&twice], [&Rows::new(b)]);
    [low.settle(), high.settle()]
}

/// The Montgomery product of two numbers.
#[inline(never)]
pub(super) fn mul_half<const N: usize>(tables: &Tables<N>, x: &Half<N>, y: &Half<N>) -> Half<N> {
    let mut product = Reduction::new(tables);
    product.run([x], [&Rows::new(y)]);
    product.settle()
}

/// Products in chains that do not wait for each other: how many for each turn.
pub(super) const CHAINS: usize = 8;

pub(super) fn chains(turns: usize, seed: u32) -> [u64; CHAINS] {
    let x = u32x4_splat(seed);
    let mut sums = [u64x2_splat(0); CHAINS];
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = u64x2_add(*sum, u64x2_extmul_low_u32x4(x, *sum));
        }
    }
    sums.map(|sum| u64x2_extract_lane::<0>(sum))
}
