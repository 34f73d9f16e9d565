//! Inference with the server in another place: what the network service and the client of this library do together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use gelu_net::prelude::*;
use gelu_net::{InferenceClient, InferenceReport};
use gelu_service::{
    ClientSecurity, Ledger, Limits, Modes, Patience, Remote, RemoteTransport, Running, ServerSecurity,
    Service, ServiceError,
};
use ndarray::Array2;

use crate::common::networks::randomize;
use crate::common::{KEY, deployment, quantization};

const IMAGES: usize = 40;

/// A network of so many features between its layers.
fn model(features: usize) -> Arc<ServerModel> {
    let mut model = ModelBuilder::new([6]).dense("fc1", features).relu().dense("fc2", 3).build().unwrap();
    randomize(&mut model, 9);
    model.set_ranges(Some([("input", 1.0), ("relu1", 4.0)].into_iter().collect()));
    Arc::new(ServerModel::new(model, quantization()))
}

fn images() -> Array2<f32> {
    Array2::from_shape_fn((IMAGES, 6), |(i, j)| ((i * 5 + j * 3) % 17) as f32 / 17.0)
}

fn start(address: &str, model: &Arc<ServerModel>, ledger: Option<&Arc<Ledger>>) -> Running {
    let limits = Limits { grace: Duration::ZERO, ..Limits::default() };
    let mut service = Service::new(limits).with_model("m", Arc::clone(model), Modes::revealed()).unwrap();
    if let Some(ledger) = ledger {
        service = service.with_ledger(Arc::clone(ledger), None);
    }
    service.start(address, &ServerSecurity::Loopback).unwrap()
}

fn remote(address: SocketAddr) -> Remote {
    let patience = Patience { reconnect: Duration::from_secs(20), ..Patience::default() };
    Remote::new(&format!("http://{address}"), &ClientSecurity::Loopback, patience).unwrap()
}

/// Runs a client that goes on, while `between` may replace the server after so many images.
fn run(
    remote: &Remote,
    after: usize,
    between: impl FnOnce() + Send,
) -> Result<(InferenceReport, usize), Box<dyn std::error::Error + Send + Sync>> {
    let client = InferenceClient::new(Arc::clone(&KEY), 1).going_on();
    let (reached, is_reached) = channel();
    let (replaced, is_replaced) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            if is_reached.recv().is_ok() {
                between();
            }
            let _ = replaced.send(());
        });
        let mut conversations = 0;
        let mut last: Option<Arc<RemoteTransport>> = None;
        let mut reached = Some(reached);
        let connect = || -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
            let opened = match last.take().and_then(|last| last.why()) {
                Some(why) if why.is_restart() => remote.open_again("m")?,
                Some(why) => return Err(why.into()),
                None => remote.open("m")?,
            };
            conversations += 1;
            Ok(Arc::clone(last.insert(Arc::new(opened))))
        };
        let progress = |done| {
            if done >= after
                && let Some(reached) = reached.take()
            {
                reached.send(()).unwrap();
                // The client says no more before the other server is there.
                is_replaced.recv().unwrap();
            }
        };
        let report = client.run(images().view(), &mut rand::rng(), connect, progress)?;
        Ok((report, conversations))
    })
}

#[test]
fn a_client_goes_on_after_the_server_was_restarted() {
    let model = model(4);
    let clear = model.program(&deployment(&KEY, 1)).unwrap().run_clear(images().view()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::open(folder.path()).unwrap());
    for after in [1, 7, IMAGES - 1] {
        let before: u64 = ledger.usage().unwrap().iter().map(|usage| usage.inputs).sum();
        let server = start("127.0.0.1:0", &model, Some(&ledger));
        let address = server.address();
        let mut second = None;
        let (report, conversations) = run(&remote(address), after, || {
            server.stop();
            second = Some(start(&address.to_string(), &model, Some(&ledger)));
        })
        .unwrap();
        assert_eq!(report.integers, clear.integers.values(), "after {after}");
        assert_eq!(report.predictions.len(), IMAGES);
        // The answer to the last may have arrived before the server was gone.
        assert!(conversations == 2 || after == IMAGES - 1, "{conversations} after {after}");
        assert!(report.bytes_up > 0 && report.client.encryptions >= IMAGES * 2);
        // What was lost on its way was asked for twice, and is counted twice: two batches at most.
        let asked = ledger.usage().unwrap().iter().map(|usage| usage.inputs).sum::<u64>() - before;
        assert!((IMAGES as u64..=IMAGES as u64 + 2).contains(&asked), "{asked}");
    }
}

#[test]
fn a_client_does_not_go_on_with_another_model() {
    let server = start("127.0.0.1:0", &model(4), None);
    let address = server.address();
    let mut second = None;
    let error = run(&remote(address), 3, || {
        server.stop();
        second = Some(start(&address.to_string(), &model(5), None));
    })
    .unwrap_err();
    assert!(error.to_string().contains("another model"), "{error}");
}

#[test]
fn a_server_that_does_not_come_back_is_waited_for_so_long_only() {
    let server = start("127.0.0.1:0", &model(4), None);
    let address = server.address();
    let patience = Patience { reconnect: Duration::from_millis(600), ..Patience::default() };
    let remote = Remote::new(&format!("http://{address}"), &ClientSecurity::Loopback, patience).unwrap();
    let error = run(&remote, 3, || server.stop()).unwrap_err();
    let error = error.downcast::<ServiceError>().unwrap();
    assert!(matches!(*error, ServiceError::Unreachable { .. } | ServiceError::Lost { .. }), "{error}");
}
