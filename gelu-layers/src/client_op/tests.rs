use gelu_tensor::WindowTap;
use proptest::prelude::*;

use super::*;
use crate::{argmax, softmax};

fn shape<const RANK: usize>(dims: [usize; RANK]) -> Shape {
    Shape::from(dims)
}

fn own_function() -> ClientOp {
    ClientOp::Function { function: "log-mel".to_owned(), output: shape([4, 2]) }
}

/// Numbers from -2 to 2 without ties, other for every seed.
fn numbers(count: usize, seed: usize) -> Vec<f64> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729 + 13) % 4001) as f64 / 1000.0 - 2.0).collect()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(
            error <= tolerance * (1.0 + expected.abs()),
            "element {at}: expected {expected}, found {found}"
        );
    }
}

/// Every partial derivative of the sum of products with some direction, against a central difference.
fn check_gradients(op: &ClientOp, shapes: &[&Shape], images: usize) {
    const STEP: f64 = 1e-5;
    let inputs: Vec<Vec<f64>> = shapes
        .iter()
        .enumerate()
        .map(|(seed, shape)| numbers(images * shape.elements(), seed + shapes.len()))
        .collect();
    let views = |inputs: &[Vec<f64>]| -> Vec<f64> {
        let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        op.forward(shapes, &inputs).unwrap()
    };
    let direction = numbers(images * op.output_shape(shapes).unwrap().elements(), 9);
    assert_eq!(views(&inputs).len(), direction.len());
    let slices: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let gradients = op.backward(shapes, &slices, &direction).unwrap();
    assert_eq!(gradients.len(), op.inputs());
    for (which, gradient) in gradients.iter().enumerate() {
        let differences: Vec<f64> = (0..inputs[which].len())
            .map(|at| {
                let along = |step: f64| -> f64 {
                    let mut inputs = inputs.clone();
                    inputs[which][at] += step;
                    views(&inputs).iter().zip(&direction).map(|(y, d)| y * d).sum()
                };
                (along(STEP) - along(-STEP)) / (2.0 * STEP)
            })
            .collect();
        assert_close(gradient, &differences, 1e-7);
    }
}

#[test]
fn gradients_are_limits_of_differences() {
    let (image, vector, gate) = (shape([3, 5, 4]), shape([3]), shape([3, 1, 1]));
    for activation in Activation::ALL {
        check_gradients(&ClientOp::Activation(activation), &[&image], 2);
    }
    let window = Window::new([2, 3]).with_stride([2, 1]).with_padding_sides([[1, 0], [0, 2]]);
    for window in [Window::new([2, 2]), window, Window::new([2, 2]).with_dilation([3, 2])] {
        check_gradients(&ClientOp::MaxPool2d(window), &[&image], 2);
    }
    for pair in [[&image, &image], [&image, &vector], [&vector, &image], [&image, &gate], [&gate, &image]] {
        check_gradients(&ClientOp::Mul, &pair, 2);
    }
    check_gradients(&ClientOp::Softmax, &[&shape([7])], 3);
}

#[test]
fn single_precision_gives_nearly_the_same() {
    let (image, gate) = (shape([2, 4, 4]), shape([2]));
    let ops = [
        (ClientOp::Activation(Activation::Relu), vec![&image]),
        (ClientOp::Activation(Activation::Gelu), vec![&image]),
        (ClientOp::MaxPool2d(Window::new([2, 2])), vec![&image]),
        (ClientOp::Mul, vec![&image, &gate]),
        (ClientOp::Softmax, vec![&gate]),
    ];
    for (op, shapes) in ops {
        let double: Vec<Vec<f64>> = shapes.iter().map(|shape| numbers(3 * shape.elements(), 1)).collect();
        let single: Vec<Vec<f32>> =
            double.iter().map(|values| values.iter().map(|&x| x as f32).collect()).collect();
        let double: Vec<&[f64]> = double.iter().map(Vec::as_slice).collect();
        let single: Vec<&[f32]> = single.iter().map(Vec::as_slice).collect();
        let widened = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();

        let expected = op.forward(&shapes, &double).unwrap();
        assert_close(&widened(&op.forward(&shapes, &single).unwrap()), &expected, 1e-6);
        let grad = numbers(expected.len(), 5);
        let grad_single: Vec<f32> = grad.iter().map(|&x| x as f32).collect();
        let found = op.backward(&shapes, &single, &grad_single).unwrap();
        for (found, expected) in found.iter().zip(op.backward(&shapes, &double, &grad).unwrap()) {
            assert_close(&widened(found), &expected, 1e-5);
        }
    }
}

