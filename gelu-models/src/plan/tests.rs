mod layouts;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gelu_layers::{Activation, ClientOp, Conv2dConfig, LinearConfig};
use gelu_tensor::paillier::{KeyBits, KeyType};
use gelu_tensor::{Arrangement, Window};
use ndarray::{Array2, array};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::tests::{
    all_kinds, calibrated, dense, extremes, fill, graph, images, initialized, naive, node, numbers_in,
    random_model, relu,
};
use crate::{Model, ModelBuilder, Op, Ranges, ValueId, WeightTensor, zoo};

/// Ranges of every node, as after calibration.
fn ranged(mut model: Model, range: f32) -> Model {
    fill(&mut model, 5);
    let names: Vec<String> = model.graph().nodes().iter().map(|node| node.name.clone()).collect();
    let mut ranges: Ranges = names.into_iter().map(|name| (name, range)).collect();
    ranges.set(Ranges::INPUT, 1.0);
    model.set_ranges(Some(ranges));
    model
}

fn lenet5() -> Model {
    ranged(zoo::lenet5().unwrap(), 4.0)
}

fn deployment(key: KeyBits, batch: usize) -> Deployment {
    Deployment { key: key.into(), batch, lanes: 1, prefer: Preference::default() }
}

fn plan(model: &Model) -> Arc<Plan> {
    model.compile(&Quantization::default(), &deployment(KeyBits::Bits2048, 1)).unwrap().plan().clone()
}

fn error(model: &Model, quantization: Quantization) -> PlanError {
    model.compile(&quantization, &deployment(KeyBits::Bits2048, 1)).unwrap_err()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.segments().iter().map(|segment| segment.name.as_str()).collect()
}

/// Names of the values that go up for each segment.
fn sources(plan: &Plan) -> Vec<Vec<&str>> {
    let name = |term: &Term| plan.graph().name(term.source);
    plan.segments().iter().map(|segment| segment.terms.iter().map(name).collect()).collect()
}

#[test]
fn lenet5_is_cut_at_its_activations() {
    let plan = plan(&lenet5());
    assert_eq!(names(&plan), ["conv1+pool1", "conv2+pool2", "fc1", "fc2", "fc3"]);
    assert_eq!(sources(&plan), [["input"], ["relu1"], ["relu2"], ["relu3"], ["relu4"]]);
    assert_eq!(plan.client_steps(None), [""; 0]);
    assert!((0..4).all(|segment| plan.client_steps(Some(segment)) == ["relu"]));
    assert_eq!(plan.client_steps(Some(4)), ["softmax"]);
    let shapes: Vec<String> = plan.segments().iter().map(|segment| segment.shape.to_string()).collect();
    assert_eq!(shapes, ["6x12x12", "16x4x4", "120", "84", "10"]);
    // Means after a convolution are sums before it, so that it keeps its weights and has a quarter of its positions.
    for (segment, weights, positions) in [(0, 6 * 25, 144), (1, 16 * 6 * 25, 16)] {
        let term = &plan.segments()[segment].terms[0];
        assert_eq!((term.map.weights(), term.map.columns()), (weights, Some(positions)));
        let sums = term.sums.as_deref().unwrap();
        assert_eq!((sums.weights(), sums.most_terms()), (1, 4));
        assert_eq!(term.format.bound(), 4 * term.values.bound());
    }
    for segment in &plan.segments()[2..] {
        assert!(segment.terms[0].sums.is_none());
        assert_eq!(segment.terms[0].format, segment.terms[0].values);
    }
    assert!(plan.segments().iter().all(|segment| segment.layout.operations.total() > 0));
    let all =
        plan.segments().iter().fold(Operations::default(), |sum, segment| sum + segment.layout.operations);
    assert_eq!(plan.operations(), all);
}

/// What stands between activations of the paper's Conv-1 is pooling, which anybody can compute.
#[test]
fn a_mean_after_an_activation_is_the_clients() {
    let plan = plan(&ranged(zoo::conv1().unwrap(), 4.0));
    assert_eq!(names(&plan), ["conv1", "fc1"]);
    assert_eq!(plan.client_steps(Some(0)), ["relu", "avg-pool2d", "relu"]);
    assert_eq!(sources(&plan), [["input"], ["relu2"]]);
    let first =
        calibrated(ModelBuilder::new([3, 8, 8]).avg_pool2d("pool1", [2, 2]).flatten().dense("fc1", 2));
    let plan = self::plan(&first);
    assert_eq!((names(&plan), sources(&plan)), (vec!["fc1"], vec![vec!["pool1"]]));
    assert_eq!(plan.client_steps(None), ["avg-pool2d"]);
}

fn same(channels: usize) -> Conv2dConfig {
    Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1])
}

fn residual(channels: usize) -> ModelBuilder {
    let main = move |main: ModelBuilder| {
        let stride = if channels == 2 { [1, 1] } else { [2, 2] };
        let first = same(channels).with_stride(stride).without_bias();
        main.conv2d("a", first).batch_norm2d("an").relu().conv2d("b", same(channels)).batch_norm2d("bn")
    };
    let projection = Conv2dConfig::new(channels, [1, 1]).with_stride([2, 2]);
    let stem = ModelBuilder::new([1, 6, 6]).conv2d("stem", same(2)).batch_norm2d("stem_norm").relu();
    let block = match channels {
        2 => stem.residual(main),
        _ => stem.residual_with(main, |shortcut| shortcut.conv2d("c", projection).batch_norm2d("cn")),
    };
    block.relu().global_avg_pool2d().flatten().dense("fc", 3).softmax()
}

#[test]
fn a_shortcut_adds_no_segment() {
    let identity = plan(&calibrated(residual(2)));
    assert_eq!(names(&identity), ["stem+stem_norm", "a+an", "b+bn", "fc"]);
    assert_eq!(sources(&identity), [["input"], ["relu1"], ["relu2"], ["global_pool1"]]);
    assert_eq!(identity.client_steps(Some(2)), ["add", "relu", "global-avg-pool2d"]);

    let projection = plan(&calibrated(residual(4)));
    assert_eq!(names(&projection), ["stem+stem_norm", "a+an", "b+bn+c+cn", "fc"]);
    assert_eq!(
        sources(&projection),
        [vec!["input"], vec!["relu1"], vec!["relu2", "relu1"], vec!["global_pool1"]]
    );
    assert_eq!(projection.client_steps(Some(2)), ["relu", "global-avg-pool2d"]);
    let sum = &projection.segments()[2];
    // The terms have one scale, so that their sums can be added, and their bounds add up.
    let scales: Vec<i32> =
        sum.terms.iter().map(|term| term.format.scale_bits() + term.weights.scale_bits()).collect();
    assert_eq!(scales, [sum.format.scale_bits(); 2]);
    let bounds: u64 = sum
        .terms
        .iter()
        .map(|term| term.format.weighted_sum(term.weights, term.map.most_terms()).unwrap().bound())
        .sum();
    assert!(sum.format.bound() > bounds, "with the bias");
    assert_eq!(sum.ciphertexts_up(), sum.up_header(0).ciphertexts() + sum.up_header(1).ciphertexts());
}

