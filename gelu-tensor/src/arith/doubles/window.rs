//! The sums of one window of seven columns, by operations on vectors: on instruction sets with as many registers as
//! compilers need to keep them there. How much room they have is in docs/arithmetic.md, section 8.

use core::ops::Range;

use super::TILE;
use super::sums::{DOUBLE, HIGH, LIMB, LOW, OFFSET, Tile, column_above};
use super::vector::{Bits, MOST_LANES};

/// The most products in an upper sum before it is taken.
const MOST_HIGH: usize = 15;
/// The most that a lower sum holds, and can hold before an upper sum is taken next.
const MOST_LOW: usize = 32;

/// The sums of a window of seven columns, and what they hold.
pub(super) struct Window<V> {
    high: Tile<V>,
    low: Tile<V>,
    /// What was taken from the upper sums, as integers.
    taken: Tile<V>,
    times_taken: u64,
    room: Room,
}

/// How many products upper and lower sums may still take.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) high: usize,
    pub(super) low: usize,
}

impl<V: Bits> Window<V> {
    #[inline(always)]
    pub(super) fn new(token: V::Token) -> Self {
        let zero = V::splat(token, 0.0);
        let high = V::splat(token, f64::from_bits(HIGH));
        let room = Room { high: MOST_HIGH, low: MOST_LOW };
        Self { high: [high; TILE], low: [zero; TILE], taken: [zero; TILE], times_taken: 0, room }
    }

    /// Makes room for what products take.
    #[inline(always)]
    pub(super) fn make_room(&mut self, token: V::Token, products: Room) {
        if products.high > self.room.high {
            if self.room.low < MOST_HIGH {
                self.fold();
                self.room.low = MOST_LOW - 1;
            }
            for (high, taken) in self.high.iter_mut().zip(&mut self.taken) {
                *taken = taken.add_bits(*high);
                *high = V::splat(token, f64::from_bits(HIGH));
            }
            self.room.high = MOST_HIGH;
            self.times_taken += 1;
        }
        self.room.high -= products.high;
        self.room.low -= products.low;
    }

    /// Puts the upper parts of lower sums to upper sums.
    #[inline(always)]
    fn fold(&mut self) {
        for (high, low) in self.high.iter_mut().zip(&mut self.low) {
            let before = *high;
            *high = before.add(*low);
            *low = low.add(before.sub(*high));
        }
    }

    /// A limb times those of a tile from `first` on, in some columns.
    #[inline(always)]
    fn row(&mut self, x: V, tile: &Tile<V>, first: usize, columns: Range<usize>) {
        for s in columns.clone() {
            let y = tile[first + s - columns.start];
            let before = self.high[s];
            self.high[s] = before.multiply_add(x, y);
            self.low[s] = self.low[s].add(before.sub(self.high[s]).multiply_add(x, y));
        }
    }

    /// Row r of a tile's products with the limbs from 0 on of another.
    #[inline(always)]
    fn lower_row(&mut self, x: V, tile: &Tile<V>, r: usize) {
        self.row(x, tile, 0, r..TILE);
    }

    /// Row r of a tile's products with the limbs below 0, which the tile below has.
    #[inline(always)]
    fn upper_row(&mut self, x: V, below: &Tile<V>, r: usize) {
        self.row(x, below, TILE - r, 0..r);
    }

    #[inline(always)]
    pub(super) fn lower(&mut self, [x0, x1, x2, x3, x4, x5, x6]: &Tile<V>, tile: &Tile<V>) {
        self.lower_row(*x0, tile, 0);
        self.lower_row(*x1, tile, 1);
        self.lower_row(*x2, tile, 2);
        self.lower_row(*x3, tile, 3);
        self.lower_row(*x4, tile, 4);
        self.lower_row(*x5, tile, 5);
        self.lower_row(*x6, tile, 6);
    }

    #[inline(always)]
    fn upper(&mut self, [_, x1, x2, x3, x4, x5, x6]: &Tile<V>, below: &Tile<V>) {
        self.upper_row(*x1, below, 1);
        self.upper_row(*x2, below, 2);
        self.upper_row(*x3, below, 3);
        self.upper_row(*x4, below, 4);
        self.upper_row(*x5, below, 5);
        self.upper_row(*x6, below, 6);
    }

    /// All products of a tile that fall into the window.
    #[inline(always)]
    fn full(&mut self, x: &Tile<V>, below: &Tile<V>, tile: &Tile<V>) {
        self.lower(x, tile);
        self.upper(x, below);
    }