#[test]
fn activations_act_on_every_element() {
    let x = numbers(24, 0);
    for activation in Activation::ALL {
        let op = ClientOp::Activation(activation);
        let expected: Vec<f64> = x.iter().map(|&x| activation.apply(x)).collect();
        assert_eq!(op.forward(&[&shape([2, 2, 3])], &[&x]).unwrap(), expected);
        let slopes: Vec<f64> = x.iter().map(|&x| activation.derivative(x) * 2.0).collect();
        assert_eq!(op.backward(&[&shape([2, 2, 3])], &[&x], &[2.0; 24]).unwrap(), [slopes]);
    }
}

/// PyTorch's `max_pool2d(x, (2, 3), stride=(2, 1), padding=(1, 1))` and `max_pool2d(x, 2, stride=1, dilation=2)`, with
/// gradients 1, 2, 3, ... for their results.
#[test]
fn maxima_and_their_gradients_are_pytorchs() {
    let x = [
        3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0, 9.0, 7.0, 9.0, 3.0, 2.0, 3.0, 8.0,
        4.0_f64,
    ];
    let shape = shape([1, 4, 5]);
    let check = |window: Window, y: &[f64], dx: &[f64]| {
        let op = ClientOp::MaxPool2d(window);
        assert_eq!(op.forward(&[&shape], &[&x]).unwrap(), y);
        let grad: Vec<f64> = (1..=y.len()).map(|i| i as f64).collect();
        assert_eq!(op.backward(&[&shape], &[&x], &grad).unwrap(), [dx]);
    };
    check(
        Window::new([2, 3]).with_stride([2, 1]).with_padding([1, 1]),
        &[3.0, 4.0, 4.0, 5.0, 5.0, 9.0, 9.0, 9.0, 9.0, 9.0, 3.0, 3.0, 8.0, 8.0, 8.0],
        &[
            1.0, 0.0, 5.0, 0.0, 9.0, 13.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 17.0, 0.0, 10.0, 23.0, 0.0, 0.0,
            42.0, 0.0,
        ],
    );
    check(
        Window::new([2, 2]).with_dilation([2, 2]),
        &[9.0, 8.0, 9.0, 9.0, 8.0, 6.0],
        &[0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 6.0, 0.0, 0.0, 0.0, 2.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0],
    );
}

#[test]
fn padding_never_is_a_maximum_and_ties_go_to_the_first() {
    let op = ClientOp::MaxPool2d(Window::new([2, 2]).with_stride([2, 2]).with_padding([1, 1]));
    let x = [-1.0, -2.0, -3.0, -4.0_f32];
    assert_eq!(op.forward(&[&shape([1, 2, 2])], &[&x]).unwrap(), x);

    let op = ClientOp::MaxPool2d(Window::new([2, 2]));
    for (x, first) in
        [([2.0, 2.0, 2.0, 1.0], 0), ([0.0, 2.0, 2.0, 2.0], 1), ([f64::NEG_INFINITY; 4], 0), ([-0.0; 4], 0)]
    {
        let mut expected = vec![0.0; 4];
        expected[first] = 3.0;
        assert_eq!(op.backward(&[&shape([1, 2, 2])], &[&x], &[3.0]).unwrap(), [expected]);
    }
}

