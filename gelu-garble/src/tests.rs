//! Garbled circuits against clear ones, and what crosses between the parties.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng, rngs::ChaCha20Rng};

use crate::hash::{block, cipher, encrypt, number, sigma};
use crate::{
    AND_BYTES, Bits, Choices, Clear, Delta, Error, Evaluator, Garbler, LabelReceiver, LabelSeed, LabelSender,
    Labels, MAX_TRANSFERS, MAX_WIDTH, Opening, Ring, START_BYTES, Wire, circuits, extension_bytes,
    projection_bytes, reveal_bytes,
};

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// What a circuit gives, garbled and evaluated: the shares of both sides, and the garbler's message.
struct Garbled {
    garbler: Vec<u64>,
    evaluator: Vec<u64>,
    ands: usize,
    message: Vec<u8>,
    zeros: Labels,
    labels: Labels,
    delta: Delta,
}

/// A circuit, generic over its back end.
trait Circuit {
    fn run<B: Bits>(&self, bits: &mut B, input: &[B::Wire]) -> Vec<B::Wire>;
}

fn garble(circuit: &impl Circuit, values: &[u64], bits: u32, signed: bool, ring: Ring, seed: u64) -> Garbled {
    let rng = &mut rng(seed);
    let (width, delta) = (values.len(), Delta::random(rng));
    let zeros = Labels::random(width * bits as usize, rng);
    let mut garbler = Garbler::new(&delta, width, rng).unwrap();
    let input = garbler.input(&zeros).unwrap();
    let output = circuit.run(&mut garbler, &input);
    let share = garbler.project(&output, signed, ring).to_vec();
    let ands = garbler.ands();
    let message = garbler.finish().unwrap();
    let projection = projection_bytes(output.len(), width, ring);
    assert_eq!(message.len(), START_BYTES + ands * width * AND_BYTES + projection);

    let labels = delta.active(&zeros, &Choices::of_numbers(values, bits).unwrap()).unwrap();
    let mut evaluator = Evaluator::new(&message, width).unwrap();
    let input = evaluator.input(&labels).unwrap();
    let output = circuit.run(&mut evaluator, &input);
    let own = evaluator.project(&output, ring).to_vec();
    assert_eq!(evaluator.ands(), ands);
    evaluator.finish().unwrap();
    Garbled { garbler: share, evaluator: own, ands, message, zeros, labels, delta }
}

impl Garbled {
    fn sums(&self, ring: Ring) -> Vec<u64> {
        self.garbler.iter().zip(&self.evaluator).map(|(x, y)| ring.wrap(x.wrapping_add(*y))).collect()
    }
}

/// A random circuit: each gate takes two of the wires so far.
#[derive(Clone, Debug)]
struct Gates(Vec<(u8, usize, usize)>);

impl Circuit for Gates {
    fn run<B: Bits>(&self, bits: &mut B, input: &[B::Wire]) -> Vec<B::Wire> {
        let mut wires = input.to_vec();
        for (kind, x, y) in &self.0 {
            let (x, y) = (wires[x % wires.len()].clone(), wires[y % wires.len()].clone());
            wires.push(match kind {
                0 => bits.and(&x, &y),
                1 => bits.xor(&x, &y),
                2 => bits.or(&x, &y),
                _ => bits.not(&x),
            });
        }
        wires.split_off(wires.len().saturating_sub(9))
    }
}

/// The step of an activation: a sum of shares, a rounding shift, bounds, the maximum of two, and thresholds.
struct Step;

impl Circuit for Step {
    fn run<B: Bits>(&self, bits: &mut B, input: &[B::Wire]) -> Vec<B::Wire> {
        let (x, y) = input.split_at(input.len() / 2);
        let sum = circuits::add(bits, x, y);
        let rounded = circuits::rounded_shift(bits, &sum, circuits::Shifts { positive: 3, negative: 5 });
        let bounded = circuits::clamp(bits, &rounded, -21, 100);
        let counted = circuits::thresholds(bits, &bounded, &[-7, 0, 1, 50, 99]);
        let index = circuits::argmax(bits, &[bounded.clone(), x.to_vec(), y.to_vec()]);
        [bounded, counted, index].concat()
    }
}

