//! Packed inputs: products of polynomials whose middle coefficients are the sums, and what hides the others.

use num_bigint::{BigInt, BigUint, Sign};

use super::*;
use crate::arith::limbs::{from_biguint, to_biguint};
use crate::layout::Extent;

/// A convolution, a dense layer or a chain whose blocks have equally many columns.
fn random_columns(rng: &mut ChaCha20Rng) -> Arc<LinearMap> {
    loop {
        let map = match rng.random_bool(0.3) {
            true => {
                LinearMap::dense(&Shape::from([rng.random_range(1..40)]), rng.random_range(1..12)).unwrap()
            }
            false => random_map(rng),
        };
        if map.columns().is_some() {
            return Arc::new(map);
        }
    }
}

/// Layouts with several taps to a ciphertext: any counts, and the largest that fit the key.
fn random_fields(rng: &mut ChaCha20Rng, layout: &SlotLayout) -> Vec<SlotLayout> {
    let with = |count, rows| layout.with_fields(count, rows, public().size()).ok();
    let largest = |rows| (2..40).map_while(move |count| with(count, rows)).last();
    let count = rng.random_range(2..4);
    let most_rows = (1..80).map_while(|rows| with(count, rows)).last();
    let any = with(rng.random_range(2..9), rng.random_range(1..9));
    [largest(1), largest(rng.random_range(1..4)), most_rows, any].into_iter().flatten().collect()
}

/// The plaintexts of a tensor, as signed numbers between -n / 2 and n / 2.
fn plaintexts(tensor: &EncTensor) -> Vec<BigInt> {
    let ciphertexts = public().decode(&tensor.encode_ciphertexts()).unwrap();
    let limbs = KEY.decrypt(&ciphertexts).unwrap();
    let n = BigInt::from(to_biguint(public().ring().modulus()));
    let signed = |limbs: &[u64]| {
        let value = BigInt::from(to_biguint(limbs));
        if value.clone() * 2 > n { value - &n } else { value }
    };
    limbs.chunks_exact(public().size().limbs()).map(signed).collect()
}

fn masks(tensor: &EncTensor, rng: &mut ChaCha20Rng) -> Masks {
    let layout = tensor.layout().combined().unwrap();
    Masks::draw(EncTensorHeader { layout, ..tensor.header().clone() }, public(), rng).unwrap()
}