#[test]
fn a_nan_is_the_maximum_of_every_window_with_it() {
    let op = ClientOp::MaxPool2d(Window::new([1, 2]));
    for x in [[f64::NAN, 1.0, 2.0, 3.0], [1.0, 0.0, f64::INFINITY, f64::NAN]] {
        let y = op.forward(&[&shape([1, 1, 4])], &[&x]).unwrap();
        for (y, window) in y.iter().zip(x.windows(2)) {
            assert_eq!(y.is_nan(), window.iter().any(|x| x.is_nan()));
        }
    }
}

#[test]
fn a_window_of_padding_only_is_refused() {
    // PyTorch gives minus infinity here.
    let window = Window::new([2, 2]).with_dilation([2, 2]).with_padding([1, 1]);
    let error = ClientOp::MaxPool2d(window).output_shape(&[&shape([1, 1, 1])]).unwrap_err();
    assert!(matches!(error, Error::Window { .. }), "{error}");
    assert!(ClientOp::MaxPool2d(window).output_shape(&[&shape([1, 2, 2])]).is_ok());
}

/// PyTorch's gradients of `a * gate` for gradients 1 to 8 of the result.
#[test]
fn a_gate_acts_on_all_positions_of_its_channel_in_either_order() {
    let (image, a) = (shape([2, 2, 2]), [1.0, -2.0, 3.0, 4.0, 0.5, 2.0, -1.0, 0.0_f64]);
    let factors = [2.0, -3.0];
    let grad: Vec<f64> = (1..=8).map(f64::from).collect();
    let y = [2.0, -4.0, 6.0, 8.0, -1.5, -6.0, 3.0, 0.0];
    let da = vec![2.0, 4.0, 6.0, 8.0, -15.0, -18.0, -21.0, -24.0];
    let dfactors = vec![22.0, 7.5];
    for gate in [shape([2, 1, 1]), Shape::from([2])] {
        assert_eq!(ClientOp::Mul.output_shape(&[&image, &gate]).unwrap(), image);
        assert_eq!(ClientOp::Mul.output_shape(&[&gate, &image]).unwrap(), image);
        assert_eq!(ClientOp::Mul.forward(&[&image, &gate], &[&a, &factors]).unwrap(), y);
        assert_eq!(ClientOp::Mul.forward(&[&gate, &image], &[&factors, &a]).unwrap(), y);
        let gradients = ClientOp::Mul.backward(&[&image, &gate], &[&a, &factors], &grad).unwrap();
        assert_eq!(gradients, [da.clone(), dfactors.clone()]);
        let gradients = ClientOp::Mul.backward(&[&gate, &image], &[&factors, &a], &grad).unwrap();
        assert_eq!(gradients, [dfactors.clone(), da.clone()]);
    }
}

