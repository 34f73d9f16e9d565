//! The kernels against num-bigint, on limbs and sizes that ciphertexts do not come near.

use num_bigint::{BigInt, BigUint, RandomBits};
use num_integer::Integer;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};
use zeroize::Zeroizing;

use super::vector::{MOST_LANES, Vector};
use super::{Context, LIMB_BITS, TILE, from_bits, to_bits};
#[cfg(target_arch = "x86_64")]
use crate::arith::avx2::environment::tests::with_rounding;
use crate::arith::kernel::Kernel;
use crate::arith::limbs::from_biguint;
#[cfg(target_arch = "aarch64")]
use crate::arith::neon::environment::tests::with_rounding;
use crate::arith::operands::Factors;
use crate::arith::ring::MODULUS_BITS;

/// Calls a generic function with the vectors and the token of this machine.
macro_rules! on_every_vector {
    ($function:ident) => {
        #[cfg(target_arch = "x86_64")]
        match crate::arith::avx2::Avx2::detect() {
            Some(token) => $function::<crate::arith::avx2::Quad>(token),
            None => eprintln!("skipped: this processor has no AVX2 and FMA"),
        }
        #[cfg(target_arch = "x86_64")]
        match crate::arith::avx512::Avx512::detect() {
            Some(token) => $function::<crate::arith::avx512::Oct>(token),
            None => eprintln!("skipped: this processor has no AVX-512"),
        }
        #[cfg(target_arch = "aarch64")]
        match crate::arith::neon::Neon::detect() {
            Some(token) => $function::<crate::arith::neon::Pair>(token),
            None => eprintln!("skipped: this processor has no NEON"),
        }
    };
}
pub(super) use on_every_vector;

const HALF_LIMB: i64 = 1 << (LIMB_BITS - 1);

fn value(limbs: &[i64]) -> BigInt {
    limbs.iter().rev().fold(BigInt::ZERO, |sum, &limb| (sum << LIMB_BITS) + limb)
}

fn limbs(value: &BigInt, count: usize) -> Vec<i64> {
    let base = BigInt::from(1) << LIMB_BITS;
    let mut rest = value.clone();
    let limbs = (0..count)
        .map(|_| {
            let limb = (&rest + HALF_LIMB).mod_floor(&base) - HALF_LIMB;
            rest = (&rest - &limb) >> LIMB_BITS;
            i64::try_from(limb).unwrap()
        })
        .collect();
    assert_eq!(rest, BigInt::ZERO, "does not fit");
    limbs
}

/// The smallest and the largest moduli, such with the largest limbs there are, and random ones.
pub(super) fn moduli(bits: usize, rng: &mut ChaCha20Rng) -> Vec<BigUint> {
    let one = BigUint::from(1u8);
    let mut random: BigUint = rng.sample(RandomBits::new(bits as u64));
    random.set_bit(0, true);
    random.set_bit(bits as u64 - 1, true);
    let extreme = [-HALF_LIMB, HALF_LIMB - 1].map(|limb| {
        let lower = value(&vec![limb; (bits - 2) / LIMB_BITS]);
        let mut n = (lower + (BigInt::from(3) << (bits - 2))).to_biguint().unwrap();
        n.set_bit(0, true);
        n
    });
    let all = extreme.into_iter().chain([(&one << (bits - 1)) + &one, (&one << bits) - &one, random]);
    all.inspect(|n| assert!(n.bits() == bits as u64 && n.bit(0))).collect()
}

/// Numbers of extreme limbs and sizes, up to a limit in size: what columns and their two sums have most trouble with.
pub(super) fn extremes(limit: &BigInt, count: usize) -> Vec<Vec<i64>> {
    let (least, most) = (-HALF_LIMB, HALF_LIMB - 1);
    let mut all: Vec<Vec<i64>> = [BigInt::ZERO, BigInt::from(1), limit.clone(), limit / 2, limit - 1]
        .iter()
        .map(|x| limbs(x, count))
        .collect();
    for length in [1, TILE, count / 2, count - 2, count - 1] {
        all.push(vec![least; length]);
        all.push(vec![most; length]);
        all.push((0..length).map(|i| [least, most][i % 2]).collect());
        all.push((0..length).map(|i| most - (i * i % 5) as i64).collect());
        // Times almost half a limb, all lower parts are large and odd.
        all.push(vec![1; length]);
    }
    for x in &mut all {
        x.resize(count, 0);
    }
    let negative: Vec<Vec<i64>> = all.iter().map(|x| x.iter().map(|limb| -limb).collect()).collect();
    all.extend(negative);
    all.retain(|x| value(x).magnitude() <= limit.magnitude());
    all
}