/// A branch that is next to nothing beside the other does not decide how wide the sums are.
#[test]
fn a_tiny_branch_makes_no_wide_sums() {
    let main = |main: ModelBuilder| main.conv2d("a", same(2)).relu().conv2d("b", same(2));
    let stem = ModelBuilder::new([1, 6, 6]).conv2d("stem", same(2)).relu();
    let block = stem.residual_with(main, |shortcut| shortcut.conv2d("c", same(2)));
    let mut model = ranged(block.relu().flatten().dense("fc", 3).softmax().build().unwrap(), 4.0);
    let mut of = |exponent: i32| {
        let (_, tiny) = model.layers_mut().find(|(name, _)| *name == "b").unwrap();
        for (at, weight) in tiny.parameters_mut().weight.iter_mut().enumerate() {
            *weight = (at as f32 % 3.0 - 1.0) * (exponent as f32).exp2();
        }
        let plan = plan(&model);
        let [a, b] = &plan.segments()[2].terms[..] else { panic!("two terms") };
        for term in [a, b] {
            let (before, after) = (term.values, term.format);
            assert_eq!(after.bound(), before.bound() * term.factor as u64);
            assert_eq!(after.scale_bits(), before.scale_bits() + term.factor.ilog2() as i32);
        }
        assert_eq!([a, b].map(|term| term.weights.bits()), [2, 9], "those that they have alone");
        [a.factor, b.factor]
    };
    // The sums have its scale, as long as that makes them no more than eight bits wider.
    let near = of(-12);
    assert!(near[0] == 1 && (2..256).contains(&near[1]), "{near:?}");
    assert_eq!([of(-30), of(-90)], [[1, 256]; 2]);
}

/// As many weights as without it, one block a group; before a convolution, too.
#[test]
fn a_batch_norm_is_part_of_its_convolution() {
    let conv = Conv2dConfig::new(4, [3, 3]);
    for (config, groups) in [(conv, 1), (conv.with_groups(2).without_bias(), 2)] {
        let image = || ModelBuilder::new([2, 6, 6]);
        let after =
            calibrated(image().conv2d("conv", config).batch_norm2d("norm").relu().flatten().dense("fc", 2));
        let before =
            calibrated(image().batch_norm2d("norm").conv2d("conv", config).relu().flatten().dense("fc", 2));
        for (model, name) in [(after, "conv+norm"), (before, "norm+conv")] {
            let plan = plan(&model);
            assert_eq!(names(&plan), [name, "fc"]);
            let map = &plan.segments()[0].terms[0].map;
            assert_eq!((map.weights(), map.blocks().len()), (4 * 2 / groups * 9, groups));
        }
    }
    // Between two activations it is a segment of its own: it has parameters.
    let alone =
        calibrated(ModelBuilder::new([2, 2, 2]).relu().batch_norm2d("norm").relu().flatten().dense("fc", 2));
    assert_eq!(names(&plan(&alone)), ["norm", "fc"]);
}

#[test]
fn resnet20_has_a_segment_for_each_layer() {
    let start = Instant::now();
    let model = ranged(zoo::resnet20(10).unwrap(), 4.0);
    let plan = plan(&model);
    assert_eq!(plan.segments().len(), 20);
    let terms: Vec<usize> = plan.segments().iter().map(|segment| segment.terms.len()).collect();
    let two: Vec<usize> = (0..20).filter(|&segment| terms[segment] == 2).collect();
    assert_eq!(two, [8, 14], "the two projections");
    assert_eq!(
        plan.segments()[8].name,
        "layer2.0.conv2+layer2.0.bn2+layer2.0.shortcut.0+layer2.0.shortcut.1"
    );
    let again = Plan::new(plan.description().clone(), plan.key()).unwrap();
    assert_same(&again, &plan);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn activations_between_segments_are_computed_on_integers() {
    let outputs = |plan: &Plan| -> Vec<Option<String>> {
        let name =
            |step: &Option<Lowering>| step.as_ref().map(|step| plan.graph().name(step.output).to_owned());
        plan.integer_steps.iter().map(name).collect()
    };
    let some = |name: &str| Some(name.to_owned());
    let lenet5 = plan(&lenet5());
    assert_eq!(outputs(&lenet5), [some("relu1"), some("relu2"), some("relu3"), some("relu4"), None]);
    // What somebody reads as reals stays real: shortcuts, what is averaged, and the end.
    let block = plan(&calibrated(residual(4)));
    assert_eq!(outputs(&block), [some("relu1"), some("relu2"), None, None]);
    let pooled =
        ModelBuilder::new([1, 4, 4]).conv2d("a", same(2)).relu().max_pool2d_with(Window::new([2, 2]));
    let pooled = plan(&calibrated(pooled.flatten().dense("b", 3).tanh()));
    assert_eq!(outputs(&pooled), [some("max_pool1"), None]);
    let averaged = ModelBuilder::new([1, 4, 4]).conv2d("a", same(2)).relu().avg_pool2d("p", [2, 2]);
    let averaged = plan(&calibrated(averaged.flatten().dense("b", 3)));
    assert_eq!(outputs(&averaged), [None, None]);
}

#[test]
fn a_flatten_between_activations_is_no_segment() {
    let builder = ModelBuilder::new([1, 4, 4]).flatten().relu().dense("fc1", 2).flatten().tanh();
    let plan = plan(&calibrated(builder));
    assert_eq!(names(&plan), ["fc1"]);
    assert_eq!(
        (plan.client_steps(None), plan.client_steps(Some(0))),
        (vec!["relu".to_owned()], vec!["tanh".to_owned()])
    );
    // Nor is it anybody's work at the end.
    let plan = self::plan(&calibrated(ModelBuilder::new([1, 4, 4]).conv2d("a", same(2)).flatten()));
    assert_eq!((names(&plan), plan.client_steps(Some(0))), (vec!["a"], vec![]));
}

/// The fused matrix of a chain gives the reals that its layers give one after another.
#[test]
fn a_fused_chain_is_the_composition_of_its_layers() {
    let conv = Conv2dConfig::new(3, [3, 2]).with_stride([1, 2]).with_padding([1, 1]);
    let image = || ModelBuilder::new([2, 6, 7]);
    for builder in [
        image().conv2d("a", conv).avg_pool2d("b", [2, 2]),
        image().conv2d("a", conv).batch_norm2d("n").avg_pool2d("b", [2, 2]).avg_pool2d("c", [2, 1]),
        image().batch_norm2d("n").conv2d("a", conv).conv2d("b", same(2)),
        image().conv2d("a", conv).global_avg_pool2d().flatten().dense("fc", 3).dense("fd", 2),
        image().residual_with(|a| a.conv2d("a", same(2)), |b| b.conv2d("b", same(2))).avg_pool2d("p", [2, 2]),
        // The bias of what comes after a sum counts once.
        image().residual_with(|a| a.conv2d("a", same(2)), |b| b.conv2d("b", same(2))).conv2d("c", same(3)),
        image().residual_with(|a| a.conv2d("a", same(2)), |b| b.conv2d("b", same(2))).batch_norm2d("n"),
        // The terms of a sum may be of other shapes before they are flattened.
        image().residual_with(|a| a.conv2d("a", conv).flatten(), |b| b.flatten().dense("b", 72)),
    ] {
        let model = initialized(builder);
        let fused = model
            .compile(&Quantization { weight_bits: 24, ..Quantization::default() }, &Deployment::default())
            .unwrap();
        assert_eq!(fused.plan().segments().len(), 1);
        // Multiples of 2^-8, which quantization leaves as they are.
        let images = images(&model, 4, 1).map(|x| (x * 255.0).round() / 256.0);
        let clear = fused.run_clear(images.view()).unwrap().logits;
        let float = model.logits(images.view()).unwrap();
        assert!(clear.iter().zip(&float).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-4), "{clear} {float}");
    }
}

