//! Montgomery's reduction of a product of as many pairs of residues' halves as there are lanes, diagonal by diagonal of
//! tiles.

use core::ops::Range;

use super::LIMB_MASK;
use super::lanes;
use super::vector::Vector;

/// Limbs on the side of a tile.
pub(super) const TILE: usize = 5;

pub(super) type Tile<V> = [V; TILE];
pub(super) type Half<V, const N: usize> = [Tile<V>; N];
/// Sums of the low and of the high halves of a diagonal's products; the high ones belong one column up.
pub(super) type Sums<V> = [[V; 2 * TILE - 1]; 2];

/// Which halves of limb products are added: both, or one of them.
const ALL: u8 = 0;
pub(super) const LOW: u8 = 1;
pub(super) const HIGH: u8 = 2;

/// The constants of a modulus, the same in all lanes.
pub(super) struct Tables<'a, V: Vector, const N: usize> {
    /// The token stands for every vector that is made.
    pub(super) token: V::Token,
    pub(super) n: &'a [[u64; TILE]; N],
    pub(super) lift: &'a [[u64; TILE]; N],
    pub(super) negative_inverse: u64,
}

/// A reduction in progress: on the first N diagonals quotient digits are found, on the others limbs come out.
///
/// The digits of a diagonal are a chain of dependent instructions. So that the next diagonal need not wait for it,
/// only what the digits add to their own five columns is computed in the chain; what they add further up comes last
/// in the next diagonal. One loop a diagonal runs over the products and the multiples of the modulus together,
/// because each end of a loop is a branch that is hard to predict. Where there are 16 registers, which the sums of both
/// halves of products do not fit, a first loop adds the lower halves and a second one the upper halves.
pub(super) struct Reduction<'a, V: Vector, const N: usize> {
    tables: &'a Tables<'a, V, N>,
    quotient: Half<V, N>,
    /// The columns of the last diagonal and those above, which the next one takes over.
    columns: [V; 2 * TILE],
    /// What the last five columns that are done carry into the next.
    carry: V,
}

impl<'a, V: Vector, const N: usize> Reduction<'a, V, N> {
    #[inline(always)]
    pub(super) fn new(tables: &'a Tables<'a, V, N>) -> Self {
        let zero = V::splat(tables.token, 0);
        Self { tables, quotient: [[zero; TILE]; N], columns: [zero; 2 * TILE], carry: zero }
    }

    /// Reduces the sum of what `product` adds for each pair (i, j) of tiles into limbs of 52 bits, and returns the
    /// quotient digits. With the quotient of the low half, `V - m` is added first.
    #[inline(always)]
    pub(super) fn run(
        mut self,
        low_quotient: Option<&Half<V, N>>,
        out: &mut Half<V, N>,
        product: &impl Product<V>,
    ) -> Half<V, N> {
        for diagonal in 0..N {
            let mut sums = self.start();
            self.add_tiles(&mut sums, product, 0..diagonal, diagonal);
            if diagonal > 0 {
                self.add_upper_part(&mut sums, diagonal - 1);
            }
            self.collect(&sums);
            if let Some(m) = low_quotient {
                self.add_lift_less(diagonal, &m[diagonal]);
            }
            self.quotient[diagonal] = self.quotient_digits();
        }
        for diagonal in N..2 * N - 1 {
            let mut sums = self.start();
            self.add_tiles(&mut sums, product, diagonal - (N - 1)..N, diagonal);
            if diagonal == N {
                self.add_upper_part(&mut sums, N - 1);
            }
            self.collect(&sums);
            out[diagonal - N] = self.settle();
        }
        let sums = self.start();
        self.collect(&sums);
        out[N - 1] = self.settle();
        self.quotient
    }

