//! Whether secrets can be read off a clock: two classes of inputs in random order, and Welch's t-test on their times
//! (Reparaz, Balasch, Verbauwhede: Dude, is my code constant time?, DATE 2017).
//!
//! `cargo bench --bench constant_time`; a number after `--` is how many measurements each test takes (10,000), and
//! `GELU_BACKEND` names the backend that is measured, where it is not to be the fastest.
//!
//! Each line has the largest |t| over all measurements and over those below several percentiles, for interruptions
//! hide small differences. Above 4.5 is a hint, above 10 a leak, and then the exit code is 1. The line on it is a test of
//! the test: a power by squaring and multiplying leaks the weight of its exponent, and must be found out. What is not found
//! is not proven absent: it says that so many measurements on this machine do not show it. It does not look at caches
//! shared with others, at power or at faults.

#![allow(clippy::unwrap_used, reason = "a failed set-up ends the measurement")]

use std::cell::RefCell;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use gelu_garble::{Choices, Delta, Evaluator, Garbler, LabelSender, Labels, Opening, Ring, circuits};
use gelu_net::prelude::*;
use gelu_net::tensor::hazmat::{Exponent, FixedBase, Residues};
use gelu_net::tensor::paillier::KeyParameters;
use gelu_net::tensor::{Backend, Contents, EncTensor, FixedTensor, Format, Packing, Shape, SlotLayout};
use num_bigint::BigUint;
use rand::{Rng, SeedableRng, rngs::ChaCha20Rng};

const MEASUREMENTS: usize = 10_000;
const HINT: f64 = 4.5;
const LEAK: f64 = 10.0;
/// Residues together: one vector.
const TOGETHER: usize = 8;
/// Ciphertexts of a class.
const POOL: usize = 64;

/// Times `work` on inputs of one class or the other, as `input` makes them, outside of what is timed.
fn times<T>(
    count: usize,
    rng: &mut ChaCha20Rng,
    mut input: impl FnMut(bool, &mut ChaCha20Rng) -> T,
    work: impl Fn(&T),
) -> Vec<(bool, f64)> {
    (0..count)
        .map(|_| {
            let class = rng.next_u64() % 2 == 1;
            let input = input(class, rng);
            let start = Instant::now();
            work(black_box(&input));
            (class, start.elapsed().as_secs_f64())
        })
        .collect()
}

