use proptest::prelude::*;

use super::*;

const POINTS: [f64; 5] = [-30.0, -3.0, -0.75, 0.3, 2.5];

/// Values and derivatives at [`POINTS`], from PyTorch in double precision; from mpmath for the polynomials and for what
/// PyTorch rounds badly (GELU and the hyperbolic tangent far out).
const REFERENCE: [(Activation, [f64; 5], [f64; 5]); 13] = [
    (Activation::Relu, [0.0, 0.0, 0.0, 0.3, 2.5], [0.0, 0.0, 0.0, 1.0, 1.0]),
    (Activation::Relu6, [0.0, 0.0, 0.0, 0.3, 2.5], [0.0, 0.0, 0.0, 1.0, 1.0]),
    (Activation::Clip { min: -1.0, max: 1.0 }, [-1.0, -1.0, -0.75, 0.3, 1.0], [0.0, 0.0, 1.0, 1.0, 0.0]),
    (Activation::LeakyRelu { slope: 0.01 }, [-0.3, -0.03, -0.0075, 0.3, 2.5], [0.01, 0.01, 0.01, 1.0, 1.0]),
    (
        Activation::Sigmoid,
        [
            9.357622968839299e-14,
            0.04742587317756678,
            0.320821300824607,
            0.574442516811659,
            0.9241418199787566,
        ],
        [
            9.357622968838423e-14,
            0.04517665973091214,
            0.21789499376181404,
            0.24445831169074586,
            0.07010371654510807,
        ],
    ),
    (
        Activation::Tanh,
        [-1.0, -0.9950547536867305, -0.6351489523872873, 0.2913126124515909, 0.9866142981514303],
        [0.0, 0.00986603716544019, 0.5965858082813314, 0.9151369618266292, 0.0265922266831606],
    ),
    (
        Activation::Gelu,
        [
            -1.472014178144456e-196,
            -0.004049694094890284,
            -0.1699705142826511,
            0.18537342665668578,
            2.4844758366855597,
        ],
        [
            -4.416031690708494e-195,
            -0.01194564720418392,
            0.0007742782607648956,
            0.7323277668271099,
            1.037611085908145,
        ],
    ),
    (
        Activation::Silu,
        [
            -2.8072868906517896e-12,
            -0.14227761953270035,
            -0.24061597561845527,
            0.1723327550434977,
            2.3103545499468914,
        ],
        [
            -2.713710660963134e-12,
            -0.08810410601516962,
            0.1574000555032465,
            0.6477800103188829,
            1.0994011113415267,
        ],
    ),
    (
        Activation::HardSigmoid,
        [0.0, 0.0, 0.375, 0.55, 0.9166666666666666],
        [0.0, 0.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0],
    ),
    (
        Activation::HardSwish,
        [0.0, 0.0, -0.28125, 0.165, 2.2916666666666665],
        [0.0, 0.0, 0.25, 0.6, 1.3333333333333333],
    ),
    (Activation::Square, [900.0, 9.0, 0.5625, 0.09, 6.25], [-60.0, -6.0, -1.5, 0.6, 5.0]),
    (
        Activation::SigmoidTaylor3,
        [555.5, 0.3125, 0.3212890625, 0.5744375, 0.7994791666666667],
        [-56.0, -0.3125, 0.21484375, 0.244375, -0.140625],
    ),
    (
        Activation::SigmoidTaylor5,
        [-50069.5, -0.19375, 0.320794677734375, 0.5744425625, 1.0029296875],
        [8381.5, 0.53125, 0.2181396484375, 0.244459375, 0.2662760416666667],
    ),
];

/// Also with parameters that no representative has.
fn activations() -> impl Iterator<Item = Activation> {
    Activation::ALL.into_iter().chain([
        Activation::Clip { min: 0.5, max: 3.0 },
        Activation::Clip { min: -7.0, max: -2.0 },
        Activation::Clip { min: 1.0, max: 1.0 },
        Activation::LeakyRelu { slope: -2.5 },
        Activation::LeakyRelu { slope: 0.0 },
    ])
}

fn any_activation() -> impl Strategy<Value = Activation> {
    prop::sample::select(activations().collect::<Vec<_>>())
}

fn close(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= tolerance * expected.abs()
}

