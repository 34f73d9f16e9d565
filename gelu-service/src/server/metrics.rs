//! What a server counts, for Prometheus.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use gelu_io::session::{StepRecord, TrainingAccount, Turns};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tracing::warn;

use crate::Refusal;

/// The form of the text, as Prometheus asks for it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counters of one server.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) sessions: Gauge,
    turns: Arc<Turns>,
    waiting: Gauge,
    resumed: Counter,
    ended: Family<Ended, Counter>,
    refused: Family<Refused, Counter>,
    batches: Family<Model, Counter>,
    products: Family<Model, Counter>,
    bytes: Family<Moved, Counter>,
    segments: Family<Segment, Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Moved {
    model: String,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Segment {
    model: String,
    segment: String,
}

impl Metrics {
    /// Counters of a server whose conversations compute in these turns.
    pub(super) fn new(turns: Arc<Turns>) -> Self {
        // From a millisecond to a minute.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let mut metrics = Self {
            registry: Registry::with_prefix("gelu"),
            sessions: Gauge::default(),
            turns,
            waiting: Gauge::default(),
            resumed: Counter::default(),
            ended: Family::default(),
            refused: Family::default(),
            batches: Family::default(),
            products: Family::default(),
            bytes: Family::default(),
            segments: Family::new_with_constructor(histogram),
        };
        let Self {
            registry,
            sessions,
            waiting,
            resumed,
            ended,
            refused,
            batches,
            products,
            bytes,
            segments,
            turns: _,
        } = &mut metrics;
        registry.register("sessions", "Conversations that are held", sessions.clone());
        registry.register("waiting", "Conversations that wait for their turn to compute", waiting.clone());
        registry.register("resumed", "Conversations gone on with over another stream", resumed.clone());
        registry.register("ended", "Conversations that are over, by how they ended", ended.clone());
        registry.register("refused", "Requests refused, by reason", refused.clone());
        registry.register("batches", "Batches computed", batches.clone());
        registry.register("products", "Products and squarings mod n^2", products.clone());
        let help = "Messages' bytes, in from clients and out to them";
        registry.register_with_unit("messages", help, Unit::Bytes, bytes.clone());
        let help = "Time that a segment of a batch kept the server busy";
        registry.register_with_unit("segment", help, Unit::Seconds, segments.clone());
        metrics
    }

    pub(super) fn resumed(&self) {
        self.resumed.inc();
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.refused.get_or_create(&Refused { reason: refusal.to_string() }).inc();
    }

    /// Counts a conversation that is over.
    pub(super) fn ended(&self, model: &str, steps: &[StepRecord], is_whole: bool) {
        let model = model.to_owned();
        let outcome = if is_whole { "finished" } else { "broke off" };
        self.ended.get_or_create(&Ended { model: model.clone(), outcome }).inc();
        let batches = steps.iter().filter_map(|step| step.batch).max().map_or(0, |last| u64::from(last) + 1);
        self.batches.get_or_create(&Model { model: model.clone() }).inc_by(batches);
        let products = steps.iter().map(|step| step.products + step.checks).sum();
        self.products.get_or_create(&Model { model: model.clone() }).inc_by(products);
        for (direction, bytes) in [
            ("in", steps.iter().map(|step| step.bytes_in).sum::<usize>()),
            ("out", steps.iter().map(|step| step.bytes_out).sum::<usize>()),
        ] {
            self.bytes.get_or_create(&Moved { model: model.clone(), direction }).inc_by(bytes as u64);
        }
        for step in steps.iter().filter(|step| step.batch.is_some()) {
            let segment = Segment { model: model.clone(), segment: step.step.clone() };
            self.segments.get_or_create(&segment).observe(step.seconds);
        }
    }

    /// Counts a turn of training that is over.
    pub(super) fn turn_ended(&self, model: &str, account: &TrainingAccount, is_whole: bool) {
        let model = model.to_owned();
        let outcome = if is_whole { "finished" } else { "broke off" };
        self.ended.get_or_create(&Ended { model: model.clone(), outcome }).inc();
        self.products.get_or_create(&Model { model: model.clone() }).inc_by(account.operations());
        for (direction, bytes) in [("in", account.bytes_up()), ("out", account.bytes_down())] {
            self.bytes.get_or_create(&Moved { model: model.clone(), direction }).inc_by(bytes);
        }
    }

    fn text(&self) -> String {
        self.waiting.set(i64::try_from(self.turns.waiting()).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Answers Prometheus at `/metrics` until the task is aborted.
pub(super) async fn answer(listener: TcpListener, metrics: Arc<Metrics>) {
    let text = move || {
        let metrics = Arc::clone(&metrics);
        async move { ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text()) }
    };
    let address: Option<SocketAddr> = listener.local_addr().ok();
    if let Err(error) = axum::serve(listener, Router::new().route("/metrics", get(text))).await {
        warn!(?address, %error, "metrics are not answered any more");
    }
}