#[test]
fn products_of_extreme_limbs_equal_num_bigint() {
    on_every_vector!(products_of_extreme_limbs);
}

fn products_of_extreme_limbs<V: Vector>(token: V::Token) {
    let mut rng = ChaCha20Rng::seed_from_u64(12);
    for bits in MODULUS_BITS {
        for n in moduli(bits, &mut rng) {
            let context = Context::<V>::new(token, None, &from_biguint(&n, bits / 64));
            let count = context.limbs();
            let (n, square) = (BigInt::from(n.clone()), BigInt::from(&n * &n));
            let radix = BigInt::from(1) << (LIMB_BITS * count);
            let digits = extremes(&(&n * 5 / 4), count);
            let pick = |rng: &mut ChaCha20Rng| -> Vec<i64> {
                (0..2).flat_map(|_| digits[rng.random_range(0..digits.len())].clone()).collect()
            };
            let number = |residue: &[i64]| value(&residue[..count]) + value(&residue[count..]) * &n;
            let residues = 16 * MOST_LANES - 1;
            let [x, y]: [Vec<Vec<i64>>; 2] =
                [(); 2].map(|()| (0..residues).map(|_| pick(&mut rng)).collect());
            let rows = |x: &[Vec<i64>]| x.iter().flatten().map(|&limb| to_bits(limb)).collect::<Vec<u64>>();
            let check = |what: &str, out: &[u64], expected: &dyn Fn(usize) -> BigInt| {
                for (i, row) in out.chunks(context.width()).enumerate() {
                    let row: Vec<i64> = row.iter().map(|&bits| from_bits(bits)).collect();
                    assert!(row.iter().all(|limb| limb.abs() <= HALF_LIMB), "{what} mod {n:x}^2");
                    let digits = [value(&row[..count]), value(&row[count..])];
                    assert!(
                        digits.iter().all(|x| x.magnitude() * 100u32 < n.magnitude() * 86u32),
                        "{what} mod {n:x}^2"
                    );
                    assert_eq!(
                        number(&row).mod_floor(&square),
                        expected(i).mod_floor(&square),
                        "{what} mod {n:x}^2"
                    );
                    // And as digits below n.
                    let wide = context.decode_digits(&out[i * context.width()..][..context.width()]);
                    let [a, b] = [0, 1].map(|k| from_limbs(&wide[k * wide.len() / 2..][..wide.len() / 2]));
                    assert!(
                        a < n && b < n && a + b * &n == expected(i).mod_floor(&square),
                        "{what} mod {n:x}^2"
                    );
                }
            };
            let inverse = radix.extended_gcd(&square).x;
            let mut out = rows(&x);
            context.mul(&mut out, Factors::Each(&rows(&y)));
            check("product", &out, &|i| number(&x[i]) * number(&y[i]) % &square * &inverse);
            let mut out = rows(&x);
            context.square(&mut out, 1);
            check("square", &out, &|i| number(&x[i]) * number(&x[i]) % &square * &inverse);
            let mut out = rows(&x);
            context.reduce(&mut out);
            check("reduction", &out, &|i| number(&x[i]) * &inverse);
            let mut out = rows(&x);
            context.add(&mut out, &rows(&y));
            check("sum", &out, &|i| number(&x[i]) + number(&y[i]));
            let mut out = rows(&x);
            context.sub(&mut out, &rows(&y));
            check("difference", &out, &|i| number(&x[i]) - number(&y[i]));
        }
    }
}

fn from_limbs(limbs: &[u64]) -> BigInt {
    crate::arith::limbs::to_biguint(limbs).into()
}

/// What the processor's state may be when a host calls.
#[test]
fn another_rounding_mode_changes_nothing() {
    on_every_vector!(another_rounding_mode);
}

fn another_rounding_mode<V: Vector>(token: V::Token) {
    let mut rng = ChaCha20Rng::seed_from_u64(13);
    let n = moduli(1024, &mut rng).pop().unwrap();
    let context = Context::<V>::new(token, None, &from_biguint(&n, 16));
    let random = |rng: &mut ChaCha20Rng| {
        let digits: Zeroizing<Vec<u64>> =
            Zeroizing::new((0..32).map(|i| rng.random::<u64>() >> (i % 16 / 15)).collect());
        context.encode_digits(&digits)
    };
    let (x, y) = (random(&mut rng), random(&mut rng));
    let work = || {
        let mut out = x.to_vec();
        context.mul(&mut out, Factors::Each(&y));
        context.square(&mut out, 3);
        context.add(&mut out, &y);
        context.reduce(&mut out);
        context.decode_digits(&out).to_vec()
    };
    let expected = work();
    for mode in 0..4 {
        with_rounding(mode, || assert_eq!(work(), expected));
    }
}
