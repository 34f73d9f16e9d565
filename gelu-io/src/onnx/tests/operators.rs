//! Operators one by one, with what they compute by ONNX's definitions.

use super::*;

/// The largest distance of two outputs.
fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn activations_are_those_of_the_definition() {
    const X: [f32; 6] = [-4.0, -1.5, -0.25, 0.5, 2.0, 5.0];
    let eye: Vec<f32> = (0..36_u8).map(|at| f32::from(u8::from(at % 7 == 0))).collect();
    let check = |operator: &str, attributes: Vec<AttributeProto>, expected: [f32; 6]| {
        let draft = Draft { opset: 20, ..Draft::new(&[1, 6]) };
        let y = draft.floats("slope", &[1], &[0.5]).floats("min", &[], &[-1.0]).floats("max", &[], &[0.25]);
        let inputs: &[&str] = match operator {
            "PRelu" => &["a", "slope"],
            "Clip" => &["a", "min", "max"],
            _ => &["a"],
        };
        let y = y.floats("w", &[6, 6], &eye).node("MatMul", &["x", "w"], "a", vec![]);
        let y = y.node(operator, inputs, "y", attributes).output(&X);
        assert!(worst(&y, &expected) < 1e-5, "{operator}: {y:?}");
    };
    let gelu = [-0.000_126_7, -0.100_210_8, -0.100_323_4, 0.345_731_2, 1.954_499_7, 4.999_998_6];
    check("Gelu", vec![], gelu);
    let third = |x: f32| (x / 6.0 + 0.5).clamp(0.0, 1.0);
    check("HardSigmoid", vec![], X.map(|x| (0.2 * x + 0.5).clamp(0.0, 1.0)));
    check("HardSigmoid", vec![float("alpha", 1.0 / 6.0)], X.map(third));
    let other = vec![float("alpha", 0.1), float("beta", 0.3)];
    check("HardSigmoid", other, X.map(|x| (0.1 * x + 0.3).clamp(0.0, 1.0)));
    check("HardSwish", vec![], X.map(|x| x * third(x)));
    check("Relu", vec![], X.map(|x| x.max(0.0)));
    check("LeakyRelu", vec![], X.map(|x| x.max(0.01 * x)));
    check("LeakyRelu", vec![float("alpha", 0.3)], X.map(|x| x.max(0.3 * x)));
    check("PRelu", vec![], X.map(|x| x.max(0.5 * x)));
    check("Sigmoid", vec![], X.map(|x| 1.0 / (1.0 + (-x).exp())));
    check("Tanh", vec![], X.map(f32::tanh));
    check("Clip", vec![], X.map(|x| x.clamp(-1.0, 0.25)));
}

#[test]
fn activations_that_are_not_exactly_known_are_refused() {
    let gelu = Draft { opset: 20, ..Draft::new(&[1, 2]) };
    let gelu = gelu.node("Gelu", &["x"], "y", vec![text("approximate", "tanh")]);
    assert!(gelu.unsupported()[0].reason.contains("hyperbolic tangent"));
    let slopes = Draft::new(&[1, 2]).floats("slopes", &[2], &[0.5, 0.25]);
    let slopes = slopes.node("PRelu", &["x", "slopes"], "y", vec![]).unsupported();
    assert_eq!(slopes[0].reason, "it has 2 different slopes");
    let lrn = Draft::new(&[1, 2, 3, 3]).node("LRN", &["x"], "y", vec![int("size", 2)]).unsupported();
    assert!(lrn[0].advice.contains("batch norm"));
}

#[test]
fn logarithms_of_probabilities_become_probabilities_with_a_note() {
    let draft = Draft::new(&[1, 2])
        .floats("w", &[2, 2], &[1.0, 0.0, 0.0, 1.0])
        .node("MatMul", &["x", "w"], "a", vec![])
        .node("LogSoftmax", &["a"], "y", vec![]);
    let Imported { model, report } = draft.import().unwrap();
    assert!(report.notes[0].contains("logarithms"), "{:?}", report.notes);
    let x = ndarray::array![[3.0_f32.ln(), 0.0]];
    let y = model.forward(x.view()).unwrap();
    assert!(worst(y.as_slice().unwrap(), &[0.75, 0.25]) < 1e-6, "{y}");
    assert_eq!(model.logits(x.view()).unwrap(), x);
    // Over one class of a table, not over the classes of an input.
    let table = Draft::new(&[1, 2, 2, 1]).node("Softmax", &["x"], "y", vec![int("axis", 1)]);
    assert!(table.unsupported()[0].reason.contains("axis"));
}

