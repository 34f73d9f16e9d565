//! Steps on integers against the same in double precision, and their circuits against both.

use gelu_garble::Clear;
use proptest::prelude::*;

use super::*;

/// What a step stands for: the sum's real, the function, and the rounding to the next format, with whether the bound changed
/// the result.
fn in_reals(activation: Option<Activation>, sums: Format, values: Format, sum: i64) -> (i64, bool) {
    let real = sums.real(sum);
    let result = activation.map_or(real, |activation| activation.apply(real));
    let (bound, scale) = (values.bound() as f64, f64::from(values.scale_bits()).exp2());
    let rounded = (result * scale).round();
    (rounded.clamp(-bound, bound) as i64, rounded.abs() > bound)
}

/// Compares a step with reals for all of these sums.
fn check(activation: Option<Activation>, sums: Format, values: Format, numbers: impl Iterator<Item = i64>) {
    let step = IntegerStep::new(activation, sums, values).unwrap();
    let range = step.range();
    let numbers: Vec<i64> = numbers.collect();
    for part in numbers.chunks(1 << 16) {
        let (results, clamped) = step.apply_all(part);
        let mut expected = 0;
        for (&sum, &result) in part.iter().zip(&results) {
            let (real, clamped) = in_reals(activation, sums, values, sum);
            expected += u64::from(clamped);
            assert!(result == real, "{activation:?} of {sum}: {result}, in reals {real}; {step:?}");
            assert!((range.0..=range.1).contains(&result));
        }
        assert_eq!(clamped, expected, "{activation:?}");
        let first = part[0];
        assert_eq!(step.apply(first), results[0]);
    }
}

/// Runs a step's circuit on all of these sums.
fn check_circuit(step: &IntegerStep, sums: Format, numbers: &[i64]) -> usize {
    let ring = 65 - (sums.bound() + step.offset() as u64).leading_zeros();
    let mut clear = Clear::new(numbers.len());
    let shares: Vec<u64> = numbers.iter().map(|sum| (sum + step.offset()) as u64).collect();
    let wires = clear.input(&shares, ring).unwrap();
    let StepWires { wires, signed, base } = step.circuit(&mut clear, &wires);
    let unused = 64 - wires.len() as u32;
    for (&sum, number) in numbers.iter().zip(clear.output(&wires)) {
        let number = if signed && unused < 64 { (number << unused) as i64 >> unused } else { number as i64 };
        assert_eq!(number + base, step.apply(sum), "of {sum}: {step:?}");
    }
    clear.ands()
}

const FUNCTIONS: [Option<Activation>; 9] = [
    None,
    Some(Activation::Relu),
    Some(Activation::Relu6),
    Some(Activation::Clip { min: -0.7, max: 1.3 }),
    Some(Activation::Clip { min: 0.2, max: 0.3 }),
    Some(Activation::LeakyRelu { slope: 0.125 }),
    Some(Activation::LeakyRelu { slope: 4.0 }),
    Some(Activation::Sigmoid),
    Some(Activation::Tanh),
];

fn format(bound: u64, scale_bits: i32) -> Format {
    Format::integers(bound).unwrap().with_scale_bits(scale_bits).unwrap()
}

/// All that a ring of 25 bits holds, at the scales of a layer of LeNet-5.
#[test]
fn every_sum_of_25_bits_gives_what_reals_give() {
    let sums = format((1 << 24) - 1, 15);
    for activation in FUNCTIONS {
        let values = if matches!(activation, Some(Activation::Sigmoid | Activation::Tanh)) {
            format(1024, 10)
        } else {
            format(751, 8)
        };
        check(activation, sums, values, -(1 << 24) + 1..1 << 24);
    }
}

#[test]
fn every_sum_of_small_rings_gives_what_reals_give_at_all_scales() {
    for activation in FUNCTIONS {
        for (scale, to) in (-3..16).flat_map(|scale| (-3..12).map(move |to| (scale, to))) {
            for bound in [1, 100, 4095] {
                let (sums, values) = (format(2047, scale), format(bound, to));
                if IntegerStep::new(activation, sums, values).is_some() {
                    check(activation, sums, values, -2047..2048);
                }
            }
        }
    }
}

