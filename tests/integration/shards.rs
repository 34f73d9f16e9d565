//! A server's work in shards gives what it gives in one piece, for random networks and every layout.

use gelu_net::models::plan::Shard;
use gelu_net::prelude::*;
use gelu_net::tensor::{EncTensor, EncTensorBuilder, FixedTensor};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use crate::common::networks::{network, small_resnet};
use crate::common::{KEY, deployment, quantization, shipped};

/// Every part of every segment, whole and in shards. Returns the most shards of a part.
fn compare(model: Model, batch: usize, prefer: Preference, most: usize) -> usize {
    let rng = &mut ChaCha20Rng::seed_from_u64(batch as u64);
    let server = ServerModel::new(model, quantization());
    let program = server.program(&Deployment { prefer, ..deployment(&KEY, batch) }).unwrap();
    let mut largest = 0;
    for (index, segment) in program.plan().segments().iter().enumerate() {
        let terms = segment.terms.iter().zip(&segment.layout.ups);
        let mut tensors: Vec<EncTensorBuilder> = terms
            .map(|(term, up)| {
                let shape = term.map.input().clone();
                let bound = term.format.bound() as i64;
                let values =
                    (0..batch * shape.elements()).map(|_| rng.random_range(-bound..=bound)).collect();
                let values = FixedTensor::new(shape, term.format, values).unwrap();
                let values = values.encrypt(up, &**KEY, rng).unwrap();
                let groups = segment.layout.groups_of_part();
                let mut builder =
                    EncTensorBuilder::new(KEY.public_key(), values.header().clone(), groups).unwrap();
                (0..).zip(values.chunks()).for_each(|(at, chunk)| builder.push(at, &chunk).unwrap());
                builder
            })
            .collect();
        for part in 0..segment.layout.each_part().count() {
            let inputs: Vec<EncTensor> =
                tensors.iter_mut().map(|tensor| tensor.next_part().unwrap()).collect();
            let whole = program.shard(index, part).unwrap();
            let expected = program.reply(&whole, &inputs, rng).unwrap();
            let shards = program.shards(index, part, most).unwrap();
            largest = largest.max(shards.len());
            assert!((1..=most).contains(&shards.len()));
            assert_eq!(shards.iter().map(|shard| shard.units.len()).sum::<usize>(), whole.units.len());
            let replies: Vec<EncTensor> =
                shards.iter().map(|shard| program.reply(shard, &inputs, rng).unwrap()).collect();
            for (shard, reply) in shards.iter().zip(&replies) {
                assert_eq!(program.shard_reply(shard).unwrap().ciphertexts(), reply.header().ciphertexts());
            }
            let joined = program.join(index, part, &replies).unwrap();
            assert_eq!(joined.decrypt(&KEY).unwrap(), expected.decrypt(&KEY).unwrap(), "{}", segment.name);
        }
    }
    largest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn shards_of_random_networks_are_the_whole(network in network(), batch in 1usize..4, most in 2usize..6) {
        let (model, _) = network.calibrated(2);
        for prefer in Preference::ALL {
            compare(model.clone(), batch, prefer, most);
        }
    }
}

#[test]
fn shards_of_networks_with_shortcuts_and_of_full_batches_are_the_whole() {
    for prefer in Preference::ALL {
        compare(small_resnet(), 2, prefer, 3);
    }
    assert!(compare(shipped("lenet5"), 1, Preference::Time, 4) > 1);
    assert!(compare(shipped("conv1"), 12, Preference::Balance, 4) > 1);
}

/// What is no shard is refused.
#[test]
fn other_shards_are_refused() {
    let server = ServerModel::new(shipped("conv1"), quantization());
    let program = server.program(&deployment(&KEY, 1)).unwrap();
    let whole = program.shard(0, 0).unwrap();
    let units = whole.units.end;
    for shard in [
        Shard { segment: 9, ..whole.clone() },
        Shard { part: 99, ..whole.clone() },
        Shard { units: 0..0, ..whole.clone() },
        Shard { units: units..units + 1, ..whole.clone() },
        Shard { units: 0..usize::MAX, ..whole.clone() },
    ] {
        assert!(program.shard_inputs(&shard).is_err() && program.shard_reply(&shard).is_err(), "{shard:?}");
    }
    assert!(program.shard(9, 0).is_err() && program.shards(0, 99, 2).is_err());
}
