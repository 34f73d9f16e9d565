//! Sums of products mod n^2, window after window. What is computed is in docs/arithmetic.md, section 8.

use core::slice;

use super::TILE;
use super::sums::{COLUMN, Digit, Lanes, Modulus, Sums, Tile};
use super::vector::{Bits, MOST_LANES};
use super::window::{Product, Room, Window};
use crate::arith::kernel::Work;

/// What is added up for a digit.
#[derive(Clone, Copy)]
struct Terms<'a, V> {
    products: &'a [[&'a [Tile<V>]; 2]],
    /// 2 if the limbs of the first factors were doubled.
    weight: usize,
    /// Twice a number, and the number.
    square: Option<[&'a [Tile<V>]; 2]>,
    addend: &'a [Tile<V>],
}

impl<'a, V> Terms<'a, V> {
    const NONE: Self = Self { products: &[], weight: 1, square: None, addend: &[] };

    fn products(products: &'a [[&'a [Tile<V>]; 2]]) -> Self {
        Self { products, ..Self::NONE }
    }
}

/// A digit on the way from terms to `terms / R mod n`.
struct Reduced<'a, V> {
    terms: Terms<'a, V>,
    /// The limbs of the first windows but for the last of them, and m: what the quotient is made of.
    quotient: &'a mut [Tile<V>],
    out: &'a mut [Tile<V>],
    carry: V,
}

/// Goes through the windows of a lower digit and, if there is one, an upper digit, from which the quotient of the lower
/// one is subtracted.
struct Walk<'a, V: Bits> {
    token: V::Token,
    /// Of a [`Modulus`].
    constants: &'a [Tile<V>],
    digits: &'a mut [Reduced<'a, V>],
}

impl<V: Bits> Work for Walk<'_, V> {
    #[inline(always)]
    fn run(self) {
        let Self { token, constants, digits } = self;
        let count = constants.len() / 2 - 1;
        let (n, constants) = constants.split_at(count);
        let (p, k) = constants.split_at(count);
        let column = V::of_lanes(token, [COLUMN; MOST_LANES]);
        for w in 0..2 * count {
            for at in 0..digits.len() {
                let (lower, rest) = digits.split_at_mut(at);
                let lower: &[Tile<V>] = lower.first().map_or(&[], |lower| lower.quotient);
                let Reduced { terms, quotient, out, carry } = &mut rest[0];
                let mut window = Window::new(token);
                for &[x, y] in terms.products {
                    window.add_product(token, w, Product { x, first: 0, y, weight: terms.weight });
                }
                if let Some(square) = terms.square {
                    window.add_square(token, w, square);
                }
                if let Some(addend) = terms.addend.get(w) {
                    window.add_limbs(addend);
                }
                let (m, x) =
                    quotient.split_last().map_or((&[][..], &[][..]), |(m, x)| (slice::from_ref(m), x));
                let mut reduction = [
                    Product { x, first: 1, y: p, weight: 1 },
                    Product { x: &[], first: count - 1, y: n, weight: 1 },
                    Product { x: &[], first: 0, y: &[], weight: 1 },
                ];
                if w >= count {
                    reduction[1].x = m;
                }
                if let [x @ .., m] = lower {
                    reduction[2].x = &k[1..];
                    reduction[2].y = x;
                    if w == count - 1 {
                        window.sub_limbs(m);
                    }
                }
                for product in reduction {
                    window.add_product(token, w, product);
                }
                let (limbs, above) = window.settle(token, *carry);
                *carry = above;
                if w >= count {
                    out[w - count] = limbs;
                } else if w < count - 1 {
                    quotient[w] = limbs;
                } else {
                    // m = x K mod B
                    let mut window = Window::new(token);
                    window.make_room(token, Room { high: 7, low: 7 });
                    window.lower(&limbs, &k[0]);
                    let (m, _) = window.settle(token, column);
                    quotient[w] = m;
                    // x + m n carries only.
                    let mut window = Window::new(token);
                    window.add_limbs(&limbs);
                    window.make_room(token, Room { high: 7, low: 7 });
                    window.lower(&m, &n[0]);
                    let (_, spare) = window.settle(token, column);
                    *carry = carry
                        .add_bits(spare)
                        .add_bits(V::of_lanes(token, [COLUMN.wrapping_neg(); MOST_LANES]));
                }
            }
        }
    }
}

/// Sums, with the space that they need.
pub(in crate::arith) struct Windows<'a, V: Bits, const N: usize> {
    modulus: Modulus<'a, V, N>,
    quotients: Lanes<V, N>,
    twice: Digit<V, N>,
}