#[test]
fn every_image_of_a_batch_has_its_own_gate() {
    let (image, gate) = (shape([2, 1, 2]), shape([2]));
    let y = ClientOp::Mul.forward(&[&image, &gate], &[&[1.0_f32; 8], &[1.0, 2.0, 3.0, 4.0]]).unwrap();
    assert_eq!(y, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
}

#[test]
fn values_of_one_shape_are_multiplied_element_by_element() {
    for shape in [shape([2, 2, 1]), Shape::from([4]), Shape::from([2, 2]), Shape::from([4, 1, 1])] {
        let (a, b) = ([1.0, 2.0, -3.0, 0.5], [4.0, -1.0, 2.0, 8.0]);
        assert_eq!(ClientOp::Mul.forward(&[&shape, &shape], &[&a, &b]).unwrap(), [4.0, -2.0, -6.0, 4.0]);
        let gradients = ClientOp::Mul.backward(&[&shape, &shape], &[&a, &b], &[1.0, 1.0, 2.0, 0.0]).unwrap();
        assert_eq!(gradients, [[4.0, -1.0, 4.0, 0.0], [1.0, 2.0, -6.0, 0.0]]);
    }
}

/// PyTorch's values.
#[test]
fn softmax_and_its_gradient_are_pytorchs() {
    let (features, x) = (shape([4]), [1.0, 2.0, -3.0, 0.5]);
    let y = ClientOp::Softmax.forward(&[&features], &[&x]).unwrap();
    let expected = [0.23024879090473357, 0.6258811043410035, 0.004217153708778763, 0.13965295104548422];
    assert_close(&y, &expected, 1e-15);
    let gradients = ClientOp::Softmax.backward(&[&features], &[&x], &[1.0, -2.0, 0.5, 3.0]).unwrap();
    let expected = [0.36850075359615786, -0.8759544107491106, 0.004640749878704258, 0.5028129072742487];
    assert_close(&gradients[0], &expected, 1e-15);
}

#[test]
fn softmax_overflows_for_no_numbers_and_keeps_a_nan() {
    let mut row = [1000.0_f32, 1000.0, -1000.0];
    softmax(&mut row);
    assert_eq!(row, [0.5, 0.5, 0.0]);
    let mut row = [f64::MAX, f64::MIN, f64::NEG_INFINITY];
    softmax(&mut row);
    assert_eq!(row, [1.0, 0.0, 0.0]);
    let mut row = [0.0, f64::NAN, 1.0];
    softmax(&mut row);
    assert!(row.iter().all(|x| x.is_nan()));
    softmax::<f32>(&mut []);
    // Images do not mix.
    let y = ClientOp::Softmax.forward(&[&shape([2])], &[&[0.0, 0.0, 1000.0, 0.0]]).unwrap();
    assert_eq!(y, [0.5, 0.5, 1.0, 0.0]);
}

#[test]
fn the_first_of_the_largest_numbers_wins() {
    const NAN: f32 = f32::NAN;
    const LEAST: f32 = f32::NEG_INFINITY;
    for (row, expected) in [
        (&[1.0, 3.0, 2.0, 3.0][..], 1),
        (&[LEAST, LEAST], 0),
        (&[NAN, LEAST, LEAST], 1),
        (&[NAN, 1.0, NAN, 2.0], 3),
        (&[NAN, NAN], 0),
        (&[-0.0, 0.0], 0),
        (&[], 0),
    ] {
        assert_eq!(argmax(row), expected, "{row:?}");
    }
}

#[test]
fn shapes_that_fit_give_the_shape_of_the_result() {
    let pool = ClientOp::MaxPool2d(Window::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]));
    assert_eq!(pool.output_shape(&[&shape([6, 7, 10])]).unwrap(), shape([6, 4, 5]));
    assert_eq!(ClientOp::Softmax.output_shape(&[&shape([9])]).unwrap(), shape([9]));
    assert_eq!(own_function().output_shape(&[&shape([16_000])]).unwrap(), shape([4, 2]));
    let relu = ClientOp::Activation(Activation::Relu);
    assert_eq!(relu.output_shape(&[&shape([6, 7, 10])]).unwrap(), shape([6, 7, 10]));
    assert_eq!(relu.output_shape(&[&shape([])]).unwrap(), shape([]));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let (image, vector) = (shape([3, 5, 4]), shape([3]));
    let clip = ClientOp::Activation(Activation::Clip { min: 1.0, max: 0.0 });
    let empty = ClientOp::Function { function: "none".to_owned(), output: shape([0]) };
    let counts: [(&ClientOp, &[&Shape]); 11] = [
        (&clip, &[&image]),
        (&empty, &[&image]),
        (&own_function(), &[]),
        (&ClientOp::Softmax, &[&image]),
        (&ClientOp::Softmax, &[&shape([])]),
        (&ClientOp::Softmax, &[&vector, &vector]),
        (&ClientOp::Softmax, &[&shape([0])]),
        (&ClientOp::Mul, &[&image]),
        (&ClientOp::Mul, &[&image, &image, &image]),
        (&ClientOp::MaxPool2d(Window::new([1, 1])), &[&vector]),
        (&ClientOp::Activation(Activation::Relu), &[&shape([3, 0, 4])]),
    ];
    for (op, shapes) in counts {
        let error = op.output_shape(shapes).unwrap_err();
        assert!(
            matches!(error, Error::Count { .. } | Error::TooFew { .. } | Error::Activation),
            "{op}: {error}"
        );
    }
    let pool = ClientOp::MaxPool2d(Window::new([6, 1]));
    assert!(matches!(pool.output_shape(&[&image]), Err(Error::Window { .. })));
    for other in [
        shape([4]),
        Shape::from([3, 5, 1]),
        Shape::from([1, 5, 4]),
        Shape::from([3, 1]),
        Shape::from([1, 1, 1]),
        Shape::from([60]),
    ] {
        for pair in [[&image, &other], [&other, &image]] {
            let error = ClientOp::Mul.output_shape(&pair).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{error}");
        }
    }
    assert!(ClientOp::Mul.output_shape(&[&vector, &shape([3, 1])]).is_err());
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let (image, gate) = (shape([2, 2, 2]), shape([2]));
    let (pool, relu) = (ClientOp::MaxPool2d(Window::new([2, 2])), ClientOp::Activation(Activation::Relu));
    let zeros = [0.0_f32; 64];
    for op in [&pool, &relu] {
        assert!(op.forward(&[&image], &[&zeros[..16]]).is_ok());
        let error = op.forward(&[&image], &[&zeros[..17]]).unwrap_err();
        assert!(matches!(error, Error::Count { expected: 24, found: 17, .. }), "{error}");
        assert!(op.forward::<f32>(&[&image], &[]).is_err());
        assert!(op.forward(&[&image], &[&zeros[..8], &zeros[..8]]).is_err());
        assert!(op.backward(&[&image], &[&zeros[..16]], &zeros[..3]).is_err());
        assert!(op.backward(&[&image], &[&zeros[..12]], &zeros[..4]).is_err());
    }
    assert!(ClientOp::Mul.forward(&[&image, &gate], &[&zeros[..16], &zeros[..4]]).is_ok());
    let error = ClientOp::Mul.forward(&[&image, &gate], &[&zeros[..16], &zeros[..2]]).unwrap_err();
    assert!(matches!(error, Error::Count { expected: 4, found: 2, .. }), "{error}");
    assert!(ClientOp::Mul.forward(&[&gate, &image], &[&zeros[..3], &zeros[..16]]).is_err());
    assert!(ClientOp::Mul.backward(&[&image, &gate], &[&zeros[..16], &zeros[..4]], &zeros[..4]).is_err());
    assert!(ClientOp::Softmax.backward(&[&gate], &[&zeros[..4]], &zeros[..2]).is_err());
}

