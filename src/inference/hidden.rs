//! The client's side where the model is hidden from it.

use std::sync::Arc;
use std::time::Instant;

use gelu_io::session::{BackgroundSession, HiddenSession, RunError};
use gelu_io::transport::{Disconnected, Transport};
use gelu_models::infer::hidden::{Answer, Client};
use gelu_models::plan::Reveal;
use ndarray::{ArrayView2, Axis};
use rand::CryptoRng;

use super::client::{Answered, InferenceClient, Session};
use crate::{Error, Result};

/// Queries that are prepared together where nobody says how many: more gain little.
const TOGETHER: usize = 25;

/// How the model is hidden.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hiding {
    pub(super) reveal: Reveal,
    together: Option<usize>,
    /// Bytes of memory for prepared queries.
    memory: usize,
}

impl Default for Hiding {
    fn default() -> Self {
        Self { reveal: Reveal::default(), together: None, memory: Client::MEMORY }
    }
}

impl InferenceClient {
    /// Returns the client with the model hidden from it: it learns what `reveal` says and no sums between. All work on
    /// ciphertexts is then done before the first image goes out, and images that go through together share round trips.
    pub fn hiding_model(self, reveal: Reveal) -> Self {
        let hiding = self.hiding().unwrap_or_default();
        self.hide(Hiding { reveal, ..hiding })
    }

    /// Returns the client with so many queries prepared together, of which each image takes one, where the model is
    /// [hidden](Self::hiding_model); it hides it, too. Where this is not said, they are prepared for all images, in equal parts of at most 25.
    ///
    /// More at a time are cheaper by the query, up to the slots of a ciphertext. They are fewer where [memory](Self::keeping) has
    /// no room for so many.
    pub fn preparing(self, queries: usize) -> Self {
        let hiding = self.hiding().unwrap_or_default();
        self.hide(Hiding { together: Some(queries.clamp(1, Client::MOST_PREPARED)), ..hiding })
    }

    /// Returns the client with so many bytes of memory for queries that are prepared and not yet used, where the model is
    /// [hidden](Self::hiding_model); it hides it, too. Default: 1 GB. A query of LeNet-5 takes 2 MB at the client, one of
    /// ResNet-20 some 300 MB.
    pub fn keeping(self, bytes: usize) -> Self {
        let hiding = self.hiding().unwrap_or_default();
        self.hide(Hiding { memory: bytes, ..hiding })
    }

    /// Opens a session that hides the model and stays open between inputs: a thread prepares queries while nobody asks, so that
    /// an image is answered at once. Its random numbers are of `rng`, which must be one for secrets. Where nothing else is
    /// said, 25 queries are prepared together, and the client learns the logits.
    ///
    /// # Errors
    /// [`Error::Inference`] when the server refuses; [`Error::Thread`] when the system refuses a thread.
    pub fn in_background<T: Transport + Send + 'static>(
        &self,
        transport: T,
        mut rng: impl CryptoRng + Send + 'static,
    ) -> Result<BackgroundSession> {
        let hiding = self.hiding().unwrap_or_default();
        let client = self.hidden_client(hiding, hiding.together.unwrap_or(TOGETHER))?;
        let session = HiddenSession::open(transport, client, &mut rng)?;
        BackgroundSession::new(session, rng).map_err(Error::Thread)
    }

    fn hidden_client(&self, hiding: Hiding, together: usize) -> Result<Client> {
        let mut client = Client::new(Arc::clone(self.key()), together as u32, hiding.reveal)
            .preferring(self.prefer())
            .keeping(hiding.memory);
        for (name, function) in self.functions() {
            client = client.with_function(name, Arc::clone(function));
        }
        if let Some(pool) = self.shared_pool() {
            client.draw_from(pool)?;
        }
        Ok(client)
    }

    /// One session, or what there is of it when it breaks off, and why.
    pub(super) fn hidden_session(
        &self,
        hiding: Hiding,
        transport: impl Transport,
        (images, batch): (ArrayView2<'_, f32>, usize),
        rng: &mut dyn CryptoRng,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Option<Session>, Option<Error>)> {
        // In equal parts, so that few are left over.
        let together = hiding.together.unwrap_or_else(|| {
            let parts = images.nrows().div_ceil(TOGETHER).max(1);
            images.nrows().div_ceil(parts).max(1)
        });
        let client = self.hidden_client(hiding, together)?;
        let mut session = match HiddenSession::open(transport, client, rng) {
            Ok(session) => session,
            Err(error) => return Ok((None, Some(error.into()))),
        };
        let plan = session.client().plan().cloned().ok_or(Disconnected)?;
        let hidden = session.client().hidden_plan().cloned();
        let (mut answers, mut done, mut seconds) = (vec![], 0, (0.0, 0.0));
        let mut go = || -> Result<(), RunError> {
            let mut batches = images.axis_chunks_iter(Axis(0), batch).peekable();
            if batches.peek().is_none() {
                // The client's own check names what is wrong with no image.
                session.infer(images, rng)?;
            }
            for images in batches {
                let start = Instant::now();
                while session.client().prepared() < images.nrows() && session.client().has_room() {
                    session.prepare(rng)?;
                }
                seconds.0 += start.elapsed().as_secs_f64();
                let start = Instant::now();
                let answer = session.infer(images, rng)?;
                seconds.1 += start.elapsed().as_secs_f64();
                answers.push(match answer {
                    Answer::Logits(outcome) => Answered::Outcome(outcome),
                    Answer::Classes(classes) => Answered::Classes(classes),
                });
                done += images.nrows();
                progress(done);
            }
            session.end(rng)
        };
        let ended = go();
        let session = Session { plan, hidden, answers, steps: session.into_steps(), seconds };
        Ok((Some(session), ended.err().map(Error::from)))
    }
}