#[test]
fn circuits_give_every_result() {
    let numbers: Vec<i64> = (-511..512).collect();
    for activation in FUNCTIONS {
        for (scale, to) in (-2..13).flat_map(|scale| (-2..7).map(move |to| (scale, to))) {
            for bound in [1, 6, 63] {
                let (sums, values) = (format(511, scale), format(bound, to));
                if let Some(step) = IntegerStep::new(activation, sums, values) {
                    check_circuit(&step, sums, &numbers);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn sums_up_to_2_to_the_53_give_what_reals_give(
        function in 0..FUNCTIONS.len(), bits in 1u32..54, scale in -20i32..60, to in -10i32..24, bound in 1u64..1 << 24,
        numbers in prop::collection::vec(any::<i64>(), 1..50),
    ) {
        let largest = (1u64 << bits) - 1;
        let (sums, values) = (format(largest, scale), format(bound, to));
        let half = 1i64 << (scale - to - 1).clamp(0, 52);
        let numbers = numbers.into_iter().flat_map(|number| {
            let number = number % (largest as i64 + 1);
            // Beside ties, too.
            let tie = number / half * half;
            [number, tie, tie.saturating_sub(1), tie + 1, largest as i64, -(largest as i64)]
        });
        let numbers: Vec<i64> = numbers.filter(|number| number.unsigned_abs() <= largest).collect();
        if let Some(step) = IntegerStep::new(FUNCTIONS[function], sums, values) {
            check(FUNCTIONS[function], sums, values, numbers.iter().copied());
            check_circuit(&step, sums, &numbers);
        }
    }
}

/// The layers of LeNet-5: what garbling them takes, but for the sum of shares.
#[test]
fn circuits_are_as_small_as_they_should_be() {
    let ands = |activation, sums, values| {
        let step = IntegerStep::new(Some(activation), sums, values).unwrap();
        check_circuit(&step, sums, &[0, 1, -1, sums.bound() as i64])
    };
    // Comparisons with the bound, whose lowest ones cost nothing, the sign, and the bits of the result.
    assert_eq!(ands(Activation::Relu, format(1 << 20, 15), format(1023, 8)), 3 + 1 + 10);
    assert_eq!(ands(Activation::Relu, format(1 << 23, 15), format(751, 8)), 12 + 1 + 10);
    assert_eq!(ands(Activation::Relu6, format(1 << 23, 15), format(1536, 8)), 16 + 1 + 11);
    let sigmoid = ands(Activation::Sigmoid, format(1 << 23, 15), format(1024, 10));
    assert!(sigmoid < 1024 + 11 * 25, "{sigmoid}");
}

#[test]
fn functions_and_formats_without_a_step_are_told_apart() {
    let (sums, values) = (format(1 << 20, 12), format(1000, 8));
    let step = |activation, sums, values| IntegerStep::new(activation, sums, values);
    let without = |activation: &Activation| step(Some(*activation), sums, values).is_none();
    let names: Vec<String> =
        Activation::ALL.iter().filter(|activation| without(activation)).map(ToString::to_string).collect();
    let expected = [
        "leaky-relu:0.01",
        "gelu",
        "silu",
        "hard-sigmoid",
        "hard-swish",
        "square",
        "sigmoid-taylor3",
        "sigmoid-taylor5",
    ];
    assert_eq!(names, expected);
    for slope in [-0.5, 0.3, f64::NAN, f64::INFINITY] {
        assert!(without(&Activation::LeakyRelu { slope }), "{slope}");
    }
    assert!(without(&Activation::Clip { min: 1.0, max: 0.0 }));
    let zero = step(Some(Activation::LeakyRelu { slope: 0.0 }), sums, values);
    assert_eq!(zero, step(Some(Activation::Relu), sums, values));
    // Numbers that double precision would round, and functions of too many steps.
    for bound in [(1 << 53) + 1, 1 << 60] {
        assert_eq!(step(None, format(bound, 0), values), None);
        assert_eq!(step(None, sums, format(bound, 0)), None);
    }
    assert!(step(Some(Activation::Sigmoid), sums, format(4096, 12)).is_some());
    assert_eq!(step(Some(Activation::Sigmoid), sums, format(8192, 13)), None);
}