#[test]
fn no_images_give_no_results_however_large_they_would_be() {
    const MOST: usize = usize::MAX;
    let none: &[f32] = &[];
    let (line, image) = (shape([MOST]), shape([1 << 40, 1 << 40, 1 << 40]));
    assert_eq!(ClientOp::Softmax.forward(&[&line], &[none]).unwrap(), none);
    assert_eq!(ClientOp::Softmax.backward(&[&line], &[none], none).unwrap(), [none]);
    let relu = ClientOp::Activation(Activation::Relu);
    for shapes in [[&image, &image], [&image, &shape([1 << 40])]] {
        assert_eq!(ClientOp::Mul.forward(&shapes, &[none, none]).unwrap(), none);
        assert_eq!(ClientOp::Mul.backward(&shapes, &[none, none], none).unwrap(), [none, none]);
    }
    for op in [relu, ClientOp::MaxPool2d(Window::new([2, 2]))] {
        assert_eq!(op.forward(&[&image], &[none]).unwrap(), none);
        assert_eq!(op.backward(&[&image], &[none], none).unwrap(), [none]);
        assert!(op.forward(&[&image], &[&[0.0_f32; 8]]).is_err());
    }
    // Nor does the arithmetic of windows overflow.
    for window in [
        Window::new([MOST, 1]),
        Window::new([2, 2]).with_dilation([MOST - 1, 1]),
        Window::new([1, 1]).with_dilation([MOST, MOST]).with_stride([MOST, MOST]),
        Window::new([2, 1]).with_dilation([MOST / 2, 1]).with_padding([MOST / 2 - 1, 0]),
        Window::new([MOST, 1]).with_padding_sides([[MOST - 1, 0], [0, 0]]),
    ] {
        for height in [1, 2, MOST / 2, MOST] {
            let _ = ClientOp::MaxPool2d(window).forward(&[&shape([MOST, height, 1])], &[none]);
        }
    }
}

