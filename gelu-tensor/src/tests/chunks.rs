//! Tensors in pieces: chunks that travel, and parts that are worked on.

use super::*;

/// Cuts a tensor into chunks of one to a few ciphertexts.
fn small_chunks(rng: &mut ChaCha20Rng, tensor: &EncTensor) -> Vec<EncChunk> {
    let bytes = tensor.encode_ciphertexts();
    let mut rest = &bytes[..];
    let mut chunks = vec![];
    while !rest.is_empty() {
        let count = rng.random_range(1..5) * public().ciphertext_bytes();
        let (chunk, others) = rest.split_at(count.min(rest.len()));
        chunks.push(EncChunk::decode(public(), chunk).unwrap());
        rest = others;
    }
    chunks
}

/// Adds what a part has, which is zero where the part has nothing.
pub(super) fn add(found: &mut [i64], part: EncTensor) {
    let values = part.decrypt(&KEY).unwrap();
    found.iter_mut().zip(values.values()).for_each(|(found, value)| *found += value);
}

/// Chunk by chunk and at once give the same; parts come out as soon as their chunks are there.
#[test]
fn tensors_in_chunks_are_the_same() {
    let rng = &mut ChaCha20Rng::seed_from_u64(21);
    let (batch, format) = (90, Format::integers(100).unwrap());
    let integers = (0..batch as i64 * 6).map(|i| i * 37 % 201 - 100).collect();
    let values = FixedTensor::new(Shape::from([6]), format, integers).unwrap();
    let layout = images(batch, 48);
    assert!(layout.width() < batch && layout.groups_apart(values.shape()) == 1);
    let header = values.header(&layout).unwrap();
    let mut encryption = Encryption::new(values.clone(), &layout, public()).unwrap();
    assert!(!encryption.is_complete());
    let all = encryption.next_chunk(&*KEY, rng).unwrap();
    assert!(encryption.next_chunk(&*KEY, rng).is_none() && encryption.is_complete());
    assert_eq!(encryption.ciphertexts_made(), header.ciphertexts());
    let bytes = all.encode();
    let chunks: Vec<EncChunk> = bytes
        .chunks(4 * public().ciphertext_bytes())
        .map(|bytes| EncChunk::decode(public(), bytes).unwrap())
        .collect();
    assert!(chunks.len() > 3);

    let stacked = images(4, 48).with_stacked(4, public().size()).unwrap();
    assert_eq!(stacked.groups_apart(values.shape()), 2);
    for (layout, unfit) in [(layout.clone(), 0), (stacked.clone(), 1), (stacked, 3)] {
        let header = values.header(&layout).unwrap();
        assert!(header.groups() > 3);
        assert!(matches!(EncTensorBuilder::new(public(), header, unfit), Err(Error::Multiple { .. })));
    }
    let mut builder = EncTensorBuilder::new(public(), header.clone(), 1).unwrap();
    let mut decryption = Decryption::new(public(), header.clone()).unwrap();
    let (mut found, mut early) = (vec![0; values.values().len()], 0);
    for (index, chunk) in (0..).zip(&chunks) {
        assert!(builder.push(index + 1, chunk).is_err() && decryption.push(index + 1, chunk, &KEY).is_err());
        builder.push(index, chunk).unwrap();
        decryption.push(index, chunk, &KEY).unwrap();
        while builder.has_part() {
            early += usize::from(!builder.is_complete());
            add(&mut found, builder.next_part().unwrap());
        }
        assert!(builder.next_part().is_none());
    }
    assert!(early > 0 && builder.is_empty());
    let over = builder.push(chunks.len() as u32, &chunks[0]).unwrap_err();
    assert!(matches!(over, Error::Limit { what: "ciphertexts of a tensor", .. }), "{over}");
    let over = decryption.push(chunks.len() as u32, &chunks[0], &KEY).unwrap_err();
    assert!(matches!(over, Error::Limit { what: "ciphertexts of a tensor", .. }), "{over}");
    assert_eq!(found, values.values());
    assert_eq!(decryption.ciphertexts(), header.ciphertexts());
    assert_eq!(decryption.finish().unwrap(), values);

    let mut some = Decryption::new(public(), header).unwrap();
    some.push(0, &chunks[0], &KEY).unwrap();
    assert!(!some.is_complete());
    assert!(matches!(some.finish(), Err(Error::Count { what: "ciphertexts of a tensor", found: 4, .. })));
}

/// The owner's and everybody's chunks, as long as they travel, in slots of every width.
#[test]
fn long_tensors_are_cut_into_chunks() {
    let rng = &mut ChaCha20Rng::seed_from_u64(22);
    let values = random_tensor(rng, &Shape::from([3, 100]), 2, 1000);
    for layout in [images(1, 12), images(2, 128)] {
        let mut encryption = Encryption::new(values.clone(), &layout, public()).unwrap();
        let mut decryption = Decryption::new(public(), values.header(&layout).unwrap()).unwrap();
        let mut index = 0;
        while let Some(chunk) = encryption.next_chunk(&*KEY, rng) {
            let rest = layout.ciphertexts(2, values.shape()) - index as usize * EncChunk::most(public());
            assert_eq!(chunk.ciphertext_count(), rest.min(EncChunk::most(public())));
            decryption.push(index, &chunk, &KEY).unwrap();
            index += 1;
        }
        assert!(index > 1);
        assert_eq!(decryption.finish().unwrap(), values);
    }
}

