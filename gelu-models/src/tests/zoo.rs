use gelu_tensor::Error;

use super::*;
use crate::zoo::{Network, Pooling, ResnetConfig, Setting, ZooError, resnet};

#[test]
fn shapes_of_the_zoo() {
    let shapes = |model: Model| {
        let weights = model.weights();
        weights.tensors.iter().map(|(name, tensor)| format!("{name} {}", tensor.shape())).collect::<Vec<_>>()
    };
    assert_eq!(
        shapes(crate::zoo::lenet5().unwrap()),
        [
            "conv1.bias 6",
            "conv1.weight 6x1x5x5",
            "conv2.bias 16",
            "conv2.weight 16x6x5x5",
            "fc1.bias 120",
            "fc1.weight 120x256",
            "fc2.bias 84",
            "fc2.weight 84x120",
            "fc3.bias 10",
            "fc3.weight 10x84",
        ]
    );
    assert_eq!(
        shapes(crate::zoo::conv1().unwrap()),
        ["conv1.bias 5", "conv1.weight 5x1x5x5", "fc1.bias 10", "fc1.weight 10x180"]
    );
}

#[test]
fn names_of_the_zoo_make_networks_and_say_what_they_leave_open() {
    let build = |name: &str, setting: &Setting| name.parse::<Network>().unwrap().build(setting);
    for name in ["conv1", "lenet5", "dense12", "dense300", "mlp:7,5", "resnet20", "resnet8:4"] {
        let model = build(name, &Setting::default()).unwrap();
        assert_eq!(model.output_shape().dims(), [10]);
        assert!(model.ends_in_softmax());
        let network: Network = name.parse().unwrap();
        assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
        let five = Setting { classes: Some(5), ..Setting::default() };
        assert_eq!(build(name, &five).unwrap().output_shape().dims(), [5]);
    }
    for name in [
        "lenet6",
        "mlp",
        "mlp:",
        "mlp:0",
        "mlp:3,",
        "resnet",
        "resnet9",
        "resnet2",
        "resnet8:0",
        "conv1:2",
        "",
    ] {
        assert!(
            matches!(name.parse::<Network>(), Err(ZooError::Unknown { found }) if found == name),
            "{name}"
        );
    }
    let tanh = Setting { activation: Some(Activation::Tanh), ..Setting::default() };
    let max = Setting { pooling: Some(Pooling::Max), ..Setting::default() };
    let ops = |model: Model| model.graph().nodes().iter().map(|node| node.op.to_string()).collect::<Vec<_>>();
    assert!(ops(build("lenet5", &tanh).unwrap()).contains(&"tanh".to_owned()));
    assert!(!ops(build("lenet5", &tanh).unwrap()).contains(&"relu".to_owned()));
    assert!(!ops(build("conv1", &max).unwrap()).contains(&"avg-pool2d".to_owned()));
    for (name, setting) in [("mlp:3", &max), ("resnet8", &max), ("resnet8", &tanh)] {
        assert!(matches!(build(name, setting), Err(ZooError::NoChoice { .. })), "{name}");
    }
    let flat = Setting { input: Some([4].into()), ..Setting::default() };
    assert!(matches!(build("lenet5", &flat), Err(ZooError::Graph(_))));
}

#[test]
fn shapes_of_trained_weights_complete_a_setting() {
    let given = Setting { input: Some([6].into()), classes: Some(4), ..Setting::default() };
    let network: Network = "mlp:5".parse().unwrap();
    let mut found = Setting::default();
    network.complete(&mut found, &network.build(&given).unwrap().weights());
    assert_eq!(found, given);
    let network: Network = "resnet8:2".parse().unwrap();
    let given = Setting { input: Some([1, 32, 32].into()), classes: Some(3), ..Setting::default() };
    for batch_norm in [true, false] {
        let given = Setting { batch_norm: Some(batch_norm), ..given.clone() };
        let mut found = Setting::default();
        network.complete(&mut found, &network.build(&given).unwrap().weights());
        assert_eq!(found, given);
    }
    // Nothing to tell, nothing told.
    let mut found = Setting::default();
    network.complete(&mut found, &Weights::default());
    assert_eq!(found, Setting::default());
}

/// Layers with weights on the longest way through a network; batch norms are no layers of their own here.
fn depth(graph: &Graph) -> usize {
    let mut depths = vec![0; graph.nodes().len() + 1];
    for (place, node) in graph.nodes().iter().enumerate() {
        let counts = matches!(&node.op, Op::Linear(LinearConfig::Conv2d(_) | LinearConfig::Dense(_)));
        let before = node.inputs.iter().map(|input| depths[input.index()]).max().unwrap();
        depths[place + 1] = before + usize::from(counts);
    }
    depths[graph.output().index()]
}

/// Weights of a convolution and its batch norm.
fn convolution([input, output, kernel]: [usize; 3]) -> usize {
    input * output * kernel * kernel + 2 * output
}

fn parameters(channels: usize, blocks: usize, width: usize, classes: usize) -> usize {
    let mut count = convolution([channels, width, 3]);
    for stage in 0..3 {
        let (before, after) = (if stage == 0 { width } else { width << (stage - 1) }, width << stage);
        count += convolution([before, after, 3]) + (2 * blocks - 1) * convolution([after, after, 3]);
        if stage > 0 {
            count += convolution([before, after, 1]);
        }
    }
    count + (4 * width + 1) * classes
}

