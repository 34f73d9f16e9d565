//! Descriptions of plans from a hostile server: refused with typed errors, without a panic or much memory.

use rayon::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::common::networks::{calibrate, inputs as random_images, randomize};
use gelu_net::layers::AvgPool2dConfig;
use gelu_net::tensor::Window;

/// An image network of all kinds of nodes.
fn rich() -> Arc<ServerModel> {
    let conv = Conv2dConfig::new(2, [3, 3]).with_padding([1, 1]);
    let pool = Window::new([2, 2]).with_padding_sides([[1, 0], [0, 1]]);
    let pool = AvgPool2dConfig::new(pool).excluding_padding();
    let mut model = ModelBuilder::new([2, 4, 4])
        .conv2d("grouped", conv.with_groups(2).with_dilation([1, 1]))
        .batch_norm2d("norm")
        .avg_pool2d_with("mean", pool)
        .activation(Activation::Clip { min: -1.0, max: 2.0 })
        .max_pool2d([2, 2])
        .residual_with(
            |main| main.conv2d("a", conv).relu().conv2d("b", conv),
            |short| short.conv2d("c", conv),
        )
        .concat([&|branch| branch.conv2d("d", conv).relu(), &|branch| branch])
        .gated(|gate| gate.global_avg_pool2d().flatten().dense("gate", 4).sigmoid())
        .flatten()
        .dense("last", 2)
        .softmax()
        .build()
        .unwrap();
    randomize(&mut model, 5);
    let images = random_images(&model, 8, 5);
    calibrate(&mut model, &images);
    Arc::new(ServerModel::new(model, quantization()))
}

/// A server's consent as bytes.
fn accept(model: &Arc<ServerModel>) -> Vec<u8> {
    let mut server = serving(model);
    take(&mut server, hello(1));
    encode(&server.next_message(&mut rng()).unwrap().unwrap())
}

/// Why a client did not take a description.
#[derive(Debug)]
enum Refusal {
    Undecodable(WireError),
    Session(SessionError),
}

/// A client that is sent a server's consent with another description in it.
fn client_with(accept: &[u8], edit: impl FnOnce(&mut Value)) -> Result<Client, Refusal> {
    let mut header: Value = serde_json::from_slice(&accept[18..]).unwrap();
    edit(&mut header["description"]);
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = accept[..18].to_vec();
    bytes[6..10].copy_from_slice(&(header.len() as u32).to_le_bytes());
    bytes.extend(header);
    let message = decode_message(&bytes, None).map_err(Refusal::Undecodable)?;
    let mut client = client(1);
    client.next_message(&mut rng()).unwrap();
    let event = client.handle(message, &mut rng());
    assert_eq!(client.is_closed(), event.is_err());
    event.map_err(Refusal::Session)?;
    Ok(client)
}