    /// Adds the products of a diagonal's tiles, and the multiples of the modulus whose quotient digits are `known`.
    #[inline(always)]
    fn add_tiles(&self, sums: &mut Sums<V>, product: &impl Product<V>, known: Range<usize>, diagonal: usize) {
        if V::ALL_SUMS_FIT {
            self.add_parts::<ALL>(sums, product, known, diagonal);
        } else {
            self.add_parts::<LOW>(sums, product, known.clone(), diagonal);
            self.add_parts::<HIGH>(sums, product, known, diagonal);
        }
    }

    /// One loop.
    #[inline(always)]
    fn add_parts<const PART: u8>(
        &self,
        sums: &mut Sums<V>,
        product: &impl Product<V>,
        known: Range<usize>,
        diagonal: usize,
    ) {
        for i in known {
            let j = diagonal - i;
            product.add::<PART>(sums, i, j);
            multiply_add_same::<V, PART>(self.tables.token, sums, &self.quotient[i], &self.tables.n[j]);
        }
        if diagonal < N {
            product.add::<PART>(sums, diagonal, 0);
        }
    }

    /// The sums of a new diagonal, which begin with the upper columns of the last.
    #[inline(always)]
    fn start(&self) -> Sums<V> {
        let mut sums = [[V::splat(self.tables.token, 0); 2 * TILE - 1]; 2];
        sums[0][..TILE].copy_from_slice(&self.columns[TILE..]);
        sums
    }

    /// Adds what the digits of a diagonal add to the columns above their own, which are those of the next one.
    #[inline(always)]
    fn add_upper_part(&mut self, sums: &mut Sums<V>, diagonal: usize) {
        let digits = self.quotient[diagonal];
        let [low, high] = sums;
        for (j, &limb) in self.tables.n[0].iter().enumerate() {
            let limb = V::splat(self.tables.token, limb);
            for i in TILE - j..TILE {
                low[i + j - TILE] = low[i + j - TILE].multiply_add_low(digits[i], limb);
                high[i + j - TILE] = high[i + j - TILE].multiply_add_high(digits[i], limb);
            }
            self.carry = self.carry.multiply_add_high(digits[TILE - 1 - j], limb);
        }
    }

    /// Turns a diagonal's sums and the carry into columns.
    #[inline(always)]
    fn collect(&mut self, [low, high]: &Sums<V>) {
        self.columns[0] = low[0].add(self.carry);
        for i in 1..2 * TILE - 1 {
            self.columns[i] = low[i].add(high[i - 1]);
        }
        self.columns[2 * TILE - 1] = high[2 * TILE - 2];
    }

    /// Adds five limbs of V and subtracts five digits.
    #[inline(always)]
    fn add_lift_less(&mut self, diagonal: usize, digits: &Tile<V>) {
        for (i, digit) in digits.iter().enumerate() {
            let lift = V::splat(self.tables.token, self.tables.lift[diagonal][i]);
            self.columns[i] = self.columns[i].add(lift.sub(*digit));
        }
    }

    /// The next five quotient digits, which make the five lowest columns multiples of 2^52.
    #[inline(always)]
    fn quotient_digits(&mut self) -> Tile<V> {
        let mut n = [V::splat(self.tables.token, 0); TILE];
        lanes::broadcast(self.tables.token, &mut n, &self.tables.n[0]);
        let negative_inverse = V::splat(self.tables.token, self.tables.negative_inverse);
        let mask = V::splat(self.tables.token, LIMB_MASK);
        let zero = V::splat(self.tables.token, 0);
        let (mut low, mut high) = ([zero; TILE], [zero; TILE]);
        low.copy_from_slice(&self.columns[..TILE]);
        let mut digits = [zero; TILE];
        for i in 0..TILE {
            let column = low[i].add(high[i]);
            digits[i] = zero.multiply_add_low(column, negative_inverse);
            // The low half of digit * n[0] makes the column a multiple of 2^52, so that the carry is its rest rounded
            // up, whatever the digit.
            let carry = column.add(mask).carried();
            if i + 1 < TILE {
                low[i + 1] = low[i + 1].add(carry);
            } else {
                self.carry = carry;
            }
            for j in i + 1..TILE {
                high[j] = high[j].multiply_add_high(digits[i], n[j - i - 1]);
                low[j] = low[j].multiply_add_low(digits[i], n[j - i]);
            }
        }
        digits
    }

