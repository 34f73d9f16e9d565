//! A client's part in a run of training: its place, its turns, and what it keeps so that nothing is lost.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gelu_io::session::{Go, RunError, TrainingAccount, take_turn};
use gelu_models::train::private::{Client, Event, ParticipantConfig, PrivateError, Samples, Statistics};
use gelu_tensor::Backend;
use gelu_tensor::paillier::SecretKey;
use rand::CryptoRng;

use super::conversation::{About, Topic};
use super::{Membership, Offer, Remote, TrainingOffer};
use crate::proto::await_turn_response::State;
use crate::{Refusal, SERVICE_VERSION, ServiceError, proto};

/// How long a server keeps a client's question for its turn open, with time to spare.
const LONGEST_POLL: Duration = Duration::from_secs(30);

/// Between two attempts to reach a server that fail: the first, and the longest of those that follow.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a caller hears while a client trains.
#[derive(Debug)]
pub enum Moment<'a> {
    /// Other clients are yet to come, or another has its turn.
    Waiting(&'a TrainingOffer),
    /// An iteration of the client's turn begins. What it has met so far comes along.
    Iteration(Statistics),
    /// This is to be kept before the client goes on: with it, nothing is lost whichever side fails.
    Keep(&'a Membership),
    /// The server cannot be reached, or has lost the conversation: it is tried again.
    Retrying(&'a ServiceError),
}

/// A client that trains with a server on another machine.
///
/// ```
/// use std::sync::Arc;
///
/// use gelu_io::session::Go;
/// use gelu_models::ModelBuilder;
/// use gelu_models::train::private::TrainingOptions;
/// use gelu_models::train::{Dataset, TrainConfig};
/// use gelu_service::{
///     ClientSecurity, Ledger, Limits, Moment, Patience, Remote, RemoteTraining, ServerSecurity, Service, Training,
/// };
/// use gelu_tensor::Backend;
/// use gelu_tensor::paillier::KeyBits;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The server, with a key that is too short for anything but examples.
/// let folder = tempfile::tempdir()?;
/// let defaults = TrainingOptions::default();
/// let options = TrainingOptions {
///     key: KeyBits::Bits1024.into(),
///     train: TrainConfig { batch_size: 2, epochs: 1, ..defaults.train },
///     ..defaults
/// };
/// let model = ModelBuilder::new([3]).dense("fc", 2).softmax().build()?;
/// let training = Training { model, options, clients: 1, turns: None, turns_an_hour: None, weights: None };
/// let server = Service::new(Limits::default())
///     .with_ledger(Arc::new(Ledger::open(folder.path())?), None)
///     .with_training("small", training)?
///     .start("127.0.0.1:0", &ServerSecurity::Loopback)?;
///
/// // The client, who would be on another machine and have certificates.
/// let address = format!("http://{}", server.address());
/// let remote = Remote::new(&address, &ClientSecurity::Loopback, Patience::default())?;
/// let offer = remote.find("small")?;
/// let inputs = ndarray::array![[0.1, 0.9, 0.2], [0.8, 0.1, 0.3], [0.2, 0.7, 0.1], [0.9, 0.2, 0.4]];
/// let samples = Arc::new(Dataset::new([3].into(), inputs, vec![0, 1, 0, 1], 2)?);
/// let rng = &mut rand::rng();
/// let mut client = RemoteTraining::new(remote, &offer, samples, None, Backend::detect(), rng)?;
/// let is_complete = client.run(rng, |moment| -> Result<Go, Box<dyn std::error::Error>> {
///     if let Moment::Keep(membership) = moment {
///         // It holds the client's steps: a secret. Whoever passes it to `RemoteTraining::new` goes on from here.
///         gelu_io::files::write_secret(&folder.path().join("kept.json"), &serde_json::to_vec(membership)?)?;
///     }
///     Ok(Go::On)
/// })?;
/// assert!(is_complete);
/// assert_eq!(client.membership().statistics().images, 4);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RemoteTraining {
    remote: Remote,
    model: String,
    offer: TrainingOffer,
    samples: Held,
    key: Arc<SecretKey>,
    wanted: Option<u32>,
    membership: Membership,
    client: Option<Client>,
}

/// The client's data.
struct Held(Arc<dyn Samples>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples", self.0.count())
    }
}

