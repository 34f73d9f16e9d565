#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use fhe::bfv::Ciphertext;

use super::*;

/// Parameters of degree 2048 whose primes are too many for security: quick, and with all levels.
fn quick(plaintext_moduli: Vec<u64>) -> Parameters {
    Parameters { degree: 2048, limb_bits: vec![62; 3], plaintext_moduli, cost_us: 0 }
}

fn channels(parameters: &Parameters) -> Vec<Channel> {
    let channel = |&modulus: &u64| Channel::new(parameters, modulus, 2, &mut rand_fhe::rng()).unwrap();
    parameters.plaintext_moduli.iter().map(channel).collect()
}

#[test]
fn parameters_are_secure_and_large_enough() {
    let sums = Step::Sums { growth_bits: 8, products: 1000 };
    let squares = Step::Products(10);
    let network = [sums, squares, Step::SwitchDown, sums, Step::Relinearize, squares, sums];
    let chosen = Parameters::choose(70, &network).unwrap();
    assert_eq!(chosen.degree, 8192);
    assert!(chosen.modulus_bits() <= 218, "{chosen:?}");
    let bits: f64 = chosen.plaintext_moduli.iter().map(|&modulus| (modulus as f64).log2()).sum();
    assert!(bits > 71.0, "{chosen:?}");
    for (place, modulus) in chosen.plaintext_moduli.iter().enumerate() {
        assert_eq!(modulus % (2 * 8192), 1);
        assert!(!chosen.plaintext_moduli[..place].contains(modulus));
    }
    // Nothing but encryption fits the smallest degree; what is too deep fits none.
    assert_eq!(Parameters::choose(20, &[Step::Sums { growth_bits: 5, products: 1 }]).unwrap().degree, 2048);
    assert_eq!(Parameters::choose(40, &[Step::Products(1); 40]), Err(ParametersError { bits: 40 }));
}

#[test]
fn residues_are_put_together() {
    let parameters = quick(vec![65537, 114_689, 147_457]);
    let largest = 65537_i128 * 114_689 * 147_457 / 2;
    for value in [0, 1, -1, 123_456_789_012, -987_654_321_098, largest, -largest] {
        let residues = parameters.plaintext_moduli.iter().map(|&m| value.rem_euclid(i128::from(m)) as u64);
        assert_eq!(parameters.combine(residues), value);
    }
}

#[test]
fn sums_and_squares_of_ciphertexts_are_those_of_integers() {
    let parameters = quick(vec![65537, 114_689]);
    let inputs: Vec<Vec<i128>> =
        (0..5).map(|i| (0..2048).map(|slot| (slot * (i + 3) % 31) - 15).collect()).collect();
    let term = |input, weight| Term { input, weight };
    let first = Sums {
        rows: vec![
            SumRow { terms: vec![term(0, -7), term(3, 12), term(4, 1)], bias: -40 },
            SumRow { terms: vec![term(1, 5), term(2, -9)], bias: 0 },
            SumRow { terms: vec![], bias: 11 },
        ],
    };
    let second =
        Sums { rows: vec![SumRow { terms: vec![term(0, 3), term(1, -2), term(2, 25)], bias: 1 << 20 }] };
    // 25 bits and less than 2^31 mod both.
    let clear: Vec<i128> = (0..2048)
        .map(|slot| {
            let image: Vec<i128> = inputs.iter().map(|input| input[slot]).collect();
            let squares: Vec<i128> = first.apply_clear(&image).iter().map(|x| x * x).collect();
            second.apply_clear(&squares)[0].pow(2)
        })
        .collect();
    let residues: Vec<Vec<u64>> = channels(&parameters)
        .iter()
        .map(|channel| {
            let encrypt = |values: &Vec<i128>| channel.encrypt(values, &mut rand_fhe::rng()).unwrap();
            let encrypted: Vec<Ciphertext> = inputs.iter().map(encrypt).collect();
            let fresh = channel.headroom(&encrypted[0]).unwrap();
            let mut squares: Vec<Ciphertext> =
                first.apply(channel, &encrypted).unwrap().iter().map(|x| x * x).collect();
            squares.iter_mut().for_each(|square| square.switch_down().unwrap());
            let mut sum = second.apply(channel, &squares).unwrap().remove(0);
            channel.relinearize(&mut sum).unwrap();
            assert_eq!(sum.len(), 2);
            let square = &sum * &sum;
            let left = channel.headroom(&square).unwrap();
            assert!(left >= 4 && left + 40 < fresh, "{fresh} bits of noise budget, {left} left");
            channel.decrypt(&square).unwrap()
        })
        .collect();
    let modulus = 65537_i128 * 114_689;
    for (slot, &expected) in clear.iter().enumerate() {
        let found = parameters.combine(residues.iter().map(|channel| channel[slot]));
        assert_eq!(found.rem_euclid(modulus), expected.rem_euclid(modulus), "slot {slot}");
    }
}

#[test]
fn sums_of_integers_are_known() {
    let term = |input, weight| Term { input, weight };
    let sums = Sums { rows: vec![SumRow { terms: vec![term(0, -3), term(1, 4)], bias: 5 }] };
    assert_eq!((sums.growth_bits(), sums.products()), (3, 2));
    assert_eq!(sums.apply_clear(&[10, 0]), [-25]);
    assert_eq!(sums.apply_clear(&[0, 2]), [13]);
}

#[test]
fn a_ciphertext_without_room_has_no_headroom() {
    // One prime of 54 bits with a plaintext modulus of 34 bits: no product fits.
    let mut parameters = quick(parameters::plaintext_moduli(2048, 34, 1));
    parameters.limb_bits = vec![54];
    let channel = Channel::new(&parameters, parameters.plaintext_moduli[0], 0, &mut rand_fhe::rng()).unwrap();
    let values: Vec<i128> = (0..2048).collect();
    let encrypted = channel.encrypt(&values, &mut rand_fhe::rng()).unwrap();
    let residues: Vec<u64> = (0..2048).collect();
    assert_eq!(channel.decrypt(&encrypted).unwrap(), residues);
    let fresh = channel.headroom(&encrypted).unwrap();
    assert!((8..16).contains(&fresh), "{fresh}");
    let square = &encrypted * &encrypted;
    assert!(channel.relinearize(&mut square.clone()).is_err());
    let squares: Vec<u64> = residues.iter().map(|x| x * x).collect();
    assert_ne!(channel.decrypt(&square).unwrap(), squares);
}