/// Masks that hide nothing: what the products are without them.
fn no_masks(tensor: &EncTensor) -> Masks {
    let layout = tensor.layout().combined().unwrap();
    let header = EncTensorHeader { layout, ..tensor.header().clone() };
    let plaintexts = vec![0; header.ciphertexts() * public().size().limbs()];
    Masks { header, plaintexts: plaintexts.into() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The counts of the plan are those of the run, too.
    #[test]
    fn products_with_packed_inputs_equal_clear(seed: u64, trial in trials(), batch in 1usize..4, spare in 0usize..3) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let map = random_columns(rng);
        let mut weights = random_weights(rng, &map, trial.range);
        if rng.random_bool(0.5) {
            weights = weights.summed(&map).unwrap();
        }
        let input = random_tensor(rng, map.input(), batch, trial.bound);
        let clear = input.apply(&map, &weights).unwrap();
        let slot_bits = clear.format().slot_bits().max(input.format().slot_bits()) + 1 + spare;
        let patches = patches(&map, batch, slot_bits);
        for layout in random_fields(rng, &patches) {
            let encrypted = input.encrypt(&layout, &*KEY, rng).unwrap();
            let packs: usize = map.blocks().iter().map(|block| block.taps().div_ceil(layout.fields())).sum();
            prop_assert_eq!(encrypted.header().ciphertexts(), packs * patches.groups(batch));
            let kind = weights.range();
            let how = Workload { weights: kind, groups: layout.groups(batch), lanes: trial.lanes };
            let product = Product::cheapest(&map, encrypted.layout(), how).unwrap();
            // A ring that counts the operations of this product alone.
            let counted = COUNTED.public_key();
            let again = input.encrypt(&layout, &*COUNTED, rng).unwrap();
            let combined = layout.after(&map, Contents::Integers(clear.format())).unwrap().combined().unwrap();
            let header = EncTensorHeader::new(map.output().clone(), batch, combined);
            let before = counted.ring().operations();
            let pieces = again.apply(&map, &weights, &product).unwrap();
            pieces.combine(Masks::draw(header.clone(), counted, rng).unwrap()).unwrap();
            let moves = header.layout.moves() * header.ciphertexts() as u64;
            prop_assert_eq!(counted.ring().operations() - before, product.operations() + moves, "{}", layout);

            let pieces = encrypted.apply(&map, &weights, &product).unwrap();
            let masks = masks(&pieces, rng);
            let sums = pieces.combine(masks).unwrap();
            prop_assert_eq!(sums.header(), &header);
            let sums = sums.rerandomize(rng);
            prop_assert_eq!(&sums.decrypt(&KEY).unwrap(), &clear, "{}", layout);
            let bias = random_tensor(rng, clear.shape(), 1, clear.format().bound());
            let bias = FixedTensor::new(clear.shape().clone(), clear.format(), bias.values().to_vec()).unwrap();
            let (sums, with_bias) = (sums.add_plain(&bias).unwrap(), clear.add(&bias).unwrap());
            prop_assert_eq!(&sums.decrypt(&KEY).unwrap(), &with_bias, "{}", layout);

            // As few groups as share no ciphertext of the reply, by themselves.
            let apart = header.layout.groups_apart(map.output());
            let mut builder = EncTensorBuilder::new(public(), encrypted.header().clone(), apart).unwrap();
            let mut found = vec![0; clear.values().len()];
            for (index, chunk) in (0..).zip(encrypted.chunks()) {
                builder.push(index, &chunk).unwrap();
                while let Some(part) = builder.next_part() {
                    let how = Workload { groups: part.header().groups(), ..how };
                    let product = Product::cheapest(&map, part.layout(), how).unwrap();
                    let pieces = part.apply(&map, &weights, &product).unwrap();
                    let masks = self::masks(&pieces, rng);
                    chunks::add(&mut found, pieces.combine(masks).unwrap().add_plain(&bias).unwrap());
                }
            }
            prop_assert!(builder.is_empty());
            prop_assert_eq!(&found[..], with_bias.values(), "{}", layout);
        }
    }

    /// Fields hold what slots hold, a field apart.
    #[test]
    fn taps_go_into_fields(seed: u64, batch in 1usize..4, bound in 1u64..1000) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let map = random_columns(rng);
        let input = random_tensor(rng, map.input(), batch, bound);
        let patches = patches(&map, batch, input.format().slot_bits());
        let modulus = public().ring().modulus();
        let n = BigInt::from(to_biguint(modulus));
        let extent = Extent::new(batch, map.input());
        let taps = patches.pack(input.values(), extent, 0..patches.count(extent), modulus);
        let taps: Vec<BigInt> = taps.chunks_exact(modulus.len()).map(|tap| BigInt::from(to_biguint(tap))).collect();
        for layout in random_fields(rng, &patches) {
            let packed = layout.pack(input.values(), extent, 0..layout.count(extent), modulus);
            let mut packed = packed.chunks_exact(modulus.len());
            let mut taps = &taps[..];
            for _ in 0..layout.groups(batch) {
                for block in map.blocks() {
                    let (own, rest) = taps.split_at(block.taps());
                    taps = rest;
                    for together in own.chunks(layout.fields()) {
                        let fields = together.iter().enumerate();
                        let sum: BigInt = fields.map(|(at, tap)| tap << (at * layout.field_bits())).sum();
                        let expected = from_biguint((sum % &n).magnitude(), modulus.len());
                        prop_assert_eq!(packed.next(), Some(&expected[..]));
                    }
                }
            }
            prop_assert!(packed.next().is_none() && taps.is_empty());
        }
    }
}

/// A dense layer whose sums are the largest that their slots hold, or the smallest, with as many fields as fit.
struct Full {
    map: Arc<LinearMap>,
    weights: IntWeights,
    layout: SlotLayout,
}

const BOUND: i64 = 511;

impl Full {
    const TAPS: usize = 24;
    const ROWS: usize = 5;

    fn new(sign: i32, rows: usize) -> Self {
        Self::with_spare(sign, rows, 0)
    }

