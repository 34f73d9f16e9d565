//! A client's side of one session, whose caller has the connection and the clock.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use gelu_models::plan::{Plan, Reveal};
use gelu_tensor::paillier::{RandomnessPool, SecretKey};
use ndarray::ArrayView2;
use rand::CryptoRng;

use crate::conversation::{Conversation, Topic};
use crate::drive::{Mode, News};
use crate::{Error, Output, Step, StepKind};

/// A session with a server about one model, for one input at a time.
///
/// Whoever has a connection sends [`open`](Self::open) over it first, gives each frame that arrives to
/// [`take_frame`](Self::take_frame), calls [`work`](Self::work) until there is nothing to do, and sends what
/// [`next_frame`](Self::next_frame) has. When a connection breaks, another begins in the same way, and nothing is lost.
pub struct Session {
    conversation: Conversation,
    inbox: VecDeque<Vec<u8>>,
    mode: Mode,
    is_ready: bool,
    is_running: bool,
    output: Option<Output>,
}

impl Session {
    /// Returns a session that has said nothing yet, and takes random factors from the key's pool. `reveal` says what is learned
    /// where the model is hidden.
    ///
    /// # Errors
    /// [`Error::Key`] when the pool is of another key.
    pub fn new(
        key: Arc<SecretKey>,
        pool: Arc<RandomnessPool>,
        topic: Topic,
        reveal: Reveal,
    ) -> Result<Self, Error> {
        let mode = if topic.hidden { Mode::hidden(key, reveal) } else { Mode::revealed(key, pool)? };
        let conversation = Conversation::new(topic);
        let inbox = VecDeque::new();
        Ok(Self { conversation, inbox, mode, is_ready: false, is_running: false, output: None })
    }

    /// Returns the first frame of a new connection.
    pub fn open(&mut self) -> Vec<u8> {
        self.conversation.open()
    }

    /// Takes a frame that has arrived.
    ///
    /// # Errors
    /// [`Error`] when it is not the one that is due; the session is over then.
    pub fn take_frame(&mut self, frame: &[u8]) -> Result<(), Error> {
        let taken = self.conversation.take(frame);
        let message = self.guard(taken)?;
        self.inbox.extend(message);
        Ok(())
    }

    /// Returns the next frame to send over the connection that there is; `None` until there is more to say.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.conversation.next_frame()
    }

    /// Does one unit of work: takes a message, makes one, or something that will be needed. What was done comes back; nothing
    /// where there is nothing to do before another message arrives or the caller wants more.
    ///
    /// # Errors
    /// [`Error`]; the session is over then, and [`next_frame`](Self::next_frame) tells the server.
    pub fn work(&mut self, rng: &mut dyn CryptoRng) -> Result<Vec<Step>, Error> {
        let worked = self.try_work(rng);
        self.guard(worked)
    }

    fn try_work(&mut self, rng: &mut dyn CryptoRng) -> Result<Vec<Step>, Error> {
        if self.mode.is_closed() {
            return Ok(vec![]);
        }
        if let Some(bytes) = self.inbox.pop_front() {
            let (moved, news) = self.mode.take(&bytes, rng)?;
            match news {
                News::Nothing => {}
                News::Ready => self.is_ready = true,
                News::Done(output) => (self.output, self.is_running) = (Some(output), false),
            }
            let plan = self.mode.plan().map(|plan| &**plan);
            let [message, work] =
                Step::of_message((StepKind::Receive, moved.work), plan, moved.place, &bytes);
            return Ok(vec![message, work]);
        }
        if let Some((moved, bytes)) = self.mode.make(rng)? {
            let plan = self.mode.plan().map(|plan| &**plan);
            let [message, work] = Step::of_message((StepKind::Send, moved.work), plan, moved.place, &bytes);
            self.conversation.say(bytes);
            return Ok(vec![work, message]);
        }
        let made = self.mode.idle(rng);
        Ok(made.map(|(name, count)| Step::of_client(name, StepKind::Prepare, count)).into_iter().collect())
    }

    /// Returns whether the server has accepted and its plan was checked.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Returns the plan, once the server has accepted.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.mode.plan()
    }

    /// Asks [`work`](Self::work) for what can be made before so many inputs are there: random factors of encryptions, or all of
    /// a query but the input itself where the model is hidden.
    pub fn prepare(&mut self, inputs: usize) {
        self.mode.prepare(inputs);
    }

    /// Returns whether what was asked for is there, or as much of it as there is room for.
    pub fn is_prepared(&self) -> bool {
        self.is_ready && self.mode.is_prepared()
    }

    /// Begins an input of the model's shape, whose output [`work`](Self::work) leads to.
    ///
    /// # Errors
    /// [`Error::Input`] when it is not of that shape, or another is in progress; the session goes on.
    pub fn start(&mut self, input: &[f32]) -> Result<(), Error> {
        if self.mode.is_closed() {
            return Err(Error::Over);
        }
        let Some(plan) = self.mode.plan().filter(|_| self.is_ready && !self.is_running) else {
            return Err(Error::Input(
                "expected to wait for the session, or for the input before this one".to_owned(),
            ));
        };
        let shape = plan.graph().input();
        let (expected, found) = (shape.elements(), input.len());
        if found != expected {
            let dims = shape.dims();
            return Err(Error::Input(format!(
                "expected {expected} numbers, in the shape {dims:?}, found {found}"
            )));
        }
        if let Some(at) = input.iter().position(|number| !number.is_finite()) {
            return Err(Error::Input(format!("expected finite numbers, found {} at {at}", input[at])));
        }
        let input =
            ArrayView2::from_shape((1, found), input).map_err(|error| Error::Input(error.to_string()))?;
        let started = self.mode.start(input).map_err(Error::from);
        self.guard(started)?;
        (self.is_running, self.output) = (true, None);
        Ok(())
    }

    /// Returns what came out of the input that was started last, once.
    pub fn take_output(&mut self) -> Option<Output> {
        self.output.take()
    }

    /// Ends the session between two inputs: what is left is one message, which [`work`](Self::work) makes.
    ///
    /// # Errors
    /// [`Error::Session`] while an input is in progress; the session is over then, too.
    pub fn finish(&mut self) -> Result<(), Error> {
        let finished = self.mode.finish().map_err(Error::from);
        self.guard(finished)
    }

    /// Returns whether the session is over.
    pub fn is_over(&self) -> bool {
        self.mode.is_closed()
    }

    /// Returns whether the server has answered over the connection that there is.
    pub fn is_open(&self) -> bool {
        self.conversation.is_open()
    }

    /// Returns whether all that was said has been sent.
    pub fn is_flushed(&self) -> bool {
        self.conversation.is_flushed()
    }

    /// Returns the seconds that the server keeps the session after a connection broke; 0 before it has said so.
    pub fn kept_seconds(&self) -> u32 {
        self.conversation.kept_seconds()
    }

    /// Closes the session and tells the other side when something goes wrong.
    fn guard<R>(&mut self, result: Result<R, Error>) -> Result<R, Error> {
        result.inspect_err(|error| {
            self.mode.close();
            if let Some(message) = self.mode.abort(error) {
                self.conversation.say(message);
            }
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("conversation", &self.conversation).finish_non_exhaustive()
    }
}
