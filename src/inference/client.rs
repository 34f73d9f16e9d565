//! The client's side of private inference, wherever the server is.

use std::sync::Arc;
use std::time::Instant;

use gelu_io::pool::BackgroundPool;
use gelu_io::session::{ClientSession, RunError, StepRecord};
use gelu_io::transport::{Disconnected, Transport};
use gelu_models::infer::Client;
use gelu_models::plan::{ClientFunction, HiddenPlan, Outcome, Plan, Preference};
use gelu_tensor::paillier::{RandomnessPool, SecretKey};
use ndarray::{ArrayView2, Axis};
use rand::rngs::ChaCha20Rng;
use rand::{CryptoRng, SeedableRng};

#[cfg(feature = "hidden")]
use super::hidden::Hiding;
use super::report::InferenceReport;
use crate::{Error, Result};

/// The client's side of private inference: a key, the batches that images go through in, and what it prepared. The server
/// is wherever the transport leads.
#[derive(Debug)]
pub struct InferenceClient {
    key: Arc<SecretKey>,
    pool: Option<BackgroundPool>,
    batch: usize,
    prefer: Preference,
    functions: ClientFunctions,
    goes_on: bool,
    #[cfg(feature = "hidden")]
    hiding: Option<Hiding>,
}

/// Sessions in a row that end without the answer to any batch, after which a run is given up.
const FRUITLESS_SESSIONS: u32 = 3;

/// The client's own functions, by name.
#[derive(Clone, Default)]
struct ClientFunctions(Vec<(String, Arc<ClientFunction>)>);

impl std::fmt::Debug for ClientFunctions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// What a session gives.
pub(super) struct Session {
    pub(super) plan: Arc<Plan>,
    /// Where the model is hidden.
    pub(super) hidden: Option<HiddenPlan>,
    pub(super) answers: Vec<Answered>,
    pub(super) steps: Vec<StepRecord>,
    /// On the clock, ahead and online.
    pub(super) seconds: (f64, f64),
}

/// What the client learns of a batch.
pub(super) enum Answered {
    Outcome(Box<Outcome>),
    #[cfg_attr(
        not(feature = "hidden"),
        expect(dead_code, reason = "only a hidden model has nothing else to say")
    )]
    Classes(Vec<usize>),
}

impl Answered {
    fn images(&self) -> usize {
        match self {
            Self::Outcome(outcome) => outcome.logits.nrows(),
            Self::Classes(classes) => classes.len(),
        }
    }
}

impl InferenceClient {
    /// Returns a client that sends batches of up to `batch` images under `key`.
    pub fn new(key: Arc<SecretKey>, batch: usize) -> Self {
        let (prefer, functions) = (Preference::default(), ClientFunctions::default());
        Self {
            key,
            pool: None,
            batch: batch.max(1),
            prefer,
            functions,
            goes_on: false,
            #[cfg(feature = "hidden")]
            hiding: None,
        }
    }

    /// Returns the client with plans that save something else, where there is a choice, than the
    /// [default](Preference::default).
    pub fn preferring(self, prefer: Preference) -> Self {
        Self { prefer, ..self }
    }

