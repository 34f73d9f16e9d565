mod encrypted;
mod failures;
mod graphs;
mod learning;
mod paper;
mod plans;
mod protocol;

use std::sync::{Arc, LazyLock};

use gelu_layers::Initializer;
use gelu_tensor::Shape;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::peer::Peer;
use crate::tests::secret_key;
use crate::train::{Dataset, TrainConfig};
use crate::{Model, ModelBuilder};

/// A key of each type, and one that nobody knows.
static KEYS: LazyLock<[Arc<SecretKey>; 3]> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(11);
    [KeyType::ALL[0], KeyType::ALL[1], KeyType::ALL[0]].map(|key_type| {
        let parameters = KeyParameters { size: KeyBits::Bits1024, key_type };
        Arc::new(secret_key(parameters, &mut rng))
    })
});

fn dataset(shape: Shape, count: usize, classes: usize, seed: u64) -> Arc<Dataset> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let inputs = Array2::from_shape_fn((count, shape.elements()), |_| rng.random_range(-1.0..1.0f32));
    let labels = (0..count).map(|_| rng.random_range(0..classes)).collect();
    Arc::new(Dataset::new(shape, inputs, labels, classes).unwrap())
}

fn describe(model: &Model, batch: usize, numbers: FixedPoint) -> Description {
    let [client, server] = [&KEYS[0], &KEYS[1]].map(|key| key.public_key().parameters());
    Description::new(model, batch, numbers, client, server.size)
}

/// Whose settings a test does not care for.
#[derive(Clone, Copy)]
struct Setup {
    batch: usize,
    clients: usize,
    images: usize,
    numbers: FixedPoint,
    iterations: u32,
    seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { batch: 2, clients: 1, images: 4, numbers: FixedPoint::default(), iterations: 2, seed: 3 }
    }
}

struct Run {
    plan: Arc<TrainPlan>,
    config: CoordinatorConfig,
    parameters: Vec<i64>,
    data: Arc<Dataset>,
    clients: usize,
    momentum: f64,
}

impl Run {
    fn new(mut model: Model, setup: Setup) -> Self {
        let Setup { batch, clients, images, numbers, iterations, seed } = setup;
        model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(seed));
        let plan = Arc::new(TrainPlan::new(describe(&model, batch, numbers)).unwrap());
        let parameters = plan.quantize(&model.weights()).unwrap();
        let train = TrainConfig {
            learning_rate: 0.05,
            weight_decay: 0.0,
            batch_size: batch,
            epochs: 1,
            seed,
            ..TrainConfig::default()
        };
        let (images, d_max, leakage) = (images as u64, DMax::Fixed(iterations), Leakage::Off);
        let config = CoordinatorConfig { train, images, d_max, leakage };
        let data = dataset(model.input_shape().clone(), setup.images, model.output_shape().elements(), seed);
        Self { plan, config, parameters, data, clients, momentum: 0.5 }
    }

    fn participant(&self, client: usize) -> (Arc<dyn Samples>, ParticipantConfig) {
        let shard: Arc<dyn Samples> = Arc::new(Shard::divide(&self.data, self.clients)[client].clone());
        let config = ParticipantConfig {
            client: client as u32,
            seed: self.config.train.seed,
            momentum: self.momentum,
        };
        (shard, config)
    }

    fn fixed(&self) -> FixedTrainer {
        let clients = (0..self.clients).map(|client| self.participant(client));
        FixedTrainer::new(self.plan.clone(), self.config.clone(), self.parameters.clone(), clients).unwrap()
    }

    fn server(&self, key: usize) -> Server {
        self.try_server(key).unwrap()
    }

    fn try_server(&self, key: usize) -> Result<Server, PrivateError> {
        Server::new(self.plan.clone(), KEYS[key].clone(), self.config.clone(), self.parameters.clone())
    }

    fn client(&self, client: usize, key: usize) -> Client {
        let (samples, config) = self.participant(client);
        Client::new(KEYS[key].clone(), samples, config)
    }
}

/// A run of two dense layers, of four iterations a turn and two turns.
fn small() -> Run {
    let model = ModelBuilder::new([3]).dense("fc1", 4).tanh().dense("fc2", 3).softmax().build().unwrap();
    Run::new(model, Setup { clients: 2, images: 16, iterations: 4, ..Setup::default() })
}

/// A run with everything that messages can be of: a segment of two terms, one of which has errors that go back.
fn branches() -> Run {
    let model = ModelBuilder::new([3])
        .residual_with(|b| b.dense("a", 4).tanh().dense("b", 2), |b| b.dense("c", 2))
        .tanh()
        .dense("fc", 3)
        .softmax()
        .build()
        .unwrap();
    Run::new(model, Setup { images: 6, iterations: 3, ..Setup::default() })
}

/// One side's message on its way to the other.
enum Said {
    ByClient(Message),
    ByServer(Message),
}

impl Said {
    fn message(&self) -> &Message {
        match self {
            Self::ByClient(message) | Self::ByServer(message) => message,
        }
    }
}

/// A turn of a client and a server, message by message.
struct Talk<'a> {
    server: &'a mut Server,
    client: &'a mut Client,
    rng: ChaCha20Rng,
}

impl<'a> Talk<'a> {
    fn new(server: &'a mut Server, client: &'a mut Client, seed: u64) -> Result<Self, PrivateError> {
        client.join()?;
        Ok(Self { server, client, rng: ChaCha20Rng::seed_from_u64(seed) })
    }

    /// The next message of either side, whichever happens to be faster.
    fn next(&mut self) -> Result<Option<Said>, PrivateError> {
        for client in if self.rng.random() { [true, false] } else { [false, true] } {
            let said = match client {
                true => self.client.next_message(&mut self.rng)?.map(Said::ByClient),
                false => self.server.next_message(&mut self.rng)?.map(Said::ByServer),
            };
            if said.is_some() {
                return Ok(said);
            }
        }
        Ok(None)
    }

    fn deliver(&mut self, said: Said) -> Result<Option<Event>, PrivateError> {
        match said {
            Said::ByClient(message) => self.server.handle(message, &mut self.rng).map(|_| None),
            Said::ByServer(message) => self.client.handle(message, &mut self.rng),
        }
    }

    /// Goes on to the end of the turn, or until `stop` says so when an iteration may begin.
    fn run(&mut self, mut stop: impl FnMut(&Server) -> bool) -> Result<bool, PrivateError> {
        while let Some(said) = self.next()? {
            match self.deliver(said)? {
                Some(Event::Ready) => {
                    if stop(self.server) {
                        return Ok(false);
                    }
                    self.client.proceed()?;
                }
                Some(Event::Ended) => {
                    assert!(self.server.is_closed() && self.client.is_closed());
                    return Ok(true);
                }
                None => {}
            }
        }
        Err(PrivateError::Bug("both sides wait for each other"))
    }
}

/// Runs one turn, or until `stop` says so when an iteration may begin.
fn turn(
    server: &mut Server,
    client: &mut Client,
    seed: u64,
    stop: impl FnMut(&Server) -> bool,
) -> Result<bool, PrivateError> {
    let result = Talk::new(server, client, seed)?.run(stop);
    if result.is_err() {
        server.close();
        client.close();
    }
    result
}

fn whole_turn(server: &mut Server, client: &mut Client, seed: u64) -> Result<bool, PrivateError> {
    turn(server, client, seed, |_| false)
}