#[test]
fn fewer_bits_make_fewer_products_and_narrower_slots() {
    let model = lenet5();
    let compile = |layer_bits: Option<BTreeMap<String, u32>>| {
        model
            .compile(
                &Quantization { layer_bits, ..Quantization::default() },
                &Deployment { prefer: Preference::Time, ..deployment(KeyBits::Bits2048, 1) },
            )
            .unwrap()
    };
    let wide = compile(None);
    let bits = BTreeMap::from([("fc1".to_owned(), 8), ("conv2".to_owned(), 6)]);
    let narrow = compile(Some(bits.clone()));
    let default = Quantization::default().weight_bits;
    for (index, bits) in [(0, default), (1, 6), (2, 8), (3, default)] {
        let (wide, narrow) = (&wide.plan().segments()[index], &narrow.plan().segments()[index]);
        assert_eq!(narrow.terms[0].weights.bits(), bits);
        let slots = |segment: &Segment| segment.layout.ups[0].slot_bits();
        assert_eq!(slots(narrow), slots(wide) - (default - bits) as usize);
        assert_eq!(narrow.layout.operations.cost() < wide.layout.operations.cost(), bits < default);
    }
    assert!(narrow.error_bound().unwrap() > wide.error_bound().unwrap());

    // What a model was tuned to holds unless the options say otherwise, if only that nothing does.
    let mut tuned = model.clone();
    tuned.set_layer_bits(bits);
    let of = |layer_bits: Option<BTreeMap<String, u32>>| {
        let bits = Quantization { layer_bits, ..Quantization::default() };
        tuned.compile(&bits, &deployment(KeyBits::Bits2048, 1)).unwrap().plan().segments()[1].terms[0]
            .weights
            .bits()
    };
    assert_eq!(of(None), 6);
    assert_eq!(of(Some(BTreeMap::new())), default);
    assert_eq!(of(Some(BTreeMap::from([("conv2".to_owned(), 12)]))), 12);
    // Of a chain's layers the one that was given most counts; each term of a sum has its own. At the other's coarser scale,
    // the main branch's integers take fewer.
    let bits = [("b", 5), ("bn", 7), ("c", 6)].map(|(name, bits)| (name.to_owned(), bits));
    let bits = Quantization { layer_bits: Some(bits.into()), ..Quantization::default() };
    let program = calibrated(residual(4)).compile(&bits, &deployment(KeyBits::Bits2048, 1)).unwrap();
    let found: Vec<u32> = program.plan().segments()[2].terms.iter().map(|term| term.weights.bits()).collect();
    assert_eq!(found, [4, 6]);
    assert!(program.weights(2).iter().zip([4, 6]).all(|(weights, bits)| weights.range().bits() == bits));
}

/// A ReLU that is dead on all calibration images has a range of zero, one that is hardly alive a tiny one.
#[test]
fn dead_activations_have_a_plan() {
    for range in [0.0, f32::MIN_POSITIVE, 1e-9, 1e-3] {
        let program = ranged(zoo::lenet5().unwrap(), range)
            .compile(&Quantization::default(), &Deployment::default())
            .unwrap();
        assert_eq!(program.plan().segments().len(), 5);
        for segment in &program.plan().segments()[1..] {
            let values = segment.terms[0].values;
            assert!(values.scale_bits() <= 26 && values.bound() > 0, "range {range}: {values:?}");
        }
    }
}

#[test]
fn uncalibrated_models_are_refused_by_the_value_that_lacks_a_range() {
    let missing = |model: &Model| match error(model, Quantization::default()) {
        PlanError::NoRange { node } => node,
        other => panic!("{other}"),
    };
    let mut model = zoo::lenet5().unwrap();
    fill(&mut model, 5);
    assert_eq!(missing(&model), "relu1");
    let message = error(&model, Quantization::default()).to_string();
    assert!(message.contains("`relu1`") && message.contains("calibrate"), "{message}");
    let without = |name: &str| {
        let mut model = lenet5();
        let others = model.ranges().unwrap().iter().filter(|(own, _)| *own != name);
        let others = others.map(|(name, range)| (name.to_owned(), range)).collect();
        model.set_ranges(Some(others));
        model
    };
    assert_eq!(missing(&without("relu3")), "relu3");
    // What is not encrypted needs none: neither what the server has, nor the last value.
    for unused in ["conv1", "pool1", "fc3", "softmax1", "flatten1", "input"] {
        assert!(
            without(unused).compile(&Quantization::default(), &Deployment::default()).is_ok(),
            "{unused}"
        );
    }
    // Options come before the model.
    let ranges = Some(model_ranges(&lenet5()));
    assert!(
        model.compile(&Quantization { ranges, ..Quantization::default() }, &Deployment::default()).is_ok()
    );
    // Bounded activations need none.
    let bounded = [
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Relu6,
        Activation::HardSigmoid,
        Activation::Clip { min: -1.0, max: 2.0 },
    ];
    for activation in bounded {
        let model =
            initialized(ModelBuilder::new([4]).dense("a", 3).activation(activation).flatten().dense("b", 2));
        let program = model.compile(&Quantization::default(), &Deployment::default()).unwrap();
        let values = program.plan().segments()[1].terms[0].values;
        assert_eq!(values.real(values.bound() as i64), activation.bound().unwrap(), "{activation}");
    }
    let model = initialized(ModelBuilder::new([4]).dense("a", 3).client_function("own", [2]).dense("b", 2));
    assert_eq!(missing(&model), "own");
}

fn model_ranges(model: &Model) -> Ranges {
    model.ranges().unwrap().clone()
}

/// A range beyond what an activation can reach gives it no more room; the margin is for others.
#[test]
fn ranges_are_widened_by_the_margin_but_not_beyond_what_can_be() {
    let largest = |activation: Activation, range: f32, margin: f64| {
        let mut model =
            initialized(ModelBuilder::new([4]).dense("a", 3).activation(activation).dense("b", 2));
        let name = model.graph().nodes()[1].name.clone();
        model.set_ranges(Some([(Ranges::INPUT.to_owned(), 1.0), (name, range)].into_iter().collect()));
        let program = model
            .compile(
                &Quantization { range_margin: margin, ..Quantization::default() },
                &Deployment::default(),
            )
            .unwrap();
        let values = program.plan().segments()[1].terms[0].values;
        values.real(values.bound() as i64)
    };
    assert_eq!(largest(Activation::Relu, 4.0, 1.25), 5.0);
    assert_eq!(largest(Activation::Relu, 4.0, 2.0), 8.0);
    assert_eq!(largest(Activation::Sigmoid, 0.5, 1.25), 0.625);
    assert_eq!(largest(Activation::Sigmoid, 0.9, 1.25), 1.0);
    assert_eq!(largest(Activation::Sigmoid, 70.0, 1.0), 1.0);
}

