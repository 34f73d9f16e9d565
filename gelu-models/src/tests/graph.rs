//! What makes a graph, what makes none, and the graphs that a builder makes.

use std::time::{Duration, Instant};

use gelu_tensor::Error;
use proptest::prelude::*;

use super::*;

fn value(index: usize) -> ValueId {
    index.checked_sub(1).map_or(ValueId::INPUT, ValueId::of_node)
}

fn refused(input: impl Into<Shape>, nodes: Vec<Node>, output: usize) -> GraphError {
    graph(input, nodes, value(output)).unwrap_err()
}

#[test]
fn a_graph_knows_its_values() {
    let softmax = Op::Client(ClientOp::Softmax);
    let nodes = vec![
        node("conv", conv(3, 2), &[0]),
        node("relu", relu(), &[1]),
        node("flatten", Op::Linear(LinearConfig::Flatten), &[2]),
        node("fc", dense(4), &[3]),
        node("softmax", softmax, &[4]),
    ];
    let whole = graph([1, 3, 3], nodes.clone(), value(5)).unwrap();
    assert_eq!(
        (whole.nodes(), whole.input(), whole.output()),
        (&nodes[..], &Shape::from([1, 3, 3]), value(5))
    );
    let shapes: Vec<String> = (0..6).map(|index| whole.shape(value(index)).to_string()).collect();
    assert_eq!(shapes, ["1x3x3", "3x2x2", "3x2x2", "12", "4", "4"]);
    let names: Vec<&str> = (0..6).map(|index| whole.name(value(index))).collect();
    assert_eq!(names, ["input", "conv", "relu", "flatten", "fc", "softmax"]);
    assert_eq!((whole.op(ValueId::INPUT), whole.op(value(2))), (None, Some(&relu())));
    assert!(whole.ends_in_softmax());
    assert_eq!(whole.logits(), value(4));
    let ops: Vec<String> = nodes.iter().map(|node| node.op.to_string()).collect();
    assert_eq!(ops, ["conv2d", "relu", "flatten", "dense", "softmax"]);
    let open = graph([1, 3, 3], nodes[..4].to_vec(), value(4)).unwrap();
    assert!(!open.ends_in_softmax());
    assert_eq!(open.logits(), open.output());
    assert_eq!((ValueId::INPUT.node(), value(3).node(), value(3).index()), (None, Some(2), 3));
}

#[test]
fn inputs_of_other_ranks_or_without_elements_are_refused() {
    let nodes = || vec![node("fc", dense(2), &[0])];
    for input in [&[][..], &[2, 2], &[1, 2, 3, 4], &[0], &[3, 0, 3]] {
        let found = Shape::from(input);
        assert_eq!(refused(found.dims(), nodes(), 1), GraphError::Input { found });
    }
    assert!(graph([2], nodes(), value(1)).is_ok());
}

#[test]
fn names_are_given_and_differ() {
    let named = |first: &str, second: &str| vec![node(first, dense(2), &[0]), node(second, relu(), &[1])];
    assert_eq!(refused([4], named("", "b"), 2), GraphError::NoName { position: 1 });
    assert_eq!(refused([4], named("a", ""), 2), GraphError::NoName { position: 2 });
    assert_eq!(refused([4], named("a", "a"), 2), GraphError::DuplicateName { name: "a".to_owned() });
    assert_eq!(refused([4], named("", ""), 2), GraphError::NoName { position: 1 });
    // The input has a name, too: by it its range is known.
    assert_eq!(refused([4], named("a", "input"), 2), GraphError::DuplicateName { name: "input".to_owned() });
    let error = ModelBuilder::new([4]).dense("input", 2).build().unwrap_err();
    assert_eq!(error, GraphError::DuplicateName { name: "input".to_owned() });
    assert!(graph([4], named("a", "A"), value(2)).is_ok());
}

