//! A session that hides the model, on a thread that prepares queries while nobody asks.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use gelu_models::infer::hidden::Answer;
use gelu_models::plan::{HiddenPlan, Plan};
use ndarray::ArrayD;
use rand::CryptoRng;

use super::{HiddenSession, RunError, StepRecord};
use crate::transport::{Disconnected, Transport};

/// Images, and who wants the answer.
type Request = (ArrayD<f32>, Sender<Result<Answer, RunError>>);

/// A client's end of a session that stays open between inputs. While nobody asks, a thread prepares queries, until as much is in
/// stock as may be ([`Client::keeping`](gelu_models::infer::hidden::Client::keeping)); an image goes before preparing, which then
/// waits. Dropping it ends the session.
///
/// Several threads can ask. Their images are answered one after another.
#[derive(Debug)]
pub struct BackgroundSession {
    requests: Sender<Request>,
    stock: Arc<Stock>,
    plans: Option<(Arc<Plan>, HiddenPlan)>,
    thread: JoinHandle<Result<Vec<StepRecord>, RunError>>,
}

/// How many queries are prepared, for whoever waits for them.
#[derive(Debug, Default)]
struct Stock {
    now: Mutex<Standing>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    prepared: usize,
    /// Whether no more are coming before some are used.
    is_full: bool,
}

impl Stock {
    fn set(&self, standing: Standing) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = standing;
        self.changed.notify_all();
    }
}

impl BackgroundSession {
    /// Moves a session to a thread of its own, which begins to prepare.
    ///
    /// # Errors
    /// [`std::io::Error`] when the system refuses a thread.
    pub fn new<T: Transport + Send + 'static>(
        session: HiddenSession<T>,
        rng: impl CryptoRng + Send + 'static,
    ) -> std::io::Result<Self> {
        let client = session.client();
        let plans = client.plan().cloned().zip(client.hidden_plan().cloned());
        let (requests, asked) = channel();
        let stock = Arc::new(Stock::default());
        let thread = {
            let stock = Arc::clone(&stock);
            Builder::new().name("hidden inference".into()).spawn(move || run(session, &asked, &stock, rng))?
        };
        Ok(Self { requests, stock, plans, thread })
    }

    /// Returns the plan, and what hiding the model takes.
    pub fn plans(&self) -> Option<&(Arc<Plan>, HiddenPlan)> {
        self.plans.as_ref()
    }

    /// Returns how many queries are prepared and not yet used.
    pub fn prepared(&self) -> usize {
        self.stock.now.lock().unwrap_or_else(PoisonError::into_inner).prepared
    }

    /// Waits until nothing more is prepared before some is used, or the session has failed, and returns how many queries are
    /// there.
    pub fn wait_until_full(&self) -> usize {
        let now = self.stock.now.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.stock.changed.wait_while(now, |now| !now.is_full);
        full.unwrap_or_else(PoisonError::into_inner).prepared
    }

    /// Sends images, `[images, elements]` or of the model's input shape, through the network and waits for the answer.
    ///
    /// # Errors
    /// [`RunError`], of preparing too; the session is over then, and says the same to whoever asks after.
    pub fn infer(&self, images: ArrayD<f32>) -> Result<Answer, RunError> {
        let (sender, answer) = channel();
        self.requests.send((images, sender)).map_err(|_| Disconnected)?;
        answer.recv().map_err(|_| Disconnected)?
    }

    /// Ends the session, after what is being prepared, and hands over the account of its steps.
    ///
    /// # Errors
    /// [`RunError`] of what failed first.
    pub fn finish(self) -> Result<Vec<StepRecord>, RunError> {
        let Self { requests, thread, .. } = self;
        drop(requests);
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Answers whoever asks, and prepares while nobody does.
fn run<T: Transport>(
    mut session: HiddenSession<T>,
    requests: &Receiver<Request>,
    stock: &Stock,
    mut rng: impl CryptoRng,
) -> Result<Vec<StepRecord>, RunError> {
    let mut failed = None;
    let mut is_full = false;
    loop {
        stock.set(Standing { prepared: session.client().prepared(), is_full: is_full || failed.is_some() });
        let request = match is_full || failed.is_some() {
            true => requests.recv().map_err(|_| TryRecvError::Disconnected),
            false => requests.try_recv(),
        };
        let worked = match (request, &failed) {
            (Err(TryRecvError::Disconnected), _) => break,
            (Ok((_, answer)), Some(error)) => {
                // Who asked may be gone.
                let _ = answer.send(Err(RunError::clone(error)));
                continue;
            }
            (Ok((images, answer)), None) => {
                is_full = false;
                let answered = session.infer(images.view(), &mut rng);
                let ended = answered.as_ref().err().cloned();
                // Before whoever asked can look.
                stock.set(Standing { prepared: session.client().prepared(), is_full: ended.is_some() });
                let _ = answer.send(answered);
                ended.map_or(Ok(()), Err)
            }
            (Err(TryRecvError::Empty), _) => session.prepare_some(&mut rng).map(|worked| is_full = !worked),
        };
        failed = worked.err();
    }
    if let Some(error) = failed {
        return Err(error);
    }
    while session.client().is_preparing() {
        session.prepare_some(&mut rng)?;
    }
    session.finish(&mut rng)
}