#[test]
fn options_out_of_range_are_named() {
    let model = lenet5();
    let ranges = |name: &str, range: f32| {
        let mut ranges = model_ranges(&lenet5());
        ranges.set(name, range);
        Some(ranges)
    };
    let bits = |bits: u32| Some(BTreeMap::from([("fc1".to_owned(), bits)]));
    for (quantization, name, value) in [
        (Quantization { weight_bits: 1, ..Quantization::default() }, "weight bits", "1"),
        (Quantization { weight_bits: 25, ..Quantization::default() }, "weight bits", "25"),
        (Quantization { layer_bits: bits(0), ..Quantization::default() }, "weight bits", "0"),
        (Quantization { layer_bits: bits(u32::MAX), ..Quantization::default() }, "weight bits", "4294967295"),
        (Quantization { activation_bits: Some(25), ..Quantization::default() }, "activation bits", "25"),
        (Quantization { input_bits: Some(1), ..Quantization::default() }, "input bits", "1"),
        (Quantization { range_margin: f64::NAN, ..Quantization::default() }, "range margin", "NaN"),
        (Quantization { range_margin: 0.0, ..Quantization::default() }, "range margin", "0"),
        (Quantization { range_margin: f64::INFINITY, ..Quantization::default() }, "range margin", "inf"),
        (
            Quantization { ranges: ranges("relu2", f32::NAN), ..Quantization::default() },
            "calibrated range",
            "NaN for `relu2`",
        ),
        (
            Quantization { ranges: ranges("input", -1.0), ..Quantization::default() },
            "calibrated range",
            "-1 for `input`",
        ),
        (
            Quantization { ranges: ranges("conv1", f32::INFINITY), ..Quantization::default() },
            "calibrated range",
            "inf for `conv1`",
        ),
    ] {
        let error = error(&model, quantization);
        assert!(
            matches!(&error, PlanError::Option { what, found, .. } if *what == name && found == value),
            "{error}"
        );
    }
    let base = || deployment(KeyBits::Bits2048, 1);
    for (deployment, name, value) in [
        (Deployment { batch: 0, ..base() }, "batch", "0"),
        (Deployment { batch: (1 << 20) + 1, ..base() }, "batch", "1048577"),
        (Deployment { batch: usize::MAX, ..base() }, "batch", "18446744073709551615"),
        (Deployment { lanes: 0, ..base() }, "lanes", "0"),
        (Deployment { lanes: 65, ..base() }, "lanes", "65"),
    ] {
        let error = model.compile(&Quantization::default(), &deployment).unwrap_err();
        assert!(
            matches!(&error, PlanError::Option { what, found, .. } if *what == name && found == value),
            "{error}"
        );
    }
    let unknown = PlanError::UnknownLayer { name: "fc4".to_owned() };
    let layer_bits = Some(BTreeMap::from([("fc4".to_owned(), 8)]));
    assert_eq!(error(&model, Quantization { layer_bits, ..Quantization::default() }), unknown);
    // Only linear nodes have weights.
    let layer_bits = Some(BTreeMap::from([("relu1".to_owned(), 8)]));
    assert_eq!(
        error(&model, Quantization { layer_bits, ..Quantization::default() }),
        PlanError::UnknownLayer { name: "relu1".to_owned() }
    );
}

/// They come out of a file.
#[test]
fn bits_of_a_model_that_are_out_of_range_are_named() {
    for bits in [0, 1, 25, 1 << 30, 1 << 31, u32::MAX] {
        let mut model = lenet5();
        model.set_layer_bits(BTreeMap::from([("fc1".to_owned(), bits)]));
        let error = error(&model, Quantization::default());
        let found = bits.to_string();
        assert_eq!(error, PlanError::Option { what: "weight bits", expected: "2 to 24", found });
    }
    let mut model = lenet5();
    model.set_layer_bits(BTreeMap::from([("fc9".to_owned(), 8)]));
    let unknown = PlanError::UnknownLayer { name: "fc9".to_owned() };
    let mut other = model.clone();
    other.set_layer_bits(BTreeMap::new());
    other.set_formats([("relu9".to_owned(), Format::integers(3).unwrap())].into());
    assert!(matches!(
        other.compile(&Quantization::default(), &Deployment::default()),
        Err(PlanError::Option { what: "value with a format", .. })
    ));
    assert_eq!(error(&model, Quantization::default()), unknown);
}

#[test]
fn a_model_without_anything_for_the_server_has_no_plan() {
    let nothing = initialized(ModelBuilder::new([1, 4, 4]).avg_pool2d("p", [2, 2]).flatten().relu());
    assert_eq!(error(&nothing, Quantization::default()), PlanError::Empty);
    let description = Description {
        graph: nothing.graph().clone(),
        numbers: Numbers { formats: BTreeMap::new(), segments: vec![], clamped: [].into() },
        batch: 1,
        lanes: 1,
        prefer: Preference::default(),
        hidden: false,
    };
    assert_eq!(Plan::new(description, KeyBits::Bits1024.into()).unwrap_err(), PlanError::Empty);
}

fn with_tensor(model: &mut Model, name: &str, value: f32) {
    let mut weights = model.weights();
    let shape = weights.tensors[name].shape().clone();
    let values = vec![value; shape.elements()];
    weights.tensors.insert(name.to_owned(), WeightTensor::new(shape, values).unwrap());
    model.load(&weights).unwrap();
}

#[test]
fn numbers_that_fit_no_integer_are_refused() {
    let mut builder = ModelBuilder::new([30]);
    for i in 0..6 {
        builder = builder.dense(&format!("fc{i}"), 30).square();
    }
    let model = ranged(builder.dense("last", 2).build().unwrap(), 1e30);
    assert!(
        model.compile(&Quantization::default(), &Deployment::default()).is_ok(),
        "large reals have a coarse scale"
    );
    // Large biases beside a fine scale do not fit.
    let mut model = initialized(ModelBuilder::new([4]).dense("fc1", 2));
    with_tensor(&mut model, "fc1.bias", 1e20);
    let found = error(&model, Quantization::default());
    assert!(
        matches!(&found, PlanError::Numbers { name, source: Error::Overflow { .. } } if name == "fc1"),
        "{found}"
    );
    // As many bits as there are, of everything, and sums of many: more than an integer has.
    let wide = Quantization {
        weight_bits: 24,
        activation_bits: Some(24),
        input_bits: Some(24),
        ..Quantization::default()
    };
    let largest = |inputs: usize| {
        let mut model = initialized(ModelBuilder::new([inputs]).dense("fc1", 2));
        with_tensor(&mut model, "fc1.weight", 0.999);
        model
    };
    assert!(largest(1 << 13).compile(&wide, &Deployment::default()).is_ok(), "24 + 23 + 13 bits, and biases");
    let model = largest(1 << 14);
    assert!(matches!(error(&model, wide), PlanError::Numbers { source: Error::Overflow { .. }, .. }));
    // Weights that are none.
    let mut model = initialized(ModelBuilder::new([2, 2, 2]).conv2d("conv", same(2)).batch_norm2d("norm"));
    model.layers_mut().find_map(|(_, layer)| layer.statistics_mut()).unwrap().variance[1] = -1.0;
    let found = error(&model, Quantization::default());
    assert!(
        matches!(&found, PlanError::Numbers { name, source: Error::NotFinite { .. } } if name == "conv+norm"),
        "{found}"
    );
}