#[test]
fn cycles_are_refused() {
    let own = vec![node("a", dense(2), &[1])];
    assert_eq!(refused([4], own, 1), GraphError::Cycle { name: "a".to_owned(), found: "a".to_owned() });
    let two = vec![node("a", Op::Add, &[0, 2]), node("b", dense(4), &[1])];
    assert_eq!(refused([4], two, 2), GraphError::Cycle { name: "a".to_owned(), found: "b".to_owned() });
}

#[test]
fn values_that_no_node_makes_are_refused() {
    let missing = vec![node("a", dense(2), &[0]), node("b", Op::Add, &[1, 7])];
    let expected = GraphError::NoValue { name: "b".to_owned(), expected: 3, found: 7 };
    assert_eq!(refused([4], missing, 2), expected);
    let expected = GraphError::NoValue { name: "output".to_owned(), expected: 2, found: 2 };
    assert_eq!(refused([4], vec![node("a", dense(2), &[0])], 2), expected);
    let far = ValueId::of_node(usize::MAX - 1);
    let error = Graph::new(Shape::from([4]), vec![node("a", dense(2), &[0])], far).unwrap_err();
    assert!(matches!(error, GraphError::NoValue { expected: 2, .. }), "{error}");
}

#[test]
fn values_that_nobody_reads_are_refused() {
    let nodes = vec![node("a", dense(2), &[0]), node("b", relu(), &[1]), node("c", relu(), &[1])];
    assert_eq!(refused([4], nodes.clone(), 3), GraphError::Unused { name: "b".to_owned() });
    assert_eq!(refused([4], nodes[..2].to_vec(), 1), GraphError::Unused { name: "b".to_owned() });
    // A value may be the output and read as well: then what reads it must lead somewhere.
    assert_eq!(refused([4], nodes[..1].to_vec(), 0), GraphError::Unused { name: "a".to_owned() });
}

#[test]
fn a_graph_without_a_linear_node_is_empty() {
    assert_eq!(refused([4], vec![], 0), GraphError::Empty);
    assert_eq!(refused([4], vec![node("a", relu(), &[0])], 1), GraphError::Empty);
    assert_eq!(refused([4], vec![node("a", Op::Add, &[0, 0])], 1), GraphError::Empty);
}

#[test]
fn nothing_follows_a_softmax() {
    let softmax = Op::Client(ClientOp::Softmax);
    for last in [relu(), dense(2), softmax.clone()] {
        let nodes = vec![node("fc", dense(4), &[0]), node("p", softmax.clone(), &[1]), node("q", last, &[2])];
        assert_eq!(refused([4], nodes, 3), GraphError::AfterSoftmax { name: "q".to_owned() });
    }
    let nodes = vec![node("fc", dense(4), &[0]), node("p", softmax, &[1]), node("q", Op::Add, &[1, 2])];
    assert_eq!(refused([4], nodes, 3), GraphError::AfterSoftmax { name: "q".to_owned() });
}