    /// With slots wider than need be.
    fn with_spare(sign: i32, rows: usize, bits: usize) -> Self {
        let map = Arc::new(LinearMap::dense(&Shape::from([Self::TAPS]), Self::ROWS).unwrap());
        let range = WeightRange::signed(4).unwrap();
        let weights = IntWeights::new(range, vec![sign * 7; map.weights()]).unwrap().summed(&map).unwrap();
        let sums = Format::integers(BOUND as u64).unwrap().weighted_sum(weights.range(), Self::TAPS).unwrap();
        let layout = patches(&map, 1, sums.slot_bits() + bits);
        let fields = (2..).map_while(|count| layout.with_fields(count, rows, public().size()).ok());
        let layout = fields.last().unwrap();
        Self { map, weights, layout }
    }

    fn pieces(&self, value: i64, rng: &mut ChaCha20Rng) -> EncTensor {
        let format = Format::integers(BOUND as u64).unwrap();
        let input = FixedTensor::new(Shape::from([Self::TAPS]), format, vec![value; Self::TAPS]).unwrap();
        let encrypted = input.encrypt(&self.layout, &*KEY, rng).unwrap();
        apply(&encrypted, &self.map, &self.weights, 1).unwrap()
    }
}

/// Cross terms are as large as sums, and add up to the longest carries there are.
#[test]
fn the_largest_cross_terms_do_not_reach_the_sums() {
    let rng = &mut ChaCha20Rng::seed_from_u64(31);
    for (sign, value, rows) in
        [(1, BOUND, 1), (1, -BOUND, 1), (-1, BOUND, 2), (-1, -BOUND, 3), (1, -BOUND, 5)]
    {
        let full = Full::new(sign, rows);
        assert!(full.layout.fields() >= 2);
        let pieces = full.pieces(value, rng);
        // The least masks that can be drawn, and the greatest.
        let greatest = |tensor: &EncTensor| {
            let layout = tensor.layout().combined().unwrap();
            let header = EncTensorHeader { layout, ..tensor.header().clone() };
            Masks::draw(header, public(), &mut Constant(u64::MAX)).unwrap()
        };
        let least = |tensor: &EncTensor| {
            let layout = tensor.layout().combined().unwrap();
            let header = EncTensorHeader { layout, ..tensor.header().clone() };
            Masks::draw(header, public(), &mut Constant(0)).unwrap()
        };
        for masks in [least(&pieces), greatest(&pieces), masks(&pieces, rng)] {
            let sums = pieces.clone().combine(masks).unwrap();
            let expected = i64::from(sign) * 7 * value * Full::TAPS as i64;
            assert_eq!(sums.decrypt(&KEY).unwrap().values(), [expected; Full::ROWS]);
            let bits = full.layout.product_bits() as u64;
            assert!(plaintexts(&sums).iter().all(|sum| sum.sign() != Sign::Minus && sum.bits() <= bits));
        }
    }
}

/// Not random at all.
struct Constant(u64);

impl rand::TryRng for Constant {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0 as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(self.0 as u8);
        Ok(())
    }
}

impl rand::TryCryptoRng for Constant {}