/// What is wrong with a graph is said when it is decoded, with the names of nodes.
#[test]
fn the_client_refuses_a_graph_that_does_not_hold_together() {
    type Edit = fn(&mut Value);
    let (chain, branched, rich) = (accept(&chain(5)), accept(&branched()), accept(&rich()));
    let window = |window: &mut Value| window["nodes"][0]["op"]["linear"]["conv2d"]["window"].take();
    assert!(
        window(&mut serde_json::from_slice::<Value>(&rich[18..]).unwrap()["description"]["graph"])
            .is_object()
    );
    let cases: [(&[u8], Edit, &str); 24] = [
        (&chain, |graph| graph["nodes"][0]["inputs"] = json!([1]), "a cycle"),
        (&chain, |graph| graph["nodes"][0]["inputs"] = json!([2]), "a cycle"),
        (&chain, |graph| graph["nodes"][0]["inputs"] = json!([4_000_000_000u32]), "which no node makes"),
        (&chain, |graph| graph["nodes"][0]["inputs"] = json!([]), "inputs of a node: expected 1, found 0"),
        (&chain, |graph| graph["nodes"][1]["inputs"] = json!([1, 1]), "expected 1, found 2"),
        (&chain, |graph| graph["output"] = json!(77), "which no node makes"),
        (&chain, |graph| graph["output"] = json!(0), "expected a node that reads it, found none"),
        (&chain, |graph| graph["nodes"][1]["name"] = json!("fc1"), "the name is taken"),
        (&chain, |graph| graph["nodes"][1]["name"] = json!(""), "found an empty one"),
        (&chain, |graph| graph["nodes"][1]["op"] = json!({"client": "softmax"}), "follows a softmax"),
        (
            &chain,
            |graph| (graph["nodes"], graph["output"]) = (json!([]), json!(0)),
            "expected at least one linear layer",
        ),
        (&chain, |graph| graph["input"] = json!([]), "model input"),
        (&chain, |graph| graph["input"] = json!([0]), "model input"),
        (&chain, |graph| graph["input"] = json!([5, 5]), "model input"),
        (&chain, |graph| graph["input"] = json!([u64::MAX]), "elements of values in all nodes"),
        (
            &chain,
            |graph| graph["nodes"][0]["op"]["linear"]["dense"]["out_features"] = json!(0),
            "expected at least 1",
        ),
        (
            &chain,
            |graph| graph["nodes"][0]["op"]["linear"]["dense"]["out_features"] = json!(1u64 << 40),
            "elements of values in all nodes",
        ),
        (&branched, |graph| graph["nodes"][4]["op"]["linear"]["dense"]["out_features"] = json!(3), "add1"),
        (&rich, |graph| graph["nodes"][0]["op"]["linear"]["conv2d"]["groups"] = json!(0), "grouped"),
        (&rich, |graph| graph["nodes"][0]["op"]["linear"]["conv2d"]["groups"] = json!(3), "grouped"),
        (
            &rich,
            |graph| graph["nodes"][0]["op"]["linear"]["conv2d"]["window"]["stride"] = json!([0, 1]),
            "must be at least 1",
        ),
        (
            &rich,
            |graph| graph["nodes"][0]["op"]["linear"]["conv2d"]["window"]["kernel"] = json!([1u64 << 62, 1]),
            "larger than the padded input",
        ),
        (
            &rich,
            |graph| graph["nodes"][3]["op"]["client"]["activation"]["clip"]["min"] = json!(3.0),
            "in order",
        ),
        (
            &chain,
            |graph| {
                let node = |at| json!({"name": format!("n{at}"), "op": "add", "inputs": [0, 0]});
                graph["nodes"] = (0..17_000).map(node).collect();
            },
            "expected at most 16384 nodes in all nodes up to it, found 16385",
        ),
    ];
    for (accept, edit, expected) in cases {
        match client_with(accept, |description| edit(&mut description["graph"])) {
            Err(Refusal::Undecodable(WireError::Header { problem, .. })) => {
                assert!(problem.contains(expected), "{expected}: {problem}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    // Twenty thousand nodes with long names are not even looked at.
    let long = client_with(&chain, |description| {
        let node = |at| json!({"name": format!("{at:060}"), "op": "add", "inputs": [0, 0]});
        description["graph"]["nodes"] = (0..20_000).map(node).collect();
    });
    assert!(
        matches!(long, Err(Refusal::Undecodable(WireError::TooLarge { what: "header", .. }))),
        "{long:?}"
    );
}

/// What is wrong with its numbers is said when the plan is made from them.
#[test]
fn the_client_refuses_numbers_that_are_not_the_graphs() {
    type Edit = fn(&mut Value);
    let (chain, branched) = (accept(&chain(5)), accept(&branched()));
    let plan = |accept: &[u8], edit: Edit| match client_with(accept, edit) {
        Err(Refusal::Session(SessionError::Plan(error))) => {
            assert_eq!(SessionError::Plan(error.clone()).reason(), Some(AbortReason::BadPlan));
            error
        }
        other => panic!("{other:?}"),
    };
    let of = |error: PlanError| match error {
        PlanError::Numbers { source, .. } => source,
        other => panic!("{other:?}"),
    };
    let description = |what, [expected, found]: [usize; 2]| PlanError::Description { what, expected, found };
    assert_eq!(plan(&chain, |d| d["batch"] = json!(2)), PlanError::Batch { expected: 1, found: 2 });
    assert_eq!(plan(&chain, |d| d["batch"] = json!(0)), PlanError::Batch { expected: 1, found: 0 });
    let preference = PlanError::Preference { expected: PREFER, found: Preference::Bytes };
    assert_eq!(plan(&chain, |d| d["prefer"] = json!("bytes")), preference);
    for lanes in [0, 65] {
        let edit: Edit = if lanes == 0 { |d| d["lanes"] = json!(0) } else { |d| d["lanes"] = json!(65) };
        assert!(matches!(plan(&chain, edit), PlanError::Option { what: "lanes", .. }));
    }
    let segments = "numbers of segments";
    let without: Edit = |d| drop(d["numbers"]["segments"].as_array_mut().unwrap().pop().unwrap());
    assert_eq!(plan(&chain, without), description(segments, [2, 1]));
    let with: Edit = |d| {
        let segments = d["numbers"]["segments"].as_array_mut().unwrap();
        segments.push(segments[0].clone());
    };
    assert_eq!(plan(&chain, with), description(segments, [2, 3]));
    let terms = "weights of the terms of a segment";
    let without: Edit = |d| d["numbers"]["segments"][1]["weights"] = json!([]);
    assert_eq!(plan(&chain, without), description(terms, [1, 0]));
    let without: Edit =
        |d| drop(d["numbers"]["segments"][2]["weights"].as_array_mut().unwrap().pop().unwrap());
    assert_eq!(plan(&branched, without), description(terms, [2, 1]));
    let without: Edit = |d| d["numbers"]["formats"] = json!({});
    assert_eq!(plan(&chain, without), description("format of value", [0, 0]));

    let weights = |edit: Edit| of(plan(&branched, edit));
    let scale: Edit = |d| d["numbers"]["segments"][2]["weights"][1]["scale_bits"] = json!(-60);
    assert!(
        matches!(weights(scale), Error::Overflow { .. }),
        "no factor brings one term to the scale of the other"
    );
    for edit in
        [(|d| d["numbers"]["segments"][0]["weights"][0]["scale_bits"] = json!(i32::MAX)) as Edit, |d| {
            d["numbers"]["segments"][0]["weights"][0]["scale_bits"] = json!(i32::MIN)
        }]
    {
        assert!(matches!(weights(edit), Error::ScaleRange { .. }), "{:?}", weights(edit));
    }
    for edit in [
        (|d| d["numbers"]["segments"][0]["bias_exponent"] = json!(i32::MAX)) as Edit,
        |d| d["numbers"]["segments"][0]["bias_exponent"] = json!(60),
        |d| d["numbers"]["formats"]["0"]["bound"] = json!(1u64 << 61),
    ] {
        assert!(matches!(weights(edit), Error::Overflow { .. }), "{:?}", weights(edit));
    }
    for edit in [
        (|d| d["numbers"]["formats"]["0"]["bound"] = json!(u64::MAX)) as Edit,
        |d| d["numbers"]["formats"]["0"]["scale_bits"] = json!(1000),
        |d| d["numbers"]["formats"]["0"]["scale_bits"] = json!(u64::MAX),
        |d| d["numbers"]["segments"][1]["weights"][0]["bits"] = json!(0),
        |d| d["numbers"]["segments"][1]["weights"][0]["bits"] = json!(1),
        |d| d["numbers"]["segments"][1]["weights"][0]["bits"] = json!(25),
        |d| d["numbers"]["segments"][1]["weights"][0]["bits"] = json!(u32::MAX),
        |d| d["numbers"]["segments"] = json!(7),
        |d| d["prefer"] = json!("bits"),
        |d| d["prefer"] = json!(null),
        |d| drop(d.as_object_mut().unwrap().remove("prefer").unwrap()),
        |d| d["surprise"] = json!(1),
        |d| d["graph"] = json!(null),
    ] {
        let refused = client_with(&chain, edit);
        assert!(matches!(refused, Err(Refusal::Undecodable(WireError::Header { .. }))), "{refused:?}");
    }
}

/// Paths to all numbers of a value in JSON.
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

/// Every number of a description of all kinds of nodes, replaced by every kind of extreme: an error, or a plan within all
/// limits that a batch can be sent by, but no panic.
#[test]
fn no_number_of_a_description_can_make_the_client_panic() {
    let accept = accept(&rich());
    let mut paths = vec![];
    client_with(&accept, |description| numbers(description, String::new(), &mut paths)).unwrap();
    assert!(paths.len() > 120, "{}", paths.len());
    let extremes = [0, 1, 2, 3, 63, 1 << 20, u64::from(u32::MAX), i32::MAX as u64, 1 << 61, u64::MAX];
    let extremes: Vec<Value> =
        extremes.iter().map(|x| json!(x)).chain([json!(-1), json!(i32::MIN), json!(-1e300)]).collect();
    let refused = paths.par_iter().map(|path| {
        let mut refused = 0;
        for extreme in &extremes {
            let changed = client_with(&accept, |d| *d.pointer_mut(path).unwrap() = extreme.clone());
            let Ok(mut client) = changed else {
                refused += 1;
                continue;
            };
            let plan = client.plan().unwrap().clone();
            for segment in plan.segments() {
                assert!(segment.ciphertexts_up() <= segment.terms.len() << 22, "{path}: {extreme}");
                assert!(segment.ciphertexts_down() <= 1 << 22, "{path}: {extreme}");
            }
            client.start(Array2::zeros((1, plan.graph().input().elements())).view()).unwrap();
            assert!(matches!(client.next_message(&mut rng()), Ok(Some(Message::Tensor { .. }))));
        }
        refused
    });
    let refused: usize = refused.sum();
    let all = paths.len() * extremes.len();
    assert!(refused > all / 3 && refused < all, "{refused} of {all}");
}

/// The most memory that this process has had, in bytes, where the system says. Linux adds up what each processor has
/// counted without waiting for them, so that a later answer can be a little smaller.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    1024 * kilobytes.unwrap_or(0)
}

/// Graphs that take a few hundred bytes to send, and would take all memory or hours to plan.
#[test]
fn graphs_that_are_small_to_send_and_large_to_plan_take_bounded_memory() {
    let window = |size: usize, padding: usize| {
        let sides = [[padding; 2]; 2];
        json!({"kernel": [size, size], "stride": [1, 1], "dilation": [1, 1], "padding": sides})
    };
    let conv = |channels: usize, groups: usize, window: Value| {
        json!({"linear": {"conv2d": {
            "out_channels": channels, "window": window, "groups": groups, "bias": false,
        }}})
    };
    let dense = |outputs: usize| json!({"linear": {"dense": {"out_features": outputs, "bias": true}}});
    let norm = json!({"linear": {"batch-norm2d": {"epsilon": 1e-5, "momentum": 0.1}}});
    let mean = |window: Value| json!({"linear": {"avg-pool2d": window}});
    let function = json!({"client": {"function": {"function": "f", "output": []}}});
    let node = |at: usize, op: &Value, inputs: &[usize]| json!({"name": format!("n{at}"), "op": op, "inputs": inputs});
    // Each node reads the one before it.
    let in_a_row = |ops: &[Value]| -> Vec<Value> {
        ops.iter().enumerate().map(|(at, op)| node(at, op, &[at])).collect()
    };
    let mut doubled = vec![node(0, &dense(4), &[0])];
    doubled.extend((1..60).map(|at| node(at, &json!("add"), &[at, at])));
    let mut residual = vec![node(0, &dense(4), &[0])];
    for block in 0..60 {
        let start = 2 * block + 1;
        residual.push(node(start, &dense(4), &[start]));
        residual.push(node(start + 1, &json!("add"), &[start, start + 1]));
    }
    let scalars = vec![
        node(0, &function, &[0]),
        node(1, &function, &[0]),
        node(2, &json!("concat"), &[1, 2]),
        node(3, &dense(2), &[3]),
    ];
    let one = window(1, 0);
    // As large as a number can be, and as small as a test has time for.
    let wide = |channels: usize, side: usize, kernel: usize, layers: usize| {
        let (square, padding) = (window(kernel, kernel / 2), kernel / 2);
        let even = window(2 * padding, padding / 2);
        [
            ("batch norm of many channels", json!([channels, 1, 1]), in_a_row(std::slice::from_ref(&norm))),
            ("many groups", json!([channels, 1, 1]), in_a_row(&[conv(channels, channels, one.clone())])),
            ("many batch norms", json!([channels, 1, 1]), in_a_row(&vec![norm.clone(); layers])),
            ("many positions", json!([1, side, side]), in_a_row(&[conv(1, 1, one.clone()), norm.clone()])),
            (
                "convolutions in a row",
                json!([1, side, side]),
                in_a_row(&vec![conv(1, 1, square.clone()); layers]),
            ),
            (
                "a mean of many positions",
                json!([1, side, side]),
                in_a_row(&[conv(1, 1, one.clone()), mean(one.clone())]),
            ),
            (
                "a wide mean",
                json!([1, side, side]),
                in_a_row(&[conv(1, 1, even.clone()), mean(even.clone())]),
            ),
            (
                "a layer of a mean",
                json!([1, side, side]),
                in_a_row(&[mean(square.clone()), conv(1, 1, square)]),
            ),
            ("layers of layers", json!([channels]), in_a_row(&vec![dense(channels); layers])),
        ]
    };
    let mut graphs = vec![
        ("a sum of itself, again and again", json!([4]), doubled),
        ("linear blocks with shortcuts", json!([4]), residual),
        ("one number beside another", json!([4]), scalars),
    ];
    let most = 1usize << 31;
    graphs.extend(wide(most, most, most - 1, 3));
    graphs.extend(wide(1 << 26, 1 << 13, 9, 30));
    graphs.extend(wide(1 << 11, 1 << 6, 3, 20));
    let accept = accept(&chain(5));
    for (what, input, nodes) in graphs {
        let (start, before) = (std::time::Instant::now(), peak());
        // Numbers that fit any of these graphs: all values are of one format, and there is one segment of one term.
        let formats: serde_json::Map<String, Value> =
            (0..=nodes.len()).map(|at| (at.to_string(), json!({"scale_bits": 0, "bound": 1}))).collect();
        let weights = [json!({"bits": 2, "signed": true, "scale_bits": 0})];
        let taken = client_with(&accept, |description| {
            description["graph"] = json!({"input": input, "output": nodes.len(), "nodes": nodes});
            description["numbers"] =
                json!({"formats": formats, "segments": [{"weights": weights, "bias_exponent": null}]});
        });
        let found = match taken {
            Ok(client) => {
                let plan = client.plan().unwrap();
                format!("a plan that takes {} ciphertexts", plan.segments()[0].ciphertexts_up())
            }
            Err(Refusal::Undecodable(WireError::Header { problem, .. })) => problem,
            Err(Refusal::Session(SessionError::Plan(error))) => error.to_string(),
            Err(other) => panic!("{what}: {other:?}"),
        };
        let (seconds, more) = (start.elapsed().as_secs_f64(), peak().saturating_sub(before));
        println!("{what} of {input}: {seconds:.1} s, {} MB: {found}", more >> 20);
        assert!(more < 1 << 30, "{what}: {more} bytes");
    }
}
