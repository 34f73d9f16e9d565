//! What is learned on integers, and how near it is to what is learned on reals.

use gelu_layers::{Conv2dConfig, Parameters};

use super::*;
use crate::train::Schedule;
use crate::train::backprop::gradients;

/// Numbers as fine as they can be.
fn fine() -> FixedPoint {
    FixedPoint {
        sum_bits: 56,
        weight_bits: 20,
        product_bits: 20,
        input_bits: 16,
        activation_bits: 20,
        activation_range: 3,
        error_bits: 20,
        ..FixedPoint::default()
    }
}

/// Compares the gradients of a batch on integers with those on reals, unless something was clamped. Returns the largest.
fn compare(name: &str, mut model: Model, seed: u64) -> Option<f64> {
    let setup = Setup { batch: 6, images: 6, numbers: fine(), iterations: 1, seed, ..Setup::default() };
    let mut run = Run::new(model.clone(), setup);
    // One step of this rate takes off exactly the gradient.
    run.config.train.learning_rate = 1.0;
    run.config.train.schedule = Schedule::Constant;
    run.momentum = 0.0;
    let mut fixed = run.fixed();
    fixed.turn().unwrap();
    if fixed.statistics()[0].clamped > 0 {
        return None;
    }
    model.load(&run.plan.weights(&run.parameters).unwrap()).unwrap();
    let expected = gradients(&model, run.data.inputs(), run.data.labels()).unwrap();
    let unit = f64::from(fine().weight_bits).exp2();
    let steps = run.parameters.iter().zip(&fixed.coordinator().parameters);
    let found: Vec<f64> = steps.map(|(before, after)| (before - after) as f64 / unit).collect();
    let trained = model.layers().filter(|(_, layer)| layer.has_parameters()).map(|(name, _)| name);
    let (mut seen, mut largest) = (0, 0.0f64);
    for (layer, Parameters { weight, bias }) in trained.zip(&expected.parameters) {
        let span = run.plan.layers().find(|span| span.name == layer).unwrap();
        for (range, expected) in [(&span.weights, weight), (&span.biases, bias)] {
            assert_eq!(range.len(), expected.len(), "{name}, {layer}");
            for (found, &expected) in found[range.clone()].iter().zip(expected) {
                let expected = f64::from(expected) / 6.0;
                let allowed = 1e-3 * (1.0 + expected.abs());
                assert!((found - expected).abs() < allowed, "{name}, {layer}: {found} {expected}");
                largest = largest.max(expected.abs());
            }
            seen += range.len();
        }
    }
    assert_eq!(seen, run.plan.parameters(), "{name}");
    let loss = expected.loss - fixed.statistics()[0].loss;
    assert!(loss.abs() < 1e-3, "{name}: {loss}");
    Some(largest)
}

#[test]
fn gradients_on_integers_are_those_on_reals() {
    for (name, model) in graphs::all() {
        let largest = compare(name, model, 3).unwrap_or_else(|| panic!("{name}: clamped"));
        assert!(largest > 0.02, "{name}: {largest}");
    }
    // Polynomials and sums of many errors leave the range now and then.
    let compared = (0..100).filter_map(|seed| compare("random", graphs::random(seed), seed)).count();
    assert!(compared > 50, "{compared}");
}

/// Images whose brighter half is the label.
fn halves(count: usize) -> Arc<Dataset> {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let labels: Vec<usize> = (0..count).map(|at| at % 2).collect();
    let inputs = Array2::from_shape_fn((count, 36), |(image, pixel)| {
        let bright = (pixel / 18) == labels[image];
        rng.random_range(0.0..0.6f32) + if bright { 0.3 } else { 0.0 }
    });
    Arc::new(Dataset::new(Shape::from([1, 6, 6]), inputs, labels, 2).unwrap())
}