fn gates() -> impl Strategy<Value = Gates> {
    prop::collection::vec((0u8..4, any::<usize>(), any::<usize>()), 1..60).prop_map(Gates)
}

fn clear(circuit: &impl Circuit, values: &[u64], bits: u32, ring: Ring, signed: bool) -> (Vec<u64>, usize) {
    let mut clear = Clear::new(values.len());
    let input = clear.input(values, bits).unwrap();
    let output = circuit.run(&mut clear, &input);
    let length = Ring::new(output.len() as u32).unwrap();
    let numbers = clear.output(&output).into_iter();
    let numbers = numbers.map(|x| ring.wrap(if signed { length.signed(x) as u64 } else { x }));
    (numbers.collect(), clear.ands())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbled_circuits_give_shares_of_what_clear_ones_give(
        circuit in gates(),
        values in prop::collection::vec(any::<u64>(), 1..200),
        bits in 1u32..20, ring in 1u32..=64, signed: bool, seed: u64,
    ) {
        let ring = Ring::new(ring).unwrap();
        let garbled = garble(&circuit, &values, bits, signed, ring, seed);
        prop_assert_eq!((garbled.sums(ring), garbled.ands), clear(&circuit, &values, bits, ring, signed));
    }

    #[test]
    fn steps_of_activations_are_garbled_as_they_are_in_the_clear(
        values in prop::collection::vec(any::<u64>(), 1..100), bits in 2u32..26, seed: u64,
    ) {
        let ring = Ring::new(33).unwrap();
        let garbled = garble(&Step, &values, 2 * bits, false, ring, seed);
        prop_assert_eq!((garbled.sums(ring), garbled.ands), clear(&Step, &values, 2 * bits, ring, false));
    }

    #[test]
    fn the_receivers_labels_are_those_of_its_bits(
        values in prop::collection::vec(any::<u64>(), 1..300), bits in 1u32..=64, seed: u64,
    ) {
        let rng = &mut rng(seed);
        let (delta, mut sender, mut receiver) = session(rng);
        for round in 0..2 {
            let values: Vec<u64> = values.iter().map(|value| value.rotate_left(round)).collect();
            let choices = Choices::of_numbers(&values, bits).unwrap();
            let (message, labels) = receiver.extend(&choices).unwrap();
            prop_assert_eq!(message.len(), extension_bytes(choices.len()));
            let zeros = sender.extend(&message, choices.len()).unwrap();
            prop_assert_eq!(&labels, &delta.active(&zeros, &choices).unwrap());
            let sent = zeros.to_le_bytes();
            prop_assert_eq!(&Labels::from_le_bytes(&sent, zeros.len()).unwrap(), &zeros);
        }
    }
}

fn session(rng: &mut ChaCha20Rng) -> (Delta, LabelSender, LabelReceiver) {
    let (opening, delta) = (Opening::new(rng), Delta::random(rng));
    let (sender, answer) = LabelSender::new(&delta, &opening.message(), rng).unwrap();
    (delta, sender, opening.finish(&answer).unwrap())
}

/// FIPS 197, appendices B and C.1.
#[test]
fn aes_gives_the_official_vectors() {
    let bytes = |text: &str| u128::from_be_bytes(u128::from_str_radix(text, 16).unwrap().to_le_bytes());
    let vectors = [
        [
            "2b7e151628aed2a6abf7158809cf4f3c",
            "3243f6a8885a308d313198a2e0370734",
            "3925841d02dc09fbdc118597196a0b32",
        ],
        [
            "000102030405060708090a0b0c0d0e0f",
            "00112233445566778899aabbccddeeff",
            "69c4e0d86a7b0430d8cdb78070b4c55a",
        ],
    ];
    for [key, plain, expected] in vectors.map(|vector| vector.map(bytes)) {
        // In every place of a batch.
        let mut blocks = vec![block(plain); 67];
        encrypt(&cipher(key), &mut blocks);
        assert!(blocks.iter().all(|block| number(block) == expected));
    }
}