/// What a reply shows besides the sums: two numbers, of which every bit that is longer than the cross terms is as often 0
/// as 1, and which differ between two runs of the same input.
#[test]
fn everything_but_the_sums_is_random() {
    const RUNS: usize = 64;
    let rng = &mut ChaCha20Rng::seed_from_u64(32);
    let full = Full::new(1, 2);
    let pieces = full.pieces(BOUND, rng);
    let clear = plaintexts(&pieces.clone().combine(no_masks(&pieces)).unwrap());
    let (middle, field) = (full.layout.middle(), full.layout.field_bits());
    let row_bits = field - 41;
    let low = |sum: &BigUint| sum % (BigUint::from(1u8) << middle);
    let high = |sum: &BigUint| sum >> (middle + row_bits);
    let runs: Vec<Vec<BigUint>> = (0..RUNS)
        .map(|_| {
            let sums = pieces.clone().combine(masks(&pieces, rng)).unwrap();
            plaintexts(&sums).into_iter().map(|sum| sum.to_biguint().unwrap()).collect()
        })
        .collect();
    // Without masks they would be the cross terms: five rows share three ciphertexts.
    assert_eq!(clear.len(), 3);
    for (at, clear) in clear.iter().enumerate() {
        let offset = BigInt::from(1u8) << (middle - 41);
        let cross = clear.clone() % (BigInt::from(1u8) << middle);
        assert!(cross.magnitude() < offset.magnitude() && cross.bits() > (middle - field) as u64);
        let mut lows: Vec<BigUint> = runs.iter().map(|run| low(&run[at])).collect();
        let mut highs: Vec<BigUint> = runs.iter().map(|run| high(&run[at])).collect();
        for (numbers, least, most) in [(&lows, middle - 41, middle - 1), (&highs, middle, middle + 40)] {
            for bit in least..most {
                let ones = numbers.iter().filter(|number| number.bit(bit as u64)).count();
                assert!((8..=RUNS - 8).contains(&ones), "bit {bit}: {ones} of {RUNS}");
            }
            // The lowest bits are random as well.
            let ones = numbers.iter().filter(|number| number.bit(0)).count();
            assert!((8..=RUNS - 8).contains(&ones));
            // Their mean is half of what there is, within six standard deviations.
            let sum: BigUint = numbers.iter().sum();
            let mean = (sum >> (most - 20)) / RUNS;
            let mean = mean.iter_u64_digits().next().unwrap() as f64 / f64::from(1 << 20);
            assert!((mean - 0.5).abs() < 6.0 / (12.0 * RUNS as f64).sqrt(), "{mean}");
        }
        for numbers in [&mut lows, &mut highs] {
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), RUNS);
        }
        // The middle is the same in all runs: the sums, half of each slot's range higher.
        let middles = runs.iter().map(|run| (&run[at] >> middle) % (BigUint::from(1u8) << row_bits));
        let sum = 7 * BOUND * Full::TAPS as i64;
        let rows = (Full::ROWS - at * 2).min(2);
        let slot_bits = full.layout.slot_bits();
        let slots = (0..2).map(|row| {
            let value = if row < rows { sum } else { 0 } + (1 << (slot_bits - 1));
            BigUint::from(value as u64) << (row * slot_bits)
        });
        let expected: BigUint = slots.sum();
        assert!(middles.into_iter().all(|middle| middle == expected));
    }
}

/// A reply in which an unused slot or the room above the fields holds anything is refused.
#[test]
fn replies_that_no_honest_server_sends_are_refused() {
    let rng = &mut ChaCha20Rng::seed_from_u64(33);
    let full = Full::new(1, 2);
    let pieces = full.pieces(3, rng);
    let sums = pieces.clone().combine(masks(&pieces, rng)).unwrap();
    let (middle, bits) = (full.layout.middle(), full.layout.product_bits());
    let last = sums.header().ciphertexts() - 1;
    let with = |bit: usize| {
        let limbs = public().size().limbs();
        let mut plaintexts = vec![0; (last + 1) * limbs];
        plaintexts[last * limbs + bit / 64] = 1 << (bit % 64);
        let ciphertexts = public().decode(&sums.encode_ciphertexts()).unwrap();
        EncTensor::new(
            public().clone(),
            sums.header().clone(),
            public().add_plaintexts(&ciphertexts, &plaintexts),
        )
    };
    let refused = Err(Error::Plaintext { index: last });
    assert_eq!(with(bits).decrypt(&KEY), refused);
    // The last ciphertext has the sum of one row only.
    assert_eq!(with(middle + full.layout.slot_bits()).decrypt(&KEY), refused);
    // One bit of the lower mask says nothing, and changes nothing.
    assert_eq!(with(0).decrypt(&KEY).unwrap(), sums.decrypt(&KEY).unwrap());
}

