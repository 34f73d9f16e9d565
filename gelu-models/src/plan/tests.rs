use std::collections::BTreeMap;

use gelu_layers::{Activation, Affine, Conv2dConfig, Initializer};
use gelu_tensor::Window;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde_json::{Value, json};

use super::*;
use crate::{Model, ModelBuilder, Ranges, zoo};

fn initialised(builder: ModelBuilder) -> Model {
    let mut model = builder.build().unwrap();
    model.initialise(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(5));
    model
}

fn lenet5() -> Model {
    let mut model = zoo::lenet5().unwrap();
    model.initialise(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(5));
    model
}

fn options(key: KeyBits, batch: usize) -> PlanOptions {
    // As after calibration: without it, LeNet-5's worst case is wide.
    let ranges = Ranges { input: 1.0, activations: vec![4.0; 4] };
    PlanOptions { key, batch, lanes: 1, ranges: Some(ranges), ..PlanOptions::default() }
}

fn error(model: &Model, options: PlanOptions) -> PlanError {
    model.plan(&options).unwrap_err()
}

#[test]
fn lenet5_is_cut_at_its_activations() {
    let program = lenet5().plan(&options(KeyBits::Bits2048, 1)).unwrap();
    let plan = program.plan();
    let names: Vec<_> = plan.segments.iter().map(|segment| segment.name.as_str()).collect();
    assert_eq!(names, ["conv1+pool1", "conv2+pool2", "fc1", "fc2", "fc3"]);
    assert_eq!(plan.output().unwrap().dims(), [10]);
    // Convolution and pooling are one convolution by a kernel of 6x6 with stride 2.
    let window = Window::new([6, 6]).with_stride([2, 2]);
    assert_eq!(plan.segments[0].form, AffineForm::Convolution(window));
    assert_eq!(plan.segments[1].form, AffineForm::Convolution(window));
    assert_eq!(plan.segments[2].form, AffineForm::Dense);
    assert_eq!(plan.segments[4].activations, [Activation::Softmax]);
    assert!(plan.segments[..4].iter().all(|segment| segment.activations == [Activation::Relu]));
    assert!(plan.segments.iter().all(|segment| segment.operations.total() > 0));
}

#[test]
fn one_image_goes_by_im2col_and_dense_layers_by_batch() {
    let program = lenet5().plan(&options(KeyBits::Bits2048, 1)).unwrap();
    let segments = &program.plan().segments;
    assert!(matches!(segments[0].up.arrangement, Arrangement::Patches(_)));
    assert_eq!(segments[0].down.arrangement, Arrangement::Positions { count: 144 });
    for segment in &segments[2..] {
        assert_eq!((segment.up.arrangement, segment.up.width), (Arrangement::Images, 1));
    }
    // Many sums come back in few ciphertexts.
    assert!(segments[2].ciphertexts_down(1) < 5);
    assert_eq!(segments[2].ciphertexts_up(1), 256);
    // On vectors, eight ciphertexts are stacked in the time of one, each with fewer squarings.
    let lanes = PlanOptions { lanes: 8, ..options(KeyBits::Bits2048, 1) };
    let program = lenet5().plan(&lanes).unwrap();
    let fc1 = &program.plan().segments[2];
    assert_eq!((fc1.ciphertexts_down(1), fc1.down.stacked), (8, 15));
    assert!(matches!(error(&lenet5(), PlanOptions { lanes: 0, ..lanes }), PlanError::Option { .. }));

    let program = lenet5().plan(&options(KeyBits::Bits2048, 50)).unwrap();
    let fc1 = &program.plan().segments[2];
    assert_eq!((fc1.up.arrangement, fc1.up.width), (Arrangement::Images, 50));
    assert_eq!(fc1.ciphertexts_up(50), 256);
}