#[test]
fn maxima_means_and_sums_over_pixels() {
    let x: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let draft = |opset, operator: &str, inputs: &[&str], attributes| {
        let draft = Draft { opset, ..Draft::new(&[1, 2, 2, 3]) };
        draft.ints("pixels", &[-1, 2]).ints("rows", &[2]).node(operator, inputs, "y", attributes)
    };
    let largest = Draft::new(&[1, 2, 2, 3])
        .node("Neg", &["x"], "a", vec![])
        .node("GlobalMaxPool", &["a"], "b", vec![])
        .node("Neg", &["b"], "y", vec![])
        .output(&x);
    assert!(worst(&largest, &[0.0, 6.0]) < 1e-4, "{largest:?}");
    assert_eq!(draft(17, "GlobalAveragePool", &["x"], vec![]).output(&x), [2.5, 8.5]);
    let old = |keep| vec![ints("axes", &[2, 3]), int("keepdims", keep)];
    for opset in [9, 13, 17] {
        assert_eq!(draft(opset, "ReduceMean", &["x"], old(0)).output(&x), [2.5, 8.5]);
    }
    assert_eq!(draft(9, "ReduceSum", &["x"], old(1)).output(&x), [15.0, 51.0]);
    for opset in [18, 24] {
        assert_eq!(draft(opset, "ReduceMean", &["x", "pixels"], vec![]).output(&x), [2.5, 8.5]);
        assert_eq!(draft(opset, "ReduceSum", &["x", "pixels"], vec![]).output(&x), [15.0, 51.0]);
    }
    let of_rows = draft(18, "ReduceMean", &["x", "rows"], vec![]).output(&x);
    assert_eq!(of_rows, [1.5, 2.5, 3.5, 7.5, 8.5, 9.5]);
    let of_columns = draft(13, "ReduceSum", &["x", "last"], vec![]).ints("last", &[3]).output(&x);
    assert_eq!(of_columns, [3.0, 12.0, 21.0, 30.0]);
    let of_channels = draft(13, "ReduceMean", &["x"], vec![ints("axes", &[1])]).unsupported();
    assert!(of_channels[0].reason.contains("axes [1]"), "{}", of_channels[0]);
}

#[test]
fn parts_are_of_any_axis_and_go_either_way() {
    let x: Vec<f32> = (0..24_u8).map(f32::from).collect();
    let slice = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        Draft::new(&[1, 2, 3, 4])
            .ints("starts", starts)
            .ints("ends", ends)
            .ints("axes", axes)
            .ints("steps", steps)
            .node("Slice", &["x", "starts", "ends", "axes", "steps"], "a", vec![])
            .node("Relu", &["a"], "y", vec![])
            .output(&x)
    };
    // A crop.
    assert_eq!(slice(&[1, 1], &[3, -1], &[2, 3], &[1, 1]), [5.0, 6.0, 9.0, 10.0, 17.0, 18.0, 21.0, 22.0]);
    // Every other pixel, from the second on, and of the second channel alone.
    assert_eq!(slice(&[1, 0, 1], &[2, 9, i64::MAX], &[1, 2, 3], &[1, 2, 2]), [13.0, 15.0, 21.0, 23.0]);
    // Backward.
    assert_eq!(slice(&[-1, 0, -1], &[i64::MIN, 1, 0], &[1, 2, 3], &[-1, 1, -2]), [15.0, 13.0, 3.0, 1.0]);
    // Attributes, as before operator set 10, of a vector.
    let old = Draft { opset: 9, ..Draft::new(&[1, 24]) };
    let old =
        old.node("Slice", &["x"], "y", vec![ints("starts", &[3]), ints("ends", &[5]), ints("axes", &[1])]);
    assert_eq!(old.output(&x), [3.0, 4.0]);
    // Between layers it is part of what the server computes.
    let draft = Draft::new(&[1, 1, 2, 2])
        .floats("w", &[1, 1, 1, 1], &[2.0])
        .floats("v", &[2, 1], &[1.0, 10.0])
        .ints("row", &[1])
        .ints("end", &[2])
        .ints("axis", &[2])
        .node("Conv", &["x", "w"], "a", vec![])
        .node("Slice", &["a", "row", "end", "axis"], "b", vec![])
        .node("Flatten", &["b"], "c", vec![])
        .node("MatMul", &["c", "v"], "y", vec![]);
    let Imported { model, .. } = draft.import().unwrap();
    let x = ndarray::array![[1.0_f32, 2.0, 3.0, 4.0]];
    assert_eq!(model.logits(x.view()).unwrap(), ndarray::array![[86.0_f32]]);
    assert_eq!(model.parameter_count(), 3);
}

