//! Private inference with both sides on this machine.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use gelu_io::pool::BackgroundPool;
use gelu_io::session::{ClientSession, Role, RunError, StepRecord, serve};
use gelu_io::transport::InProcess;
use gelu_models::infer::{Client, Server, ServerModel, SessionError};
use gelu_models::plan::{ClientFunction, Plan, Preference, Saturations};
use gelu_tensor::paillier::{RandomnessPool, SecretKey};
use ndarray::{Array2, ArrayView, ArrayView2, Axis, Dimension, concatenate};
use rand::rngs::ChaCha20Rng;
use rand::{CryptoRng, SeedableRng};
use serde::Serialize;

use crate::{Error, Result};

/// Private inference with both sides on this machine, joined by a pipe of bytes: for demonstrations, tests and
/// measurements. Client and server are the same state machines as over a network.
#[derive(Debug)]
pub struct LocalInference {
    model: Arc<ServerModel>,
    key: Arc<SecretKey>,
    pool: Option<BackgroundPool>,
    batch: usize,
    prefer: Preference,
    functions: Functions,
}

/// The client's own functions, by name.
#[derive(Clone, Default)]
struct Functions(Vec<(String, Arc<ClientFunction>)>);

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// What came out of a run, and what it took.
#[derive(Clone, Debug)]
pub struct LocalReport {
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
    /// Every step of both sides, batch after batch.
    pub steps: Vec<StepRecord>,
    /// Seconds from the first hello to the last reply.
    pub seconds: f64,
    /// The server's work.
    pub server: ServerTotals,
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

impl LocalInference {
    /// Runs of `model` on batches of up to `batch` images under `key`.
    pub fn new(model: ServerModel, key: SecretKey, batch: usize) -> Self {
        Self::shared(Arc::new(model), Arc::new(key), batch)
    }

    /// Returns local inference with a model and a key that others use too.
    pub fn shared(model: Arc<ServerModel>, key: Arc<SecretKey>, batch: usize) -> Self {
        let (prefer, functions) = (Preference::default(), Functions::default());
        Self { model, key, pool: None, batch: batch.max(1), prefer, functions }
    }

    /// Returns the same runs by plans that save something else, where there is a choice, than the
    /// [default](Preference::default).
    pub fn preferring(self, prefer: Preference) -> Self {
        Self { prefer, ..self }
    }

    /// Adds a function of the client's own, which the model calls by its name
    /// ([`ModelBuilder::client_function`](gelu_models::ModelBuilder::client_function)).
    pub fn with_function(mut self, name: &str, function: Arc<ClientFunction>) -> Self {
        self.functions.0.push((name.to_owned(), function));
        self
    }

    /// Makes the random factors of the client's next `factors` encryptions now (rounded down to a multiple of eight),
    /// and more of them in the background when fewer than half are left. Generators that `rng` seeds make them.
    pub fn with_pool(mut self, factors: usize, rng: &mut dyn CryptoRng) -> Self {
        let generators = (0..rayon::current_num_threads())
            .map(|_| Box::new(ChaCha20Rng::from_rng(rng)) as Box<dyn CryptoRng + Send>)
            .collect();
        let key = Arc::clone(&self.key);
        let pool = BackgroundPool::new(key, factors, generators);
        pool.pool().wait_until_full();
        self.pool = Some(pool);
        self
    }

    /// Returns the pool that the client draws from.
    pub fn pool(&self) -> Option<&RandomnessPool> {
        self.pool.as_ref().map(|background| &**background.pool())
    }

    /// Returns the model that the server offers.
    pub fn model(&self) -> &ServerModel {
        &self.model
    }

