//! What came out of private inference, and what it took.

use std::sync::Arc;

use gelu_io::session::{Phase, Role, StepRecord};
use gelu_models::plan::{HiddenPlan, Plan, Saturations};
use ndarray::{Array2, ArrayView2, Axis, concatenate};
use serde::Serialize;

use super::client::{Answered, Session};
use crate::Result;

/// What came out of a run, and what it took.
#[derive(Clone, Debug)]
pub struct InferenceReport {
    /// The plan of the first session.
    pub plan: Arc<Plan>,
    /// What hiding the model took, where it was hidden.
    pub hidden: Option<HiddenPlan>,
    /// The last segment's sums as integers, image after image. None where the client learns classes only.
    pub integers: Vec<i64>,
    /// The outputs before the final softmax, `[images, outputs]`. `[images, 0]` where the client learns classes only.
    pub logits: Array2<f64>,
    /// After the final activations, `[images, outputs]`. `[images, 0]` where the client learns classes only.
    pub outputs: Array2<f64>,
    /// The class of the largest logit of each image.
    pub predictions: Vec<usize>,
    /// Inputs and activations that were clamped to their declared range; where the model is hidden, nobody knows of activations.
    pub saturations: Saturations,
    /// Every step of both sides, batch after batch; of the client alone where the server is another machine.
    pub steps: Vec<StepRecord>,
    /// Seconds from the first hello to the last reply.
    pub seconds: f64,
    /// Of these, what was done before there was an image, where the model is hidden.
    pub seconds_ahead: f64,
    /// Of these, what was done with images.
    pub seconds_online: f64,
    /// The server's work; `None` where it is another machine, which keeps an account of its own.
    pub server: Option<ServerTotals>,
    /// The client's work.
    pub client: ClientTotals,
    /// Bytes from client to server.
    pub bytes_up: usize,
    /// Bytes from server to client.
    pub bytes_down: usize,
}

/// The server's work in all.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerTotals {
    /// Seconds that it was busy, those included in which the client was too: the sides' seconds can add up to more than
    /// the run's.
    pub seconds: f64,
    /// Products and squarings mod n^2, as many as the plans of all batches state.
    pub products: u64,
    /// Those of decoding and checking ciphertexts.
    pub checks: u64,
    /// Nanoseconds that it was busy for one of them, on as many cores as the client left it; without circuits and images where
    /// the model is hidden.
    pub ns_per_product: f64,
}

/// The client's work in all.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClientTotals {
    /// Seconds that it was busy.
    pub seconds: f64,
    /// Ciphertexts encrypted.
    pub encryptions: usize,
    /// Ciphertexts decrypted.
    pub decryptions: usize,
}

/// What a part of a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PhaseTotals {
    /// Seconds that the client was busy.
    pub client_seconds: f64,
    /// Seconds that the server was busy; `None` where it is another machine.
    pub server_seconds: Option<f64>,
    /// Bytes from client to server.
    pub bytes_up: usize,
    /// Bytes from server to client.
    pub bytes_down: usize,
}

impl InferenceReport {
    pub(super) fn new(session: Session) -> Result<Self> {
        let Session { plan, hidden, answers, steps, seconds: (seconds_ahead, seconds_online) } = session;
        let of = |party| steps.iter().filter(move |step| step.party == party);
        let seconds = |party| of(party).map(|step| step.seconds).sum::<f64>();
        let bytes = |of: fn(&StepRecord) -> usize| {
            steps.iter().filter(|step| step.party == Role::Client).map(of).sum()
        };
        // Tables are made once for a key, and no batch's plan counts them.
        let batches = of(Role::Server).filter(|step| step.batch.is_some());
        let products: u64 = batches.map(|step| step.products).sum();
        let is_local = of(Role::Server).next().is_some();
        let server = is_local.then(|| ServerTotals {
            seconds: seconds(Role::Server),
            products,
            checks: of(Role::Server).map(|step| step.checks).sum(),
            ns_per_product: on_ciphertexts(&steps) * 1e9 / products.max(1) as f64,
        });
        let client = ClientTotals {
            seconds: seconds(Role::Client),
            encryptions: of(Role::Client).map(|step| step.ciphertexts_out).sum(),
            decryptions: of(Role::Client).map(|step| step.ciphertexts_in).sum(),
        };
        let mut saturations = Saturations::default();
        let (mut integers, mut predictions) = (vec![], vec![]);
        let (mut logits, mut outputs) = (vec![], vec![]);
        for answered in answers {
            match answered {
                Answered::Outcome(outcome) => {
                    saturations.add(&outcome.saturations);
                    integers.extend_from_slice(outcome.integers.values());
                    predictions.extend(outcome.predictions());
                    logits.push(outcome.logits);
                    outputs.push(outcome.outputs);
                }
                Answered::Classes(classes) => {
                    logits.push(Array2::zeros((classes.len(), 0)));
                    outputs.push(Array2::zeros((classes.len(), 0)));
                    predictions.extend(classes);
                }
            }
        }
        let stack =
            |parts: &[Array2<f64>]| stacked(&parts.iter().map(|part| part.view()).collect::<Vec<_>>());
        Ok(Self {
            integers,
            logits: stack(&logits)?,
            outputs: stack(&outputs)?,
            predictions,
            saturations,
            seconds: 0.0,
            seconds_ahead,
            seconds_online,
            server,
            client,
            bytes_up: bytes(|step| step.bytes_out),
            bytes_down: bytes(|step| step.bytes_in),
            plan,
            hidden,
            steps,
        })
    }

