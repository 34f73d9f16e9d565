use super::*;

#[test]
fn cross_entropy_and_its_gradient() {
    let mut rng = seeded(4);
    let logits = random(&mut rng, [5, 3]) * 2.0;
    let labels = [0, 2, 1, 1, 0];
    let loss = |x: &Array2<f32>| CrossEntropy::of(x.view(), &labels).unwrap().loss;
    let gradient = CrossEntropy::of(logits.view(), &labels).unwrap().gradient;
    for at in ndarray::indices(logits.dim()) {
        let [mut above, mut below] = [logits.clone(), logits.clone()];
        above[at] += 1e-2;
        below[at] -= 1e-2;
        let step = f64::from(above[at]) - f64::from(below[at]);
        let slope = (loss(&above) - loss(&below)) / step;
        assert!(close(f64::from(gradient[at]), slope, 1e-4), "{at:?}: {} {slope}", gradient[at]);
    }
    let huge = CrossEntropy::of(ndarray::array![[500.0, -500.0]].view(), &[1]).unwrap();
    assert_eq!((huge.loss, huge.correct), (1000.0, 0));
}

#[test]
fn labels_that_do_not_fit_are_errors() {
    assert!(CrossEntropy::of(Array2::zeros((2, 3)).view(), &[0]).is_err());
    assert!(CrossEntropy::of(Array2::zeros((1, 3)).view(), &[3]).is_err());
    assert!(CrossEntropy::of(Array2::zeros((1, 3)).view(), &[2]).is_ok());
}