#[test]
fn sigma_and_what_it_changes_are_bijections() {
    // Linear maps of bits: independent images of all single bits.
    for map in [sigma as fn(u128) -> u128, |x| sigma(x) ^ x] {
        let mut images: Vec<u128> = (0..128).map(|bit| map(1 << bit)).collect();
        for bit in 0..128 {
            let at = (bit..128).find(|&at| images[at] >> bit & 1 == 1).expect("of full rank");
            images.swap(bit, at);
            for other in 0..128 {
                if other != bit && images[other] >> bit & 1 == 1 {
                    images[other] ^= images[bit];
                }
            }
        }
    }
    let (x, y) = (0x0123_4567_89ab_cdef_u128 << 64, 0xfeed_u128);
    assert_eq!(sigma(x ^ y), sigma(x) ^ sigma(y));
}

/// How often each byte comes, as the statistic of a chi-square test of 255 degrees of freedom.
fn chi_square(bytes: &[u8]) -> f64 {
    let mut counts = [0.0; 256];
    bytes.iter().for_each(|&byte| counts[byte as usize] += 1.0);
    let expected = bytes.len() as f64 / 256.0;
    counts.iter().map(|count: &f64| (count - expected).powi(2) / expected).sum()
}

/// Beyond this, the chance is one in a billion.
const CHI_SQUARE_LIMIT: f64 = 405.0;

#[test]
fn what_crosses_looks_random_and_colours_say_nothing() {
    let ring = Ring::new(24).unwrap();
    // All inputs are the same.
    let garbled = garble(&Step, &[0x3f_ffff; 1024], 40, false, ring, 5);
    for bytes in [&garbled.message, &garbled.labels.to_le_bytes(), &ring.pack(&garbled.evaluator)] {
        let found = chi_square(bytes);
        assert!(found < CHI_SQUARE_LIMIT, "{found} for {} bytes", bytes.len());
    }
    // Colours of a wire of ones and of a wire of zeros: even, and the labels differ by an odd secret.
    for labels in [&garbled.zeros, &garbled.labels] {
        let ones = labels.as_slice().iter().filter(|label| *label & 1 == 1).count() as f64;
        let (count, half) = (labels.len() as f64, labels.len() as f64 / 2.0);
        assert!((ones - half).abs() < 6.0 * (count / 4.0).sqrt(), "{ones} of {count}");
    }
    assert_eq!(garbled.delta.get() & 1, 1);
}