    /// Runs images, `[images, elements]` or of the model's input shape; `progress` hears after each batch how many are through. The client's random
    /// numbers are of `rng`, which must be one for secrets, and the server's of a generator that `rng` seeds.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) when the images are not of the model's input shape;
    /// [`Error::Inference`](crate::Error::Inference) of the side that failed first.
    pub fn run<D: Dimension>(
        &self,
        images: ArrayView<'_, f32, D>,
        rng: &mut dyn CryptoRng,
        mut progress: impl FnMut(usize),
    ) -> Result<LocalReport> {
        let start = Instant::now();
        let images = self.model.model().graph().flat_inputs(images)?;
        let full = images.nrows() / self.batch * self.batch;
        let mut report: Option<LocalReport> = None;
        // The last images may not fill a batch: they get a session of their own size.
        let (whole, rest) = images.view().split_at(Axis(0), full);
        for (images, batch) in [(whole, self.batch), (rest, images.nrows() - full)] {
            if !images.is_empty() {
                let done = report.as_ref().map_or(0, |report| report.predictions.len());
                let part = self.session((images, batch), rng, |count| progress(done + count))?;
                report = Some(match report {
                    Some(report) => report.join(part)?,
                    None => part,
                });
            }
        }
        let mut report = match report {
            Some(report) => report,
            // No image: the client's own check names what is wrong.
            None => self.session((images.view(), 1), rng, progress)?,
        };
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    /// One session with batches of `batch` images.
    fn session(
        &self,
        (images, batch): (ArrayView2<'_, f32>, usize),
        rng: &mut dyn CryptoRng,
        mut progress: impl FnMut(usize),
    ) -> Result<LocalReport> {
        let (client_end, server_end) = InProcess::pair();
        thread::scope(|scope| {
            let server = Server::new(Arc::clone(&self.model)).on(self.key.public_key().backend());
            let mut server_rng = ChaCha20Rng::from_rng(rng);
            let serving = scope.spawn(move || serve(&server_end, server, &mut server_rng));
            let mut client_side = || {
                let mut client = Client::new(Arc::clone(&self.key), batch as u32).preferring(self.prefer);
                for (name, function) in &self.functions.0 {
                    client = client.with_function(name, Arc::clone(function));
                }
                if let Some(pool) = &self.pool {
                    client.draw_from(Arc::clone(pool.pool()))?;
                }
                let mut session = ClientSession::open(&client_end, client, rng)?;
                let plan = session.client().plan().cloned();
                let mut outcomes = vec![];
                let mut done = 0;
                let batches = images.axis_chunks_iter(Axis(0), batch);
                session.infer_all(batches, rng, |outcome| {
                    done += outcome.logits.nrows();
                    outcomes.push(outcome);
                    progress(done);
                })?;
                if outcomes.is_empty() {
                    outcomes.push(session.infer(images, rng)?);
                }
                Ok((plan, outcomes, session.finish(rng)?))
            };
            let client_result: Result<_> = client_side();
            drop(client_end);
            let served = serving.join();
            // A thread that panicked hung up; the client then saw the broken pipe, unless it was done.
            let (server_steps, result) = served.map_err(|_| gelu_io::transport::Disconnected)?;
            // A client that was told of an error, or found the server gone, was not the first to fail.
            let second = |error: &Error| {
                let Error::Inference(error) = error else { return false };
                matches!(error, RunError::Disconnected(_) | RunError::Peer(SessionError::Aborted(_)))
            };
            if client_result.as_ref().err().is_none_or(second) {
                result?;
            }
            let (plan, outcomes, client_steps) = client_result?;
            let plan = plan.ok_or(gelu_io::transport::Disconnected)?;
            let steps = interleave(client_steps, server_steps);
            LocalReport::new(plan, outcomes, steps)
        })
    }
}

/// Lists the steps as a tensor meets them, the client's before the server's, batch after batch: at the client one more
/// of each batch than there are segments; and before the first batch the client's hello, what the server does about it,
/// and what the client does while it waits.
fn interleave(client: Vec<StepRecord>, server: Vec<StepRecord>) -> Vec<StepRecord> {
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

impl LocalReport {
    fn new(
        plan: Arc<Plan>,
        outcomes: Vec<gelu_models::plan::Outcome>,
        steps: Vec<StepRecord>,
    ) -> Result<Self> {
        let of = |party| steps.iter().filter(move |step| step.party == party);
        let seconds = |party| of(party).map(|step| step.seconds).sum::<f64>();
        let bytes = |party| of(party).map(|step| step.bytes_out).sum::<usize>();
        // Tables are made once for a key, and no batch's plan counts them.
        let batches = of(Role::Server).filter(|step| step.batch.is_some());
        let products: u64 = batches.map(|step| step.products).sum();
        let server = ServerTotals {
            seconds: seconds(Role::Server),
            products,
            checks: of(Role::Server).map(|step| step.checks).sum(),
            ns_per_product: seconds(Role::Server) * 1e9 / products.max(1) as f64,
        };
        let client = ClientTotals {
            seconds: seconds(Role::Client),
            encryptions: of(Role::Client).map(|step| step.ciphertexts_out).sum(),
            decryptions: of(Role::Client).map(|step| step.ciphertexts_in).sum(),
        };
        let mut saturations = Saturations::default();
        outcomes.iter().for_each(|outcome| saturations.add(&outcome.saturations));
        let stack = |pick: fn(&gelu_models::plan::Outcome) -> ArrayView2<'_, f64>| {
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
            bytes_up: bytes(Role::Client),
            bytes_down: bytes(Role::Server),
            plan,
            steps,
        })
    }

    /// This run and then another of the same model.
    fn join(mut self, other: Self) -> Result<Self> {
        self.logits = stacked(&[self.logits.view(), other.logits.view()])?;
        self.outputs = stacked(&[self.outputs.view(), other.outputs.view()])?;
        self.integers.extend(other.integers);
        self.predictions.extend(other.predictions);
        self.saturations.add(&other.saturations);
        self.steps.extend(other.steps);
        self.server.seconds += other.server.seconds;
        self.server.products += other.server.products;
        self.server.checks += other.server.checks;
        self.server.ns_per_product = self.server.seconds * 1e9 / self.server.products.max(1) as f64;
        self.client.seconds += other.client.seconds;
        self.client.encryptions += other.client.encryptions;
        self.client.decryptions += other.client.decryptions;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        Ok(self)
    }
}

/// Outputs of batches, one below the other.
fn stacked(parts: &[ArrayView2<'_, f64>]) -> Result<Array2<f64>> {
    concatenate(Axis(0), parts).map_err(|_| {
        let widths = [parts.first(), parts.last()].map(|part| part.map_or(0, |part| part.ncols()));
        let [expected, found] = widths;
        gelu_tensor::Error::Count { what: "outputs of a batch", expected, found }.into()
    })
}
