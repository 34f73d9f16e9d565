//! What came out of private inference, and what it took.

use std::sync::Arc;

use gelu_io::session::{Role, StepRecord};
use gelu_models::plan::{Outcome, Plan, Saturations};
use ndarray::{Array2, ArrayView2, Axis, concatenate};
use serde::Serialize;

use crate::Result;

/// What came out of a run, and what it took.
#[derive(Clone, Debug)]
pub struct InferenceReport {
    /// The plan of the first session.
    pub plan: Arc<Plan>,
    /// The last segment's sums as integers, image after image.
    pub integers: Vec<i64>,
    /// The outputs before the final softmax, `[images, outputs]`.
    pub logits: Array2<f64>,
    /// After the final activations, `[images, outputs]`.
    pub outputs: Array2<f64>,
    /// The class of the largest logit of each image.
    pub predictions: Vec<usize>,
    /// Inputs and activations that were clamped to their declared range.
    pub saturations: Saturations,
    /// Every step of both sides, batch after batch; of the client alone where the server is another machine.
    pub steps: Vec<StepRecord>,
    /// Seconds from the first hello to the last reply.
    pub seconds: f64,
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
    /// Nanoseconds that it was busy for one of them, on as many cores as the client left it.
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

impl InferenceReport {
    pub(super) fn new(plan: Arc<Plan>, outcomes: Vec<Outcome>, steps: Vec<StepRecord>) -> Result<Self> {
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
            ns_per_product: seconds(Role::Server) * 1e9 / products.max(1) as f64,
        });
        let client = ClientTotals {
            seconds: seconds(Role::Client),
            encryptions: of(Role::Client).map(|step| step.ciphertexts_out).sum(),
            decryptions: of(Role::Client).map(|step| step.ciphertexts_in).sum(),
        };
        let mut saturations = Saturations::default();
        outcomes.iter().for_each(|outcome| saturations.add(&outcome.saturations));
        let stack = |pick: fn(&Outcome) -> ArrayView2<'_, f64>| {
            let parts: Vec<_> = outcomes.iter().map(pick).collect();
            stacked(&parts)
        };
        Ok(Self {
            integers: outcomes.iter().flat_map(|outcome| outcome.integers.values()).copied().collect(),
            logits: stack(|outcome| outcome.logits.view())?,
            outputs: stack(|outcome| outcome.outputs.view())?,
            predictions: outcomes.iter().flat_map(|outcome| outcome.predictions()).collect(),
            saturations,
            seconds: 0.0,
            server,
            client,
            bytes_up: bytes(|step| step.bytes_out),
            bytes_down: bytes(|step| step.bytes_in),
            plan,
            steps,
        })
    }

    /// This run and then another of the same model.
    pub(super) fn join(mut self, other: Self) -> Result<Self> {
        self.logits = stacked(&[self.logits.view(), other.logits.view()])?;
        self.outputs = stacked(&[self.outputs.view(), other.outputs.view()])?;
        self.integers.extend(other.integers);
        self.predictions.extend(other.predictions);
        self.saturations.add(&other.saturations);
        self.steps.extend(other.steps);
        if let (Some(server), Some(other)) = (&mut self.server, other.server) {
            server.seconds += other.seconds;
            server.products += other.products;
            server.checks += other.checks;
            server.ns_per_product = server.seconds * 1e9 / server.products.max(1) as f64;
        }
        self.client.seconds += other.client.seconds;
        self.client.encryptions += other.client.encryptions;
        self.client.decryptions += other.client.decryptions;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        Ok(self)
    }
}

/// Lists the steps as a tensor meets them, the client's before the server's, batch after batch: at the client one more
/// of each batch than there are segments; and before the first batch the client's hello, what the server does about it,
/// and what the client does while it waits.
pub(super) fn interleave(client: Vec<StepRecord>, server: Vec<StepRecord>) -> Vec<StepRecord> {
    let split = |steps: Vec<StepRecord>| steps.into_iter().partition(|step| step.batch.is_none());
    let ((mut waiting, client), (opening, server)): ((Vec<_>, Vec<_>), (Vec<_>, Vec<_>)) =
        (split(client), split(server));
    let mut steps: Vec<StepRecord> = waiting.drain(..waiting.len().min(1)).collect();
    steps.extend(opening);
    steps.extend(waiting);
    let (mut client, mut server) = (client.into_iter().peekable(), server.into_iter());
    while let Some(step) = client.next() {
        let is_last = client.peek().is_none_or(|next| next.batch != step.batch);
        steps.push(step);
        if !is_last {
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
