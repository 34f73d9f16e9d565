//! The operations that a plan counts are those that a server does, for every size and type of key.

#![allow(clippy::unwrap_used, reason = "tests")]

use gelu_net::prelude::*;
use rand::{SeedableRng, rngs::ChaCha20Rng};

fn model(rng: &mut ChaCha20Rng) -> Model {
    let convolution = Conv2dConfig::new(2, [3, 3]);
    let mut model = ModelBuilder::new([1, 6, 6])
        .conv2d("conv1", convolution)
        .mean_pool2d("pool1", [2, 2])
        .relu()
        .flatten()
        .dense("fc1", 9)
        .relu()
        .dense("fc2", 3)
        .build()
        .unwrap();
    model.initialise(Initializer::KaimingUniform, rng);
    model
}

/// A single image's replies are stacked, those of a full batch are not.
#[test]
fn a_plan_counts_what_a_server_does() {
    let rng = &mut ChaCha20Rng::seed_from_u64(3);
    let model = model(rng);
    let mut stacked = [false; 2];
    for size in KeyBits::ALL {
        for key_type in KeyType::ALL {
            let key = SecretKey::generate(KeyParameters { size, key_type }, rng).unwrap();
            let public = key.public_key();
            for batch in [1, 24] {
                let options = PlanOptions { key: size, key_type, batch, ..PlanOptions::default() };
                let program = model.plan(&options).unwrap();
                for (segment, layer) in program.plan().segments.iter().zip(program.layers()) {
                    let zeros = vec![0; batch * segment.input.elements()];
                    let zeros = FixedTensor::new(segment.input.clone(), segment.input_format, zeros).unwrap();
                    let encrypted = segment.arrange(zeros).unwrap().encrypt(segment.up, &key, rng).unwrap();
                    let serve = |rng: &mut ChaCha20Rng| {
                        let sums = layer.forward_encrypted(&encrypted).unwrap();
                        sums.repack(segment.down.stacked).unwrap().rerandomize(rng)
                    };
                    // The first time makes tables for the key, which no plan counts.
                    serve(rng);
                    let before = public.ring().operations();
                    serve(rng);
                    let counted = public.ring().operations() - before;
                    assert_eq!(counted, segment.operations, "{} of {batch}, {:?}", segment.name, public);
                    stacked[usize::from(segment.down.stacked > 1)] = true;
                }
            }
        }
    }
    assert_eq!(stacked, [true, true], "both kinds of replies");
}