/// The node's name, the shapes it was given, and what it takes.
fn misfit(error: GraphError) -> (String, Vec<String>, Error) {
    match error {
        GraphError::Node { name, inputs, source } => {
            (name, inputs.iter().map(Shape::to_string).collect(), source)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn nodes_that_do_not_fit_say_what_they_were_given() {
    let (name, inputs, source) =
        misfit(refused([2, 4, 4], vec![node("a", conv(3, 2), &[0]), node("sum", Op::Add, &[0, 1])], 2));
    assert_eq!((name.as_str(), &inputs[..]), ("sum", &["2x4x4".to_owned(), "3x3x3".to_owned()][..]));
    let (expected, found) = ([2, 4, 4].into(), [3, 3, 3].into());
    assert_eq!(source, Error::Shape { what: "second term of a sum", expected, found });

    let (name, inputs, source) =
        misfit(refused([2, 4, 4], vec![node("a", conv(3, 2), &[0]), node("both", Op::Concat, &[0, 1])], 2));
    assert_eq!((name.as_str(), inputs.len()), ("both", 2));
    assert!(matches!(source, Error::Shape { what: "part of a concatenation, but for its first extent", .. }));
    // A vector and an image.
    let nodes = vec![node("f", Op::Linear(LinearConfig::Flatten), &[0]), node("both", Op::Concat, &[0, 1])];
    assert!(matches!(misfit(refused([2, 4, 4], nodes, 2)).2, Error::Shape { .. }));

    let grouped = Conv2dConfig::new(6, [1, 1]).with_groups(4);
    let error = refused([6, 4, 4], vec![node("a", Op::Linear(LinearConfig::Conv2d(grouped)), &[0])], 1);
    assert_eq!(error.to_string(), "node `a` after 6x4x4");
    assert_eq!(
        misfit(error).2,
        Error::Multiple { what: "channels that divide into groups", of: 4, found: 6 }
    );
    let grouped = Conv2dConfig::new(4, [1, 1]).with_groups(3);
    let error = refused([6, 4, 4], vec![node("a", Op::Linear(LinearConfig::Conv2d(grouped)), &[0])], 1);
    assert_eq!(misfit(error).2, Error::Multiple { what: "filters that divide into groups", of: 3, found: 4 });
    let (_, inputs, source) = misfit(refused([2, 4, 4], vec![node("a", conv(3, 5), &[0])], 1));
    assert_eq!(inputs, ["2x4x4"]);
    assert!(matches!(source, Error::Window { .. }));
}

#[test]
fn nodes_take_so_many_inputs_and_no_others() {
    let count = |op: Op, inputs: &[usize], expected: usize| {
        let nodes = vec![node("a", relu(), &[0]), node("b", op, inputs)];
        let (name, _, source) = misfit(refused([4], nodes, 2));
        assert_eq!(name, "b");
        let (Error::Count { expected: wanted, found, .. } | Error::TooFew { least: wanted, found, .. }) =
            source
        else {
            panic!("{source}");
        };
        assert_eq!((wanted, found), (expected, inputs.len()));
    };
    for inputs in [&[][..], &[0, 1], &[0, 1, 1]] {
        count(dense(2), inputs, 1);
        count(relu(), inputs, 1);
        count(Op::Client(ClientOp::Softmax), inputs, 1);
        count(Op::Client(ClientOp::Function { function: "f".to_owned(), output: [4].into() }), inputs, 1);
    }
    for inputs in [&[][..], &[1], &[0, 1, 1]] {
        count(Op::Add, inputs, 2);
        count(Op::Client(ClientOp::Mul), inputs, 2);
    }
    for inputs in [&[][..], &[1]] {
        count(Op::Concat, inputs, 2);
    }
}

/// A function may give a tensor without dimensions (a number), which cannot be part of a concatenation.
#[test]
fn numbers_without_dimensions_are_not_concatenated() {
    let number = Op::Client(ClientOp::Function { function: "f".to_owned(), output: Shape::from([]) });
    let nodes = vec![node("fc", dense(2), &[0]), node("f", number, &[1]), node("both", Op::Concat, &[2, 2])];
    let (name, _, source) = misfit(refused([4], nodes.clone(), 3));
    assert_eq!(name, "both");
    assert!(matches!(source, Error::TooFew { least: 1, found: 0, .. }), "{source}");
    // With something that has dimensions, it is another shape.
    let nodes = vec![nodes[0].clone(), nodes[1].clone(), node("both", Op::Concat, &[1, 2])];
    assert!(matches!(misfit(refused([4], nodes, 3)).2, Error::Shape { .. }));
}

#[test]
fn graphs_beyond_all_bounds_are_refused_at_once() {
    let start = Instant::now();
    let large = |error: GraphError, wanted: &str| match error {
        GraphError::TooLarge { what, limit, found, .. } => {
            assert_eq!(what, wanted);
            assert!(found > limit);
        }
        other => panic!("{other}"),
    };
    let many = |count: usize| {
        let mut nodes = vec![node("first", dense(1), &[0])];
        nodes.extend((1..count).map(|at| node(&format!("n{at}"), relu(), &[at])));
        graph([1], nodes, value(count))
    };
    assert!(many(1 << 14).is_ok());
    large(many((1 << 14) + 1).unwrap_err(), "nodes");
    let function = |output: Shape| Op::Client(ClientOp::Function { function: "f".to_owned(), output });
    let most = usize::MAX;
    for output in [vec![1 << 28], vec![most], vec![most, most, most]] {
        let nodes = vec![node("f", function(Shape::from(&output[..])), &[0]), node("fc", relu(), &[1])];
        large(refused([1], nodes, 2), "elements of values");
    }
    large(refused([1 << 20, 1 << 20, 1], vec![node("a", relu(), &[0])], 1), "elements of values");
    large(refused([most, most, most], vec![node("a", relu(), &[0])], 1), "elements of values");
    // Doubled until no machine holds it.
    let mut nodes = vec![node("a", dense(4), &[0])];
    nodes.extend((1..40).map(|at| node(&format!("n{at}"), Op::Concat, &[at, at])));
    large(refused([1], nodes, 40), "elements of values");
    for (outputs, what) in [(1 << 16, "indices of linear maps"), (usize::MAX, "elements of values")] {
        large(refused([1 << 10], vec![node("a", dense(outputs), &[0])], 1), what);
    }
    // Each is small enough, all of them together are not.
    let nodes = (0..9).map(|at| node(&format!("n{at}"), dense(1 << 11), &[at]));
    let error = refused([1 << 11], nodes.collect(), 9);
    assert!(matches!(&error, GraphError::TooLarge { name, .. } if name == "n8"), "{error}");
    large(error, "indices of linear maps");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn graphs_travel_as_json() {
    let softmax = Op::Client(ClientOp::Softmax);
    let nodes = vec![node("fc", dense(2), &[0]), node("p", softmax, &[1])];
    let graph = graph([4], nodes, value(2)).unwrap();
    let text = serde_json::to_string(&graph).unwrap();
    assert_eq!(
        text,
        r#"{"input":[4],"nodes":[{"name":"fc","op":{"linear":{"dense":{"out_features":2,"bias":true}}},"inputs":[0]},{"name":"p","op":{"client":"softmax"},"inputs":[1]}],"output":2}"#
    );
    assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), *graph);
    for (from, to, wanted) in [
        (r#""inputs":[1]"#, r#""inputs":[2]"#, "a cycle"),
        (r#""inputs":[1]"#, r#""inputs":[0]"#, "expected a node that reads it"),
        (r#""output":2"#, r#""output":7"#, "expected one of 3 values, found number 7"),
        (r#""output":2"#, r#""output":2,"more":1"#, "unknown field"),
        (r#""output":2"#, r#""output":-1"#, "invalid value"),
        (r#""input":[4]"#, r#""input":[4,4]"#, "found 4x4"),
        (r#""name":"p""#, r#""name":"fc""#, "the name is taken"),
        (r#""client":"softmax""#, r#""client":{"function":{"function":"f","output":[0]}}"#, "at least"),
        (r#""client":"softmax""#, r#""client":{"activation":{"clip":{"min":1.0,"max":0.0}}}"#, "in order"),
        (r#""out_features":2"#, r#""out_features":18446744073709551615"#, "elements of values"),
        (r#"{"linear":{"dense":{"out_features":2,"bias":true}}}"#, r#""multiply""#, "unknown variant"),
    ] {
        let bad = text.replace(from, to);
        assert_ne!(bad, text, "{from}");
        let error = serde_json::from_str::<Graph>(&bad).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

/// Whatever somebody puts into a graph: it is one, or it is refused, at once and without a panic.
#[test]
fn no_number_of_a_graph_can_make_reading_it_panic() {
    let start = Instant::now();
    let good = serde_json::to_value(&**all_kinds().build().unwrap().graph()).unwrap();
    let paths = numbers_in(&good);
    assert!(paths.len() > 80, "{}", paths.len());
    let (mut refused, mut read) = (0, 0);
    for path in &paths {
        for extreme in extremes() {
            let mut value = good.clone();
            *value.pointer_mut(path).unwrap() = extreme;
            match serde_json::from_value::<Graph>(value) {
                Ok(graph) => {
                    let elements: usize =
                        (0..=graph.nodes().len()).map(|at| graph.shape(self::value(at)).elements()).sum();
                    assert!(elements <= 1 << 25, "{path}");
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 6 * read, "{refused} were refused, {read} were read");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_graph_comes_back_from_json(seed: u64) {
        let model = random_model(seed);
        let text = serde_json::to_string(&**model.graph()).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Graph>(&text).unwrap(), &**model.graph());
    }
}

fn built(builder: ModelBuilder) -> Graph {
    (**builder.build().unwrap().graph()).clone()
}

#[test]
fn builders_branch_where_they_are_told_to() {
    let same = Conv2dConfig::new(2, [3, 3]).with_padding([1, 1]);
    let conv = || Op::Linear(LinearConfig::Conv2d(same));
    let start = || ModelBuilder::new([2, 4, 4]).conv2d("stem", same);
    let expected = |mut nodes: Vec<Node>, output: usize| {
        nodes.insert(0, node("stem", conv(), &[0]));
        Graph::new([2, 4, 4].into(), nodes, value(output)).unwrap()
    };

    // The value so far is the second term.
    assert_eq!(
        built(start().residual(|block| block.conv2d("a", same).relu().conv2d("b", same)).relu()),
        expected(
            vec![
                node("a", conv(), &[1]),
                node("relu1", relu(), &[2]),
                node("b", conv(), &[3]),
                node("add1", Op::Add, &[4, 1]),
                node("relu2", relu(), &[5]),
            ],
            6
        )
    );
    assert_eq!(
        built(start().residual_with(|main| main.conv2d("a", same).relu(), |other| other.conv2d("b", same))),
        expected(
            vec![
                node("a", conv(), &[1]),
                node("relu1", relu(), &[2]),
                node("b", conv(), &[1]),
                node("add1", Op::Add, &[3, 4]),
            ],
            5
        )
    );
    // Branches in their order, of which one does nothing.
    assert_eq!(
        built(start().concat([&|a| a.conv2d("a", same), &|b| b, &|c| c.relu()])),
        expected(
            vec![
                node("a", conv(), &[1]),
                node("relu1", relu(), &[1]),
                node("concat1", Op::Concat, &[2, 1, 3]),
            ],
            4
        )
    );
    let gate = start().gated(|gate| gate.global_avg_pool2d().flatten().dense("fc", 2).sigmoid());
    assert_eq!(
        built(gate),
        expected(
            vec![
                node("global_pool1", Op::Linear(LinearConfig::GlobalAvgPool2d), &[1]),
                node("flatten1", Op::Linear(LinearConfig::Flatten), &[2]),
                node("fc", dense(2), &[3]),
                node("sigmoid1", Op::Client(ClientOp::Activation(Activation::Sigmoid)), &[4]),
                node("mul1", Op::Client(ClientOp::Mul), &[1, 5]),
            ],
            6
        )
    );
    // A block in a block, and one that does nothing at all.
    assert_eq!(
        built(
            start().residual(|outer| outer.conv2d("a", same).residual(|inner| inner.relu())).residual(|x| x)
        ),
        expected(
            vec![
                node("a", conv(), &[1]),
                node("relu1", relu(), &[2]),
                node("add1", Op::Add, &[3, 2]),
                node("add2", Op::Add, &[4, 1]),
                node("add3", Op::Add, &[5, 5]),
            ],
            6
        )
    );
}

#[test]
fn nodes_without_names_are_counted_by_kind() {
    let window = Window::new([2, 2]);
    let builder = ModelBuilder::new([2, 8, 8])
        .conv2d("relu1", Conv2dConfig::new(2, [1, 1]))
        .relu()
        .relu()
        .activation(Activation::HardSwish)
        .activation(Activation::LeakyRelu { slope: 0.5 })
        .activation(Activation::Clip { min: -1.0, max: 1.0 })
        .activation(Activation::LeakyRelu { slope: 0.25 })
        .max_pool2d([2, 2])
        .max_pool2d_with(window)
        .client_function("own", [2, 2, 2])
        .tanh()
        .square()
        .activation(Activation::SigmoidTaylor3)
        .activation(Activation::SigmoidTaylor5)
        .global_avg_pool2d()
        .flatten()
        .softmax();
    let graph = built(builder);
    let names: Vec<&str> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "relu1",
            "relu2",
            "relu3",
            "hard_swish1",
            "leaky_relu1",
            "clip1",
            "leaky_relu2",
            "max_pool1",
            "max_pool2",
            "own",
            "tanh1",
            "square1",
            "sigmoid_taylor31",
            "sigmoid_taylor51",
            "global_pool1",
            "flatten1",
            "softmax1",
        ]
    );
    // Side by side, unless the window says otherwise.
    assert_eq!(graph.nodes()[7].op, Op::Client(ClientOp::MaxPool2d(window.with_stride([2, 2]))));
    assert_eq!(graph.nodes()[8].op, Op::Client(ClientOp::MaxPool2d(window)));
}

#[test]
fn the_first_error_of_a_builder_is_kept() {
    let conv = |kernel| Conv2dConfig::new(2, [kernel, kernel]);
    let failed = |builder: ModelBuilder| builder.build().unwrap_err();
    let image = || ModelBuilder::new([1, 8, 8]);

    let error = failed(image().conv2d("a", conv(3)).conv2d("b", conv(9)).dense("c", 3));
    assert!(error.to_string().contains("`b` after 2x6x6"), "{error}");
    let (name, inputs, source) = misfit(error);
    assert_eq!((name.as_str(), &inputs[..]), ("b", &["2x6x6".to_owned()][..]));
    assert!(matches!(source, Error::Window { .. }));
    let (_, _, source) = misfit(failed(image().dense("fc", 3)));
    assert!(source.to_string().contains("flatten"), "{source}");
    let error = failed(image().conv2d("a", conv(3)).conv2d("a", conv(3)));
    assert_eq!(error, GraphError::DuplicateName { name: "a".to_owned() });
    assert_eq!(
        failed(image().flatten().softmax().relu()),
        GraphError::AfterSoftmax { name: "relu1".to_owned() }
    );
    let error = failed(image().flatten().softmax().dense("fc", 2));
    assert_eq!(error, GraphError::AfterSoftmax { name: "fc".to_owned() });
    assert!(matches!(misfit(failed(image().softmax())).2, Error::Count { expected: 1, found: 3, .. }));
    assert_eq!(failed(image().relu()), GraphError::Empty);
    assert_eq!(failed(image()), GraphError::Empty);
    assert_eq!(failed(image().conv2d("", conv(3))), GraphError::NoName { position: 1 });
    assert!(matches!(failed(ModelBuilder::new([3, 3]).flatten()), GraphError::Input { .. }));
    assert!(matches!(failed(ModelBuilder::new([0]).dense("fc", 3)), GraphError::Input { .. }));
    // Also where a branch went wrong, whatever it is joined with.
    let error = failed(image().residual(|block| block.conv2d("a", conv(3)).relu()).flatten().dense("fc", 2));
    assert_eq!(misfit(error).0, "add1");
    let error = failed(image().concat([&|a| a.conv2d("a", conv(9)), &|b| b.conv2d("b", conv(99))]));
    assert_eq!(misfit(error).0, "a");
    let error = failed(image().gated(|gate| gate.flatten().dense("fc", 2)));
    assert_eq!(misfit(error).0, "mul1");
    let error = failed(image().conv2d("a", conv(3)).client_function("a", [2]));
    assert_eq!(error, GraphError::DuplicateName { name: "a".to_owned() });
}