#[test]
fn values_are_split() {
    let x: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let draft = |opset, inputs: &[&str], attributes| {
        Draft { opset, ..Draft::new(&[1, 3, 2, 2]) }
            .ints("sizes", &[1, 2])
            .ints("rows", &[1, 1])
            .node("Split", inputs, "a,b", attributes)
    };
    let of_channels = |draft: Draft| {
        // The sum of the last two channels, times the first.
        draft
            .floats("w", &[1, 2, 1, 1], &[1.0, 1.0])
            .node("Conv", &["b", "w"], "c", vec![])
            .node("Mul", &["a", "c"], "y", vec![])
            .output(&x)
    };
    let expected = [0.0, 14.0, 32.0, 54.0];
    assert_eq!(of_channels(draft(9, &["x"], vec![int("axis", 1), ints("split", &[1, 2])])), expected);
    assert_eq!(of_channels(draft(13, &["x", "sizes"], vec![int("axis", -3)])), expected);
    let rows = draft(24, &["x", "rows"], vec![int("axis", 2)]).node("Sub", &["b", "a"], "y", vec![]);
    assert_eq!(rows.output(&x), [2.0; 6]);
    let equal = draft(18, &["x"], vec![int("axis", 2), int("num_outputs", 2)]);
    assert_eq!(equal.node("Sub", &["a", "b"], "y", vec![]).output(&x), [-2.0; 6]);
    let wrong = draft(13, &["x", "rows"], vec![int("axis", 1)]).node("Add", &["a", "b"], "y", vec![]);
    assert_eq!(wrong.unsupported()[0].reason, "it splits axis 1 of [1, 3, 2, 2] into [1, 1]");
}

#[test]
fn differences_and_quotients() {
    // relu(x) - (3 - x) / [2, 4]
    let draft = Draft::new(&[1, 2, 1, 2])
        .floats("three", &[], &[3.0])
        .floats("divisors", &[2, 1, 1], &[2.0, 4.0])
        .node("Relu", &["x"], "a", vec![])
        .node("Sub", &["three", "x"], "b", vec![])
        .node("Div", &["b", "divisors"], "c", vec![])
        .node("Sub", &["a", "c"], "d", vec![])
        .node("Neg", &["d"], "y", vec![]);
    let y = draft.output(&[1.0, -1.0, 1.0, -1.0]);
    assert!(worst(&y, &[0.0, 2.0, -0.5, 1.0]) < 1e-4, "{y:?}");
    let by = |divisor: f32| Draft::new(&[1, 2]).floats("divisor", &[], &[divisor]);
    let zero = by(0.0).node("Div", &["x", "divisor"], "y", vec![]).unsupported();
    assert!(zero[0].reason.contains("inf"), "{}", zero[0]);
    let value = by(1.0).node("Div", &["divisor", "x"], "y", vec![]).unsupported();
    assert!(value[0].reason.contains("divides by a value"));
}

#[test]
fn axes_of_one_come_and_go() {
    // The channels' means, without and with their axes of one, in another order, weighed.
    let weighed = |draft: Draft, squeeze: [&[&str]; 2], attributes: [Vec<AttributeProto>; 2]| {
        let [remove, add] = attributes;
        draft
            .floats("w", &[1, 2, 1, 1], &[1.0, 10.0])
            .node("GlobalAveragePool", &["x"], "a", vec![])
            .node("Transpose", &["a"], "b", vec![ints("perm", &[0, 2, 3, 1])])
            .node("Squeeze", squeeze[0], "c", remove)
            .node("Relu", &["c"], "d", vec![])
            .node("Unsqueeze", squeeze[1], "e", add)
            .node("Conv", &["e", "w"], "f", vec![])
            .node("Flatten", &["f"], "y", vec![])
            .output(&[1.0, 3.0, 5.0, 5.0])
    };
    let old = Draft { opset: 9, ..Draft::new(&[1, 2, 1, 2]) };
    let axes = [vec![ints("axes", &[1, 2])], vec![ints("axes", &[2, 3])]];
    assert_eq!(weighed(old, [&["b"], &["d"]], axes), [52.0]);
    for opset in [13, 24] {
        let draft = Draft { opset, ..Draft::new(&[1, 2, 1, 2]) }.ints("from", &[1, -2]).ints("to", &[2, -1]);
        assert_eq!(weighed(draft, [&["b", "from"], &["d", "to"]], [vec![], vec![]]), [52.0]);
    }
}

