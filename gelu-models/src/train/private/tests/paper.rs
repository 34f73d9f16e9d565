//! The paper's protocol to the letter.

use gelu_layers::{Activation, Conv2dConfig, DenseConfig};
use proptest::prelude::*;

use super::*;

/// The server's key of 1,024 bits, and clients' of 2,048.
static PAPER_KEYS: LazyLock<[Arc<SecretKey>; 2]> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(13);
    [KeyBits::Bits1024, KeyBits::Bits2048].map(|size| Arc::new(secret_key(size, &mut rng)))
});

/// Numbers of which nothing is rounded for products.
fn exact() -> FixedPoint {
    FixedPoint { product_bits: 18, sum_bits: 40, ..FixedPoint::default() }
}

fn trainer(run: &Run, key: usize) -> Result<PaperTrainer, PrivateError> {
    let members = (0..run.clients).map(|client| {
        let (samples, config) = run.participant(client);
        (PAPER_KEYS[key].clone(), samples, config)
    });
    let (plan, parameters) = (run.plan.clone(), run.parameters.clone());
    PaperTrainer::new(plan, run.config.clone(), parameters, PAPER_KEYS[0].clone(), members)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// It gives the weights of the fast mode, after every turn.
    #[test]
    fn the_papers_own_masks_give_the_same_weights(seed: u64, clients in 1..3usize, batch in 1..3usize) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut builder = ModelBuilder::new([rng.random_range(1..4)]);
        for layer in 0..rng.random_range(1..3) {
            let activation = Activation::ALL[rng.random_range(0..11)];
            let width = rng.random_range(1..4);
            let config = DenseConfig { out_features: width, bias: rng.random() };
            builder = builder.dense(&format!("hidden{layer}"), config).activation(activation);
            if rng.random_bool(0.3) {
                builder = builder.residual(|b| b.dense(&format!("inner{layer}"), width).tanh());
            }
        }
        let model = builder.dense("fc", rng.random_range(2..4)).softmax().build().unwrap();
        let numbers = exact();
        let run = Run::new(model, Setup { batch, clients, images: 4 * batch, numbers, seed, ..Setup::default() });
        let (mut fixed, mut paper) = (run.fixed(), trainer(&run, 1).unwrap());
        while !fixed.is_complete() {
            fixed.turn().unwrap();
            paper.turn(&mut rng).unwrap();
            prop_assert_eq!(paper.coordinator(), fixed.coordinator());
            prop_assert_eq!(paper.statistics(), fixed.statistics());
        }
        prop_assert!(paper.is_complete());
        // Once masked, weights are scalars of full size.
        prop_assert!(paper.longest_scalar() > 1024 - 20, "{}", paper.longest_scalar());
    }
}

#[test]
fn the_papers_mode_needs_dense_layers_and_larger_keys_of_clients() {
    let refused = trainer(&small(), 1).unwrap_err();
    let rounded = "fractional bits of weights in products, in the paper's mode";
    assert!(matches!(refused, PrivateError::Setting { what, .. } if what == rounded), "{refused}");
    let dense = ModelBuilder::new([3]).dense("fc1", 4).tanh().dense("fc2", 3).softmax().build().unwrap();
    let run = Run::new(dense, Setup { numbers: exact(), ..Setup::default() });
    let PrivateError::Setting { expected, found, .. } = trainer(&run, 0).unwrap_err() else {
        panic!("the keys are of one size")
    };
    assert!(expected.starts_with("more than 10") && found == "1024");
    let conv = ModelBuilder::new([1, 4, 4]).conv2d("conv1", Conv2dConfig::new(1, [2, 2])).flatten();
    let sum = ModelBuilder::new([3]).residual_with(|b| b.dense("a", 2), |b| b.dense("b", 2));
    for (builder, name) in [(conv, "conv1"), (sum, "a+b")] {
        let model = builder.dense("fc1", 2).softmax().build().unwrap();
        let run = Run::new(model, Setup { numbers: exact(), ..Setup::default() });
        let refused = trainer(&run, 1).unwrap_err();
        assert!(matches!(&refused, PrivateError::Model { found, .. } if found == name), "{refused}");
    }
}