#[test]
fn pooling_alone_may_go_channel_by_channel() {
    let model = initialised(
        ModelBuilder::new([3, 8, 8]).relu().mean_pool2d("pool1", [2, 2]).relu().flatten().dense("fc1", 2),
    );
    let options = PlanOptions { key: KeyBits::Bits1024, ..PlanOptions::default() };
    let program = model.plan(&options).unwrap();
    let plan = program.plan();
    assert_eq!(plan.prologue, [Activation::Relu]);
    let pool = &plan.segments[0];
    assert!(pool.splits_channels());
    assert_eq!((pool.up_header(2).shape.dims(), pool.up_header(2).batch), (&[1, 8, 8][..], 6));
    assert_eq!((pool.down_header(2).shape.dims(), pool.down_header(2).batch), (&[1, 4, 4][..], 6));
}

#[test]
fn a_flatten_between_activations_is_no_segment() {
    let model = initialised(ModelBuilder::new([1, 4, 4]).flatten().relu().dense("fc1", 2).flatten().tanh());
    let program = model.plan(&PlanOptions::default()).unwrap();
    let names: Vec<_> = program.plan().segments.iter().map(|segment| segment.name.as_str()).collect();
    assert_eq!(program.plan().prologue, [Activation::Relu]);
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(program.plan().segments[0].activations, [Activation::Tanh]);
}

/// The fused matrix of a chain gives the reals that its layers give one after another.
#[test]
fn a_fused_chain_is_the_composition_of_its_layers() {
    let conv = Conv2dConfig::new(3, [3, 2]).with_stride([1, 2]).with_padding([1, 1]);
    let model = initialised(ModelBuilder::new([2, 6, 7]).conv2d("a", conv).mean_pool2d("b", [2, 2]));
    let fused = model.plan(&PlanOptions { weight_bits: 24, ..PlanOptions::default() }).unwrap();
    assert_eq!(fused.layers().len(), 1);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    // Multiples of 2^-8, which quantisation leaves as they are.
    let images = ndarray::Array2::from_shape_fn((4, 84), |_| f32::from(rng.random::<u8>()) / 256.0);
    let clear = fused.run_clear(images.view()).unwrap().logits;
    let float = model.logits(images.view()).unwrap();
    assert!(clear.iter().zip(&float).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-4), "{clear} {float}");
    let chain: Vec<Affine> = model.layers().map(|(_, layer)| layer.affine()).collect();
    let affine = chain[0].clone().then(&chain[1]).unwrap();
    assert_eq!(affine.form(), fused.plan().segments[0].form);
}

#[test]
fn fewer_bits_make_fewer_products_and_narrower_slots() {
    let model = lenet5();
    let wide = model.plan(&options(KeyBits::Bits2048, 1)).unwrap();
    let bits = BTreeMap::from([("fc1".to_owned(), 8), ("pool2".to_owned(), 6)]);
    let narrow = model.plan(&PlanOptions { layer_bits: bits, ..options(KeyBits::Bits2048, 1) }).unwrap();
    let default = PlanOptions::default().weight_bits;
    for (index, bits) in [(0, default), (1, 6), (2, 8), (3, default)] {
        let (wide, narrow) = (&wide.plan().segments[index], &narrow.plan().segments[index]);
        assert_eq!(narrow.range.weights.bits, bits);
        assert_eq!(narrow.up.slot_bits, wide.up.slot_bits - (default - bits) as usize);
        assert_eq!(narrow.operations.total() < wide.operations.total(), bits < default);
    }
    assert!(narrow.error_bound().unwrap() > wide.error_bound().unwrap());
}

/// A ReLU that is dead on all calibration images has a range of zero, one that is hardly alive a tiny one.
#[test]
fn dead_activations_have_a_plan() {
    let model = lenet5();
    for range in [0.0, f32::MIN_POSITIVE, 1e-9, 1e-3] {
        let ranges = Some(crate::Ranges { input: 1.0, activations: vec![range; 4] });
        let program = model.plan(&PlanOptions { ranges, ..PlanOptions::default() }).unwrap();
        assert_eq!(program.plan().segments.len(), 5);
        for segment in &program.plan().segments[1..] {
            assert!(segment.input_format.scale_bits() <= 26, "range {range}: {:?}", segment.input_format);
        }
    }
}