#[test]
fn zeros_are_put_around_and_pixels_left_out() {
    let pad = |opset, inputs: &[&str], attributes| {
        Draft { opset, ..Draft::new(&[1, 1, 3, 3]) }
            .floats("w", &[1, 1, 2, 2], &[1.0; 4])
            .floats("zero", &[], &[0.0])
            .floats("one", &[], &[1.0])
            .ints("corner", &[0, 0, 1, 0, 0, 0, 0, 1])
            .ints("pixels", &[1, 0, 0, 1])
            .ints("axes", &[2, -1])
            .ints("crop", &[0, 0, -1, 0, 0, 0, 0, 1])
            .node("Pad", inputs, "a", attributes)
            .node("Conv", &["a", "w"], "y", vec![])
    };
    let corner = [3.0, 5.0, 3.0, 12.0, 16.0, 9.0, 24.0, 28.0, 15.0];
    let old = vec![ints("pads", &[0, 0, 1, 0, 0, 0, 0, 1]), text("mode", "constant"), float("value", 0.0)];
    assert_eq!(pad(9, &["x"], old).output(&IMAGE), corner);
    assert_eq!(pad(13, &["x", "corner", "zero"], vec![]).output(&IMAGE), corner);
    assert_eq!(pad(24, &["x", "pixels", "", "axes"], vec![]).output(&IMAGE), corner);
    assert_eq!(pad(13, &["x", "crop"], vec![]).output(&IMAGE), [24.0, 28.0, 15.0]);
    let refused =
        |inputs: &[&str], mode| pad(13, inputs, vec![text("mode", mode)]).unsupported().remove(0).reason;
    assert!(refused(&["x", "corner"], "reflect").contains("mode reflect"));
    assert!(refused(&["x", "corner", "one"], "constant").contains("value 1"));
    // Channels too.
    let draft = Draft::new(&[1, 1, 1, 2])
        .ints("pads", &[0, 1, 0, 0, 0, 1, 0, 0])
        .node("Pad", &["x", "pads"], "a", vec![])
        .node("Relu", &["a"], "y", vec![]);
    assert_eq!(draft.output(&[1.0, 2.0]), [0.0, 0.0, 1.0, 2.0, 0.0, 0.0]);
}

#[test]
fn casts_between_floating_point_types_change_nothing() {
    let cast = |to| {
        Draft::new(&[1, 2]).node("Neg", &["x"], "a", vec![]).node("Cast", &["a"], "y", vec![int("to", to)])
    };
    for to in [1, 10, 11, 16] {
        assert_eq!(cast(to).output(&[1.5, -2.0]), [-1.5, 2.0]);
    }
    for to in [6, 7, 9] {
        assert!(cast(to).unsupported()[0].reason.contains("integers"));
    }
}

#[test]
fn an_incomplete_last_window_takes_what_is_there() {
    let pool = |mode| {
        let settings = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), int("ceil_mode", mode)];
        Draft::new(&[1, 1, 3, 3])
            .floats("w", &[1, 1, 1, 1], &[-1.0])
            .node("Conv", &["x", "w"], "a", vec![])
            .node("MaxPool", &["a"], "y", settings)
            .output(&IMAGE)
    };
    assert_eq!(pool(0), [-1.0]);
    assert_eq!(pool(1), [-1.0, -3.0, -7.0, -9.0]);
}

#[test]
fn a_mean_is_of_what_the_file_counts() {
    let pool = |kernel: i64, settings: Vec<AttributeProto>| {
        let settings = [vec![ints("kernel_shape", &[kernel, kernel])], settings].concat();
        Draft::new(&[1, 1, 3, 3]).node("AveragePool", &["x"], "y", settings)
    };
    let sides = || ints("pads", &[1, 1, 1, 1]);
    let pixels = [1.0, 1.5, 2.5, 3.0, 2.5, 3.0, 4.0, 4.5, 5.5, 6.0, 7.0, 7.5, 7.0, 7.5, 8.5, 9.0];
    assert_eq!(pool(2, vec![sides()]).output(&IMAGE), pixels);
    let shares = [4.0, 2.0, 2.0, 4.0, 2.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 4.0, 2.0, 2.0, 4.0];
    let zeros: Vec<f32> = pixels.iter().zip(shares).map(|(mean, share)| mean / share).collect();
    assert_eq!(pool(2, vec![sides(), int("count_include_pad", 1)]).output(&IMAGE), zeros);
    // What is beyond the padding never counts.
    let (strides, ceil) = (ints("strides", &[2, 2]), int("ceil_mode", 1));
    assert_eq!(pool(2, vec![strides.clone(), ceil.clone()]).output(&IMAGE), [3.0, 4.5, 7.5, 9.0]);
    let settings = vec![strides, ceil, ints("pads", &[1, 1, 0, 0]), int("count_include_pad", 1)];
    let y = pool(3, settings).output(&IMAGE);
    let off =
        y.iter().zip([12.0 / 9.0, 16.0 / 6.0, 4.0, 7.0]).map(|(y, wanted): (&f32, f32)| (y - wanted).abs());
    assert!(off.fold(0.0, f32::max) < 1e-6, "{y:?}");
    // Zeros of another node are pixels to it.
    let padded = Draft::new(&[1, 1, 3, 3])
        .ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1])
        .node("Pad", &["x", "pads"], "a", vec![])
        .node("AveragePool", &["a"], "y", vec![ints("kernel_shape", &[2, 2])]);
    assert_eq!(padded.output(&IMAGE), zeros);
}