/// Welch's t.
fn welch(times: &[(bool, f64)]) -> f64 {
    let [a, b] = [false, true].map(|class| {
        let times: Vec<f64> = times.iter().filter(|(of, _)| *of == class).map(|(_, time)| *time).collect();
        let count = times.len().max(2) as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    let spread = (a.1 + b.1).sqrt();
    if spread > 0.0 { (a.0 - b.0) / spread } else { 0.0 }
}

/// The largest |t| over all measurements and over those that are not among the slowest.
fn largest_t(times: &[(bool, f64)]) -> f64 {
    // The first ones warm up.
    let times = &times[times.len() / 20..];
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    [1.0, 0.99, 0.95, 0.9, 0.75, 0.5]
        .iter()
        .map(|part| {
            let most = sorted[((sorted.len() - 1) as f64 * part) as usize];
            let kept: Vec<_> = times.iter().copied().filter(|(_, time)| *time <= most).collect();
            welch(&kept).abs()
        })
        .fold(0.0, f64::max)
}

/// What one must not do with a secret exponent: a product for each bit that is set.
fn square_and_multiply(exponent: &[u64], n: &BigUint) -> BigUint {
    let mut power = BigUint::from(3u8);
    for bit in (0..64 * exponent.len() - 1).rev() {
        power = &power * &power % n;
        if exponent[bit / 64] >> (bit % 64) & 1 == 1 {
            power = power * 3u8 % n;
        }
    }
    power
}

/// What a hidden model takes on secrets: circuits evaluated on labels, labels chosen by the server's shares, and the client's
/// choices in the transfers of labels. Zeros or random numbers.
fn circuits_of_shares(
    count: usize,
    rng: &mut ChaCha20Rng,
    report: &mut impl FnMut(&str, &[(bool, f64)], bool),
) {
    const WIDTH: usize = 64;
    const BITS: u32 = 16;
    let ring = Ring::new(BITS).unwrap();
    let delta = Delta::random(rng);
    let zeros = [(); 2].map(|()| Labels::random(WIDTH * BITS as usize, rng));
    let mut garbler = Garbler::new(&delta, WIDTH, rng).unwrap();
    let [x, y] = zeros.each_ref().map(|zeros| garbler.input(zeros).unwrap());
    let sum = circuits::add(&mut garbler, &x, &y);
    garbler.project(&sum, true, ring);
    let tables = garbler.finish().unwrap();
    // By the same work for both classes.
    let choices = |class: bool, rng: &mut ChaCha20Rng| {
        let mask = if class { (1 << BITS) - 1 } else { 0 };
        let numbers: Vec<u64> = (0..WIDTH).map(|_| rng.next_u64() & mask).collect();
        Choices::of_numbers(&numbers, BITS).unwrap()
    };
    let evaluation = times(
        count,
        rng,
        |class, rng| zeros.each_ref().map(|zeros| delta.active(zeros, &choices(class, rng)).unwrap()),
        |labels| {
            let mut evaluator = Evaluator::new(&tables, WIDTH).unwrap();
            let [x, y] = labels.each_ref().map(|labels| evaluator.input(labels).unwrap());
            let sum = circuits::add(&mut evaluator, &x, &y);
            black_box(evaluator.project(&sum, ring));
            evaluator.finish().unwrap();
        },
    );
    report("circuits evaluated, zeros or random shares", &evaluation, false);
    let labels = times(count, rng, choices, |choices| {
        black_box(delta.active(&zeros[0], choices).unwrap());
    });
    report("labels of shares, zeros or random ones", &labels, false);
    let opening = Opening::new(rng);
    let (_, answer) = LabelSender::new(&delta, &opening.message(), rng).unwrap();
    let receiver = RefCell::new(opening.finish(&answer).unwrap());
    let transfers = times(count, rng, choices, |choices| {
        black_box(receiver.borrow_mut().extend(choices).unwrap());
    });
    report("choices of labels, zeros or random shares", &transfers, false);
}

fn main() -> ExitCode {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(MEASUREMENTS);
    let rng = &mut ChaCha20Rng::seed_from_u64(5);
    let size = KeyBits::Bits2048;
    let limbs = size.bits() / 64;
    let backend =
        std::env::var("GELU_BACKEND").map_or_else(|_| Backend::detect(), |name| name.parse().unwrap());
    let mut leaks = 0;
    let mut report = |name: &str, times: &[(bool, f64)], expected: bool| {
        let t = largest_t(times);
        let verdict = match t {
            t if (t > LEAK) == expected && expected => "leaks, as it must",
            t if t > LEAK => "LEAKS",
            _ if expected => "NOT FOUND OUT",
            t if t > HINT => "a hint: measure more often",
            _ => "no leak found",
        };
        leaks += usize::from((t > LEAK) != expected);
        println!("{name:<60} |t| {t:>7.2}  {verdict}");
    };
    println!("{count} measurements each, batches of {TOGETHER}, keys of {} bits, {backend}\n", size.bits());
    circuits_of_shares(count, rng, &mut report);

    for key_type in KeyType::ALL {
        let key = SecretKey::generate(KeyParameters { size, key_type }, rng).unwrap().on(backend).unwrap();
        let public = key.public_key();
        let format = Format::integers(1 << 20).unwrap();
        let packing = Packing { batch: 1, slot_bits: 24, key: size };
        let layout = SlotLayout::images(packing, Contents::Integers(format)).unwrap();
        let encrypt = |value: i64, rng: &mut ChaCha20Rng| {
            let plain = FixedTensor::new(Shape::from([TOGETHER]), format, vec![value; TOGETHER]).unwrap();
            plain.encrypt(&layout, &key, rng).unwrap()
        };
        // Made before, so that what makes them leaves no traces in caches that differ by class.
        let mut several =
            |values: &[i64]| -> Vec<EncTensor> { values.iter().map(|&value| encrypt(value, rng)).collect() };
        let random: Vec<i64> = (0..POOL as i64).map(|i| i * 7919 % (1 << 20)).collect();
        let [random, zeros] = [several(&random), several(&[0; POOL])];
        let [ones, minus_ones] = [several(&[1; POOL]), several(&[-1; POOL])];
        let name = key_type.name();
        let classes: [(&str, &[EncTensor], &[EncTensor]); 4] = [
            ("one ciphertext or random ones", &zeros[..1], &random),
            ("0 or random values", &zeros, &random),
            ("1 or -1", &ones, &minus_ones),
            ("the same twice", &random, &random),
        ];
        for (what, first, second) in classes {
            let decryption = times(
                count,
                rng,
                |class, rng| {
                    let (of, index) = (if class { second } else { first }, rng.next_u64() as usize % POOL);
                    of[index % of.len()].clone()
                },
                |encrypted| {
                    black_box(encrypted.decrypt(&key).unwrap());
                },
            );
            report(&format!("{name}: decryption, {what}"), &decryption, false);
        }

        if key_type == KeyType::Djn {
            let base = Residues::decode(public, &zeros[0].encode_ciphertexts()).unwrap();
            // Both have all bits of their length: the highest is set.
            let exponent = |class: bool, rng: &mut ChaCha20Rng| {
                // By the same work for both classes.
                let mask = if class { u64::MAX } else { 0 };
                let mut exponent: Vec<u64> = (0..limbs).map(|_| rng.next_u64() & mask).collect();
                exponent[limbs - 1] |= 1 << 63;
                exponent
            };
            let powers = times(
                count / 10,
                rng,
                |class, rng| Exponent::new(exponent(class, rng)),
                |exponent| {
                    black_box(base.power(public, exponent).unwrap());
                },
            );
            report("a power mod n^2, a sparse exponent or random ones", &powers, false);
            let comb = FixedBase::new(public, &base.select(&[0]).unwrap(), size.bits()).unwrap();
            let combs = times(
                count,
                rng,
                |class, rng| -> Vec<Exponent> {
                    (0..TOGETHER).map(|_| Exponent::new(exponent(class, rng))).collect()
                },
                |exponents| {
                    black_box(comb.power(exponents).unwrap());
                },
            );
            report("powers by a comb, a sparse exponent or random ones", &combs, false);
            let n = BigUint::from_bytes_le(&public.n_le_bytes());
            let leaky = times(
                count / 10,
                rng,
                |class, rng| exponent(class, rng),
                |exponent| {
                    black_box(square_and_multiply(exponent, &n));
                },
            );
            report("squaring and multiplying, a sparse exponent or random ones", &leaky, true);
        }
    }
    if leaks == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