#[test]
fn options_out_of_range_are_named() {
    let model = lenet5();
    let base = || options(KeyBits::Bits2048, 1);
    for (options, name, value) in [
        (PlanOptions { weight_bits: 1, ..base() }, "weight bits", "1"),
        (PlanOptions { weight_bits: 25, ..base() }, "weight bits", "25"),
        (PlanOptions { layer_bits: BTreeMap::from([("fc1".into(), 0)]), ..base() }, "weight bits", "0"),
        (PlanOptions { activation_bits: 25, ..base() }, "activation bits", "25"),
        (PlanOptions { input_bits: 1, ..base() }, "input bits", "1"),
        (PlanOptions { batch: 0, ..base() }, "batch", "0"),
        (PlanOptions { batch: (1 << 20) + 1, ..base() }, "batch", "1048577"),
        (PlanOptions { range_margin: f64::NAN, ..base() }, "range margin", "NaN"),
        (PlanOptions { range_margin: 0.0, ..base() }, "range margin", "0"),
        (
            PlanOptions { ranges: Some(Ranges { input: f32::NAN, activations: vec![1.0; 4] }), ..base() },
            "calibrated range",
            "NaN",
        ),
    ] {
        let error = error(&model, options);
        assert!(
            matches!(&error, PlanError::Option { what, found, .. } if *what == name && found == value),
            "{error}"
        );
    }
    let ranges = Some(Ranges { input: 1.0, activations: vec![1.0; 3] });
    assert_eq!(error(&model, PlanOptions { ranges, ..base() }), PlanError::Ranges { expected: 4, found: 3 });
    let layer_bits = BTreeMap::from([("fc4".to_owned(), 8)]);
    assert_eq!(
        error(&model, PlanOptions { layer_bits, ..base() }),
        PlanError::UnknownLayer { name: "fc4".to_owned() }
    );
    let nothing = ModelBuilder::new([4]).flatten().relu().build();
    if let Ok(nothing) = nothing {
        assert_eq!(error(&nothing, PlanOptions::default()), PlanError::Empty);
    }
}

#[test]
fn numbers_that_fit_no_integer_are_refused() {
    let mut builder = ModelBuilder::new([30]);
    for i in 0..6 {
        builder = builder.dense(&format!("fc{i}"), 30).square();
    }
    let model = initialised(builder.dense("last", 2));
    let ranges = Ranges { input: 1.0, activations: vec![1e30; 6] };
    let options = PlanOptions { ranges: Some(ranges), ..PlanOptions::default() };
    assert!(model.plan(&options).is_ok(), "large reals have a coarse scale");
    // Large biases beside a fine scale do not fit.
    let mut model = initialised(ModelBuilder::new([4]).dense("fc1", 2));
    let mut weights = model.weights();
    let large = crate::WeightTensor::new(Shape::from([2]), vec![1e20; 2]).unwrap();
    weights.tensors.insert("fc1.bias".to_owned(), large);
    model.load(&weights).unwrap();
    let found = error(&model, PlanOptions::default());
    assert!(
        matches!(&found, PlanError::Numbers { name, source: Error::Overflow { .. } } if name == "fc1"),
        "{found}"
    );
}

fn plan() -> Plan {
    lenet5().plan(&options(KeyBits::Bits1024, 2)).unwrap().plan().clone()
}

#[test]
fn a_plan_can_be_sent() {
    let plan = plan();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    plan.check(KeyBits::Bits1024, 2).unwrap();
    assert_eq!(plan.check(KeyBits::Bits2048, 2), Err(PlanError::Key { expected: 2048, found: 1024 }));
    assert_eq!(plan.check(KeyBits::Bits1024, 1), Err(PlanError::Batch { expected: 1, found: 2 }));
}