    /// Returns what a part of the run took: steps of both sides, or of the client alone where the server is another machine.
    pub fn phase(&self, phase: Phase) -> PhaseTotals {
        let of = |party| self.steps.iter().filter(move |step| step.phase == phase && step.party == party);
        let seconds = |party| of(party).map(|step| step.seconds).sum::<f64>();
        PhaseTotals {
            client_seconds: seconds(Role::Client),
            server_seconds: self.server.map(|_| seconds(Role::Server)),
            bytes_up: of(Role::Client).map(|step| step.bytes_out).sum(),
            bytes_down: of(Role::Client).map(|step| step.bytes_in).sum(),
        }
    }

    /// Returns how many queries were prepared, where the model is hidden: as many as images, or more.
    pub fn prepared(&self) -> usize {
        // Each preparation has one step on the first segment's masks.
        let mut preparations =
            self.steps.iter().filter(|step| step.phase == Phase::Ahead && step.party == Role::Client);
        let first = preparations.next().map(|first| &first.step);
        let more = preparations.filter(|step| Some(&step.step) == first).count();
        first.map_or(0, |_| (1 + more) * self.plan.description().batch)
    }

    /// This run and then another of the same model.
    pub(super) fn join(mut self, other: Self) -> Result<Self> {
        self.logits = stacked(&[self.logits.view(), other.logits.view()])?;
        self.outputs = stacked(&[self.outputs.view(), other.outputs.view()])?;
        self.integers.extend(other.integers);
        self.predictions.extend(other.predictions);
        self.saturations.add(&other.saturations);
        self.steps.extend(other.steps);
        self.seconds_ahead += other.seconds_ahead;
        self.seconds_online += other.seconds_online;
        if let (Some(server), Some(other)) = (&mut self.server, other.server) {
            server.seconds += other.seconds;
            server.products += other.products;
            server.checks += other.checks;
            server.ns_per_product = on_ciphertexts(&self.steps) * 1e9 / server.products.max(1) as f64;
        }
        self.client.seconds += other.client.seconds;
        self.client.encryptions += other.client.encryptions;
        self.client.decryptions += other.client.decryptions;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        Ok(self)
    }
}

/// Seconds that the server was busy with ciphertexts, and with what they take before the first.
fn on_ciphertexts(steps: &[StepRecord]) -> f64 {
    let of_server = steps.iter().filter(|step| step.party == Role::Server);
    of_server.filter(|step| step.batch.is_none() || step.products > 0).map(|step| step.seconds).sum()
}

/// Lists the steps as a tensor meets them, the client's before the server's, batch after batch: at the client one more
/// of each batch than there are segments, unless the model is hidden; and before the first batch the client's hello, what the server does about it,
/// and what the client does while it waits.
pub(super) fn interleave(
    is_hidden: bool,
    client: Vec<StepRecord>,
    server: Vec<StepRecord>,
) -> Vec<StepRecord> {
    let split = |steps: Vec<StepRecord>| steps.into_iter().partition(|step| step.batch.is_none());
    let ((mut waiting, client), (opening, server)): ((Vec<_>, Vec<_>), (Vec<_>, Vec<_>)) =
        (split(client), split(server));
    let mut steps: Vec<StepRecord> = waiting.drain(..waiting.len().min(1)).collect();
    steps.extend(opening);
    steps.extend(waiting);
    let (mut client, mut server) = (client.into_iter().peekable(), server.into_iter());
    while let Some(step) = client.next() {
        let is_after = !is_hidden && client.peek().is_none_or(|next| next.batch != step.batch);
        steps.push(step);
        if !is_after {
            steps.extend(server.next());
        }
    }
    steps
}

/// Outputs of batches, one below the other.
fn stacked(parts: &[ArrayView2<'_, f64>]) -> Result<Array2<f64>> {
    concatenate(Axis(0), parts).map_err(|_| {
        let widths = [parts.first(), parts.last()].map(|part| part.map_or(0, |part| part.ncols()));
        let [expected, found] = widths;
        gelu_tensor::Error::Count { what: "outputs of a batch", expected, found }.into()
    })
}