impl<V: Bits, const N: usize> Windows<'_, V, N> {
    fn sum(&mut self, [low, high]: [Terms<'_, V>; 2], [out_low, out_high]: &mut Lanes<V, N>) {
        let token = self.modulus.token;
        let carry = V::of_lanes(token, [COLUMN; MOST_LANES]);
        let [low_quotient, high_quotient] = &mut self.quotients;
        let digits = &mut [
            Reduced { terms: low, quotient: low_quotient, out: out_low, carry },
            Reduced { terms: high, quotient: high_quotient, out: out_high, carry },
        ];
        V::run(token, Walk { token, constants: self.modulus.constants, digits });
    }
}

impl<'a, V: Bits, const N: usize> Sums<'a, V, N> for Windows<'a, V, N> {
    #[inline(always)]
    fn new(modulus: Modulus<'a, V, N>) -> Self {
        let zero = V::splat(modulus.token, 0.0);
        Self { modulus, quotients: [[[zero; TILE]; N]; 2], twice: [[zero; TILE]; N] }
    }

    fn product(&mut self, [a, b]: &Lanes<V, N>, [c, d]: &Lanes<V, N>, out: &mut Lanes<V, N>) {
        self.sum([Terms::products(&[[a, c]]), Terms::products(&[[a, d], [b, c]])], out);
    }

    fn product_low(&mut self, [a, b]: &Lanes<V, N>, c: &Digit<V, N>, out: &mut Lanes<V, N>) {
        self.sum([Terms::products(&[[a, c]]), Terms::products(&[[b, c]])], out);
    }

    fn square(&mut self, [a, b]: &Lanes<V, N>, out: &mut Lanes<V, N>) {
        let mut twice = self.twice;
        for (twice, &limb) in twice.as_flattened_mut().iter_mut().zip(a.as_flattened()) {
            *twice = limb.add(limb);
        }
        let low = Terms { square: Some([&twice, a]), ..Terms::NONE };
        self.sum([low, Terms { weight: 2, ..Terms::products(&[[&twice, b]]) }], out);
        self.twice = twice;
    }

    fn reduce(&mut self, [a, b]: &Lanes<V, N>, out: &mut Lanes<V, N>) {
        self.sum([Terms { addend: a, ..Terms::NONE }, Terms { addend: b, ..Terms::NONE }], out);
    }

    fn digit_product(&mut self, x: &Digit<V, N>, y: &Digit<V, N>, out: &mut Digit<V, N>) {
        let token = self.modulus.token;
        let carry = V::of_lanes(token, [COLUMN; MOST_LANES]);
        let products: &[[&[_]; 2]] = &[[x, y]];
        let terms = Terms::products(products);
        let digits = &mut [Reduced { terms, quotient: &mut self.quotients[0], out, carry }];
        V::run(token, Walk { token, constants: self.modulus.constants, digits });
    }

    fn project(&mut self, [a, b, c, d]: &[Digit<V, N>; 4], y: &[Digit<V, N>; 6], out: &mut Lanes<V, N>) {
        let low: &[[&[_]; 2]] = &[[a, &y[0]], [b, &y[1]]];
        let high: &[[&[_]; 2]] = &[[a, &y[2]], [b, &y[3]], [c, &y[4]], [d, &y[5]]];
        self.sum([low, high].map(Terms::products), out);
    }

    fn combine<const M: usize>(
        &mut self,
        [a, b, c, d]: &[Digit<V, M>; 4],
        y: &[Digit<V, N>; 8],
        out: &mut Lanes<V, N>,
    ) {
        let low: &[[&[_]; 2]] = &[[a, &y[0]], [b, &y[1]], [c, &y[2]], [d, &y[3]]];
        let high: &[[&[_]; 2]] = &[[a, &y[4]], [b, &y[5]], [c, &y[6]], [d, &y[7]]];
        self.sum([low, high].map(Terms::products), out);
    }
}

