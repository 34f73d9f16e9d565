//! Multiples of encrypted values, and bounds that are stated of them.

use super::*;

/// A key whose operations nothing else counts.
static COUNTED: LazyLock<SecretKey> = LazyLock::new(|| {
    crate::testing::secret_key(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(44)).unwrap()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Sums corrected by a multiple of others, in any layout, are those in the clear, for as many operations as are stated.
    #[test]
    fn corrected_sums_are_the_clear_ones(
        seed: u64, bits in 1..=16u32, batch in 1usize..9, extreme: bool,
    ) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let factor = if extreme { (1 << bits) - 1 } else { rng.random_range(0..1u64 << bits) };
        let shape = Shape::from([rng.random_range(1..7)]);
        let [sums, corrections] = [1000, 1 << 20].map(|bound| random_tensor(rng, &shape, batch, bound));
        let layout = images(batch, 60);
        let most = layout.most_stacked(public().size());
        let layout = layout.with_stacked(rng.random_range(1..=most), public().size()).unwrap();
        let [a, b] = [&sums, &corrections].map(|plain| plain.encrypt(&layout, &*COUNTED, rng).unwrap());
        let ring = b.key().ring();
        let before = ring.operations();
        let scaled = b.scaled(factor, bits).unwrap();
        let each = EncTensor::scaling(bits);
        prop_assert_eq!(ring.operations() - before, each * b.header().ciphertexts() as u64);
        let bound = 1000 + (1 << 20) * ((1 << bits) - 1);
        let corrected = a.add(&scaled).unwrap();
        prop_assert_eq!(corrected.layout().contents().format().unwrap().bound(), bound);
        let wider = Format::integers(bound + 5).unwrap().with_scale_bits(4).unwrap();
        let stated = corrected.clone().bounded_by(wider).unwrap().rerandomize(rng);
        prop_assert_eq!(stated.header(), &corrected.header().with_format(wider).unwrap());
        let expected = sums.values().iter().zip(corrections.values());
        let expected: Vec<i64> = expected.map(|(sum, one)| sum + factor as i64 * one).collect();
        let found = stated.decrypt(&COUNTED).unwrap();
        prop_assert_eq!(found.values(), expected);
    }
}

#[test]
fn multiples_and_bounds_that_do_not_fit_are_refused() {
    let rng = &mut ChaCha20Rng::seed_from_u64(2);
    let plain = random_tensor(rng, &Shape::from([3]), 2, 1000);
    let tensor = plain.encrypt(&images(2, 20), &*KEY, rng).unwrap();
    for (factor, bits) in [(2, 1), (16, 4), (0, 0), (0, 33), (u64::MAX, 32)] {
        let refused = tensor.scaled(factor, bits).map(drop);
        assert!(matches!(refused, Err(Error::Value { index: 0, .. })), "{factor} {bits}: {refused:?}");
    }
    // 1000 times 511 has 19 bits, and a sign.
    assert!(tensor.scaled(5, 9).is_ok());
    let refused = tensor.scaled(5, 10).map(drop);
    assert_eq!(refused, Err(Error::Overflow { needed_bits: 21, available_bits: 20 }));
    assert!(matches!(tensor.scaled(1, 32), Err(Error::Overflow { .. })));
    let scaled = |bound: u64| Format::integers(bound).unwrap().with_scale_bits(4).unwrap();
    let bounded = |format: Format| tensor.clone().bounded_by(format).map(drop);
    assert_eq!(bounded(scaled(1000)), Ok(()));
    let refused = bounded(scaled(999));
    assert_eq!(refused, Err(Error::Limit { what: "bound of a tensor's values", limit: 999, found: 1000 }));
    let refused = bounded(scaled(1 << 19));
    assert_eq!(refused, Err(Error::Overflow { needed_bits: 21, available_bits: 20 }));
    let other = Format::integers(1000).unwrap();
    assert!(matches!(bounded(other), Err(Error::Scale { expected: 0, found: 4 })));
    assert!(tensor.header().with_format(scaled(1 << 19)).is_err());
}