#[test]
fn resnet20_is_that_of_the_paper() {
    let model = crate::zoo::resnet20(10).unwrap();
    let graph = model.graph();
    assert_eq!((model.input_shape().dims(), model.output_shape().dims()), (&[3, 32, 32][..], &[10][..]));
    assert_eq!(depth(graph), 20);
    // 0.27 million in the paper, whose shortcuts have no weights: here two have, of 1x1.
    assert_eq!(model.parameter_count(), parameters(3, 3, 16, 10));
    let shortcuts = convolution([16, 32, 1]) + convolution([32, 64, 1]);
    assert_eq!(model.parameter_count() - shortcuts, 269_722);
    let count = |wanted: fn(&Op) -> bool| graph.nodes().iter().filter(|node| wanted(&node.op)).count();
    assert_eq!(count(|op| matches!(op, Op::Add)), 9);
    assert_eq!(count(|op| matches!(op, Op::Linear(LinearConfig::Conv2d(_)))), 19 + 2);
    assert_eq!(count(|op| matches!(op, Op::Linear(LinearConfig::BatchNorm2d(_)))), 19 + 2);
    assert_eq!(count(|op| *op == relu()), 19);
    // Names as in PyTorch's checkpoints of it.
    let weights = model.weights();
    for name in [
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv1.weight",
        "layer2.0.shortcut.0.weight",
        "layer2.0.shortcut.1.running_mean",
        "layer3.2.bn2.bias",
        "fc.bias",
    ] {
        assert!(weights.tensors.contains_key(name), "{name}");
    }
    assert!(!weights.tensors.contains_key("conv1.bias"));
    let shapes = ["add1", "add4", "add7", "global_pool1"].map(|name| {
        let place = graph.nodes().iter().position(|node| node.name == name).unwrap();
        graph.shape(ValueId::of_node(place)).to_string()
    });
    assert_eq!(shapes, ["16x32x32", "32x16x16", "64x8x8", "64x1x1"]);
}

#[test]
fn residual_networks_come_in_other_sizes() {
    for (input, depth_of, width, classes) in
        [([3, 32, 32], 32, 16, 100), ([1, 28, 28], 8, 4, 10), ([2, 9, 7], 14, 3, 5), ([1, 1, 1], 8, 1, 1)]
    {
        let config =
            ResnetConfig { input: Shape::from(input), depth: depth_of, width, classes, batch_norm: true };
        let model = resnet(&config).unwrap();
        assert_eq!(depth(model.graph()), depth_of, "{config:?}");
        assert_eq!(model.parameter_count(), parameters(input[0], (depth_of - 2) / 6, width, classes));
        assert_eq!((model.input_shape(), model.output_shape().dims()), (&config.input, &[classes][..]));
    }
    for batch_norm in [true, false] {
        let config =
            ResnetConfig { input: Shape::from([1, 8, 8]), depth: 8, width: 2, classes: 3, batch_norm };
        let mut model = resnet(&config).unwrap();
        let has_norms = model.weights().tensors.keys().any(|name| name.contains("running_mean"));
        assert_eq!((has_norms, depth(model.graph())), (batch_norm, 8));
        fill(&mut model, 1);
        let images = images(&model, 2, 2);
        let found = model.logits(images.view()).unwrap();
        for (row, image) in found.outer_iter().zip(images.outer_iter()) {
            let values = naive(&model, &image.to_vec());
            let expected = &values[model.graph().logits().index()];
            assert!(
                row.iter().zip(expected).all(|(f, e)| (f64::from(*f) - e).abs() < 1e-4),
                "{row} {expected:?}"
            );
        }
    }
}

#[test]
fn residual_networks_that_cannot_be_are_refused() {
    let config = |depth: usize| ResnetConfig {
        input: Shape::from([3, 32, 32]),
        depth,
        width: 16,
        classes: 10,
        batch_norm: true,
    };
    for (depth, expected) in [(0, 8), (1, 8), (2, 8), (7, 8), (9, 8), (19, 14), (21, 20), (49, 44)] {
        let error = resnet(&config(depth)).unwrap_err();
        let what = "depth of a residual network (6 n + 2)";
        let source = Error::Count { what, expected, found: depth };
        assert!(matches!(&error, GraphError::Node { source: s, .. } if *s == source), "{error}");
    }
    assert!(resnet(&config(50)).is_ok(), "6 x 8 + 2");
    for bad in [
        ResnetConfig { width: 0, ..config(8) },
        ResnetConfig { classes: 0, ..config(8) },
        ResnetConfig { width: usize::MAX, ..config(8) },
        ResnetConfig { classes: usize::MAX, ..config(8) },
        ResnetConfig { input: Shape::from([3, 32]), ..config(8) },
        ResnetConfig { input: Shape::from([32]), ..config(8) },
        ResnetConfig { input: Shape::from([3, 0, 32]), ..config(8) },
    ] {
        assert!(resnet(&bad).is_err(), "{bad:?}");
    }
    assert!(crate::zoo::resnet20(0).is_err());
}