    /// The five lowest columns as limbs of 52 bits.
    #[inline(always)]
    fn settle(&mut self) -> Tile<V> {
        let mask = V::splat(self.tables.token, LIMB_MASK);
        let mut limbs = [V::splat(self.tables.token, 0); TILE];
        self.carry = V::splat(self.tables.token, 0);
        for (limb, &column) in limbs.iter_mut().zip(&self.columns) {
            let column = column.add(self.carry);
            *limb = column.and(mask);
            self.carry = column.carried();
        }
        limbs
    }
}

/// What is reduced: the sum of what is added for each pair (i, j) of tiles.
pub(super) trait Product<V> {
    /// Adds a part of the products to the sums of the diagonal i + j. To be inlined.
    fn add<const PART: u8>(&self, sums: &mut Sums<V>, i: usize, j: usize);
}

/// The product of two halves.
pub(super) struct Times<'a, V, const N: usize>(pub(super) &'a Half<V, N>, pub(super) &'a Half<V, N>);

impl<V: Vector, const N: usize> Product<V> for Times<'_, V, N> {
    #[inline(always)]
    fn add<const PART: u8>(&self, sums: &mut Sums<V>, i: usize, j: usize) {
        multiply_add::<V, PART>(sums, &self.0[i], &self.1[j]);
    }
}

/// Both: a loop over them would be one more whose end is hard to predict.
impl<V, A: Product<V>, B: Product<V>> Product<V> for (A, B) {
    #[inline(always)]
    fn add<const PART: u8>(&self, sums: &mut Sums<V>, i: usize, j: usize) {
        self.0.add::<PART>(sums, i, j);
        self.1.add::<PART>(sums, i, j);
    }
}

/// A number, on every diagonal i its tile i, so for j = 0.
pub(super) struct Addend<'a, V, const N: usize>(pub(super) &'a Half<V, N>);

impl<V: Vector, const N: usize> Product<V> for Addend<'_, V, N> {
    #[inline(always)]
    fn add<const PART: u8>(&self, sums: &mut Sums<V>, i: usize, j: usize) {
        if j == 0 && PART != HIGH {
            for (sum, &limb) in sums[0].iter_mut().zip(&self.0[i]) {
                *sum = sum.add(limb);
            }
        }
    }
}

/// Adds the products of two tiles' limbs.
#[inline(always)]
pub(super) fn multiply_add<V: Vector, const PART: u8>(sums: &mut Sums<V>, x: &Tile<V>, y: &Tile<V>) {
    for (j, &limb) in y.iter().enumerate() {
        multiply_add_limb::<V, PART>(sums, x, limb, j);
    }
}

/// Adds the products of a tile's limbs with limbs that are the same in all lanes, the modulus's for one.
#[inline(always)]
pub(super) fn multiply_add_same<V: Vector, const PART: u8>(
    token: V::Token,
    sums: &mut Sums<V>,
    x: &Tile<V>,
    y: &[u64; TILE],
) {
    for (j, &limb) in y.iter().enumerate() {
        multiply_add_limb::<V, PART>(sums, x, V::splat(token, limb), j);
    }
}

/// Adds the products of a tile's limbs with the limb `at` of another.
#[inline(always)]
fn multiply_add_limb<V: Vector, const PART: u8>(sums: &mut Sums<V>, x: &Tile<V>, limb: V, at: usize) {
    let [low, high] = sums;
    if PART != HIGH {
        for i in 0..TILE {
            low[i + at] = low[i + at].multiply_add_low(x[i], limb);
        }
    }
    if PART != LOW {
        for i in 0..TILE {
            high[i + at] = high[i + at].multiply_add_high(x[i], limb);
        }
    }
}
