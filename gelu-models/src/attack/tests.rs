use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::*;

proptest! {
    #[test]
    fn as_many_equations_as_unknowns_are_solved_and_one_fewer_are_not(seed: u64, inputs in 1..12usize, outputs in 1..5usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weights: Vec<Vec<i64>> =
            (0..outputs).map(|_| (0..=inputs).map(|_| rng.random_range(-(1i64 << 40)..1 << 40)).collect()).collect();
        let vectors: Vec<i64> = (0..(inputs + 1) * inputs).map(|_| rng.random_range(-4096..4096)).collect();
        let sums: Vec<i64> = vectors
            .chunks_exact(inputs)
            .flat_map(|vector| {
                let sum = |row: &Vec<i64>| {
                    row[inputs] + row.iter().zip(vector).map(|(w, x)| w * x).sum::<i64>()
                };
                weights.iter().map(sum).collect::<Vec<_>>()
            })
            .collect();
        let sizes = [inputs, outputs];
        // Random vectors are in general position but for one in thousands.
        if let Extraction::Solved { rows } = extract(sizes, &vectors, &sums).unwrap() {
            prop_assert_eq!(rows, weights);
        } else {
            prop_assert!(inputs == 1, "general position");
        }
        if inputs > 1 {
            let fewer = extract(sizes, &vectors[inputs..], &sums[outputs..]).unwrap();
            prop_assert_eq!(fewer, Extraction::Open { rank: inputs, unknowns: inputs + 1 });
        }
        let mut wrong = [&sums[..], &sums[..outputs]].concat();
        let last = wrong.len() - 1;
        wrong[last] += 1;
        prop_assert!(extract(sizes, &[&vectors[..], &vectors[..inputs]].concat(), &wrong).is_err());
    }
}

#[test]
fn correlation_is_one_for_lines_and_zero_for_constants() {
    let x = [1.0, 2.0, 3.0, 5.0];
    let line: Vec<f64> = x.iter().map(|x| 7.0 - 2.0 * x).collect();
    assert!((correlation(&x, &line) + 1.0).abs() < 1e-12);
    assert_eq!(correlation(&x, &[4.0; 4]), 0.0);
}
