//! Inference that hides the model, as a library's user runs it.

use std::sync::Arc;

use gelu_net::io::session::{Phase, Role, RunError};
use gelu_net::models::infer::SessionError;
use gelu_net::models::plan::Reveal;
use gelu_net::prelude::*;

use crate::common::{KEY, deployment, digits, quantization, shipped};

/// What is learned does not depend on how many queries are prepared together, how many images go through together, or whether
/// the last of either are fewer.
#[test]
fn hidden_networks_give_what_the_clear_ones_give() {
    let images = digits(31, 7);
    let served = Arc::new(ServerModel::new(shipped("lenet5"), quantization()));
    let clear = served.hidden_program(&deployment(&KEY, 1)).unwrap().run_clear(images.view()).unwrap();
    for (together, batch) in [(3, 2), (8, 7), (1, 1)] {
        let local = LocalInference::shared(Arc::clone(&served), Arc::clone(&KEY), batch).preparing(together);
        let mut through = vec![];
        let report = local.run(images.view(), &mut rand::rng(), |done| through.push(done)).unwrap();
        assert_eq!(report.integers, clear.integers.values(), "{together} prepared, {batch} at once");
        assert_eq!((&report.logits, &report.outputs), (&clear.logits, &clear.outputs));
        assert_eq!(report.predictions, clear.predictions());
        assert_eq!(through.last(), Some(&7));
        assert_eq!(report.prepared(), 7usize.next_multiple_of(together));
        assert!(report.hidden.is_some() && report.seconds_ahead + report.seconds_online <= report.seconds);
    }
}

fn lenet5() -> LocalInference {
    let served = Arc::new(ServerModel::new(shipped("lenet5"), quantization()));
    LocalInference::shared(served, Arc::clone(&KEY), 1)
}

/// All work on ciphertexts is done ahead, and the plan says what goes over the line with an image.
#[test]
fn the_account_tells_ahead_from_online() {
    let images = digits(32, 2);
    let local = lenet5().hiding_model(Reveal::Logits);
    let report = local.run(images.view(), &mut rand::rng(), |_| ()).unwrap();
    let (ahead, online) = (report.phase(Phase::Ahead), report.phase(Phase::Online));
    let segments = report.hidden.as_ref().unwrap().segments();
    let answers: usize = 2 * segments.iter().map(|segment| segment.answer).sum::<usize>();
    let shares: usize = 2 * segments.iter().map(|segment| segment.shares).sum::<usize>();
    // Headers say of each message which it is.
    assert!(online.bytes_down > answers && online.bytes_down < answers + answers / 20);
    assert!(online.bytes_up > shares && online.bytes_up < shares + 2 * 5 * 100);
    assert!(ahead.bytes_down > 2 * segments.iter().map(|segment| segment.tables).sum::<usize>());
    assert!(online.server_seconds.unwrap() > 0.0 && ahead.client_seconds > online.client_seconds);
    let on_ciphertexts = |phase| {
        let of_server =
            report.steps.iter().filter(move |step| step.party == Role::Server && step.phase == phase);
        of_server.map(|step| step.products + step.checks).sum::<u64>()
    };
    assert_eq!(on_ciphertexts(Phase::Online), 0);
    assert!(on_ciphertexts(Phase::Ahead) > 0);
    assert_eq!(
        report.bytes_down,
        [Phase::Opening, Phase::Ahead, Phase::Online]
            .map(|it| report.phase(it).bytes_down)
            .iter()
            .sum::<usize>()
    );
}

/// As many queries are prepared together, and as many at all, as the client has memory for.
#[test]
fn memory_bounds_what_is_prepared() {
    let images = digits(34, 5);
    let local = lenet5();
    let clear = local.model().hidden_program(&deployment(&KEY, 1)).unwrap().run_clear(images.view()).unwrap();
    let local = local.with_client(|client| client.preparing(4).keeping(5_500_000));
    let report = local.run(images.view(), &mut rand::rng(), |_| ()).unwrap();
    assert_eq!(report.integers, clear.integers.values());
    // A query of LeNet-5 takes 2 MB.
    assert_eq!((report.plan.description().batch, report.prepared()), (2, 6));
    let error =
        lenet5().with_client(|client| client.keeping(1_000_000)).run(images.view(), &mut rand::rng(), |_| ());
    let Err(Error::Inference(RunError::Peer(SessionError::Memory { needed, allowed }))) = error else {
        panic!("memory")
    };
    assert_eq!((needed, allowed), (report.hidden.unwrap().client_bytes(), 1_000_000));
}

/// Where the class is all that is revealed, there are no logits to be had.
#[test]
fn a_client_that_learns_classes_learns_no_logits() {
    let images = digits(33, 4);
    let served = Arc::new(ServerModel::new(shipped("lenet5"), quantization()));
    let clear = served.hidden_program(&deployment(&KEY, 1)).unwrap().run_clear(images.view()).unwrap();
    let local = LocalInference::shared(served, Arc::clone(&KEY), 4).hiding_model(Reveal::Class);
    let report = local.run(images.view(), &mut rand::rng(), |_| ()).unwrap();
    assert_eq!(report.predictions, clear.predictions());
    assert!(report.integers.is_empty());
    assert_eq!((report.logits.dim(), report.outputs.dim()), ((4, 0), (4, 0)));
}

/// Nothing is prepared for images that the client itself refuses.
#[test]
fn images_of_another_shape_are_refused() {
    let local = lenet5().hiding_model(Reveal::Logits);
    let images = ndarray::Array2::<f32>::zeros((0, 784));
    assert!(matches!(local.run(images.view(), &mut rand::rng(), |_| ()), Err(Error::Inference(_))));
}