#[test]
fn values_and_derivatives_are_pytorchs() {
    for ((activation, values, slopes), all) in REFERENCE.into_iter().zip(Activation::ALL) {
        assert_eq!(activation, all);
        for ((x, value), slope) in POINTS.into_iter().zip(values).zip(slopes) {
            let (y, dy) = (activation.apply(x), activation.derivative(x));
            // In the tails the argument's own rounding is that much larger in the result.
            let tolerance = 1e-15 * x.powi(2).max(10.0);
            assert!(close(y, value, tolerance), "{activation} at {x}: expected {value}, found {y}");
            // GELU's slope at -0.75 is a difference of nearly equal numbers.
            assert!(
                close(dy, slope, tolerance) || (dy - slope).abs() < 1e-16,
                "slope of {activation} at {x}: expected {slope}, found {dy}"
            );
        }
    }
}

#[test]
fn derivatives_at_kinks_are_as_documented() {
    let kinks = [
        (Activation::Relu, 0.0, 0.0),
        (Activation::Relu6, 0.0, 0.0),
        (Activation::Relu6, 6.0, 0.0),
        (Activation::Clip { min: -1.0, max: 1.0 }, -1.0, 1.0),
        (Activation::Clip { min: -1.0, max: 1.0 }, 1.0, 1.0),
        (Activation::LeakyRelu { slope: 0.01 }, 0.0, 0.01),
        (Activation::HardSigmoid, -3.0, 0.0),
        (Activation::HardSigmoid, 3.0, 0.0),
        (Activation::HardSwish, -3.0, 0.0),
        (Activation::HardSwish, 3.0, 1.0),
    ];
    for (activation, x, slope) in kinks {
        assert_eq!(activation.derivative(x), slope, "{activation} at {x}");
        assert_eq!(activation.derivative(x as f32), slope as f32, "{activation} at {x}");
    }
}

#[test]
fn a_nan_stays_one() {
    for activation in activations() {
        assert!(activation.apply(f64::NAN).is_nan(), "{activation}");
        assert!(activation.apply(f32::NAN).is_nan(), "{activation}");
    }
}

#[test]
fn extremes_give_limits() {
    const HUGE: [f64; 3] = [1e4, f64::MAX, f64::INFINITY];
    for x in HUGE {
        for activation in [Activation::Relu, Activation::Gelu, Activation::Silu, Activation::HardSwish] {
            assert_eq!(activation.apply(x), x, "{activation}");
            assert_eq!(activation.apply(-x), 0.0, "{activation}");
            assert_eq!(activation.derivative(x), 1.0, "{activation}");
            assert_eq!(activation.derivative(-x), 0.0, "{activation}");
        }
        for (activation, least, most) in [
            (Activation::Sigmoid, 0.0, 1.0),
            (Activation::HardSigmoid, 0.0, 1.0),
            (Activation::Tanh, -1.0, 1.0),
            (Activation::Relu6, 0.0, 6.0),
            (Activation::Clip { min: -2.0, max: 5.0 }, -2.0, 5.0),
        ] {
            assert_eq!(activation.apply(-x), least, "{activation}");
            assert_eq!(activation.apply(x), most, "{activation}");
            assert_eq!(activation.derivative(x), 0.0, "{activation}");
            assert_eq!(activation.derivative(-x), 0.0, "{activation}");
        }
    }
    // Far out in the tail, where 1 + erf would have lost every digit.
    assert!(close(Activation::Gelu.apply(-20.0), -5.507248237212467e-88, 1e-13));
    assert_eq!(Activation::Square.apply(f32::MAX), f32::INFINITY);
    for activation in Activation::ALL {
        assert!(!activation.apply(-0.0_f64).is_nan(), "{activation}");
        assert!(!activation.apply(f64::MIN_POSITIVE).is_nan(), "{activation}");
    }
}

#[test]
fn parameters_without_sense_are_not_valid_and_do_not_panic() {
    let clip = |min, max| Activation::Clip { min, max };
    let leaky = |slope| Activation::LeakyRelu { slope };
    for bad in [
        clip(1.0, -1.0),
        clip(f64::NAN, 1.0),
        clip(0.0, f64::INFINITY),
        leaky(f64::NAN),
        leaky(f64::INFINITY),
    ] {
        assert!(!bad.is_valid(), "{bad}");
        for x in [-1.0, 0.0, 1.0, f64::NAN, f64::INFINITY] {
            bad.apply(x);
            bad.derivative(x);
            bad.range(x);
            bad.steepness(x);
        }
    }
    assert!(activations().all(Activation::is_valid));
}