/// A simulator, which knows neither inputs nor circuits' results but the evaluator's share: random labels and a random message,
/// with rows of the projection set so that the evaluation ends with that share. It looks like a garbling, and evaluates like
/// one: whatever the evaluator sees of a garbling, it could have made for itself.
#[test]
fn a_simulator_that_knows_no_input_makes_what_looks_like_a_garbling() {
    let (ring, bits, width) = (Ring::new(24).unwrap(), 40, 1024);
    let real = garble(&Step, &[0x3f_ffff; 1024], bits, false, ring, 5);
    let rng = &mut rng(6);
    let labels = Labels::random(width * bits as usize, rng);
    let mut message = vec![0; real.message.len()];
    rng.fill_bytes(&mut message);
    let evaluate = |message: &[u8]| {
        let mut evaluator = Evaluator::new(message, width).unwrap();
        let input = evaluator.input(&labels).unwrap();
        let output = Step.run(&mut evaluator, &input);
        let share = evaluator.project(&output, ring).to_vec();
        let ands = evaluator.ands();
        evaluator.finish().unwrap();
        let colours: Vec<Vec<bool>> =
            output.iter().map(|wire| wire.labels().iter().map(|label| label & 1 == 1).collect()).collect();
        (share, ands, colours)
    };
    let (share, _, colours) = evaluate(&message);
    // The row of a result's first bit of colour 1 is added as it is: it makes up for the difference.
    let start = message.len() - projection_bytes(colours.len(), width, ring);
    let row_bytes = ring.packed_bytes(width);
    let mut programmed = vec![];
    for (bit, colours_of_bit) in colours.iter().enumerate() {
        let at = start + bit * row_bytes;
        let mut rows = ring.unpack(&message[at..at + row_bytes], width).unwrap().to_vec();
        for circuit in 0..width {
            if colours_of_bit[circuit] && !colours[..bit].iter().any(|colours| colours[circuit]) {
                let missing = real.evaluator[circuit].wrapping_sub(share[circuit]);
                rows[circuit] = ring.wrap(rows[circuit].wrapping_add(missing));
                programmed.push(circuit);
            }
        }
        message[at..at + row_bytes].copy_from_slice(&ring.pack(&rows));
    }
    let (share, ands, _) = evaluate(&message);
    assert_eq!(ands, real.ands);
    // Of so many bits hardly ever all have colour 0.
    assert!(programmed.len() > width - 20, "{}", programmed.len());
    assert!(programmed.iter().all(|&circuit| share[circuit] == real.evaluator[circuit]));
    for (message, labels) in [(&message, &labels), (&real.message, &real.labels)] {
        let found = [chi_square(message), chi_square(&labels.to_le_bytes())];
        assert!(found.iter().all(|found| *found < CHI_SQUARE_LIMIT), "{found:?}");
        let ones = labels.as_slice().iter().filter(|label| *label & 1 == 1).count() as f64;
        let (count, half) = (labels.len() as f64, labels.len() as f64 / 2.0);
        assert!((ones - half).abs() < 6.0 * (count / 4.0).sqrt(), "{ones} of {count}");
    }
}

/// Whatever the bits are, the message is a mask that the sender knows nothing of, and the bits: those for other bits
/// differ by just the bits. So both are distributed alike if one is.
#[test]
fn a_receivers_messages_for_different_bits_are_distributed_alike() {
    let [(_, _, mut one), (_, _, mut other)] = [(); 2].map(|()| session(&mut rng(9)));
    let numbers: Vec<u64> = (0..512).map(|_| rng(1).random()).collect();
    let choices = Choices::of_numbers(&numbers, 40).unwrap();
    let (message, _) = one.extend(&choices).unwrap();
    let (zeros, _) = other.extend(&Choices::of_numbers(&[0; 512], 40).unwrap()).unwrap();
    for bytes in [&message, &zeros] {
        assert!(chi_square(bytes) < CHI_SQUARE_LIMIT);
    }
    // 160 words of 128 transfers: in batches of 64, column by column.
    let words: Vec<&[u128]> = choices.words().chunks(64).collect();
    let expected: Vec<u8> = words
        .iter()
        .flat_map(|words| std::iter::repeat_n(*words, 128).flatten())
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let differ: Vec<u8> = message.iter().zip(&zeros).map(|(x, y)| x ^ y).collect();
    assert_eq!(differ, expected);
    // The next message takes other masks.
    assert_ne!(one.extend(&choices).unwrap().0, message);
}