/// Layers that are small each, but not as one map.
#[test]
fn chains_that_are_too_large_are_refused_by_name() {
    let start = Instant::now();
    let strided = Conv2dConfig::new(1, [3, 3]).with_stride([3, 3]);
    let conv = Op::Linear(LinearConfig::Conv2d(strided));
    let flatten = Op::Linear(LinearConfig::Flatten);
    let nodes =
        vec![node("conv", conv, &[0]), node("flatten", flatten, &[1]), node("wide", dense(10_000), &[2])];
    let graph = graph([1, 100, 100], nodes, ValueId::of_node(2)).unwrap();
    let format = Format::integers(255).unwrap().with_scale_bits(8).unwrap();
    let segment = SegmentNumbers {
        weights: vec![WeightRange::signed(8).unwrap().with_scale_bits(7)],
        bias_exponent: None,
    };
    let formats = BTreeMap::from([(0, format)]);
    let numbers = Numbers { formats, segments: vec![segment], clamped: [].into() };
    let prefer = Preference::default();
    let description = Description { graph, numbers, batch: 1, lanes: 1, prefer, hidden: false };
    let found = Plan::new(description, KeyBits::Bits1024.into()).unwrap_err();
    assert!(
        matches!(&found, PlanError::Numbers { name, source: Error::Limit { .. } } if name == "wide"),
        "{found}"
    );
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

/// A sum of a sum of a sum, each of two, would be of millions of terms.
#[test]
fn sums_of_sums_do_not_grow_without_end() {
    let start = Instant::now();
    let mut nodes = vec![node("fc", dense(2), &[0])];
    nodes.extend((1..40).map(|at| node(&format!("n{at}"), Op::Add, &[at, at])));
    let graph = graph([2], nodes, ValueId::of_node(39)).unwrap();
    let mut model = Model::new(Arc::unwrap_or_clone(graph)).unwrap();
    fill(&mut model, 1);
    model.calibrate(array![[1.0, -1.0]].view()).unwrap();
    let program = model.compile(&Quantization::default(), &Deployment::default()).unwrap();
    assert!(program.plan().segments().iter().all(|segment| segment.terms.len() <= 64));
    let outcome = program.run_clear(array![[0.5, 0.25]].view()).unwrap();
    let expected = model.logits(array![[0.5, 0.25]].view()).unwrap();
    let close = |(a, b): (&f64, &f32)| (a / f64::from(*b) - 1.0).abs() < 0.05;
    assert!(outcome.logits.iter().zip(&expected).all(close), "{:?} {expected:?}", outcome.logits);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

/// Everything about two plans that anybody can see or that a run depends on.
fn assert_same(a: &Plan, b: &Plan) {
    assert_eq!(a.description(), b.description());
    assert_eq!((a.key(), a.description().batch, a.steps()), (b.key(), b.description().batch, b.steps()));
    assert_eq!((a.output, a.logits, &a.last_uses), (b.output, b.logits, &b.last_uses));
    assert_eq!(a.segments().len(), b.segments().len());
    for (a, b) in a.segments().iter().zip(b.segments()) {
        assert_eq!((&a.name, a.output, &a.shape), (&b.name, b.output, &b.shape));
        assert_eq!((a.format, a.bias_exponent, a.batch), (b.format, b.bias_exponent, b.batch));
        assert_eq!(a.layout, b.layout);
        assert_eq!(a.terms.len(), b.terms.len());
        for (a, b) in a.terms.iter().zip(&b.terms) {
            assert_eq!((a.source, a.sums.as_deref(), &a.map), (b.source, b.sums.as_deref(), &b.map));
            assert_eq!((a.weights, a.values, a.format), (b.weights, b.values, b.format));
        }
    }
}

/// What holds of every plan, whatever it was made from.
fn check_plan(plan: &Plan) {
    let limit = 1 << 22;
    for segment in plan.segments() {
        let layout = &segment.layout;
        assert_eq!(layout.ups.len(), segment.terms.len());
        assert!((1..=limit).contains(&segment.ciphertexts_down()));
        let groups = layout.down.groups(plan.description().batch);
        assert_eq!(layout.each_part().map(|(_, part)| part.groups).sum::<usize>(), groups);
        assert_eq!(layout.each_part().last().map(|(last, _)| last.end), Some(groups));
        assert_eq!(
            layout.each_part().map(|(_, part)| part.hiding.ciphertexts).sum::<usize>(),
            segment.ciphertexts_down()
        );
        let all = layout.each_part().fold(Operations::default(), |sum, (_, part)| sum + part.operations);
        assert_eq!(all, layout.operations);
        assert!(layout.each_part().all(|(_, part)| part.products.len() == segment.terms.len()));
        let down = layout.down.slot_bits();
        assert!(segment.format.slot_bits() <= down);
        assert!(!matches!(layout.down.arrangement(), Arrangement::Patches(_)), "comes down as im2col");
        for (term, up) in segment.terms.iter().zip(&layout.ups) {
            assert!(term.format.slot_bits() <= up.slot_bits() && up.slot_bits() == down);
            assert!(term.values.bound() <= term.format.bound());
            assert_eq!(term.map.output().elements(), segment.shape.elements());
        }
        for term in 0..segment.terms.len() {
            assert!((1..=limit).contains(&segment.up_header(term).ciphertexts()));
        }
        assert_eq!(segment.sums_after(0), 0);
        let last = segment.up_header(segment.terms.len() - 1).ciphertexts();
        assert_eq!(segment.sums_after(last), segment.ciphertexts_down());
    }
    let steps = plan.steps().iter().filter(|step| matches!(step, Step::Segment(_))).count();
    assert_eq!(steps, plan.segments().len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A client makes the very plan that the server has, from what the server says.
    #[test]
    fn a_plan_follows_from_its_description(
        seed: u64, batch in 1usize..40, lanes in 1usize..9, large: bool, prefer in 0usize..3,
    ) {
        let model = random_model(seed);
        let key = if large { KeyBits::Bits3072 } else { KeyBits::Bits1024 };
        let deployment = Deployment { key: key.into(), batch, lanes, prefer: Preference::ALL[prefer] };
        let program = model.compile(&Quantization::default(), &deployment).unwrap();
        let plan = program.plan();
        check_plan(plan);
        let text = serde_json::to_string(plan.description()).unwrap();
        let description: Description = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&description, plan.description());
        assert_same(&Plan::new(description, key.into()).unwrap(), plan);
        for (segment, weights) in plan.segments().iter().enumerate().map(|(at, s)| (s, program.weights(at))) {
            let declared = segment.terms.iter().zip(weights);
            prop_assert!(declared.clone().all(|(term, weights)| term.weights == weights.range()));
            prop_assert!(declared.clone().all(|(term, weights)| term.map.weights() == weights.values().len()));
        }
        prop_assert!(program.weights(plan.segments().len()).is_empty());
    }

    /// Steps on integers change nothing, neither results nor counts of what was clamped.
    #[test]
    fn steps_on_integers_give_what_reals_give(
        seed: u64, weight_bits in 2u32..25, activation_bits in 2u32..25, margin in 0.2f64..1.5,
    ) {
        let model = random_model(seed);
        let quantization =
            Quantization { weight_bits, activation_bits: Some(activation_bits), range_margin: margin, ..Quantization::default() };
        let program = model.compile(&quantization, &Deployment::default());
        prop_assume!(program.is_ok());
        let program = program.unwrap();
        let images = images(&model, 5, seed ^ 2);
        prop_assert_eq!(run_on_reals(&program, &images), program.run_clear(images.view()).unwrap());
    }

    /// However branches, pools, gates and activations follow each other.
    #[test]
    fn logits_are_within_the_bound_of_the_real_network(
        seed: u64, weight_bits in 4u32..14, activation_bits in 4u32..14, input_bits in 4u32..12,
    ) {
        let model = random_model(seed);
        let bits = Quantization { weight_bits, activation_bits: Some(activation_bits), input_bits: Some(input_bits), ..Quantization::default() };
        // Room enough that no activation leaves its range for having been rounded.
        let program = model.compile(&Quantization { range_margin: 4.0, ..bits }, &Deployment::default()).unwrap();
        let images = images(&model, 5, seed ^ 2);
        let outcome = program.run_clear(images.view()).unwrap();
        let bound = program.error_bound().unwrap();
        // What a gate multiplies need not have a declared range.
        let gated = model.graph().nodes().iter().any(|node| node.op == Op::Client(ClientOp::Mul));
        prop_assert!(bound > 0.0 && (bound.is_finite() || gated), "{bound}");
        prop_assume!(outcome.saturations.total() == 0);
        for (row, image) in outcome.logits.outer_iter().zip(images.outer_iter()) {
            let values = naive(&model, &image.to_vec());
            for (found, expected) in row.iter().zip(&values[model.graph().logits().index()]) {
                prop_assert!((found - expected).abs() <= bound + 1e-9, "{found} {expected}: {bound}");
            }
        }
        prop_assert_eq!(outcome.predictions().len(), 5);
    }
}

/// Runs a program without steps on integers.
fn run_on_reals(program: &Program, images: &Array2<f32>) -> Outcome {
    let mut plan = Plan::clone(program.plan());
    plan.integer_steps.fill(None);
    let program = Program { plan: Arc::new(plan), lowered: program.lowered.clone() };
    program.run_clear(images.view()).unwrap()
}

/// What the client computes first it computes exactly; what it makes can be large all the same.
#[test]
fn the_bound_counts_what_multiplies_an_error() {
    let builder =
        ModelBuilder::new([2]).square().gated(|gate| gate.dense("gate", 2).sigmoid()).dense("fc", 1);
    let mut model = calibrated(builder);
    // Three bits round the first by a sixteenth and leave the last as it is.
    with_tensor(&mut model, "gate.weight", 0.011);
    with_tensor(&mut model, "gate.bias", 0.0);
    with_tensor(&mut model, "fc.weight", 0.75);
    with_tensor(&mut model, "fc.bias", 0.0);
    model.calibrate(array![[8.0, 8.0]].view()).unwrap();
    let coarse = Quantization {
        weight_bits: 3,
        activation_bits: Some(16),
        input_bits: Some(16),
        ..Quantization::default()
    };
    let program = model.compile(&coarse, &Deployment::default()).unwrap();
    let images = array![[8.0, 8.0], [0.9, -0.3], [7.0, 1.0], [1.0, 1.0]];
    let outcome = program.run_clear(images.view()).unwrap();
    assert_eq!(outcome.saturations.total(), 0);
    let bound = program.error_bound().unwrap();
    let mut largest: f64 = 0.0;
    for (row, image) in outcome.logits.outer_iter().zip(images.outer_iter()) {
        let expected = naive(&model, &image.to_vec())[model.graph().logits().index()][0];
        largest = largest.max((row[0] - expected).abs());
    }
    assert!((0.5..=bound).contains(&largest) && bound < 10.0, "{largest} {bound}");
}

#[test]
fn nothing_is_known_of_a_function_of_the_clients_own() {
    for weight in [1.0, 0.0] {
        let builder = ModelBuilder::new([2]).dense("a", 2).client_function("own", [2]).relu().dense("b", 2);
        let mut model = ranged(builder.build().unwrap(), 1.0);
        with_tensor(&mut model, "b.weight", weight);
        let program = model.compile(&Quantization::default(), &Deployment::default()).unwrap();
        assert_eq!(program.error_bound().unwrap(), f64::INFINITY, "{weight}");
    }
}

#[test]
fn the_first_of_equal_logits_is_predicted() {
    let model = calibrated(ModelBuilder::new([2]).dense("a", 3));
    let mut outcome = model
        .compile(&Quantization::default(), &Deployment::default())
        .unwrap()
        .run_clear(array![[1.0, 0.5]].view())
        .unwrap();
    outcome.logits = array![[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [f64::NEG_INFINITY, -1.0, -2.0]];
    assert_eq!(outcome.predictions(), [1, 0, 1]);
}

#[test]
fn images_that_are_none_are_refused() {
    let model = lenet5();
    let program = model.compile(&Quantization::default(), &Deployment::default()).unwrap();
    for columns in [783, 785, 0] {
        let error = program.run_clear(Array2::zeros((1, columns)).view()).unwrap_err();
        assert!(matches!(&error, Error::Shape { found, .. } if found.dims() == [columns]), "{error}");
    }
    let none = program.run_clear(Array2::zeros((0, 784)).view()).unwrap_err();
    assert_eq!(none, Error::TooFew { what: "images", least: 1, found: 0 });
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut images = Array2::zeros((2, 784));
        images[[1, 7]] = bad;
        images[[0, 3]] = bad;
        let error = program.run_clear(images.view()).unwrap_err();
        assert_eq!(error, Error::NotFinite { what: "elements of input images", found: 2, of: 1568 });
    }
}

#[test]
fn values_beyond_the_declared_range_are_clamped_and_counted() {
    let mut model = initialized(ModelBuilder::new([3]).dense("a", 3).relu().dense("b", 1));
    for (name, value) in [("a.weight", 0.0), ("a.bias", 2.0), ("b.weight", 1.0), ("b.bias", 0.0)] {
        with_tensor(&mut model, name, value);
    }
    model.set_ranges(Some([("input", 1.0), ("relu1", 1.0)].into_iter().collect()));
    let options = Quantization { range_margin: 1.0, ..Quantization::default() };
    let program = model.compile(&options, &Deployment::default()).unwrap();
    let images = array![[0.5, -1.0, 1.0], [1.01, -7.0, f32::MAX]];
    let outcome = program.run_clear(images.view()).unwrap();
    // Three inputs of the second image, and all three activations of both, which are twice what was declared.
    let [input, relu1] = [ValueId::INPUT, ValueId::of_node(1)];
    assert_eq!(outcome.saturations.by_value().collect::<Vec<_>>(), [(input, 3), (relu1, 6)]);
    assert_eq!(outcome.saturations.total(), 3 + 6);
    assert!(outcome.logits.iter().all(|logit| (logit - 3.0).abs() < 0.02), "{:?}", outcome.logits);
    // Where there is room, nothing is clamped.
    let roomy =
        model.compile(&Quantization { range_margin: 2.0, ..options }, &Deployment::default()).unwrap();
    let outcome = roomy.run_clear(images.view()).unwrap();
    assert_eq!(outcome.saturations.total(), 3);
    assert!(outcome.logits.iter().all(|logit| (logit - 6.0).abs() < 0.04), "{:?}", outcome.logits);
}

/// The prediction is that of the outputs, not of the sums before an activation that changes their order.
#[test]
fn activations_before_the_end_count_for_the_prediction() {
    for softmax in [false, true] {
        let builder = ModelBuilder::new([4]).dense("fc1", 6).square();
        let mut model = initialized(if softmax { builder.softmax() } else { builder });
        // The third output is the lowest sum and the largest square.
        let mut weights = model.weights();
        let rows = (0..24).map(|i| if i / 4 == 2 { -1.0 } else { 0.1 }).collect();
        let tensor = WeightTensor::new(Shape::from([6, 4]), rows).unwrap();
        weights.tensors.insert("fc1.weight".to_owned(), tensor);
        model.load(&weights).unwrap();
        let images = Array2::from_shape_fn((5, 4), |(i, j)| (i + 2 * j) as f32 / 10.0);
        let program = model.compile(&Quantization::default(), &Deployment::default()).unwrap();
        let outcome = program.run_clear(images.view()).unwrap();
        let float = model.logits(images.view()).unwrap();
        let error =
            outcome.logits.iter().zip(&float).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(error <= program.error_bound().unwrap() && error < 0.01, "{error}");
        let largest =
            |row: ndarray::ArrayView1<'_, f32>| (0..6).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        assert_eq!(outcome.predictions(), float.outer_iter().map(largest).collect::<Vec<_>>());
        let sums = outcome.integers.values().chunks(6);
        let of_sums: Vec<_> = sums.map(|sums| (0..6).max_by_key(|&i| sums[i]).unwrap()).collect();
        assert_ne!(outcome.predictions(), of_sums, "the test tells the two apart");
        assert_eq!(softmax, outcome.outputs != outcome.logits);
        if softmax {
            assert!(outcome.outputs.outer_iter().all(|row| (row.sum() - 1.0).abs() < 1e-12), "probabilities");
        }
    }
}

fn functions(name: &str, own: impl Fn(&[f64]) -> Vec<f64> + Send + Sync + 'static) -> Functions {
    let mut functions = Functions::default();
    functions.insert(name, Arc::new(own));
    functions
}

#[test]
fn functions_of_the_clients_own_run_image_by_image() {
    let builder = ModelBuilder::new([3]).dense("a", 4).client_function("fold", [2]).dense("b", 2);
    let model = ranged(builder.build().unwrap(), 4.0);
    let program = model
        .compile(
            &Quantization { activation_bits: Some(16), ..Quantization::default() },
            &Deployment::default(),
        )
        .unwrap();
    assert_eq!(program.plan().client_steps(Some(0)), ["fold"]);
    let images = array![[0.5, -0.25, 1.0], [0.0, 0.75, -1.0]];
    let fold = |x: &[f64]| vec![x[0] * x[1], (x[2] - x[3]).abs()];
    let outcome = program.run_clear_with(functions("fold", fold), images.view()).unwrap();
    let affine = |place: usize, x: &[f64]| -> Vec<f64> {
        let affine = model.layer(place).unwrap().affine();
        let y = affine.map().apply(affine.weights(), x).unwrap();
        y.iter().zip(affine.bias()).map(|(y, bias)| y + bias).collect()
    };
    for (row, image) in outcome.logits.outer_iter().zip(images.outer_iter()) {
        let image: Vec<f64> = image.iter().map(|&x| f64::from(x)).collect();
        let expected = affine(2, &fold(&affine(0, &image)));
        assert!(row.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.03), "{row}");
    }
    assert_eq!(outcome.saturations.total(), 0);

    let missing = program.run_clear(images.view()).unwrap_err();
    assert_eq!(missing, Error::MissingFunction { name: "fold".to_owned() });
    let other = program.run_clear_with(functions("unfold", fold), images.view()).unwrap_err();
    assert_eq!(other, missing);
    for length in [0, 1, 3] {
        let wrong = functions("fold", move |_| vec![0.0; length]);
        let error = program.run_clear_with(wrong, images.view()).unwrap_err();
        assert!(matches!(error, Error::Count { expected: 2, found, .. } if found == length), "{error}");
    }
    // A NaN becomes zero, the infinite the largest value, and both count.
    let wild = |_: &[f64]| vec![f64::NAN, f64::NEG_INFINITY];
    let outcome = program.run_clear_with(functions("fold", wild), images.view()).unwrap();
    assert_eq!(outcome.saturations.total(), 4);
    let values = program.plan().segments()[1].terms[0].values;
    let expected = affine(2, &[0.0, -values.real(values.bound() as i64)]);
    assert!(outcome.logits.iter().zip(expected.iter().cycle()).all(|(f, e)| (f - e).abs() < 0.05));
    assert_eq!(format!("{:?}", functions("fold", fold)), r#"{"fold"}"#);
}

/// A run asks for what it needs, and takes nothing else.
#[test]
fn a_run_takes_what_it_asked_for() {
    let model = calibrated(residual(4));
    let program = model.compile(&Quantization::default(), &deployment(KeyBits::Bits1024, 2)).unwrap();
    let images = images(&model, 2, 1);
    let start = || Run::start(program.plan().clone(), Functions::default(), images.view()).unwrap();
    let (run, _) = start();
    assert!(matches!(run.finish(), Err(Error::Count { .. })), "nothing has come out yet");
    let (mut run, mut need) = start();
    let mut asked = vec![];
    while let Need::Sums { segment, inputs } = need {
        let segment_plan = &program.plan().segments()[segment];
        asked.push((segment, inputs.len()));
        for (input, term) in inputs.iter().zip(&segment_plan.terms) {
            assert_eq!((input.shape(), input.format(), input.batch()), (term.map.input(), term.format, 2));
        }
        let zeros = |images: usize| {
            let values = vec![0; images * segment_plan.shape.elements()];
            FixedTensor::new(segment_plan.shape.clone(), segment_plan.format, values).unwrap()
        };
        assert!(matches!(run.take(zeros(1)), Err(Error::Count { .. })), "of one image");
        need = run.take(zeros(2)).unwrap();
    }
    assert_eq!(asked, [(0, 1), (1, 1), (2, 2), (3, 1)]);
    let sums = FixedTensor::new([3].into(), Format::integers(1).unwrap(), vec![0; 6]).unwrap();
    assert!(matches!(run.take(sums), Err(Error::Count { .. })), "nothing is needed any more");
    assert!(!format!("{run:?}").contains("values"));
    assert_eq!(run.finish().unwrap().logits, Array2::<f64>::zeros((2, 3)));
}

/// A plan for a client of every kind of node, small enough that thousands are made in seconds.
fn described() -> Description {
    let model = ranged(all_kinds().build().unwrap(), 4.0);
    let plan =
        model.compile(&Quantization::default(), &deployment(KeyBits::Bits1024, 2)).unwrap().plan().clone();
    assert_eq!(
        names(&plan),
        ["stem+norm", "a", "b+c", "gate", "fc"],
        "the segments that the tests below speak of"
    );
    plan.description().clone()
}

#[test]
fn numbers_that_are_not_those_of_the_graph_are_refused() {
    let refused = |edit: &dyn Fn(&mut Description)| {
        let mut description = described();
        edit(&mut description);
        Plan::new(description, KeyBits::Bits1024.into()).unwrap_err()
    };
    let counts = |edit: &dyn Fn(&mut Description), wanted: [usize; 2]| match refused(edit) {
        PlanError::Description { expected, found, .. } => assert_eq!([expected, found], wanted),
        other => panic!("{other}"),
    };
    counts(&|of| drop(of.numbers.segments.pop()), [5, 4]);
    counts(&|of| of.numbers.segments.clear(), [5, 0]);
    counts(&|of| of.numbers.segments.push(of.numbers.segments[0].clone()), [5, 6]);
    counts(&|of| _ = of.numbers.segments[2].weights.pop(), [2, 1]);
    counts(
        &|of| of.numbers.segments[0].weights.push(WeightRange::signed(8).unwrap().with_scale_bits(8)),
        [1, 2],
    );
    // The stem reads the input, and nothing says what it is.
    counts(&|of| _ = of.numbers.formats.remove(&0), [0, 4]);
    let numbers = |edit: &dyn Fn(&mut SegmentNumbers), segment: usize, wanted: &str| {
        let error = refused(&|of| edit(&mut of.numbers.segments[segment]));
        let name = ["stem+norm", "a", "b+c", "gate", "fc"][segment];
        let PlanError::Numbers { name: found, source } = &error else { panic!("{error}") };
        assert_eq!(found, name);
        assert!(source.to_string().contains(wanted), "{wanted}: {source}");
    };
    let scaled = |scale: i32| WeightRange::signed(8).unwrap().with_scale_bits(scale);
    for scale in [i32::MIN, -300, 300, i32::MAX] {
        numbers(&|of| of.weights[0] = scaled(scale), 1, "scale: expected at most 256");
        numbers(&|of| of.weights[1] = scaled(scale), 2, "");
    }
    // A term that is much coarser than another would need too large a factor.
    numbers(&|of| of.weights[1] = scaled(of.weights[1].scale_bits() + 60), 2, "overflow");
    let mut nothing = described();
    nothing.numbers.formats.values_mut().for_each(|of| *of = Format::integers(0).unwrap());
    nothing.numbers.segments[2].weights = [-200, 200].map(scaled).to_vec();
    let error = Plan::new(nothing, KeyBits::Bits1024.into()).unwrap_err();
    assert!(matches!(error, PlanError::Numbers { source: Error::Overflow { .. }, .. }), "{error}");
    // No statement about rows makes a bound larger than the bits do.
    let sums =
        |of: &Description| Plan::new(of.clone(), KeyBits::Bits1024.into()).unwrap().segments()[1].format;
    let mut stated = described();
    stated.numbers.segments[1].weights[0] = scaled(7);
    let all = sums(&stated);
    stated.numbers.segments[1].weights[0] = scaled(7).with_row_sum(u64::MAX);
    assert_eq!(sums(&stated), all);
    stated.numbers.segments[1].weights[0] = scaled(7).with_row_sum(1000);
    assert!(sums(&stated).bound() < all.bound());
    for exponent in [100, i32::MAX] {
        numbers(&|of| of.bias_exponent = Some(exponent), 0, "overflow");
    }
    let format = |bound: u64| {
        refused(&|of| {
            _ = of.numbers.formats.insert(0, Format::integers(bound).unwrap().with_scale_bits(8).unwrap())
        })
    };
    assert!(matches!(format(1 << 61), PlanError::Numbers { source: Error::Overflow { .. }, .. }));
    for (batch, lanes, wanted) in
        [(0, 1, "batch"), ((1 << 20) + 1, 1, "batch"), (2, 0, "lanes"), (2, 65, "lanes")]
    {
        let error = refused(&|of| (of.batch, of.lanes) = (batch, lanes));
        assert!(matches!(error, PlanError::Option { what, .. } if what == wanted), "{error}");
    }
    // Numbers of values that nobody encrypts are of no use, and do no harm.
    let mut more = described();
    more.numbers.formats.insert(u32::MAX, Format::integers(1).unwrap());
    assert!(Plan::new(more, KeyBits::Bits1024.into()).is_ok());
}

#[test]
fn a_description_travels_as_json() {
    let description = described();
    let text = serde_json::to_string(&description).unwrap();
    assert_eq!(serde_json::from_str::<Description>(&text).unwrap(), description);
    for (from, to) in [
        (r#""batch":2"#, r#""batch":2,"more":1"#),
        (r#""batch":2"#, r#""batch":-2"#),
        (r#""bias_exponent":"#, r#""exponent":"#),
        (r#""signed":true"#, r#""signed":1"#),
        (r#""bits":9"#, r#""bits":0"#),
        (r#""bits":9"#, r#""bits":25"#),
        (r#""row_sum":"#, r#""row_sum":-"#),
        (r#""bound":"#, r#""bound":99999999999999999"#),
        (r#""nodes":["#, r#""nodes":[{},"#),
    ] {
        let bad = text.replace(from, to);
        assert_ne!(bad, text, "{from}");
        assert!(serde_json::from_str::<Description>(&bad).is_err(), "{to}");
    }
}

/// Every number of a description, replaced by every kind of extreme: an error or a plan that holds together, but no
/// panic, and nothing that takes long.
#[test]
fn no_number_of_a_description_can_make_a_plan_panic() {
    let good = serde_json::to_value(described()).unwrap();
    let paths = numbers_in(&good);
    assert!(paths.len() > 100, "{}", paths.len());
    let mut cases: Vec<(String, Value)> = vec![];
    for path in &paths {
        cases.extend(extremes().into_iter().map(|extreme| (path.clone(), extreme)));
    }
    let count = cases.len();
    let made = |(path, extreme): (String, Value)| {
        let mut value = good.clone();
        *value.pointer_mut(&path).unwrap() = extreme.clone();
        let description: Description = serde_json::from_value(value).ok()?;
        let start = Instant::now();
        let plan = Plan::new(description, KeyBits::Bits1024.into());
        assert!(start.elapsed() < Duration::from_secs(60), "{path} {extreme}: {:?}", start.elapsed());
        plan.ok().map(|plan| check_plan(&plan))
    };
    let made = cases.into_iter().filter_map(made).count();
    assert!(made > 0 && made < count / 4, "{made} plans of {count}");
}

/// The key's type counts: a plan for another is another.
#[test]
fn a_plan_is_for_a_key() {
    let description = described();
    for key_type in KeyType::ALL {
        for size in KeyBits::ALL {
            let key = KeyParameters { size, key_type };
            let plan = Plan::new(description.clone(), key).unwrap();
            assert_eq!(plan.key(), key);
            check_plan(&plan);
        }
    }
    let model = ranged(all_kinds().build().unwrap(), 4.0);
    let key = KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup };
    let subgroup = Deployment { key, ..deployment(KeyBits::Bits1024, 2) };
    let program = model.compile(&Quantization::default(), &subgroup).unwrap();
    assert_same(program.plan(), &Plan::new(description, key).unwrap());
}

#[test]
fn errors_of_a_plan_say_what_was_expected_and_found() {
    for (error, wanted) in [
        (PlanError::Batch { expected: 1, found: 2 }, "a batch of 1, found one for 2"),
        (PlanError::UnknownLayer { name: "fc4".to_owned() }, "no linear layer of that name"),
    ] {
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

/// A client adds and concatenates what it has in the clear; the server has only what depends on weights.
#[test]
fn joins_are_computed_where_their_values_are() {
    // Nodes that a ReLU and a dense layer follow: the names of segments, and the client's steps after the last but one.
    let cut = |mut nodes: Vec<crate::Node>| {
        let last = nodes.len();
        nodes.extend([node("relu", relu(), &[last]), node("fc", dense(2), &[last + 1])]);
        let graph = graph([2], nodes, ValueId::of_node(last + 1)).unwrap();
        let plan = plan(&ranged(Model::new(Arc::unwrap_or_clone(graph)).unwrap(), 4.0));
        let names: Vec<String> = plan.segments().iter().map(|segment| segment.name.to_owned()).collect();
        let steps = plan.client_steps(Some(names.len() - 2));
        (names.join(" "), steps.join(" "), plan.segments()[0].terms.len())
    };
    let a = || node("a", dense(2), &[0]);
    let b = || node("b", dense(2), &[0]);
    let expect = |nodes: Vec<crate::Node>, names: &str, steps: &str, terms: usize| {
        assert_eq!(cut(nodes), (names.to_owned(), steps.to_owned(), terms));
    };
    expect(vec![a(), b(), node("join", Op::Add, &[1, 2])], "a+b fc", "relu", 2);
    expect(vec![a(), b(), node("join", Op::Concat, &[1, 2])], "a b fc", "concat relu", 1);
    // A value in the clear and a sum.
    expect(vec![a(), node("join", Op::Add, &[1, 0])], "a fc", "add relu", 1);
    expect(vec![a(), node("join", Op::Add, &[0, 1])], "a fc", "add relu", 1);
    // What is added to itself counts twice.
    expect(vec![a(), node("join", Op::Add, &[1, 1])], "a+a fc", "relu", 2);
    // A sum that goes on into a layer stays with the server.
    expect(vec![a(), b(), node("join", Op::Add, &[1, 2]), node("c", dense(2), &[3])], "a+b+c fc", "relu", 2);
}