#[test]
fn names_are_read_back() {
    let names = Activation::ALL.map(|activation| activation.to_string());
    let expected = "relu relu6 clip:-1:1 leaky-relu:0.01 sigmoid tanh gelu silu hard-sigmoid hard-swish square \
                    sigmoid-taylor3 sigmoid-taylor5";
    assert_eq!(names.join(" "), expected);
    for activation in activations() {
        assert_eq!(activation.to_string().parse(), Ok(activation));
    }
    assert_eq!(format!("[{:>6}]", Activation::Relu), "[  relu]");
    assert_eq!(format!("[{:<12}]", Activation::Clip { min: 0.0, max: 2.5 }), "[clip:0:2.5  ]");
}

#[test]
fn what_is_no_name_is_refused() {
    for name in [
        "",
        "Relu",
        "softmax",
        "relu:1",
        "clip",
        "clip:1",
        "clip:1:",
        "clip:1:2:3",
        "clip:2:1",
        "clip:nan:1",
        "clip:-inf:inf",
        "leaky-relu",
        "leaky-relu:",
        "leaky-relu:inf",
        "leaky-relu:1:2",
    ] {
        let error = name.parse::<Activation>().unwrap_err();
        assert_eq!(error.found, name);
        let message = error.to_string();
        assert!(
            message.starts_with("activation: expected relu, ")
                && message.ends_with(&format!("found `{name}`"))
        );
    }
}