#[test]
fn several_clients_learn_what_can_be_learned_with_a_graph_of_branches() {
    let conv = |channels| Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1]);
    let mut model = ModelBuilder::new([1, 6, 6])
        .conv2d("stem", conv(3))
        .avg_pool2d("pool", [2, 2])
        .relu()
        .residual_with(|b| b.conv2d("a", conv(3)).relu().conv2d("b", conv(4)), |b| b.conv2d("c", conv(4)))
        .relu()
        .max_pool2d([3, 1])
        .flatten()
        .dense("fc", 2)
        .softmax()
        .build()
        .unwrap();
    let setup = Setup { batch: 8, clients: 3, images: 96, iterations: 4, ..Setup::default() };
    let mut run = Run::new(model.clone(), setup);
    run.data = halves(96);
    run.config.train = TrainConfig { learning_rate: 0.1, epochs: 12, ..run.config.train.clone() };
    run.momentum = 0.8;
    let mut fixed = run.fixed();
    let mut losses = vec![];
    while !fixed.is_complete() {
        let before: (f64, u64) = total(&fixed);
        fixed.turn().unwrap();
        let after = total(&fixed);
        losses.push((after.0 - before.0) / (after.1 - before.1) as f64);
    }
    assert_eq!(fixed.coordinator().iterations, 12 * 96 / 8);
    assert!(losses[losses.len() - 1] < 0.3 * losses[0], "{losses:?}");
    model.load(&run.plan.weights(&fixed.coordinator().parameters).unwrap()).unwrap();
    let learned = model.evaluate(&halves(96)).unwrap();
    assert!(learned.accuracy > 0.95, "{learned:?}");
}

fn total(fixed: &FixedTrainer) -> (f64, u64) {
    fixed.statistics().iter().fold((0.0, 0), |(loss, images), own| (loss + own.loss, images + own.images))
}

#[test]
fn what_is_out_of_range_is_clamped_and_counted() {
    let mut run = small();
    let inputs = Array2::from_elem((16, 3), 3.0);
    run.data = Arc::new(Dataset::new(Shape::from([3]), inputs, vec![0; 16], 3).unwrap());
    let mut fixed = run.fixed();
    fixed.turn().unwrap();
    // Three inputs each of two images, in four iterations.
    assert_eq!(fixed.statistics()[0].clamped, 24);
    assert_eq!(fixed.statistics()[0].images, 8);
}

#[test]
fn the_order_of_inputs_is_the_seeds_and_each_comes_once_an_epoch() {
    struct Counted(Arc<Dataset>, std::sync::Mutex<Vec<(usize, u64)>>);
    impl Samples for Counted {
        fn count(&self) -> usize {
            self.0.len()
        }
        fn shape(&self) -> &Shape {
            self.0.shape()
        }
        fn classes(&self) -> usize {
            self.0.classes()
        }
        fn fetch(&self, index: usize, epoch: u64, out: &mut [f32]) -> usize {
            self.1.lock().unwrap().push((index, epoch));
            self.0.fetch(index, epoch, out)
        }
    }
    let mut run = small();
    run.config.train.epochs = 2;
    let order = |seed| {
        let samples = Arc::new(Counted(run.data.clone(), Default::default()));
        let participant = ParticipantConfig { client: 0, seed, momentum: 0.0 };
        let clients = [(samples.clone() as Arc<dyn Samples>, participant)];
        let (plan, config) = (run.plan.clone(), run.config.clone());
        let mut fixed = FixedTrainer::new(plan, config, run.parameters.clone(), clients).unwrap();
        while !fixed.is_complete() {
            fixed.turn().unwrap();
        }
        samples.1.lock().unwrap().clone()
    };
    let first = order(1);
    assert_eq!(first, order(1));
    assert_ne!(first, order(2));
    for epoch in 0..2 {
        let mut seen: Vec<usize> =
            first.iter().filter(|(_, at)| *at == epoch).map(|(index, _)| *index).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..16).collect::<Vec<_>>());
    }
}