#[test]
fn fields_that_do_not_fit_are_refused() {
    let map = Arc::new(LinearMap::dense(&Shape::from([24]), 5).unwrap());
    let layout = patches(&map, 1, 20);
    let key = public().size();
    // (2 p - 1) (20 q + 41) bits of 1,022.
    for (count, rows, fits) in
        [(8, 1, true), (9, 1, false), (2, 14, true), (2, 15, false), (1, 1 << 60, true)]
    {
        match layout.with_fields(count, rows, key) {
            Ok(packed) => assert!(fits && packed.fields() == count),
            Err(error) => assert!(!fits && matches!(error, Error::Overflow { available_bits: 1022, .. })),
        }
    }
    for (count, rows) in [(usize::MAX, 1), (2, usize::MAX), (usize::MAX, usize::MAX)] {
        assert!(matches!(layout.with_fields(count, rows, key), Err(Error::Overflow { .. })));
    }
    for (count, rows) in [(0, 1), (2, 0)] {
        assert!(matches!(layout.with_fields(count, rows, key), Err(Error::TooFew { found: 0, .. })));
    }
    let packed = layout.with_fields(2, 3, key).unwrap();
    assert_eq!(packed.to_string(), "im2col, 2 fields of 1 slot of 20 bits");
    let header = |layout: SlotLayout| EncTensorHeader::new(map.input().clone(), 1, layout);
    assert_eq!(header(packed.clone()).check(key), Ok(12));
    assert!(header(layout.with_fields(20, 2, KeyBits::Bits4096).unwrap()).check(key).is_err());
    for refused in [
        packed.with_fields(2, 3, key),
        images(1, 20).with_fields(2, 3, key),
        packed.with_stacked(2, key),
        packed.combined(),
        // Sums mod 2^l have no bound that masks could be drawn for.
        packed.after(
            &map,
            Contents::Residues(Flood { ring: RingBits::holding(9).unwrap(), quotient: 1, bits: 0 }),
        ),
    ] {
        assert!(matches!(refused, Err(Error::Layout { .. } | Error::Overflow { .. })), "{refused:?}");
    }
    // Slots that sums do not fit are refused before anything is multiplied.
    let weights = IntWeights::new(WeightRange::signed(8).unwrap(), vec![-128; 120]).unwrap();
    let input = FixedTensor::new(map.input().clone(), Format::integers(1000).unwrap(), vec![1; 24]).unwrap();
    let encrypted = input.encrypt(&packed, &*KEY, &mut ChaCha20Rng::seed_from_u64(34)).unwrap();
    let error = apply(&encrypted, &map, &weights, 1).unwrap_err();
    assert_eq!(error, Error::Overflow { needed_bits: 23, available_bits: 20 });
}

/// Pieces can be added and combined, and nothing else.
#[test]
fn pieces_are_good_for_one_thing() {
    let rng = &mut ChaCha20Rng::seed_from_u64(35);
    let full = Full::with_spare(1, 2, 1);
    let pieces = full.pieces(-7, rng);
    let header = pieces.header().clone();
    let bias = FixedTensor::new(header.shape.clone(), Format::integers(1).unwrap(), vec![1; 5]).unwrap();
    let sums = pieces.clone().combine(masks(&pieces, rng)).unwrap();
    let others = Full::with_spare(1, 1, 1).pieces(1, rng);
    for refused in [
        pieces.add_plain(&bias),
        pieces.clone().repack(1),
        pieces.add(&others),
        // Masks of another reply.
        pieces.clone().combine(masks(&others, rng)),
        // Masks would be added, too.
        sums.add(&sums),
        sums.clone().repack(1),
        sums.combine(masks(&pieces, rng)),
    ] {
        assert!(matches!(refused, Err(Error::Layout { .. })), "{refused:?}");
    }
    assert!(matches!(pieces.decrypt(&KEY), Err(Error::Layout { .. })));
    assert!(matches!(pieces.layout().combined().unwrap().combined(), Err(Error::Layout { .. })));
    // A reply to inputs that came one to a ciphertext needs no masks.
    let plain = EncTensorHeader { layout: images(1, 20), ..header };
    assert!(Masks::draw(plain, public(), rng).unwrap().plaintexts.is_empty());
    assert!(!format!("{:?}", masks(&pieces, rng)).contains("plaintexts"));
}

/// Sums of two products whose inputs are packed alike, of layers with different numbers of taps.
#[test]
fn products_with_packed_inputs_add_up() {
    let rng = &mut ChaCha20Rng::seed_from_u64(36);
    let maps = [7, 10].map(|taps| Arc::new(LinearMap::dense(&Shape::from([taps]), 4).unwrap()));
    let range = WeightRange::signed(6).unwrap();
    let (mut pieces, mut clear) = (vec![], vec![]);
    for map in &maps {
        let weights = random_weights(rng, map, range);
        let input = random_tensor(rng, map.input(), 2, 100);
        let layout = patches(map, 2, 20).with_fields(3, 2, public().size()).unwrap();
        let encrypted = input.encrypt(&layout, &*KEY, rng).unwrap();
        pieces.push(apply(&encrypted, map, &weights, 8).unwrap());
        clear.push(input.apply(map, &weights).unwrap());
    }
    let sum = pieces[0].add(&pieces[1]).unwrap();
    let masks = masks(&sum, rng);
    let sums = sum.combine(masks).unwrap();
    assert_eq!(sums.decrypt(&KEY).unwrap(), clear[0].add(&clear[1]).unwrap());
}