#[test]
fn files_name_activations_in_kebab_case() {
    let texts = [
        (Activation::Relu, "\"relu\""),
        (Activation::Relu6, "\"relu6\""),
        (Activation::HardSwish, "\"hard-swish\""),
        (Activation::SigmoidTaylor3, "\"sigmoid-taylor3\""),
        (Activation::SigmoidTaylor5, "\"sigmoid-taylor5\""),
        (Activation::Clip { min: -1.0, max: 0.1 }, r#"{"clip":{"min":-1.0,"max":0.1}}"#),
        (Activation::LeakyRelu { slope: 0.01 }, r#"{"leaky-relu":{"slope":0.01}}"#),
    ];
    for (activation, text) in texts {
        assert_eq!(serde_json::to_string(&activation).unwrap(), text);
    }
    for activation in activations() {
        let text = serde_json::to_string(&activation).unwrap();
        assert_eq!(serde_json::from_str::<Activation>(&text).unwrap(), activation);
    }
    for bad in ["\"softmax\"", "\"clip\"", r#"{"clip":{"min":0}}"#, r#"{"leaky-relu":{"slope":1,"bias":2}}"#]
    {
        assert!(serde_json::from_str::<Activation>(bad).is_err(), "{bad}");
    }
}

#[test]
fn bounds_are_reached_and_never_passed() {
    for activation in activations() {
        let seen = (-4000..=4000)
            .map(|x| activation.apply(f64::from(x) / 100.0).abs())
            .fold(0.0, |most: f64, y| most.max(y));
        match activation.bound() {
            Some(bound) => assert!(close(seen, bound, 1e-12), "{activation}: {seen} of {bound}"),
            None => assert!(seen > 30.0, "{activation}: {seen}"),
        }
    }
}

#[test]
fn ranges_and_steepness_of_what_is_unbounded() {
    for activation in activations() {
        for unknown in [f64::INFINITY, f64::NAN] {
            assert_eq!(
                activation.range(unknown),
                activation.bound().unwrap_or(f64::INFINITY),
                "{activation}"
            );
            assert!(!activation.steepness(unknown).is_nan(), "{activation}");
        }
        assert_eq!(activation.range(-2.0), activation.range(2.0));
    }
    assert!(close(Activation::Gelu.steepness(f64::INFINITY), 1.1289041451851548, 1e-15));
    assert!(close(Activation::Silu.steepness(f64::INFINITY), 1.099839320128867, 1e-15));
    assert_eq!(Activation::HardSwish.steepness(f64::INFINITY), 1.5);
    assert_eq!(Activation::Square.steepness(3.0), 6.0);
    assert_eq!(Activation::SigmoidTaylor3.range(2.5), 0.5 + 0.5 - 8.0 / 48.0);
}

/// The formulas that the project has had from the start.
fn first_formulas(activation: Activation, x: f64) -> Option<[f64; 2]> {
    Some(match activation {
        Activation::Relu => [if x < 0.0 { 0.0 } else { x }, f64::from(x > 0.0)],
        Activation::Sigmoid => {
            let y = 1.0 / (1.0 + (-x).exp());
            [y, y * (1.0 - y)]
        }
        Activation::Tanh => [x.tanh(), 1.0 - x.tanh().powi(2)],
        Activation::Square => [x * x, 2.0 * x],
        Activation::SigmoidTaylor3 => [0.5 + x * (0.25 - x * x / 48.0), 0.25 - x * x / 16.0],
        Activation::SigmoidTaylor5 => [
            0.5 + x * (0.25 + x * x * (-1.0 / 48.0 + x * x / 480.0)),
            0.25 + x * x * (-1.0 / 16.0 + x * x / 96.0),
        ],
        _ => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_first_activations_are_what_they_were_bit_by_bit(activation in any_activation(), x in prop::num::f64::ANY) {
        if let Some([value, slope]) = first_formulas(activation, x).filter(|_| !x.is_nan()) {
            prop_assert_eq!(activation.apply(x).to_bits(), value.to_bits());
            prop_assert_eq!(activation.derivative(x).to_bits(), slope.to_bits());
            let single = x as f32;
            let [value, slope] = first_formulas(activation, f64::from(single)).unwrap();
            prop_assert_eq!(activation.apply(single).to_bits(), (value as f32).to_bits());
            prop_assert_eq!(activation.derivative(single).to_bits(), (slope as f32).to_bits());
        }
    }

    #[test]
    fn single_precision_is_double_precision_rounded(activation in any_activation(), x in -50.0_f32..50.0) {
        prop_assert_eq!(activation.apply(x), activation.apply(f64::from(x)) as f32);
        prop_assert_eq!(activation.derivative(x), activation.derivative(f64::from(x)) as f32);
    }

    #[test]
    fn derivatives_are_limits_of_differences(activation in any_activation(), x in -8.0_f64..8.0) {
        const STEP: f64 = 1e-5;
        let bends: &[f64] = match activation {
            Activation::Relu | Activation::LeakyRelu { .. } => &[0.0],
            Activation::Relu6 => &[0.0, 6.0],
            Activation::Clip { min, max } => &[min, max],
            Activation::HardSigmoid | Activation::HardSwish => &[-3.0, 3.0],
            _ => &[],
        };
        prop_assume!(bends.iter().all(|bend| (x - bend).abs() > 2.0 * STEP));
        let slope = (activation.apply(x + STEP) - activation.apply(x - STEP)) / (2.0 * STEP);
        let found = activation.derivative(x);
        prop_assert!((found - slope).abs() <= 1e-7 * (1.0 + slope.abs()), "{}: expected {}, found {}", activation, slope, found);
    }

    #[test]
    fn no_value_leaves_its_range(activation in any_activation(), exponent in -8.0_f64..5.0, share in -1.0_f64..=1.0) {
        let largest = exponent.exp2();
        let range = activation.range(largest);
        for x in [share * largest, largest, -largest] {
            let y = activation.apply(x);
            prop_assert!(y.abs() <= range * (1.0 + 1e-15), "{} of {} is {}, range {}", activation, x, y, range);
        }
        prop_assert!(activation.bound().is_none_or(|bound| range <= bound));
    }

    #[test]
    fn ranges_are_no_larger_than_they_must_be(activation in any_activation(), exponent in -8.0_f64..5.0) {
        let largest = exponent.exp2();
        let seen = (-2000..=2000)
            .map(|part| activation.apply(largest * f64::from(part) / 2000.0).abs())
            .fold(0.0, |most: f64, y| most.max(y));
        prop_assert!(close(seen, activation.range(largest), 1e-5), "{}: {} of {}", activation, seen, activation.range(largest));
    }

    #[test]
    fn no_two_values_differ_by_more_than_steepness_allows(
        activation in any_activation(),
        exponent in -8.0_f64..5.0,
        shares in [-1.0_f64..=1.0, -1.0_f64..=1.0],
    ) {
        let largest = exponent.exp2();
        let [x, y] = shares.map(|share| share * largest);
        let allowed = activation.steepness(largest) * (x - y).abs();
        let found = (activation.apply(x) - activation.apply(y)).abs();
        prop_assert!(found <= allowed * (1.0 + 1e-12) + 1e-14 * activation.range(largest), "{}: {} > {}", activation, found, allowed);
        let slope = activation.derivative(x).abs();
        prop_assert!(slope <= activation.steepness(largest) * (1.0 + 1e-15), "{} at {}: {}", activation, x, slope);
    }

    #[test]
    fn any_parameters_are_read_back(a in prop::num::f64::NORMAL, b in prop::num::f64::NORMAL) {
        for activation in [Activation::Clip { min: a.min(b), max: a.max(b) }, Activation::LeakyRelu { slope: a }] {
            prop_assert_eq!(activation.to_string().parse(), Ok(activation));
        }
    }
}