/// An evaluator that has the other label of an input gets the other result: rows of tables are for all four cases.
#[test]
fn revealed_bits_are_those_of_the_circuit() {
    let rng = &mut rng(3);
    let delta = Delta::random(rng);
    let values: Vec<u64> = (0..300).map(|_| rng.random()).collect();
    let zeros = Labels::random(300 * 8, rng);
    let mut garbler = Garbler::new(&delta, 300, rng).unwrap();
    garbler.reserve(3);
    let input = garbler.input(&zeros).unwrap();
    let larger = circuits::max(&mut garbler, &input[..4], &input[4..]);
    garbler.reveal(&larger);
    let message = garbler.finish().unwrap();
    assert_eq!(message.len(), START_BYTES + 8 * 300 * AND_BYTES + reveal_bytes(4, 300));
    let labels = delta.active(&zeros, &Choices::of_numbers(&values, 8).unwrap()).unwrap();
    let mut evaluator = Evaluator::new(&message, 300).unwrap();
    let input = evaluator.input(&labels).unwrap();
    let larger = circuits::max(&mut evaluator, &input[..4], &input[4..]);
    let expected: Vec<u64> = values.iter().map(|value| (value & 15).max(value >> 4 & 15)).collect();
    assert_eq!(*evaluator.reveal(&larger), expected);
    evaluator.finish().unwrap();
}

#[test]
fn no_two_garblings_have_a_start_in_common() {
    let ring = Ring::new(8).unwrap();
    let [one, other] = [1, 2].map(|seed| garble(&Gates(vec![(0, 0, 1)]), &[3], 2, false, ring, seed));
    assert_ne!(one.message[..START_BYTES], other.message[..START_BYTES]);
    assert_ne!(one.evaluator, other.evaluator);
}

#[test]
fn messages_of_another_length_are_refused_at_the_end() {
    let ring = Ring::new(13).unwrap();
    let values = [5, 6, 7];
    let garbled = garble(&Step, &values, 20, false, ring, 1);
    let labels = &garbled.labels;
    let run = |message: &[u8]| {
        let mut evaluator = Evaluator::new(message, 3)?;
        let input = evaluator.input(labels)?;
        let output = Step.run(&mut evaluator, &input);
        evaluator.project(&output, ring);
        evaluator.finish()
    };
    assert_eq!(run(&garbled.message), Ok(()));
    let whole = garbled.message.len();
    let refused = |expected, found| Err(Error::Length { what: "bytes of a garbling", expected, found });
    for length in [16, 17, 48, whole / 2, whole - 1] {
        assert_eq!(run(&garbled.message[..length]), refused(whole, length));
    }
    assert_eq!(run(&[&garbled.message[..], &[0]].concat()), refused(whole, whole + 1));
    assert_eq!(run(&[0; 15]), refused(16, 15));
}

#[test]
fn sizes_beyond_the_limits_are_refused() {
    let rng = &mut rng(1);
    let delta = Delta::random(rng);
    for found in [0, MAX_WIDTH + 1] {
        let refused = Error::Range { what: "circuits side by side", least: 1, most: MAX_WIDTH, found };
        assert_eq!(Garbler::new(&delta, found, rng).map(|_| ()), Err(refused.clone()));
        assert_eq!(Evaluator::new(&[0; 16], found).map(|_| ()), Err(refused));
    }
    let garbler = Garbler::new(&delta, 4, rng).unwrap();
    let odd = Labels::random(6, rng);
    let refused = Error::Length { what: "labels of circuits side by side", expected: 8, found: 6 };
    assert_eq!(garbler.input(&odd).map(|_| ()), Err(refused));
    let values = Choices::of_numbers(&[1, 2], 2).unwrap();
    let refused = Error::Length { what: "values that labels stand for", expected: 6, found: 4 };
    assert_eq!(delta.active(&odd, &values).map(|_| ()), Err(refused));
    let refused = Error::Length { what: "bytes of labels", expected: 32, found: 33 };
    assert_eq!(Labels::from_le_bytes(&[0; 33], 2).map(|_| ()), Err(refused));
    let bits = Error::Range { what: "bits of a ring", least: 1, most: 64, found: 65 };
    assert_eq!(Choices::of_numbers(&[1], 65).map(|_| ()), Err(bits));
}