/// Why a turn did not come to its end.
enum Broken<E> {
    /// There is no connection, or no conversation, any more.
    Connection(ServiceError),
    /// One side broke the protocol.
    Run(RunError<PrivateError>),
    /// The caller has an error of its own.
    Caller(E),
}

impl<E> From<RunError<PrivateError>> for Broken<E> {
    fn from(error: RunError<PrivateError>) -> Self {
        Self::Run(error)
    }
}

impl RemoteTraining {
    /// Returns a client that takes part in the run of an offer, with a key that is made for it. `kept` is what it has kept of
    /// its part in the run so far.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] when the model is offered for inference; [`ServiceError::AnotherRun`] when what was kept is of
    /// another run; [`ServiceError::Training`] when no key can be made.
    pub fn new(
        remote: Remote,
        offer: &Offer,
        samples: Arc<dyn Samples>,
        kept: Option<Membership>,
        backend: Backend,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, ServiceError> {
        let Some(training) = offer.training else {
            return Err(ServiceError::Refused {
                server: remote.server().to_owned(),
                refusal: Refusal::UnknownModel,
                message: format!("`{}` is offered for inference, not for training", offer.name),
            });
        };
        let inputs = samples.count() as u64;
        let membership = match kept {
            Some(kept) if kept.run != training.run || kept.inputs != inputs => {
                return Err(ServiceError::AnotherRun);
            }
            Some(kept) => kept,
            None => {
                let mut name = [0; 16];
                rng.fill_bytes(&mut name);
                Membership {
                    run: training.run,
                    client: name.iter().map(|byte| format!("{byte:02x}")).collect(),
                    place: None,
                    inputs,
                    description: None,
                    state: None,
                    account: TrainingAccount::default(),
                }
            }
        };
        let refused = |error: PrivateError| ServiceError::Training {
            model: offer.name.clone(),
            error: Box::new(error),
        };
        let key = SecretKey::generate(training.key, rng).and_then(|key| key.on(backend));
        let key = Arc::new(key.map_err(|error| refused(error.into()))?);
        let (model, samples) = (offer.name.clone(), Held(samples));
        Ok(Self { remote, model, offer: training, samples, key, wanted: None, membership, client: None })
    }

    /// Asks for a certain place, from 0, when the client takes part for the first time. Else it gets the first free one.
    pub fn at(self, place: u32) -> Self {
        Self { wanted: Some(place), ..self }
    }

    /// Returns what the client keeps.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns how the run stood when the server was asked last.
    pub fn offer(&self) -> &TrainingOffer {
        &self.offer
    }

    /// Takes part until the run is complete, or until `watch` says so. Broken connections and servers that restart are
    /// waited for as long as the client's patience with connections lasts.
    ///
    /// Returns whether the run is complete.
    ///
    /// # Errors
    /// [`ServiceError`], [`RunError`], or what `watch` gives. What was kept last is what the client can go on from.
    pub fn run<E: From<ServiceError> + From<RunError<PrivateError>>>(
        &mut self,
        rng: &mut dyn CryptoRng,
        mut watch: impl FnMut(Moment<'_>) -> Result<Go, E>,
    ) -> Result<bool, E> {
        // The name must be known when the client comes back.
        watch(Moment::Keep(&self.membership))?;
        let (mut failing, mut pause): (Option<Instant>, _) = (None, FIRST_PAUSE);
        loop {
            let tried = match self.await_turn() {
                Ok(State::Complete) => return Ok(true),
                Ok(State::Yours) => match self.turn(rng, &mut watch) {
                    Ok(go) => Ok(go),
                    Err(Broken::Connection(error)) => Err(error),
                    Err(Broken::Run(error)) => return Err(error.into()),
                    Err(Broken::Caller(error)) => return Err(error),
                },
                Ok(State::Gathering | State::Waiting) => Ok(watch(Moment::Waiting(&self.offer))?),
                Err(error) => Err(error),
            };
            match tried {
                Ok(Go::On) => (failing, pause) = (None, FIRST_PAUSE),
                Ok(Go::Stop) => return Ok(false),
                Err(error) => {
                    let since = *failing.get_or_insert_with(Instant::now);
                    if !error.may_pass() || since.elapsed() > self.remote.dialer.patience().reconnect {
                        return Err(error.into());
                    }
                    if watch(Moment::Retrying(&error))? == Go::Stop {
                        return Ok(false);
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Asks for a turn, and gets a place the first time.
    fn await_turn(&mut self) -> Result<State, ServiceError> {
        let Remote { dialer, runtime, .. } = &self.remote;
        let request = proto::AwaitTurnRequest {
            version: SERVICE_VERSION,
            model: self.model.clone(),
            client: self.membership.client.clone(),
            inputs: self.membership.inputs,
            place: self.membership.place.or(self.wanted),
        };
        let answer: Result<_, ServiceError> = runtime.block_on(async {
            let mut client = dialer.dial().await?;
            let answer = dialer.within(LONGEST_POLL, client.await_turn(request)).await?;
            Ok(answer.map_err(|status| dialer.failure(&status))?.into_inner())
        });
        let answer: proto::AwaitTurnResponse = answer?;
        let state = answer.state();
        let said = answer.training.ok_or_else(|| ServiceError::Stream {
            expected: "an answer with the run",
            found: "one without".to_owned(),
        })?;
        self.offer = TrainingOffer::read(said)?;
        if self.offer.run != self.membership.run {
            return Err(ServiceError::AnotherRun);
        }
        self.membership.place = Some(answer.place);
        Ok(state)
    }

    /// The client as it is between turns, or where it was interrupted.
    fn client(&mut self, place: u32) -> Result<Client, PrivateError> {
        if let Some(client) = self.client.take() {
            return Ok(client);
        }
        let TrainingOffer { seed, momentum, .. } = self.offer;
        let config = ParticipantConfig { client: place, seed, momentum };
        let (key, samples) = (self.key.clone(), self.samples.0.clone());
        match (self.membership.state.clone(), self.membership.description.clone()) {
            (Some(state), Some(description)) => Client::resume(key, samples, config, description, state),
            _ => Ok(Client::new(key, samples, config)),
        }
    }

    /// Trains for a turn.
    fn turn<E>(
        &mut self,
        rng: &mut dyn CryptoRng,
        watch: &mut impl FnMut(Moment<'_>) -> Result<Go, E>,
    ) -> Result<Go, Broken<E>> {
        let topic = Topic {
            model: self.model.clone(),
            about: About::Turn { client: self.membership.client.clone() },
        };
        let transport = self.remote.open_about(topic).map_err(Broken::Connection)?;
        let place = self.membership.place.unwrap_or_default();
        let mut client = self.client(place).map_err(|error| Broken::Run(RunError::Peer(error)))?;
        let (mut account, membership) = (self.membership.account.clone(), &mut self.membership);
        let turn = take_turn(&transport, &mut client, &mut account, rng, |client, event| {
            let go = match event {
                Event::Ready => {
                    membership.take(client);
                    match watch(Moment::Keep(membership)) {
                        Ok(Go::On) => watch(Moment::Iteration(client.statistics())),
                        other => other,
                    }
                }
                Event::Ended => watch(Moment::Iteration(client.statistics())),
            };
            go.map_err(Broken::Caller)
        });
        match turn {
            Ok(true) => {
                membership.take(&client);
                membership.account = account;
                self.client = Some(client);
                watch(Moment::Keep(&self.membership)).map_err(Broken::Caller)
            }
            // It is kept as it stands, whatever the caller says to that.
            Ok(false) => {
                watch(Moment::Keep(membership)).map_err(Broken::Caller)?;
                Ok(Go::Stop)
            }
            // What the transport knows says more than that it is closed.
            Err(Broken::Run(RunError::Disconnected(_))) => {
                Err(Broken::Connection(transport.why().unwrap_or(ServiceError::Ended)))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