    /// The lower seven columns of a tile's square, given twice the tile.
    #[inline(always)]
    fn lower_square(&mut self, twice: &Tile<V>, tile: &Tile<V>) {
        self.row(twice[0], tile, 1, 1..7);
        self.row(twice[1], tile, 2, 3..7);
        self.row(twice[2], tile, 3, 5..7);
        self.row(tile[0], tile, 0, 0..1);
        self.row(tile[1], tile, 1, 2..3);
        self.row(tile[2], tile, 2, 4..5);
        self.row(tile[3], tile, 3, 6..7);
    }

    /// The upper ones.
    #[inline(always)]
    fn upper_square(&mut self, twice: &Tile<V>, tile: &Tile<V>) {
        self.row(twice[1], tile, 6, 0..1);
        self.row(twice[2], tile, 5, 0..2);
        self.row(twice[3], tile, 4, 0..3);
        self.row(twice[4], tile, 5, 2..4);
        self.row(twice[5], tile, 6, 4..5);
        self.row(tile[4], tile, 4, 1..2);
        self.row(tile[5], tile, 5, 3..4);
        self.row(tile[6], tile, 6, 5..6);
    }

    /// Those products of `x y` that fall into window w.
    #[inline(always)]
    pub(super) fn add_product(
        &mut self,
        token: V::Token,
        w: usize,
        Product { x, first, y, weight }: Product<'_, V>,
    ) {
        for i in w.saturating_sub(y.len()).max(first)..(w + 1).min(first + x.len()) {
            let (x, at) = (&x[i - first], w - i);
            if at == 0 {
                self.make_room(token, Room { high: 7 * weight, low: 7 });
                self.lower(x, &y[0]);
            } else if at == y.len() {
                self.make_room(token, Room { high: 6 * weight, low: 6 });
                self.upper(x, &y[at - 1]);
            } else {
                self.make_room(token, Room { high: 7 * weight, low: 7 });
                self.full(x, &y[at - 1], &y[at]);
            }
        }
    }

    /// The same of x^2, given twice x.
    #[inline(always)]
    pub(super) fn add_square(&mut self, token: V::Token, w: usize, [twice, x]: [&[Tile<V>]; 2]) {
        let (count, half) = (x.len(), w / 2);
        let first = w.saturating_sub(count);
        for (i, twice) in twice.iter().enumerate().take(half + w % 2).skip(first) {
            let at = w - i;
            if at == i + 1 {
                if at < count {
                    self.make_room(token, Room { high: 14, low: 7 });
                    self.lower(twice, &x[at]);
                }
            } else if at == count {
                self.make_room(token, Room { high: 12, low: 6 });
                self.upper(twice, &x[at - 1]);
            } else {
                self.make_room(token, Room { high: 14, low: 7 });
                self.full(twice, &x[at - 1], &x[at]);
            }
        }
        self.make_room(token, Room { high: 7, low: 4 });
        if w.is_multiple_of(2) {
            self.lower_square(&twice[half], &x[half]);
        } else {
            self.upper_square(&twice[half], &x[half]);
        }
    }

    /// Adds limbs.
    #[inline(always)]
    pub(super) fn add_limbs(&mut self, limbs: &Tile<V>) {
        for (low, &limb) in self.low.iter_mut().zip(limbs) {
            *low = low.add(limb);
        }
        self.room.low -= 1;
    }

    /// Subtracts limbs.
    #[inline(always)]
    pub(super) fn sub_limbs(&mut self, limbs: &Tile<V>) {
        for (low, &limb) in self.low.iter_mut().zip(limbs) {
            *low = low.sub(limb);
        }
        self.room.low -= 1;
    }

    /// The columns as limbs, given what comes from below, and what goes to the column above.
    #[inline(always)]
    pub(super) fn settle(mut self, token: V::Token, mut carry: V) -> (Tile<V>, V) {
        let bits = |bits| V::of_lanes(token, [bits; MOST_LANES]);
        self.fold();
        let above = bits(column_above(self.times_taken));
        let mut limbs = self.low;
        for (s, limb) in limbs.iter_mut().enumerate() {
            let column = limb.add(bits(LOW)).add_bits(carry);
            let high = self.high[s].add_bits(self.taken[s]).add_bits(above);
            carry = high.add_bits(column.carried());
            *limb = column.and_bits(bits(LIMB)).or_bits(bits(DOUBLE)).sub(V::splat(token, OFFSET));
        }
        (limbs, carry)
    }
}

/// The product of two numbers, of which the first begins at a tile.
pub(super) struct Product<'a, V> {
    pub(super) x: &'a [Tile<V>],
    pub(super) first: usize,
    pub(super) y: &'a [Tile<V>],
    /// 2 if the limbs of x were doubled.
    pub(super) weight: usize,
}