#[test]
fn a_function_of_the_users_own_is_left_to_the_caller() {
    let input = shape([2]);
    let forward = own_function().forward(&[&input], &[&[0.0_f32; 4]]);
    let backward = own_function().backward(&[&input], &[&[0.0_f32; 4]], &[0.0; 16]);
    for error in [forward.unwrap_err(), backward.unwrap_err()] {
        assert_eq!(error, Error::ClientFunction);
    }
}

#[test]
fn names_say_what_is_computed() {
    let window = Window::new([2, 2]).with_stride([2, 2]);
    for (op, name) in [
        (ClientOp::Activation(Activation::HardSwish), "hard-swish"),
        (ClientOp::MaxPool2d(window), "max-pool 2x2 stride 2x2 padding 0x0"),
        (ClientOp::Mul, "mul"),
        (ClientOp::Softmax, "softmax"),
        (own_function(), "log-mel"),
    ] {
        assert_eq!(op.to_string(), name);
    }
    assert_eq!(format!("[{:>4}]", ClientOp::Mul), "[ mul]");
}

#[test]
fn files_name_steps_in_kebab_case() {
    let window = Window::new([2, 2]);
    let window_text = serde_json::to_string(&window).unwrap();
    for (op, text) in [
        (ClientOp::Activation(Activation::Relu6), "{\"activation\":\"relu6\"}".to_owned()),
        (ClientOp::MaxPool2d(window), format!("{{\"max-pool2d\":{window_text}}}")),
        (ClientOp::Mul, "\"mul\"".to_owned()),
        (ClientOp::Softmax, "\"softmax\"".to_owned()),
        (own_function(), "{\"function\":{\"function\":\"log-mel\",\"output\":[4,2]}}".to_owned()),
    ] {
        assert_eq!(serde_json::to_string(&op).unwrap(), text);
        assert_eq!(serde_json::from_str::<ClientOp>(&text).unwrap(), op);
    }
    for bad in ["\"relu\"", "\"function\"", "{\"function\":{\"function\":\"f\",\"output\":[1],\"x\":1}}"] {
        assert!(serde_json::from_str::<ClientOp>(bad).is_err(), "{bad}");
    }
}

#[test]
fn ranges_follow_from_those_of_the_inputs() {
    let relu6 = ClientOp::Activation(Activation::Relu6);
    let pool = ClientOp::MaxPool2d(Window::new([2, 2]));
    assert_eq!((relu6.range(&[4.0]), relu6.range(&[40.0]), relu6.bound()), (4.0, 6.0, Some(6.0)));
    assert_eq!((pool.range(&[4.0]), pool.bound()), (4.0, None));
    assert_eq!((ClientOp::Mul.range(&[4.0, 0.5]), ClientOp::Mul.bound()), (2.0, None));
    assert_eq!((ClientOp::Softmax.range(&[4.0]), ClientOp::Softmax.bound()), (1.0, Some(1.0)));
    assert_eq!((own_function().range(&[4.0]), own_function().bound()), (f64::INFINITY, None));
    // Nothing is known.
    assert_eq!(ClientOp::Mul.range(&[0.0, f64::INFINITY]), f64::INFINITY);
    assert_eq!(ClientOp::Mul.range(&[1.0]), f64::INFINITY);
    assert_eq!(pool.range(&[f64::NAN]), f64::INFINITY);
    assert_eq!(pool.range(&[]), f64::INFINITY);
}

