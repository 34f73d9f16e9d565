//! Values that a caller can write: wrong ones are typed errors, never a panic or another number.

use super::*;
use crate::arith::Backend;
use crate::hazmat::{Exponent, FixedBase, Residues};
use crate::paillier::{Hiding, KeyParameters, KeyType, RandomnessPool};
use crate::testing::secret_key;
use crate::{Flood, RingBits};

const FOREIGN: Error = Error::ForeignResidues;

/// Residues of another key of the same size.
fn of_another_key() -> Residues {
    let rng = &mut ChaCha20Rng::seed_from_u64(6);
    secret_key(KeyBits::Bits1024, rng).unwrap().randomizers(rng, 2)
}

#[test]
fn residues_of_other_keys_and_lengths_are_refused() {
    let (key, rng) = (KEY.public_key(), &mut ChaCha20Rng::seed_from_u64(1));
    let numbers = [5u8, 7].map(Into::into);
    let residues = Residues::encrypt(key, &numbers, rng).unwrap();
    let one = residues.select(&[0]).unwrap();
    let two = Exponent::new(vec![2]);
    let mut others = vec![of_another_key()];
    if key.backend() != Backend::Portable {
        let bytes = residues.encode(key).unwrap();
        others.push(Residues::decode(&key.clone().on(Backend::Portable).unwrap(), &bytes).unwrap());
    }
    for mut other in others {
        let mut mine = residues.clone();
        assert_eq!(mine.multiply(key, &other), Err(FOREIGN));
        assert_eq!(other.multiply(key, &mine), Err(FOREIGN));
        assert_eq!(other.square(key, 1), Err(FOREIGN));
        assert_eq!(other.power(key, &two).map(drop), Err(FOREIGN));
        assert_eq!(other.clone().hide(key, rng).map(drop), Err(FOREIGN));
        assert_eq!(other.encode(key), Err(FOREIGN));
        assert_eq!(other.decrypt(&KEY), Err(FOREIGN));
        assert_eq!(FixedBase::new(key, &other, 64).map(drop), Err(FOREIGN));
        assert_eq!(mine.join(&other), Err(FOREIGN));
        assert_eq!(mine.decrypt(&KEY).unwrap(), numbers);
    }
    let mut mine = residues.clone();
    for short in [&one, &one.select(&[]).unwrap()] {
        assert!(matches!(mine.multiply(key, short), Err(Error::Count { .. })));
    }
    for (index, found) in [(2, 2), (7, 2), (usize::MAX, 2)] {
        let refused = residues.select(&[0, index]).map(drop);
        let (what, least) = ("residues", index.saturating_add(1));
        assert_eq!(refused, Err(Error::TooFew { what, least, found }));
    }
    assert!(matches!(FixedBase::new(key, &residues, 64), Err(Error::Count { .. })));
    let powers = FixedBase::new(key, &one, 64).unwrap();
    assert!(matches!(powers.power(&[Exponent::new(vec![1, 0])]), Err(Error::Limit { .. })));
    let found = powers.power(&[Exponent::new(vec![3]), Exponent::new(vec![])]).unwrap();
    assert_eq!(found.decrypt(&KEY).unwrap(), [15u8, 0].map(Into::into));
    let n = key.modulus();
    assert!(matches!(Exponent::of(key, &n), Err(Error::Limit { .. })));
    assert!(matches!(Residues::encrypt(key, &[n], rng), Err(Error::Limit { .. })));
}

#[test]
fn tensors_of_other_keys_are_refused() {
    let rng = &mut ChaCha20Rng::seed_from_u64(2);
    let other = secret_key(KeyBits::Bits1024, rng).unwrap();
    let format = Format::integers(9).unwrap();
    let plain = FixedTensor::new(Shape::from([2]), format, vec![-9, 9]).unwrap();
    let packing = Packing { batch: 1, slot_bits: 8, key: KeyBits::Bits1024 };
    let layout = SlotLayout::images(packing, Contents::Integers(format)).unwrap();
    let [mine, theirs] = [&*KEY, &other].map(|key| plain.encrypt(&layout, key, rng).unwrap());
    assert!(matches!(mine.add(&theirs), Err(Error::ForeignKey { .. })));
    assert!(matches!(mine.decrypt(&other), Err(Error::ForeignKey { .. })));
    // Factors of another key are not used.
    let fresh = other.public_key().hiding_exponents(rng, Hiding::of(2, 0)).powers();
    assert_eq!(mine.rerandomize_with(fresh, rng).decrypt(&KEY).unwrap(), plain);
}

#[test]
fn sizes_beyond_all_bounds_are_refused() {
    let format = Format::integers(9).unwrap();
    let integers = Contents::Integers(format);
    let key = KeyBits::Bits1024;
    for (batch, slot_bits) in
        [(0, 8), (1, 0), (1, 4), (1, 129), (1, usize::MAX), (usize::MAX, 0), (usize::MAX, usize::MAX)]
    {
        assert!(SlotLayout::images(Packing { batch, slot_bits, key }, integers).is_err());
    }
    let layout = SlotLayout::images(Packing { batch: usize::MAX, slot_bits: 8, key }, integers).unwrap();
    for shape in [vec![], vec![0], vec![usize::MAX, 2], vec![1]].map(|dims| Shape::from(&dims[..])) {
        for batch in [0, 1, usize::MAX] {
            layout.ciphertexts(batch, &shape);
            let header = EncTensorHeader::new(shape.clone(), batch, layout.clone());
            let good = (batch, shape.elements()) == (1, 1);
            assert_eq!(header.check(key).is_ok(), good, "{batch} of {shape}");
            assert_eq!(EncTensorBuilder::new(KEY.public_key(), header.clone(), 1).is_ok(), good);
            assert_eq!(Decryption::new(KEY.public_key(), header).is_ok(), good);
        }
    }
    for quotient in [0, 1 << 41, u64::MAX] {
        for bits in [0, 65, u32::MAX] {
            let contents = Contents::Residues(Flood { ring: RingBits::holding(9).unwrap(), quotient, bits });
            assert!(SlotLayout::images(Packing { batch: 1, slot_bits: 128, key }, contents).is_err());
        }
    }
    for key_type in KeyType::ALL {
        let parameters = KeyParameters { size: key, key_type };
        let longest = parameters.hiding_exponent(Hiding::of(1, usize::MAX));
        assert_eq!(parameters.hiding_exponent(Hiding::of(usize::MAX, usize::MAX)), longest);
    }
    let pool = RandomnessPool::new(std::sync::Arc::new(KEY.public_key().clone()), usize::MAX);
    assert_eq!((pool.bytes(), pool.ready()), (usize::MAX, 0));
}

#[test]
fn names_are_read_as_they_are_printed() {
    fn round_trip<T: std::str::FromStr<Err = Error> + ToString + PartialEq>(all: &[T], wrong: &[&str]) {
        for value in all {
            assert!(value.to_string().parse::<T>().is_ok_and(|read| read == *value));
        }
        assert!(wrong.iter().all(|text| text.parse::<T>().is_err()));
    }
    round_trip(&KeyBits::ALL, &["", "1000", "02048", "2048 "]);
    round_trip(&KeyType::ALL, &["", "Djn", "subgroups"]);
    round_trip(&Backend::ALL, &["", "avx9"]);
}