    /// Returns the client that, where the other side is gone, goes on in another session with the batches that have no answer
    /// yet: as when a server was restarted. They are encrypted anew. `connect` of [`run`](Self::run) is called again then, and
    /// can refuse; three sessions in a row without an answer end the run.
    pub fn going_on(self) -> Self {
        Self { goes_on: true, ..self }
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

    /// Returns the pool that encryptions draw from.
    pub fn pool(&self) -> Option<&RandomnessPool> {
        self.pool.as_ref().map(|background| &**background.pool())
    }

    /// Returns the key.
    pub fn key(&self) -> &Arc<SecretKey> {
        &self.key
    }

    pub(super) fn shared_pool(&self) -> Option<Arc<RandomnessPool>> {
        self.pool.as_ref().map(|background| Arc::clone(background.pool()))
    }

    pub(super) fn prefer(&self) -> Preference {
        self.prefer
    }

    pub(super) fn functions(&self) -> impl Iterator<Item = (&str, &Arc<ClientFunction>)> {
        self.functions.0.iter().map(|(name, function)| (&name[..], function))
    }

    #[cfg(feature = "hidden")]
    pub(super) fn hiding(&self) -> Option<Hiding> {
        self.hiding
    }

    #[cfg(feature = "hidden")]
    pub(super) fn hide(self, hiding: Hiding) -> Self {
        Self { hiding: Some(hiding), ..self }
    }

    /// Classifies images, `[images, elements]`, on a server that `connect` leads to: it is called for each session, of
    /// which there are two where the last images do not fill a batch. `progress` hears after each batch how many are
    /// through. Random numbers are of `rng`, which must be one for secrets.
    ///
    /// # Errors
    /// Those of `connect`, and [`Error::Inference`](crate::Error::Inference).
    pub fn run<T: Transport, E: From<crate::Error>>(
        &self,
        images: ArrayView2<'_, f32>,
        rng: &mut dyn CryptoRng,
        mut connect: impl FnMut() -> Result<T, E>,
        progress: impl FnMut(usize),
    ) -> Result<InferenceReport, E> {
        self.in_sessions(images, progress, |images, batch, progress| {
            let (mut report, mut done, mut fruitless): (Option<InferenceReport>, usize, u32) = (None, 0, 0);
            loop {
                let rest = images.split_at(Axis(0), done).1;
                let mut heard = |count| progress(done + count);
                let (session, lost) =
                    self.as_far_as_it_goes(connect()?, (rest, batch), rng, &mut heard).map_err(E::from)?;
                if let Some(session) = session.filter(|session| !session.answers.is_empty()) {
                    fruitless = 0;
                    done += session.answers.iter().map(Answered::images).sum::<usize>();
                    let part = InferenceReport::new(session)?;
                    report = Some(match report {
                        Some(report) if report.plan.description() != part.plan.description() => {
                            return Err(Error::OtherModel.into());
                        }
                        Some(report) => report.join(part)?,
                        None => part,
                    });
                }
                match (report, lost) {
                    (Some(report), None) => return Ok(report),
                    (Some(report), Some(_)) if self.goes_on && done >= images.nrows() => return Ok(report),
                    (so_far, Some(error))
                        if self.goes_on && fruitless < FRUITLESS_SESSIONS && is_gone(&error) =>
                    {
                        fruitless += 1;
                        report = so_far;
                    }
                    (_, Some(error)) => return Err(error.into()),
                    (None, None) => return Err(Error::from(Disconnected).into()),
                }
            }
        })
    }

    /// Whether all batches of a session have one size: that of its ciphertexts. Those of a hidden model are prepared for images of
    /// which each comes by itself.
    fn batches_are_equal(&self) -> bool {
        #[cfg(feature = "hidden")]
        if self.hiding.is_some() {
            return false;
        }
        true
    }

    /// Divides images among sessions and joins what comes out.
    pub(super) fn in_sessions<E: From<crate::Error>>(
        &self,
        images: ArrayView2<'_, f32>,
        mut progress: impl FnMut(usize),
        mut session: impl FnMut(ArrayView2<'_, f32>, usize, &mut dyn FnMut(usize)) -> Result<InferenceReport, E>,
    ) -> Result<InferenceReport, E> {
        let start = Instant::now();
        let full = match self.batches_are_equal() {
            true => images.nrows() / self.batch * self.batch,
            false => images.nrows(),
        };
        let mut report: Option<InferenceReport> = None;
        // The last images may not fill a batch: they get a session of their own size.
        let (whole, rest) = images.split_at(Axis(0), full);
        for (images, batch) in [(whole, self.batch), (rest, images.nrows() - full)] {
            if !images.is_empty() {
                let done = report.as_ref().map_or(0, |report| report.predictions.len());
                let part = session(images, batch, &mut |count| progress(done + count))?;
                report = Some(match report {
                    Some(report) => report.join(part)?,
                    None => part,
                });
            }
        }
        let mut report = match report {
            Some(report) => report,
            // No image: the client's own check names what is wrong.
            None => session(images, 1, &mut progress)?,
        };
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    /// One session with batches of `batch` images, to its end.
    pub(super) fn session(
        &self,
        transport: impl Transport,
        batches: (ArrayView2<'_, f32>, usize),
        rng: &mut dyn CryptoRng,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Session> {
        match self.as_far_as_it_goes(transport, batches, rng, progress)? {
            (_, Some(error)) => Err(error),
            (Some(session), None) => Ok(session),
            (None, None) => Err(Disconnected.into()),
        }
    }

    /// One session, or what there is of it when it breaks off, and why.
    fn as_far_as_it_goes(
        &self,
        transport: impl Transport,
        (images, batch): (ArrayView2<'_, f32>, usize),
        rng: &mut dyn CryptoRng,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Option<Session>, Option<Error>)> {
        #[cfg(feature = "hidden")]
        if let Some(hiding) = self.hiding {
            return self.hidden_session(hiding, transport, (images, batch), rng, progress);
        }
        let mut client = Client::new(Arc::clone(&self.key), batch as u32).preferring(self.prefer());
        for (name, function) in self.functions() {
            client = client.with_function(name, Arc::clone(function));
        }
        if let Some(pool) = self.shared_pool() {
            client.draw_from(pool)?;
        }
        let mut session = match ClientSession::open(transport, client, rng) {
            Ok(session) => session,
            Err(error) => return Ok((None, Some(error.into()))),
        };
        let plan = session.client().plan().cloned().ok_or(Disconnected)?;
        let start = Instant::now();
        let mut answers = vec![];
        let mut done = 0;
        let mut ended = session.infer_all(images.axis_chunks_iter(Axis(0), batch), rng, |outcome| {
            done += outcome.logits.nrows();
            answers.push(Answered::Outcome(Box::new(outcome)));
            progress(done);
        });
        if ended.is_ok() && answers.is_empty() {
            // The client's own check names what is wrong with no image.
            ended = session.infer(images, rng).map(|_| ());
        }
        let seconds = (0.0, start.elapsed().as_secs_f64());
        let ended = ended.and_then(|()| session.end(rng));
        let session = Session { plan, hidden: None, answers, steps: session.into_steps(), seconds };
        Ok((Some(session), ended.err().map(Error::from)))
    }
}

/// Whether the other side is gone, and nobody did anything wrong.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Inference(RunError::Disconnected(_)))
}
