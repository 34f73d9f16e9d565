//! Private training, step by step.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use gelu_net::io::session::Go;
use gelu_net::models::train::private::{DMax, FixedPoint, Leakage, Samples, Statistics};
use gelu_net::models::train::{Dataset, TrainConfig};
use gelu_net::prelude::*;
use gelu_net::rand::rng;
use gelu_net::{Moment, TrainingOptions, TrainingSetup};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::{inputs, labels};
use crate::error::{Failure, Result};
use crate::key::parameters;
use crate::network::Network;
use crate::run::{ATTENTION, detached, enter};

/// What one step of private training did: an update of the weights by one client's batch.
#[pyclass(frozen, get_all, module = "gelu")]
#[derive(Clone)]
pub(crate) struct TrainingStep {
    /// The number of the step, from 1.
    step: u64,
    /// All steps of the run.
    steps: u64,
    /// The client whose turn it is, from 0.
    client: usize,
    /// The turn, from 0.
    turn: u64,
    /// Inputs of the batch.
    inputs: u64,
    /// Mean loss of the batch before the update, in nats.
    loss: f64,
    /// Share of the batch that was classified correctly before the update.
    accuracy: f64,
    /// Bytes from client to server in this step.
    bytes_up: u64,
    /// Bytes from server to client in this step.
    bytes_down: u64,
    /// Seconds that it took.
    seconds: f64,
}

#[pymethods]
impl TrainingStep {
    fn __repr__(&self) -> String {
        format!(
            "<gelu.TrainingStep {} of {} by client {}: loss {:.4}, accuracy {:.2}>",
            self.step, self.steps, self.client, self.loss, self.accuracy
        )
    }
}

/// Private training by clients that take turns, with all sides in this process, as an iterator of its steps: for experiments, and
/// to see what training between machines (`gelu serve --train`, `gelu client train`) will give, which is the same bit for bit.
///
/// A client's inputs leave it encrypted only; the server multiplies them with its weights and sees the sum of a turn's steps.
#[pyclass(frozen, module = "gelu")]
pub(crate) struct PrivateTrainer {
    name: String,
    /// With the weights of the last turn that ended.
    model: Arc<Mutex<Model>>,
    run: Mutex<Run>,
    clients: usize,
    steps: u64,
    key: String,
}

/// The thread that trains, which waits between two steps. It ends after its present one when this is dropped.
struct Run {
    /// Asks for a step.
    ask: SyncSender<()>,
    told: Receiver<Result<TrainingStep, Failure>>,
    /// Whether a step is asked for that was not told of yet.
    is_asked: bool,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what changed from one step to the next.
struct Recorder {
    tell: std::sync::mpsc::Sender<Result<TrainingStep, Failure>>,
    asked: Receiver<()>,
    done: u64,
    statistics: Statistics,
    bytes: (u64, u64),
    since: Instant,
}

impl Recorder {
    /// Tells of the step that was done, if one was, and waits for another to be wanted.
    fn between(&mut self, moment: &Moment<'_>, turn: u64) -> Go {
        let done = moment.server.iterations_done();
        if done == self.done {
            return Go::On;
        }
        let now = moment.clients.iter().map(|client| client.statistics()).fold(
            Statistics::default(),
            |sum, one| Statistics {
                images: sum.images + one.images,
                loss: sum.loss + one.loss,
                correct: sum.correct + one.correct,
                clamped: sum.clamped + one.clamped,
            },
        );
        let before = std::mem::replace(&mut self.statistics, now);
        let inputs = now.images.saturating_sub(before.images);
        let bytes = (moment.account.bytes_up(), moment.account.bytes_down());
        let (up, down) = std::mem::replace(&mut self.bytes, bytes);
        let step = TrainingStep {
            step: done,
            steps: moment.server.iterations(),
            client: (turn % moment.clients.len() as u64) as usize,
            turn,
            inputs,
            loss: (now.loss - before.loss) / inputs.max(1) as f64,
            accuracy: now.correct.saturating_sub(before.correct) as f64 / inputs.max(1) as f64,
            bytes_up: bytes.0.saturating_sub(up),
            bytes_down: bytes.1.saturating_sub(down),
            seconds: self.since.elapsed().as_secs_f64(),
        };
        self.done = done;
        let is_wanted = self.tell.send(Ok(step)).is_ok() && self.asked.recv().is_ok();
        self.since = Instant::now();
        if is_wanted { Go::On } else { Go::Stop }
    }