#[test]
fn extensions_of_another_length_are_refused() {
    let (_, mut sender, mut receiver) = session(&mut rng(4));
    let message = receiver.extend(&Choices::of_numbers(&[1; 130], 1).unwrap()).unwrap().0;
    let refused =
        |found| Err(Error::Length { what: "bytes of an extension of transfers", expected: 4096, found });
    for bytes in [&message[1..], &[&message[..], &[0]].concat(), &[]] {
        assert_eq!(sender.extend(bytes, 130).map(|_| ()), refused(bytes.len()));
    }
    for found in [0, MAX_TRANSFERS + 1] {
        let refused = Error::Range { what: "transfers of one message", least: 1, most: MAX_TRANSFERS, found };
        assert_eq!(sender.extend(&[], found).map(|_| ()), Err(refused));
    }
    // What was refused changed nothing.
    assert!(sender.extend(&message, 130).is_ok());
}

/// Wires of garblings of another width: found at the end, and nothing panics.
#[test]
fn wires_of_other_circuits_are_refused_at_the_end() {
    let rng = &mut rng(6);
    let delta = Delta::random(rng);
    let mut narrow = Garbler::new(&delta, 2, rng).unwrap();
    let mut wide = Garbler::new(&delta, 5, rng).unwrap();
    let own: Wire = wide.input(&Labels::random(5, rng)).unwrap().remove(0);
    let foreign = narrow.input(&Labels::random(2, rng)).unwrap().remove(0);
    let and = wide.and(&own, &foreign);
    wide.xor(&foreign, &and);
    wide.not(&foreign);
    wide.project(&[foreign], false, Ring::new(9).unwrap());
    let refused = Err(Error::Length { what: "labels of a wire", expected: 5, found: 2 });
    assert_eq!(wide.finish().map(|_| ()), refused);
    narrow.reveal(&[own]);
    assert!(narrow.finish().is_err());
}

#[test]
fn memory_of_wires_is_used_again() {
    let rng = &mut rng(8);
    let mut garbler = Garbler::new(&Delta::random(rng), 4, rng).unwrap();
    let mut wires = garbler.input(&Labels::random(8, rng)).unwrap();
    let address = wires[1].labels().as_ptr();
    drop(wires.pop());
    let other = garbler.not(&wires[0]);
    assert_eq!(other.labels().as_ptr(), address);
    assert_ne!(other.labels(), wires[0].labels());
}

#[test]
fn secrets_are_not_printed() {
    let rng = &mut rng(2);
    let (delta, sender, receiver) = session(rng);
    let labels = Labels::random(3, rng);
    let garbler = Garbler::new(&delta, 3, rng).unwrap();
    let wire = &garbler.input(&labels).unwrap()[0];
    let choices = Choices::of_numbers(&[1], 1).unwrap();
    let printed = format!("{delta:?} {sender:?} {receiver:?} {labels:?} {garbler:?} {wire:?} {choices:?}");
    assert!(printed.len() < 250, "{printed}");
    let _ = rng.next_u64();
}

#[test]
fn labels_of_a_seed_are_the_same_again_and_unlike_others() {
    let rng = &mut rng(9);
    let (seed, other) = (LabelSeed::random(rng), LabelSeed::random(rng));
    let labels = Labels::of_seed(&seed, 1000);
    assert_eq!(labels, Labels::of_seed(&seed, 1000));
    assert_eq!(labels.as_slice()[..100], *Labels::of_seed(&seed, 100).as_slice());
    let both = [labels, Labels::of_seed(&other, 1000)];
    let all: std::collections::BTreeSet<u128> =
        both.iter().flat_map(|labels| labels.as_slice()).copied().collect();
    assert_eq!(all.len(), 2000);
    assert_eq!(Labels::from_le_bytes(&both[0].to_le_bytes(), 1000).unwrap(), both[0]);
    assert!(Labels::of_seed(&seed, 0).is_empty());
}
