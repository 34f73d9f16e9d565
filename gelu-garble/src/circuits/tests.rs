//! Every circuit in the clear against the integers that it stands for, and its count of ANDs.

use proptest::prelude::*;

use super::order::greater;
use super::*;
use crate::{Bits, Clear, Ring};

/// Runs a circuit on one number for each set of inputs.
fn run(
    values: &[i64],
    bits: u32,
    circuit: impl Fn(&mut Clear, &[Vec<u64>]) -> Vec<Vec<u64>>,
) -> (Vec<u64>, u32, usize) {
    let mut clear = Clear::new(values.len());
    let values: Vec<u64> = values.iter().map(|&value| value as u64).collect();
    let input = clear.input(&values, bits).unwrap();
    let output = circuit(&mut clear, &input);
    (clear.output(&output), output.len() as u32, clear.ands())
}

fn signed((values, bits, _): (Vec<u64>, u32, usize)) -> Vec<i64> {
    if bits == 0 {
        return vec![0; values.len()];
    }
    values.iter().map(|&value| Ring::new(bits).unwrap().signed(value)).collect()
}

fn divided(x: i64, shift: i32) -> i64 {
    (x as f64 * f64::from(-shift).exp2()).round() as i64
}

/// Every signed number of so many bits.
fn all(bits: u32) -> Vec<i64> {
    (-(1 << (bits - 1))..1 << (bits - 1)).collect()
}

#[test]
fn sums_wrap() {
    let pairs: Vec<(u64, u64)> = (0..32).flat_map(|x| (0..32).map(move |y| (x, y))).collect();
    let (x, y): (Vec<u64>, Vec<u64>) = pairs.iter().copied().unzip();
    let mut clear = Clear::new(pairs.len());
    let (a, b) = (clear.input(&x, 5).unwrap(), clear.input(&y, 5).unwrap());
    let sum = add(&mut clear, &a, &b);
    let expected: Vec<u64> = pairs.iter().map(|(x, y)| (x + y) % 32).collect();
    assert_eq!((clear.output(&sum), clear.ands()), (expected, 4));
}

#[test]
fn shifts_round_halves_away_from_zero() {
    for bits in 1..9 {
        for (positive, negative) in (-2..11).flat_map(|x| (-2..11).map(move |y| (x, y))) {
            let shifts = Shifts { positive, negative };
            let out = run(&all(bits), bits, |clear, x| rounded_shift(clear, x, shifts));
            assert!(out.2 <= 2 * bits as usize + 14 + 2, "{} ANDs", out.2);
            let expected: Vec<i64> =
                all(bits).into_iter().map(|x| divided(x, if x < 0 { negative } else { positive })).collect();
            assert_eq!(signed(out), expected, "{bits} bits, {shifts:?}");
        }
    }
}

#[test]
fn shifts_without_rounding_cost_nothing() {
    for by in -3..9 {
        let out = run(&all(6), 6, |clear, x| shift(clear, x, by));
        assert_eq!(out.2, 0);
        let expected = |x: i64| if by < 0 { x << -by } else { x >> by };
        assert_eq!(signed(out), all(6).into_iter().map(expected).collect::<Vec<_>>(), "by {by}");
    }
}

#[test]
fn numbers_are_kept_within_any_bounds() {
    for bits in 1..7 {
        for (least, most) in (-70..70).flat_map(|least| (least..70).map(move |most| (least, most))) {
            let out = run(&all(bits), bits, |clear, x| clamp(clear, x, least, most));
            let expected: Vec<i64> = all(bits).into_iter().map(|x| x.clamp(least, most)).collect();
            match least < 0 {
                true => assert_eq!(signed(out), expected, "{bits} bits in {least}..={most}"),
                false => {
                    let expected: Vec<u64> = expected.iter().map(|&x| x as u64).collect();
                    assert_eq!(out.0, expected, "{bits} bits in {least}..={most}");
                }
            }
        }
    }
    let (out, ..) = run(&[i64::MIN, -1, 5, i64::MAX], 64, |clear, x| clamp(clear, x, i64::MIN, i64::MAX));
    assert_eq!(out, [i64::MIN as u64, u64::MAX, 5, i64::MAX as u64]);
}