    /// Trains to the end, or until nobody wants more.
    fn run(mut self, mut training: LocalTraining, model: &Mutex<Model>) {
        if self.asked.recv().is_err() {
            return;
        }
        self.since = Instant::now();
        while !training.server().is_complete() {
            let turn = training.server().coordinator().turns;
            let ended =
                training.turn(&mut rng(), |moment| Ok::<_, gelu_net::Error>(self.between(&moment, turn)));
            let ended = ended.and_then(|ended| training.load_into(&mut lock(model)).map(|()| ended));
            match ended {
                Ok(true) if self.between(&training.moment(), turn) == Go::On => {}
                Ok(_) => return,
                Err(error) => {
                    // Who would be told may be gone.
                    let _ = self.tell.send(Err(error.into()));
                    return;
                }
            }
        }
    }
}

#[pymethods]
impl PrivateTrainer {
    /// Returns a run that trains a network, from its present weights, on what clients hold: a list of (x, y) with x float32 or
    /// float64 of shape [N, C, H, W] or [N, F] and y integers from 0 of shape [N]. The network ends in a softmax and has no batch
    /// norm.
    ///
    /// Batches of `batch_size` inputs, of which 60 fill a ciphertext under keys of 2048 bits; `learning_rate` and `momentum` of
    /// the descent; `seed` determines the order of inputs.
    /// `turn` is how many steps a client makes in one turn; by default that is drawn for every turn, as in the paper. `leakage`
    /// ("paper", "strict" or "off") bounds the steps of a client on the same weights by what it could solve for.
    ///
    /// Raises TrainingError when the network cannot be trained privately or the data does not fit it.
    #[new]
    #[pyo3(signature = (
        network, clients, *, epochs=1, batch_size=60, learning_rate=0.05, momentum=0.9, key_bits=2048, key_type="djn", turn=None,
        leakage="paper", seed=0
    ))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn new(
        py: Python<'_>,
        network: &Bound<'_, Network>,
        clients: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        epochs: u32,
        batch_size: usize,
        learning_rate: f64,
        momentum: f64,
        key_bits: usize,
        key_type: &str,
        turn: Option<u32>,
        leakage: &str,
        seed: u64,
    ) -> Result<Self> {
        enter()?;
        let model = network.get().model().clone();
        let (shape, classes) = (model.input_shape().clone(), model.output_shape().elements());
        let mut held: Vec<Arc<dyn Samples>> = vec![];
        let mut largest = 0.0_f32;
        for (x, y) in &clients {
            let x = inputs(x, &shape)?;
            largest = x.iter().fold(largest, |largest, x| largest.max(x.abs()));
            held.push(Arc::new(Dataset::new(shape.clone(), x, labels(y)?, classes)?));
        }
        let key = parameters(key_bits, key_type)?;
        let leakage: Leakage = leakage.parse()?;
        // Pixels from 0 to 1 take 8 bits, other numbers 10 up to the next power of two.
        let (input_bits, input_range) = match largest > 1.0 {
            true => (10, largest.log2().ceil().min(16.0) as i32),
            false => (8, 0),
        };
        let options = TrainingOptions {
            key,
            numbers: FixedPoint { input_bits, input_range, ..FixedPoint::default() },
            train: TrainConfig {
                epochs,
                batch_size,
                learning_rate,
                momentum,
                weight_decay: 0.0,
                seed,
                ..TrainConfig::default()
            },
            d_max: turn.map_or(DMax::Auto, DMax::Fixed),
            leakage,
            ..TrainingOptions::default()
        };
        let count = held.len();
        if count == 0 {
            return Err(
                PyValueError::new_err("clients: expected at least one pair of (x, y), found none").into()
            );
        }
        let training = detached(py, || -> Result<_> {
            Ok(LocalTraining::new(TrainingSetup::new(&model, held, &options)?, &mut rng())?)
        })??;
        let steps = training.server().iterations();
        let model = Arc::new(Mutex::new(model));
        let (tell, told) = channel();
        let (ask, asked) = sync_channel(1);
        let thread = {
            let model = Arc::clone(&model);
            let (statistics, since) = (Statistics::default(), Instant::now());
            let recorder = Recorder { tell, asked, done: 0, statistics, bytes: (0, 0), since };
            let work = move || recorder.run(training, &model);
            std::thread::Builder::new().name("gelu training".to_owned()).spawn(work)
        };
        let thread = Some(thread.map_err(gelu_net::Error::Thread)?);
        Ok(Self {
            name: network.get().name().to_owned(),
            model,
            run: Mutex::new(Run { ask, told, is_asked: false, thread }),
            clients: count,
            steps,
            key: format!("{key_bits} bits, {key_type}"),
        })
    }

    /// All steps of the run.
    #[getter]
    fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns the network with the weights of the last turn that ended, and ranges measured on typical inputs `calibration`.
    fn network(&self, py: Python<'_>, calibration: &Bound<'_, PyAny>) -> Result<Network> {
        let model = lock(&self.model).clone();
        Network::new(py, self.name.clone(), model, (None, None, None))?.calibrated(py, calibration)
    }

    fn __len__(&self) -> usize {
        self.steps as usize
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// Makes the next step. Ctrl-C leaves the run as it is: the step that was begun is made, and comes next.
    fn __next__(&self, py: Python<'_>) -> Result<Option<TrainingStep>> {
        enter()?;
        loop {
            let wait = || {
                let mut run = lock(&self.run);
                if !run.is_asked {
                    // A thread that is done tells nothing more.
                    run.is_asked = run.ask.send(()).is_ok();
                }
                let told = run.told.recv_timeout(ATTENTION);
                run.is_asked &= told.is_err();
                told
            };
            match py.detach(wait) {
                Ok(told) => return told.map(Some),
                Err(RecvTimeoutError::Disconnected) => {
                    if let Some(Err(panic)) = lock(&self.run).thread.take().map(JoinHandle::join) {
                        resume_unwind(panic);
                    }
                    return Ok(None);
                }
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            }
        }
    }

    fn __repr__(&self) -> String {
        format!(
            "<gelu.PrivateTrainer of {}: {} clients and a server in this process, each with a secret key ({})>",
            self.name, self.clients, self.key
        )
    }
}