/// Every window over images of a few pixels, fitting or not.
fn any_window() -> impl Strategy<Value = Window> {
    let pair = |most: usize| [1..=most, 1..=most];
    (pair(4), pair(3), pair(5), [[0..4_usize, 0..4_usize], [0..4_usize, 0..4_usize]]).prop_map(
        |(kernel, stride, dilation, padding)| {
            Window::new(kernel).with_stride(stride).with_dilation(dilation).with_padding_sides(padding)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn max_pooling_is_what_a_plain_loop_gives(
        window in any_window(),
        [channels, height, width] in [1..=2_usize, 1..=7_usize, 1..=7_usize],
        images in 1..=2_usize,
        seed in 0..1000_usize,
    ) {
        let windows = window.over([channels, height, width]);
        prop_assume!(windows.is_ok());
        let windows = windows.unwrap();
        let (area, input) = (window.area(), shape([channels, height, width]));
        // Few values, so that there are ties.
        let x: Vec<f64> = numbers(images * input.elements(), seed).iter().map(|x| x.round()).collect();

        let (mut y, mut dx, mut only_padding) = (vec![], vec![0.0; x.len()], false);
        for image in 0..images {
            for channel in 0..channels {
                for position in 0..windows.positions() {
                    let taps = (channel * area..(channel + 1) * area)
                        .filter_map(|tap| windows.element(WindowTap { position, tap }));
                    let first = taps.map(|at| image * input.elements() + at)
                        .reduce(|best, at| if x[at] > x[best] { at } else { best });
                    only_padding |= first.is_none();
                    if let Some(first) = first {
                        y.push(x[first]);
                        dx[first] += y.len() as f64;
                    }
                }
            }
        }
        let op = ClientOp::MaxPool2d(window);
        let found = op.forward(&[&input], &[&x]);
        if only_padding {
            let refused = matches!(found, Err(Error::Window { .. }));
            prop_assert!(refused);
            prop_assert!(op.output_shape(&[&input]).is_err());
        } else {
            prop_assert_eq!(found.unwrap(), y.clone());
            prop_assert_eq!(images * op.output_shape(&[&input]).unwrap().elements(), y.len());
            let grad: Vec<f64> = (1..=y.len()).map(|i| i as f64).collect();
            prop_assert_eq!(op.backward(&[&input], &[&x], &grad).unwrap(), [dx]);
        }
    }

    #[test]
    fn no_result_leaves_its_range(
        activation in prop::sample::select(Activation::ALL.to_vec()),
        a in prop::collection::vec(-9.0..9.0_f64, 12),
        b in prop::collection::vec(-9.0..9.0_f64, 3),
    ) {
        let largest = |values: &[f64]| values.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let (image, gate, line) = (shape([3, 2, 2]), shape([3]), shape([12]));
        let unary = [
            (ClientOp::Activation(activation), &image),
            (ClientOp::MaxPool2d(Window::new([2, 1])), &image),
            (ClientOp::Softmax, &line),
        ];
        for (op, shape) in unary {
            let y = op.forward(&[shape], &[&a]).unwrap();
            prop_assert!(largest(&y) <= op.range(&[largest(&a)]) * (1.0 + 1e-15), "{}", op);
            prop_assert!(op.bound().is_none_or(|bound| largest(&y) <= bound), "{}", op);
        }
        let y = ClientOp::Mul.forward(&[&image, &gate], &[&a, &b]).unwrap();
        prop_assert!(largest(&y) <= ClientOp::Mul.range(&[largest(&a), largest(&b)]));
    }
}