/// The step of a ReLU as it is garbled: the sum of two shares of 32 bits, 12 bits off it, and a bound of 10 bits.
#[test]
fn a_step_has_as_many_gates_as_its_bound_needs() {
    for (bound, ands) in [(1023, 31 + 9 + 1 + 10), (673, 31 + 17 + 10 + 1), (1, 31 + 18 + 1 + 1)] {
        let (.., found) = run(&[], 32, |clear, x| {
            let z = add(clear, x, x);
            let z = shift(clear, &z, 12);
            clamp(clear, &z, 0, bound)
        });
        assert!(found <= ands, "a bound of {bound}: {found} ANDs, not {ands}");
    }
}

#[test]
fn the_first_of_the_largest_is_found() {
    let rows: Vec<Vec<i64>> =
        (0..4i64.pow(5)).map(|n| (0..5).map(|at| n / 4i64.pow(at) % 4 - 2).collect()).collect();
    let mut clear = Clear::new(rows.len());
    let column = |at: usize| rows.iter().map(|row| row[at] as u64).collect::<Vec<_>>();
    let numbers: Vec<_> = (0..5).map(|at| clear.input(&column(at), 2).unwrap()).collect();
    let index = argmax(&mut clear, &numbers);
    let expected = rows.iter().map(|row| {
        let largest = row.iter().max().unwrap();
        row.iter().position(|x| x == largest).unwrap() as u64
    });
    assert_eq!(clear.output(&index), expected.collect::<Vec<_>>());
}

#[test]
fn ten_logits_of_21_bits_take_few_gates() {
    let (.., ands) = run(&[], 21, |clear, x| argmax(clear, &vec![x.to_vec(); 10]));
    // Nine comparisons, eight choices of the larger, and the bits of the index.
    assert_eq!(ands, 9 * 21 + 8 * 21 + 21);
}

#[test]
fn one_number_is_the_largest() {
    assert_eq!(run(&[5], 4, |clear, x| argmax(clear, &[x.to_vec()])).1, 0);
    assert_eq!(run(&[5], 4, |clear, _| argmax(clear, &[])).1, 0);
}

#[test]
fn thresholds_at_the_ends_of_the_range_count() {
    let numbers = [-7, -7, 0, 1, 7, 8, 100];
    let (out, _, ands) = run(&all(4), 4, |clear, x| thresholds(clear, x, &numbers));
    let expected: Vec<u64> =
        all(4).iter().map(|x| numbers.iter().filter(|&number| x >= number).count() as u64).collect();
    assert_eq!(out, expected);
    assert!(ands <= 3 + 4 + 4 + 2 + 2, "{ands}");
    // At most 2^(k - 1) gates for which of the counts it is, and k comparisons.
    let many: Vec<i64> = (-511..512).map(|x| 1000 * x).collect();
    let (.., ands) = run(&[], 24, |clear, x| thresholds(clear, x, &many));
    assert!(ands <= 510 + 10 * 24, "{ands}");
}

proptest! {
    #[test]
    fn thresholds_are_counted(
        numbers in prop::collection::vec(-100_000i64..100_000, 0..70), x in prop::collection::vec(-131_071i64..131_072, 1..70),
    ) {
        let mut numbers = numbers;
        numbers.sort_unstable();
        let (out, bits, _) = run(&x, 18, |clear, x| thresholds(clear, x, &numbers));
        prop_assert_eq!(bits, usize::BITS - numbers.len().leading_zeros());
        let expected: Vec<u64> =
            x.iter().map(|x| numbers.iter().filter(|&number| x >= number).count() as u64).collect();
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn numbers_are_compared_and_chosen(pairs in prop::collection::vec((0u64..1 << 20, 0u64..1 << 20), 1..70), equal: bool) {
        let mut clear = Clear::new(pairs.len());
        let (x, mut y): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
        if equal {
            y.clone_from(&x);
        }
        let (a, b) = (clear.input(&x, 20).unwrap(), clear.input(&y, 20).unwrap());
        let larger = max(&mut clear, &a, &b);
        prop_assert_eq!(clear.ands(), 40);
        let pairs = || x.iter().zip(&y);
        prop_assert_eq!(clear.output(&larger), pairs().map(|(x, y)| *x.max(y)).collect::<Vec<_>>());
        let greater = greater(&mut clear, &a, &b).unwrap();
        prop_assert_eq!(clear.output(&[greater]), pairs().map(|(x, y)| u64::from(x > y)).collect::<Vec<_>>());
        let either = clear.or(&a[0], &b[0]);
        prop_assert_eq!(clear.output(&[either]), pairs().map(|(x, y)| (x | y) & 1).collect::<Vec<_>>());
    }
}