#[test]
fn a_maximum_is_of_pixels_alone() {
    let settings = vec![
        ints("kernel_shape", &[2, 2]),
        ints("dilations", &[2, 2]),
        ints("pads", &[1, 1, 0, 0]),
        ints("strides", &[1, 2]),
    ];
    let draft =
        Draft::new(&[1, 1, 3, 3]).node("Neg", &["x"], "a", vec![]).node("MaxPool", &["a"], "y", settings);
    // Zeros would be larger.
    assert_eq!(draft.output(&IMAGE), [-5.0, -2.0]);
}

#[test]
fn channels_are_sliced_and_pixels_are_skipped() {
    let draft = Draft::new(&[1, 2, 2, 3])
        .ints("starts", &[1, 0])
        .ints("ends", &[i64::MAX, 9])
        .ints("axes", &[1, -1])
        .ints("steps", &[1, 2])
        .node("Slice", &["x", "starts", "ends", "axes", "steps"], "y", vec![]);
    let x: Vec<f32> = (0..12_u8).map(f32::from).collect();
    assert_eq!(draft.output(&x), [6.0, 8.0, 9.0, 11.0]);
}

#[test]
fn sums_have_any_number_of_values_and_constants() {
    // y = relu(x) + 10 + x + -x
    let draft = Draft::new(&[1, 2])
        .floats("ten", &[], &[10.0])
        .node("Relu", &["x"], "a", vec![])
        .node("Neg", &["x"], "b", vec![])
        .node("Sum", &["a", "ten", "x", "b"], "y", vec![]);
    assert_eq!(draft.output(&[3.0, -2.0]), [13.0, 10.0]);
    let one = Draft::new(&[1, 2])
        .floats("w", &[2, 1], &[3.0, 4.0])
        .node("MatMul", &["x", "w"], "a", vec![])
        .node("Sum", &["a"], "y", vec![]);
    assert_eq!(one.output(&[3.0, -2.0]), [1.0]);
}

#[test]
fn channels_are_shuffled() {
    let draft = Draft::new(&[1, 6, 1, 2])
        .ints("table", &[1, 2, 3, 1, 2])
        .ints("image", &[1, 6, 1, 2])
        .node("Reshape", &["x", "table"], "a", vec![])
        .node("Transpose", &["a"], "b", vec![ints("perm", &[0, 2, 1, 3, 4])])
        .node("Reshape", &["b", "image"], "c", vec![])
        .node("Relu", &["c"], "y", vec![]);
    let x: Vec<f32> = (0..12_u8).map(f32::from).collect();
    assert_eq!(draft.output(&x), [0.0, 1.0, 6.0, 7.0, 2.0, 3.0, 8.0, 9.0, 4.0, 5.0, 10.0, 11.0]);
}

#[test]
fn a_hard_swish_of_six_nodes_is_one() {
    let draft = Draft::new(&[1, 2])
        .floats("w", &[2, 2], &[1.0, 0.0, 0.0, 1.0])
        .floats("three", &[], &[3.0])
        .floats("zero", &[], &[0.0])
        .floats("six", &[], &[6.0])
        .node("MatMul", &["x", "w"], "a", vec![])
        .node("Add", &["a", "three"], "b", vec![])
        .node("Clip", &["b", "zero", "six"], "c", vec![])
        .node("Mul", &["a", "c"], "d", vec![])
        .node("Div", &["d", "six"], "y", vec![]);
    let Imported { model, report } = draft.import().unwrap();
    let names: Vec<&str> = model.graph().nodes().iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}\n{report}");
    let y = model.logits(ndarray::array![[1.0_f32, -4.0]].view()).unwrap();
    assert!((y[[0, 0]] - 4.0 / 6.0).abs() < 1e-6 && y[[0, 1]] == 0.0, "{y}");
}