/// A plaintext that is none is found in whichever chunk it comes, and told by its place in the tensor.
#[test]
fn broken_plaintexts_are_found_in_later_chunks() {
    let rng = &mut ChaCha20Rng::seed_from_u64(23);
    let values =
        FixedTensor::new(Shape::from([9]), Format::integers(7).unwrap(), vec![0, 1, 2, 3, 4, 5, 6, 7, 0]);
    let encrypted = values.unwrap().encrypt(&images(1, 9), &*KEY, rng).unwrap();
    let layout = encrypted.layout().holding(Contents::Integers(Format::integers(6).unwrap())).unwrap();
    let header = EncTensorHeader { layout, ..encrypted.header().clone() };
    let mut decryption = Decryption::new(public(), header).unwrap();
    let chunks = small_chunks(rng, &encrypted);
    let found = (0..).zip(&chunks).find_map(|(at, chunk)| decryption.push(at, chunk, &KEY).err());
    assert_eq!(found, Some(Error::Plaintext { index: 7 }));
}

#[test]
fn chunks_of_another_key_are_refused() {
    let (values, mut rng) = small();
    let other = crate::testing::secret_key(KeyBits::Bits1024, &mut rng).unwrap();
    let layout = images(1, 30);
    let foreign = &values.encrypt(&layout, &other, &mut rng).unwrap().chunks()[0];
    let header = values.header(&layout).unwrap();
    let mut builder = EncTensorBuilder::new(public(), header.clone(), 1).unwrap();
    assert!(matches!(builder.push(0, foreign), Err(Error::ForeignKey { .. })));
    let mut decryption = Decryption::new(public(), header.clone()).unwrap();
    assert!(matches!(decryption.push(0, foreign, &KEY), Err(Error::ForeignKey { .. })));
    let own = &values.encrypt(&layout, &*KEY, &mut rng).unwrap().chunks()[0];
    let mut decryption = Decryption::new(public(), header).unwrap();
    assert!(matches!(decryption.push(0, own, &other), Err(Error::ForeignKey { .. })));
}

#[test]
fn chunks_of_no_or_too_many_ciphertexts_are_refused() {
    let rng = &mut ChaCha20Rng::seed_from_u64(24);
    let most = EncChunk::most(public());
    let values = random_tensor(rng, &Shape::from([most + 1]), 1, 5);
    let bytes = values.encrypt(&images(1, 9), &*KEY, rng).unwrap().encode_ciphertexts();
    let width = public().ciphertext_bytes();
    assert!(EncChunk::decode(public(), &bytes[width..]).is_ok());
    for bad in [&bytes[..], &bytes[..width - 1], &bytes[..width + 1], &[]] {
        assert!(matches!(EncChunk::decode(public(), bad), Err(Error::Range { .. } | Error::Multiple { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What shares no ciphertext can be worked on by itself: a map of each part is that part of the map.
    #[test]
    fn maps_of_parts_are_parts_of_maps(
        seed: u64, batch in 1usize..20, parts in 1usize..3, trial in trials(),
    ) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let map = Arc::new(random_map(rng));
        let weights = random_weights(rng, &map, trial.range);
        let input = random_tensor(rng, map.input(), batch, trial.bound);
        let clear = input.apply(&map, &weights).unwrap();
        let slot_bits = trial.slot_bits(clear.format()).max(100);
        for layout in layouts(&map, batch, slot_bits) {
            let encrypted = input.encrypt(&layout, &*KEY, rng).unwrap();
            prop_assert_eq!(layout.groups_apart(map.input()), 1);
            let mut builder = EncTensorBuilder::new(public(), encrypted.header().clone(), parts).unwrap();
            let (mut found, mut count) = (vec![0; clear.values().len()], 0);
            for (index, chunk) in (0..).zip(small_chunks(rng, &encrypted)) {
                builder.push(index, &chunk).unwrap();
                while let Some(part) = builder.next_part() {
                    count += part.header().groups();
                    let sums = apply(&part, &map, &weights, trial.lanes).unwrap();
                    add(&mut found, sums);
                }
            }
            prop_assert!(builder.is_empty() && builder.is_complete() && count == layout.groups(batch));
            prop_assert_eq!(&found[..], clear.values(), "{}", layout);
        }
    }

    /// Replies are stacked: parts of so many groups that no ciphertext holds a piece of two can be told apart.
    #[test]
    fn stacked_tensors_come_in_parts(
        seed: u64, batch in 1usize..40, elements in 1usize..6, stacked in 1usize..9,
    ) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let input = random_tensor(rng, &Shape::from([elements]), batch, 1000);
        let layout = images(rng.random_range(1..8), 14);
        let layout = layout.with_stacked(stacked, public().size()).unwrap();
        let encrypted = input.encrypt(&layout, &*KEY, rng).unwrap();
        let units = batch.div_ceil(layout.width()) * elements;
        prop_assert_eq!(encrypted.header().ciphertexts(), units.div_ceil(stacked));
        let whole = |groups: &usize| (groups * elements).is_multiple_of(stacked);
        let apart = layout.groups_apart(input.shape());
        prop_assert_eq!(Some(apart), (1..=stacked).find(whole));
        let mut builder = EncTensorBuilder::new(public(), encrypted.header().clone(), apart).unwrap();
        let mut found = vec![0; input.values().len()];
        for (index, chunk) in (0..).zip(small_chunks(rng, &encrypted)) {
            builder.push(index, &chunk).unwrap();
            while let Some(part) = builder.next_part() {
                add(&mut found, part);
            }
        }
        prop_assert_eq!(&found[..], input.values());
    }
}
