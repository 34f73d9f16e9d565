use super::*;

fn point(epoch: f64, loss: f64) -> EpochPoint {
    EpochPoint { epoch, train_loss: loss, test_loss: loss * 1.1, train_accuracy: 0.98, test_accuracy: 0.97 }
}

#[test]
fn curves_have_both_panels_and_a_legend() {
    let svg = training_curves_svg(&[point(1.0, 0.4), point(2.0, 0.2), point(3.0, 0.1)]).unwrap();
    for part in ["<svg", "loss (cross-entropy)", "accuracy (%)", "epoch", "training", "test", "</svg>"] {
        assert!(svg.contains(part), "{part}");
    }
    assert_eq!(svg.matches("<circle").count(), 12);
}

#[test]
fn any_points_can_be_drawn() {
    let odd = [f64::NAN, f64::INFINITY, 0.0, -1.0, 1e300, 1e-300];
    training_curves_svg(&[]).unwrap();
    for a in odd {
        training_curves_svg(&[point(1.0, a)]).unwrap();
        training_curves_svg(&[point(a, 1.0), point(2.0, 1.0)]).unwrap();
    }
}

#[test]
fn bars_carry_label_value_and_side() {
    let bar = |label: &str, value, role| Bar { label: label.into(), value, role };
    let bars = [bar("conv1 <&>", 12.34, Role::Server), bar("fc1", 150.0, Role::Server)];
    let svg = bar_chart_svg("time per step", "ms", &bars).unwrap();
    for part in ["time per step", "12.3 ms", "150 ms", "conv1 &lt;&amp;&gt;", "server"] {
        assert!(svg.contains(part), "{part}");
    }
    assert!(!svg.contains("client"));
}

#[test]
fn any_values_have_bars() {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e300, 1e-300];
    let bars: Vec<Bar> =
        odd.iter().map(|&value| Bar { label: "x".repeat(100), value, role: Role::Client }).collect();
    bar_chart_svg("", "", &bars).unwrap();
    bar_chart_svg("none", "s", &[]).unwrap();
}