/// The sums of x86-64 are in assembly. Both are exact, so that limbs are equal.
#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use num_bigint::BigInt;
    use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

    use super::super::tests::{extremes, moduli, on_every_vector};
    use super::super::vector::Vector;
    use super::super::{Context, to_bits};
    use super::*;
    use crate::arith::limbs::from_biguint;
    use crate::arith::ring::MODULUS_BITS;

    struct Case<V: Vector> {
        context: Context<V>,
        digits: Vec<Vec<i64>>,
        rng: ChaCha20Rng,
    }

    impl<V: Bits> Case<V> {
        fn digits<const D: usize, const N: usize>(&mut self) -> [Digit<V, N>; D] {
            std::array::from_fn(|_| {
                let picked: [usize; MOST_LANES] =
                    std::array::from_fn(|_| self.rng.random_range(0..self.digits.len()));
                let limb = |k: usize| picked.map(|at| to_bits(self.digits[at][k]));
                let limbs =
                    |tile: usize, k: usize| V::of_lanes(self.context.whole.token, limb(tile * TILE + k));
                std::array::from_fn(|tile| std::array::from_fn(|k| limbs(tile, k)))
            })
        }

        /// Does something with either kind of sums.
        fn check<const N: usize, const D: usize>(
            &self,
            what: &str,
            assembly: impl Fn(&mut <V as Vector>::Sums<'_, N>, &mut [Digit<V, N>; D]),
            rust: impl Fn(&mut Windows<'_, V, N>, &mut [Digit<V, N>; D]),
        ) {
            let modulus = self.context.modulus::<V, N>(&self.context.whole);
            let [mut expected, mut found] = [[[[V::splat(self.context.whole.token, 0.5); TILE]; N]; D]; 2];
            assembly(&mut Sums::new(modulus), &mut expected);
            rust(&mut Windows::new(modulus), &mut found);
            let bits = |digits: &[Digit<V, N>; D]| {
                let limbs = digits.as_flattened().as_flattened().iter();
                let mut rows = vec![[[0; 2]; MOST_LANES]; N * TILE * D];
                limbs.zip(&mut rows).for_each(|(&limb, rows)| V::to_rows([limb; 2], rows.iter_mut()));
                rows
            };
            assert_eq!(bits(&found), bits(&expected), "{what} of {N} tiles");
        }

        fn products<const N: usize>(&mut self) {
            let ([x, y], [c, _]): ([Lanes<V, N>; 2], Lanes<V, N>) =
                ([(); 2].map(|()| self.digits()), self.digits());
            self.check::<N, 2>(
                "product",
                |sums, out| sums.product(&x, &y, out),
                |sums, out| sums.product(&x, &y, out),
            );
            self.check::<N, 2>(
                "shorter product",
                |sums, out| sums.product_low(&x, &c, out),
                |sums, out| sums.product_low(&x, &c, out),
            );
            self.check::<N, 2>("square", |sums, out| sums.square(&x, out), |sums, out| sums.square(&x, out));
            self.check::<N, 2>(
                "reduction",
                |sums, out| sums.reduce(&x, out),
                |sums, out| sums.reduce(&x, out),
            );
            self.check::<N, 1>(
                "product of digits",
                |sums, [out]| sums.digit_product(&x[0], &c, out),
                |sums, [out]| sums.digit_product(&x[0], &c, out),
            );
        }

        fn projection<const N: usize>(&mut self) {
            let (x, y) = (self.digits(), self.digits());
            self.check::<N, 2>(
                "projection",
                |sums, out| sums.project(&x, &y, out),
                |sums, out| sums.project(&x, &y, out),
            );
        }

        fn combination<const N: usize, const M: usize>(&mut self) {
            let (x, y) = (self.digits::<4, M>(), self.digits());
            self.check::<N, 2>(
                "combination",
                |sums, out| sums.combine(&x, &y, out),
                |sums, out| sums.combine(&x, &y, out),
            );
        }
    }

    #[test]
    fn sums_in_rust_equal_those_in_assembly() {
        on_every_vector!(sums_in_assembly);
    }

    fn sums_in_assembly<V: Bits>(token: V::Token) {
        let mut rng = ChaCha20Rng::seed_from_u64(14);
        for bits in MODULUS_BITS {
            for n in moduli(bits, &mut rng) {
                let context = Context::<V>::new(token, None, &from_biguint(&n, bits / 64));
                let digits = extremes(&(BigInt::from(n) * 5 / 4), context.limbs());
                let mut case = Case { context, digits, rng: ChaCha20Rng::seed_from_u64(bits as u64) };
                for _ in 0..4 {
                    let work: &[fn(&mut Case<V>)] = match case.context.tiles {
                        2 => &[Case::products::<2>, Case::projection::<2>],
                        3 => &[Case::products::<3>, Case::projection::<3>, Case::combination::<3, 2>],
                        5 => &[Case::products::<5>, Case::projection::<5>],
                        6 => &[Case::products::<6>, Case::projection::<6>, Case::combination::<6, 3>],
                        9 => &[Case::products::<9>, Case::combination::<9, 5>],
                        _ => &[Case::products::<12>, Case::combination::<12, 6>],
                    };
                    work.iter().for_each(|work| work(&mut case));
                }
            }
        }
    }
}
