//! Private inference: the client's side, and both sides on this machine.

mod client;
#[cfg(feature = "hidden")]
mod hidden;
mod report;

use std::sync::Arc;
use std::thread;

use gelu_io::session::{RunError, StepRecord, serve};
use gelu_io::transport::{Disconnected, InProcess};
use gelu_models::infer::{Server, ServerModel, SessionError};
use gelu_models::plan::{ClientFunction, Preference};
use gelu_tensor::paillier::{RandomnessPool, SecretKey};
use ndarray::{ArrayView, ArrayView2, Dimension};
use rand::rngs::ChaCha20Rng;
use rand::{CryptoRng, SeedableRng};

pub use self::client::InferenceClient;
use self::report::interleave;
pub use self::report::{ClientTotals, InferenceReport, PhaseTotals, ServerTotals};
use crate::{Error, Result};

/// Private inference with both sides on this machine, joined by a pipe of bytes: for demonstrations, tests and
/// measurements. Client and server are the same state machines as over a network.
#[derive(Debug)]
pub struct LocalInference {
    model: Arc<ServerModel>,
    client: InferenceClient,
}

impl LocalInference {
    /// Runs of `model` on batches of up to `batch` images under `key`.
    pub fn new(model: ServerModel, key: SecretKey, batch: usize) -> Self {
        Self::shared(Arc::new(model), Arc::new(key), batch)
    }

    /// Returns local inference with a model and a key that others use too.
    pub fn shared(model: Arc<ServerModel>, key: Arc<SecretKey>, batch: usize) -> Self {
        Self { model, client: InferenceClient::new(key, batch) }
    }

    /// Returns the same runs with the client changed, by any of its own settings.
    pub fn with_client(self, change: impl FnOnce(InferenceClient) -> InferenceClient) -> Self {
        Self { client: change(self.client), ..self }
    }

    /// Returns the same runs by plans that save something else, where there is a choice, than the
    /// [default](Preference::default).
    pub fn preferring(mut self, prefer: Preference) -> Self {
        self.client = self.client.preferring(prefer);
        self
    }

    /// Returns the same runs with the model hidden from the client, which learns what `reveal` says and no sums between
    /// ([`InferenceClient::hiding_model`]).
    #[cfg(feature = "hidden")]
    pub fn hiding_model(mut self, reveal: gelu_models::plan::Reveal) -> Self {
        self.client = self.client.hiding_model(reveal);
        self
    }

    /// Returns the same runs with the model hidden and so many queries prepared together ([`InferenceClient::preparing`]).
    #[cfg(feature = "hidden")]
    pub fn preparing(mut self, queries: usize) -> Self {
        self.client = self.client.preparing(queries);
        self
    }

    /// Adds a function of the client's own, which the model calls by its name
    /// ([`ModelBuilder::client_function`](gelu_models::ModelBuilder::client_function)).
    pub fn with_function(mut self, name: &str, function: Arc<ClientFunction>) -> Self {
        self.client = self.client.with_function(name, function);
        self
    }

    /// Makes the random factors of the client's next `factors` encryptions now (rounded down to a multiple of eight),
    /// and more of them in the background when fewer than half are left. Generators that `rng` seeds make them.
    pub fn with_pool(mut self, factors: usize, rng: &mut dyn CryptoRng) -> Self {
        self.client = self.client.with_pool(factors, rng);
        self
    }

    /// Returns the pool that the client draws from.
    pub fn pool(&self) -> Option<&RandomnessPool> {
        self.client.pool()
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
        progress: impl FnMut(usize),
    ) -> Result<InferenceReport> {
        let images = self.model.model().graph().flat_inputs(images)?;
        self.client.in_sessions(images.view(), progress, |images, batch, progress| {
            self.session((images, batch), rng, progress)
        })
    }

    /// One session with batches of `batch` images.
    fn session(
        &self,
        (images, batch): (ArrayView2<'_, f32>, usize),
        rng: &mut dyn CryptoRng,
        progress: &mut dyn FnMut(usize),
    ) -> Result<InferenceReport> {
        let (client_end, server_end) = InProcess::pair();
        thread::scope(|scope| {
            let server_rng = ChaCha20Rng::from_rng(rng);
            let serving = scope.spawn(move || self.serve(&server_end, server_rng));
            let client_result = self.client.session(&client_end, (images, batch), rng, progress);
            drop(client_end);
            let served = serving.join();
            // A thread that panicked hung up; the client then saw the broken pipe, unless it was done.
            let (server_steps, result) = served.map_err(|_| Disconnected)?;
            // A client that was told of an error, or found the server gone, was not the first to fail.
            let second = |error: &Error| {
                let Error::Inference(error) = error else { return false };
                matches!(error, RunError::Disconnected(_) | RunError::Peer(SessionError::Aborted(_)))
            };
            if client_result.as_ref().err().is_none_or(second) {
                result?;
            }
            let mut session = client_result?;
            session.steps = interleave(session.hidden.is_some(), session.steps, server_steps);
            InferenceReport::new(session)
        })
    }

    /// The server's side of a session, in the mode that the client is of.
    fn serve(&self, transport: &InProcess, mut rng: ChaCha20Rng) -> (Vec<StepRecord>, Result<(), RunError>) {
        let (model, backend) = (Arc::clone(&self.model), self.client.key().public_key().backend());
        #[cfg(feature = "hidden")]
        if self.client.hiding().is_some() {
            let server = gelu_models::infer::hidden::Server::new(model).on(backend);
            return serve(transport, server, &mut rng);
        }
        serve(transport, Server::new(model).on(backend), &mut rng)
    }
}