#[test]
fn tampered_plans_are_refused() {
    let check = |edit: &dyn Fn(&mut Plan)| {
        let mut plan = plan();
        edit(&mut plan);
        plan.check(KeyBits::Bits1024, 2).unwrap_err()
    };
    assert_eq!(check(&|plan| plan.segments.clear()), PlanError::Empty);
    assert_eq!(check(&|plan| plan.prologue.push(Activation::Softmax)), PlanError::Softmax);
    assert_eq!(check(&|plan| plan.segments[1].activations.push(Activation::Softmax)), PlanError::Softmax);
    let rule = |edit: &dyn Fn(&mut Plan), wanted: &str| {
        let error = check(edit).to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    };
    rule(&|plan| plan.input = Shape::from([1, 27, 28]), "input must be the output of the segment before");
    rule(&|plan| drop(plan.segments.remove(1)), "input must be the output of the segment before");
    rule(&|plan| plan.segments[2].output = Shape::from([121]), "what comes down must be its output");
    rule(&|plan| plan.segments[0].input_format = Format::new(1, 8).unwrap(), "output format must follow");
    rule(&|plan| plan.segments[0].range.taps += 1, "output format must follow");
    rule(&|plan| plan.segments[0].range.weights.bits += 1, "output format must follow");
    rule(&|plan| plan.segments[0].range.bias_exponent = None, "output format must follow");
    rule(&|plan| plan.segments[0].down.slot_bits -= 1, "slots must hold its values");
    rule(&|plan| plan.segments[2].up.slot_bits = 2, "slots must hold its values");
    rule(&|plan| plan.segments[2].up.slot_bits = 64, "slots of 2 to 63 bits");
    rule(&|plan| plan.segments[2].up.width = 0, "slots of 2 to 63 bits");
    rule(&|plan| plan.segments[2].down.stacked = 1 << 40, "overflow");
    rule(&|plan| plan.segments[2].down.stacked = usize::MAX, "overflow");
    rule(
        &|plan| plan.segments[0].down_shape = Shape::from([7, 12, 12]),
        "what comes down must be its output",
    );
    rule(&|plan| plan.segments[0].down = SlotLayout { ..plan.segments[0].up }, "slots that match");
    rule(&|plan| plan.segments[0].range.weights.scale_bits = i32::MAX, "overflow");
    rule(&|plan| plan.segments[0].range.taps = usize::MAX, "overflow");
    rule(&|plan| plan.segments[0].range.bias_exponent = Some(i32::MAX), "overflow");
}

/// Paths to every number in a plan as JSON.
fn numbers(value: &Value, path: String, out: &mut Vec<String>) {
    match value {
        Value::Number(_) => out.push(path),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, value)| numbers(value, format!("{path}/{i}"), out));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| numbers(value, format!("{path}/{name}"), out));
        }
        _ => {}
    }
}

/// Every number of a plan, replaced by every kind of extreme: an error or a plan that holds together, but no panic.
#[test]
fn no_number_of_a_plan_can_make_the_check_panic() {
    let good = serde_json::to_value(plan()).unwrap();
    let mut paths = vec![];
    numbers(&good, String::new(), &mut paths);
    assert!(paths.len() > 100);
    let extremes =
        [0, 1, 3, 63, 64, 1 << 20, u64::from(u32::MAX), i32::MAX as u64, 1 << 61, 1 << 63, u64::MAX];
    let mut refused = 0;
    for path in &paths {
        for extreme in extremes.map(|x| json!(x)).into_iter().chain([json!(-1), json!(i32::MIN)]) {
            let mut value = good.clone();
            *value.pointer_mut(path).unwrap() = extreme;
            let Ok(plan) = serde_json::from_value::<Plan>(value) else {
                refused += 1;
                continue;
            };
            match plan.check(KeyBits::Bits1024, 2) {
                Err(_) => refused += 1,
                Ok(()) => {
                    for segment in &plan.segments {
                        assert!(segment.ciphertexts_up(2) <= MAX_CIPHERTEXTS, "{path}");
                        assert!(segment.ciphertexts_down(2) <= MAX_CIPHERTEXTS, "{path}");
                    }
                }
            }
        }
    }
    assert!(refused > paths.len() * 5, "{refused} of {}", 13 * paths.len());
}
