use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use gelu_layers::{Activation, Conv2dConfig, Initializer};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, Randomizer, SecretKey};
use gelu_tensor::{RingBits, Shape};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::train::{Dataset, TrainConfig};
use crate::{Model, ModelBuilder};

static KEYS: LazyLock<[Arc<SecretKey>; 2]> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(11);
    KeyType::ALL.map(|key_type| {
        let parameters = KeyParameters { size: KeyBits::Bits1024, key_type };
        Arc::new(SecretKey::generate(parameters, &mut rng).unwrap())
    })
});

fn dataset(shape: Shape, count: usize, classes: usize, seed: u64) -> Arc<Dataset> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let inputs = Array2::from_shape_fn((count, shape.elements()), |_| rng.random_range(-1.0..1.0f32));
    let labels = (0..count).map(|_| rng.random_range(0..classes)).collect();
    Arc::new(Dataset::new(shape, inputs, labels, classes).unwrap())
}

struct Run {
    plan: Arc<TrainPlan>,
    config: MasterConfig,
    parameters: Vec<u64>,
    data: Arc<Dataset>,
    clients: usize,
    momentum: f64,
}

impl Run {
    fn new(
        model: &mut Model,
        (batch, clients, images): (usize, usize, usize),
        numbers: FixedPoint,
        seed: u64,
    ) -> Self {
        model.initialise(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(seed));
        let keys = [KeyBits::Bits1024; 2];
        let plan = Arc::new(TrainPlan::new(Description::new(model, batch, numbers, keys).unwrap()).unwrap());
        let parameters = plan.quantise(&model.weights()).unwrap();
        let train = TrainConfig {
            learning_rate: 0.05,
            weight_decay: 0.0,
            batch_size: batch,
            epochs: 1,
            seed,
            ..TrainConfig::default()
        };
        let config =
            MasterConfig { train, images: images as u64, d_max: DMax::Fixed(2), leakage: Leakage::Off };
        let data = dataset(model.input_shape().clone(), images, model.output_shape().elements(), seed);
        Self { plan, config, parameters, data, clients, momentum: 0.5 }
    }

    fn learner(&self, client: usize) -> (Arc<dyn Samples>, LearnerConfig) {
        let shard: Arc<dyn Samples> = Arc::new(Shard::divide(&self.data, self.clients)[client].clone());
        let config =
            LearnerConfig { client: client as u32, seed: self.config.train.seed, momentum: self.momentum };
        (shard, config)
    }

    fn fixed(&self) -> FixedTrainer {
        let clients = (0..self.clients).map(|client| self.learner(client));
        FixedTrainer::new(self.plan.clone(), self.config.clone(), self.parameters.clone(), clients).unwrap()
    }

    fn server(&self, key: usize) -> Server {
        Server::new(self.plan.clone(), KEYS[key].clone(), self.config.clone(), self.parameters.clone())
            .unwrap()
    }

    fn client(&self, client: usize, key: usize) -> Client {
        let (samples, config) = self.learner(client);
        Client::new(KEYS[key].clone(), samples, config)
    }
}

/// Runs one turn, or until `stop` says so when an iteration may begin.
fn turn(
    server: &mut Server,
    client: &mut Client,
    rng: &mut ChaCha20Rng,
    mut stop: impl FnMut(&Server) -> bool,
) -> Result<bool, PrivateError> {
    let mut to_server = VecDeque::from([client.join()?]);
    loop {
        let Some(message) = to_server.pop_front() else { return Err(PrivateError::State("nothing to send")) };
        for answer in server.handle(message, rng)? {
            match client.handle(answer)? {
                Some(Event::Ready) if stop(server) => return Ok(false),
                Some(Event::Ready | Event::Taken) => to_server.extend(client.proceed(rng)?),
                Some(Event::Ended) => return Ok(true),
                None => {}
            }
        }
    }
}

fn random_model(seed: u64) -> Model {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let activation = |rng: &mut ChaCha20Rng| Activation::ALL[rng.random_range(0..6)];
    let classes = rng.random_range(2..5);
    if rng.random_bool(0.3) {
        let mut builder = ModelBuilder::new([rng.random_range(1..6)]);
        if rng.random_bool(0.3) {
            builder = builder.activation(activation(&mut rng));
        }
        builder = builder.dense("fc1", rng.random_range(1..6));
        if rng.random_bool(0.7) {
            builder = builder.activation(activation(&mut rng));
        }
        return builder.dense("fc2", classes).softmax().build().unwrap();
    }
    let channels = rng.random_range(1..3);
    let stride = [rng.random_range(1..3), rng.random_range(1..3)];
    let padding = [rng.random_range(0..2), rng.random_range(0..2)];
    let mut config = Conv2dConfig::new(rng.random_range(1..3), [3, 2]);
    config.window = config.window.with_stride(stride).with_padding(padding);
    let mut builder = ModelBuilder::new([channels, 8, 9]).conv2d("conv1", config);
    if rng.random_bool(0.3) {
        builder = builder.activation(activation(&mut rng));
    }
    builder = builder.mean_pool2d("pool1", [[2, 2], [1, 2], [3, 1]][rng.random_range(0..3)]);
    if rng.random_bool(0.7) {
        builder = builder.activation(activation(&mut rng));
    }
    if rng.random_bool(0.5) {
        builder = builder.conv2d("conv2", Conv2dConfig::new(2, [1, 2])).activation(activation(&mut rng));
    }
    builder.flatten().dense("fc1", classes).softmax().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The central test: masked and clear runs give the same weights after every turn.
    #[test]
    fn masked_training_is_the_clear_fixed_point_training(seed: u64, clients in 1..4usize, batch in 1..6usize, ring in 0..4usize) {
        let numbers = match RingBits::ALL[ring] {
            ring if ring.bits() == 32 => FixedPoint { ring, weight_bits: 14, activation_bits: 8, error_bits: 8, ..FixedPoint::default() },
            ring => FixedPoint { ring, ..FixedPoint::default() },
        };
        let run = Run::new(&mut random_model(seed), (batch, clients, 5 * batch), numbers, seed);
        let (mut fixed, mut server) = (run.fixed(), run.server((seed % 2) as usize));
        let mut members: Vec<Client> = (0..clients).map(|client| run.client(client, client % 2)).collect();
        let mut rng = ChaCha20Rng::seed_from_u64(seed ^ 1);
        for at in 0.. {
            if fixed.is_complete() {
                break;
            }
            match fixed.turn() {
                Ok(()) => {}
                // Polynomials may diverge, and then both must.
                Err(error) => {
                    let masked = turn(&mut server, &mut members[at % clients], &mut rng, |_| false);
                    prop_assert_eq!(masked.unwrap_err(), error);
                    break;
                }
            }
            prop_assert!(turn(&mut server, &mut members[at % clients], &mut rng, |_| false).unwrap());
            prop_assert_eq!(server.master(), fixed.master());
            prop_assert_eq!(members[at % clients].statistics(), fixed.statistics()[at % clients]);
        }
        prop_assert!(server.master().turns > 0 || fixed.master().turns == 0);
    }
}

/// The server's key of 1,024 bits, and clients' of 2,048.
static PAPER_KEYS: LazyLock<[Arc<SecretKey>; 2]> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(13);
    [KeyBits::Bits1024, KeyBits::Bits2048].map(|size| Arc::new(SecretKey::generate(size, &mut rng).unwrap()))
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// The paper's protocol to the letter gives the weights of the fast one, after every turn.
    #[test]
    fn the_papers_own_masks_give_the_same_weights(seed: u64, clients in 1..3usize, batch in 1..3usize) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut builder = ModelBuilder::new([rng.random_range(1..4)]);
        for layer in 0..rng.random_range(1..3) {
            let activation = Activation::ALL[rng.random_range(0..6)];
            builder = builder.dense(&format!("hidden{layer}"), rng.random_range(1..4)).activation(activation);
        }
        let mut model = builder.dense("fc", rng.random_range(2..4)).softmax().build().unwrap();
        let run = Run::new(&mut model, (batch, clients, 4 * batch), FixedPoint::default(), seed);
        let mut fixed = run.fixed();
        let members = (0..clients).map(|client| {
            let (samples, config) = run.learner(client);
            (PAPER_KEYS[1].clone(), samples, config)
        });
        let start = (run.plan.clone(), run.config.clone());
        let mut paper = PaperTrainer::new(start, run.parameters.clone(), PAPER_KEYS[0].clone(), members).unwrap();
        while !fixed.is_complete() {
            fixed.turn().unwrap();
            paper.turn(&mut rng).unwrap();
            prop_assert_eq!(paper.master(), fixed.master());
            prop_assert_eq!(paper.statistics(), fixed.statistics());
        }
        prop_assert!(paper.is_complete());
        // Once masked, weights are scalars of full size.
        prop_assert!(paper.longest_scalar() > 1024 - 20, "{}", paper.longest_scalar());
    }
}

#[test]
fn the_papers_mode_needs_dense_layers_and_larger_keys_of_clients() {
    let run = small();
    let (samples, config) = run.learner(0);
    let start = (run.plan.clone(), run.config.clone());
    let equal = PaperTrainer::new(
        start,
        run.parameters.clone(),
        PAPER_KEYS[0].clone(),
        [(PAPER_KEYS[0].clone(), samples.clone(), config)],
    );
    assert!(equal.unwrap_err().to_string().contains("expected more than 10"));
    let mut model = ModelBuilder::new([1, 4, 4])
        .conv2d("conv1", Conv2dConfig::new(1, [2, 2]))
        .flatten()
        .dense("fc1", 2)
        .softmax()
        .build()
        .unwrap();
    let run = Run::new(&mut model, (1, 1, 2), FixedPoint::default(), 1);
    let start = (run.plan.clone(), run.config.clone());
    let member = [(PAPER_KEYS[1].clone(), samples, config)];
    let refused = PaperTrainer::new(start, run.parameters.clone(), PAPER_KEYS[0].clone(), member);
    assert!(refused.unwrap_err().to_string().contains("conv1"));
}

fn small() -> Run {
    let mut model = ModelBuilder::new([3]).dense("fc1", 4).tanh().dense("fc2", 3).softmax().build().unwrap();
    let mut run = Run::new(&mut model, (2, 2, 16), FixedPoint::default(), 3);
    run.config.d_max = DMax::Fixed(4);
    run
}

#[test]
fn masked_and_masks_meet_after_every_iteration() {
    let run = small();
    let (mut server, mut client, mut rng) = (run.server(0), run.client(0, 1), ChaCha20Rng::seed_from_u64(1));
    // The clear run, stopped after each iteration: its parameters are those of a turn of so many iterations.
    for iterations in 1..4u32 {
        let mut config = run.config.clone();
        config.d_max = DMax::Fixed(iterations);
        let clients = (0..run.clients).map(|client| run.learner(client));
        let mut fixed = FixedTrainer::new(run.plan.clone(), config, run.parameters.clone(), clients).unwrap();
        fixed.turn().unwrap();
        let mut seen = 0;
        turn(&mut server, &mut client, &mut rng, |_| {
            seen += 1;
            seen > iterations
        })
        .unwrap();
        let ring = run.plan.numbers().ring;
        let sums = server.masked().unwrap().iter().zip(client.masks());
        let sums: Vec<u64> = sums.map(|(masked, mask)| ring.wrap(masked.wrapping_add(*mask))).collect();
        assert_eq!(sums, fixed.master().parameters);
        assert_ne!(server.masked().unwrap(), fixed.master().parameters);
        server = run.server(0);
        client = run.client(0, 1);
    }
}

#[test]
fn a_client_that_vanishes_leaves_nothing_but_its_line_in_the_ledger() {
    let run = small();
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (mut server, mut first, mut second) = (run.server(0), run.client(0, 1), run.client(1, 0));
    let mut seen = 0;
    turn(&mut server, &mut first, &mut rng, |_| {
        seen += 1;
        seen == 3
    })
    .unwrap();
    assert_ne!(server.masked().unwrap(), run.parameters);
    server.abandon();
    assert!(server.masked().is_none());
    assert_eq!((server.master().parameters.clone(), server.master().turns), (run.parameters.clone(), 0));
    assert_eq!(server.master().ledger.entries[0].most_iterations, 3);
    // The next one goes on, from the weights with which the turn began.
    assert!(turn(&mut server, &mut second, &mut rng, |_| false).unwrap());
    assert_eq!(server.master().turns, 1);
    assert_ne!(server.master().parameters, run.parameters);
    // And the first one may come back.
    first.abandon();
    assert!(turn(&mut server, &mut first, &mut rng, |_| false).unwrap());
}

#[test]
fn a_run_that_stops_between_any_two_iterations_goes_on_to_the_same_weights() {
    let run = small();
    let mut fixed = run.fixed();
    while !fixed.is_complete() {
        fixed.turn().unwrap();
    }
    for stop in 0..4 {
        let mut rng = ChaCha20Rng::seed_from_u64(stop);
        let mut server = run.server(0);
        let mut clients = [run.client(0, 1), run.client(1, 0)];
        let mut ready = 0;
        turn(&mut server, &mut clients[0], &mut rng, |_| {
            ready += 1;
            ready > stop
        })
        .unwrap();
        let states = (server.state(), clients[0].state().unwrap());
        let kept: (ServerState, ClientState) =
            serde_json::from_str(&serde_json::to_string(&states).unwrap()).unwrap();
        // Other keys than before.
        let mut server =
            Server::resume(run.plan.clone(), KEYS[1].clone(), run.config.clone(), kept.0).unwrap();
        let (samples, config) = run.learner(0);
        let description = run.plan.description().clone();
        clients[0] = Client::resume(KEYS[0].clone(), samples, config, (description, kept.1)).unwrap();
        let mut at = 0;
        while !server.is_complete() {
            assert!(turn(&mut server, &mut clients[at % 2], &mut rng, |_| false).unwrap());
            at += 1;
        }
        assert_eq!(server.master().parameters, fixed.master().parameters, "stopped after {stop}");
    }
}

#[test]
fn an_update_that_is_sent_twice_is_taken_once() {
    let run = small();
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let (mut server, mut client) = (run.server(0), run.client(0, 1));
    let mut queue = VecDeque::from([client.join().unwrap()]);
    let mut updates = vec![];
    while let Some(message) = queue.pop_front() {
        if message.part() == Some(Part::Update) {
            updates.push(message.clone());
        }
        for answer in server.handle(message, &mut rng).unwrap() {
            let updated = matches!(answer, Message::Updated { .. });
            let event = client.handle(answer).unwrap();
            if updated {
                let masked = server.masked().unwrap().to_vec();
                for message in updates.drain(..) {
                    for answer in server.handle(message, &mut rng).unwrap() {
                        assert_eq!(client.handle(answer).unwrap(), None);
                    }
                }
                assert_eq!(server.masked().unwrap(), masked);
            }
            if matches!(event, Some(Event::Ready | Event::Taken)) {
                queue.extend(client.proceed(&mut rng).unwrap());
            }
        }
    }
    let mut fixed = run.fixed();
    fixed.turn().unwrap();
    assert_eq!(server.master(), fixed.master());
}

#[test]
fn messages_out_of_place_are_refused_and_end_the_turn() {
    let run = small();
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let chunk = |server: &Server| {
        gelu_tensor::EncRate::encrypt(1, server.key(), &mut ChaCha20Rng::seed_from_u64(1)).unwrap()
    };
    let begin = |rng: &mut ChaCha20Rng| {
        let (mut server, mut client) = (run.server(0), run.client(0, 0));
        let answer = server.handle(client.join().unwrap(), rng).unwrap().remove(0);
        client.handle(answer).unwrap();
        (server, client)
    };
    for part in [Part::Inputs(1), Part::Errors(1), Part::Sums(0), Part::Update, Part::Total] {
        let (mut server, _) = begin(&mut rng);
        let position = Position { turn: 0, iteration: 0, part };
        let message = Message::Tensor { position, index: 0, ciphertexts: chunk(&server) };
        assert!(matches!(server.handle(message, &mut rng), Err(PrivateError::Place { .. })), "{part:?}");
        assert!(server.masked().is_none() && server.master().parameters == run.parameters);
    }
    for (turn, iteration, index) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
        let (mut server, _) = begin(&mut rng);
        let position = Position { turn, iteration, part: Part::Inputs(0) };
        let message = Message::Tensor { position, index, ciphertexts: chunk(&server) };
        assert!(server.handle(message, &mut rng).is_err());
    }
    let (mut server, mut client) = begin(&mut rng);
    assert!(client.join().is_err());
    assert!(server.handle(Message::Updated { turn: 0, iteration: 0 }, &mut rng).is_err());
    assert!(client.handle(Message::Ended { turn: 0 }).is_err());
    let version = Message::Join { version: 9, client: 0, key: KEYS[0].public_key().clone() };
    assert_eq!(
        run.server(0).handle(version, &mut rng).unwrap_err(),
        PrivateError::Version { expected: PRIVATE_VERSION, found: 9 }
    );
}

#[test]
fn the_strict_policy_refuses_a_convolution_and_says_why() {
    let mut lenet = crate::zoo::lenet5().unwrap();
    let mut run = Run::new(&mut small_model(), (1, 1, 8), FixedPoint::default(), 1);
    let description = Description::new(&lenet, 20, FixedPoint::default(), [KeyBits::Bits2048; 2]).unwrap();
    let plan = Arc::new(TrainPlan::new(description).unwrap());
    lenet.initialise(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(1));
    let parameters = plan.quantise(&lenet.weights()).unwrap();
    let mut config = run.config.clone();
    config.train.batch_size = 20;
    config.leakage = Leakage::Strict;
    config.d_max = DMax::Auto;
    let trainer = FixedTrainer::new(plan.clone(), config.clone(), parameters, [run.learner(0)]);
    let Err(PrivateError::Leakage { layer, equations, unknowns, .. }) = trainer.map(|_| ()) else {
        panic!("the strict policy must refuse LeNet-5")
    };
    // Conv1 with its pooling shows each kernel's 26 numbers in 144 equations an image.
    assert_eq!((layer.as_str(), equations, unknowns), ("conv1", 20 * 144, 26));
    // A dense layer of 3 inputs and 4 outputs: 4 unknowns a row, so 3 images may be seen.
    run.config.leakage = Leakage::Strict;
    run.config.d_max = DMax::Fixed(3);
    let refused = Server::new(run.plan.clone(), KEYS[0].clone(), run.config.clone(), run.parameters.clone());
    assert!(matches!(refused, Err(PrivateError::Leakage { .. })), "{refused:?}");
    run.config.d_max = DMax::Fixed(2);
    assert!(
        Server::new(run.plan.clone(), KEYS[0].clone(), run.config.clone(), run.parameters.clone()).is_ok()
    );
}

fn small_model() -> Model {
    ModelBuilder::new([3]).dense("fc1", 4).tanh().dense("fc2", 3).softmax().build().unwrap()
}

#[test]
fn weights_that_no_longer_fit_the_ring_are_refused() {
    let mut run = small();
    run.parameters[0] = 1 << 38;
    let mut fixed = run.fixed();
    assert!(matches!(fixed.turn(), Err(PrivateError::RingFull { .. })));
    assert!(matches!(
        run.server(0).handle(run.client(0, 0).join().unwrap(), &mut ChaCha20Rng::seed_from_u64(1)),
        Err(PrivateError::RingFull { .. })
    ));
}

#[test]
fn sums_of_steps_that_no_honest_client_has_are_refused() {
    let run = small();
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    let (mut server, mut client) = (run.server(0), run.client(0, 1));
    let mut queue = VecDeque::from([client.join().unwrap()]);
    let error = loop {
        let message = match queue.pop_front().unwrap() {
            Message::Tensor { position, index, .. } if position.part == Part::Total => {
                // Far above what four iterations can add up to, but below what a slot holds.
                let (layout, elements) = run.plan.total_layout().unwrap();
                let values = vec![TrainPlan::total_offset() + (1 << 30); layout.width * elements];
                let key = KEYS[0].public_key();
                let forged =
                    gelu_tensor::EncBatch::encrypt(&values, elements, layout, key, &mut rng).unwrap();
                let ciphertexts = forged.into_chunks().remove(0);
                Message::Tensor { position, index, ciphertexts }
            }
            message => message,
        };
        match server.handle(message, &mut rng) {
            Err(error) => break error,
            Ok(answers) => {
                for answer in answers {
                    if let Some(Event::Ready | Event::Taken) = client.handle(answer).unwrap() {
                        queue.extend(client.proceed(&mut rng).unwrap());
                    }
                }
            }
        }
    };
    assert!(matches!(error, PrivateError::Gradient { index: 0, .. }), "{error}");
    assert_eq!(server.master().parameters, run.parameters);
    assert!(server.masked().is_none());
}

#[test]
fn what_is_out_of_range_is_clamped_and_counted() {
    let mut run = small();
    let inputs = Array2::from_elem((16, 3), 3.0);
    run.data = Arc::new(Dataset::new(Shape::from([3]), inputs, vec![0; 16], 3).unwrap());
    let mut fixed = run.fixed();
    fixed.turn().unwrap();
    // Three inputs each of two images, in four iterations.
    assert_eq!(fixed.statistics()[0].clamped, 24);
    assert_eq!(fixed.statistics()[0].images, 8);
}

#[test]
fn descriptions_that_cannot_be_trained_are_refused() {
    let refused = |nodes: Vec<NodeDescription>, batch: usize, numbers: FixedPoint| {
        let description = Description {
            input: Shape::from([1, 8, 8]),
            nodes,
            batch,
            numbers,
            client_key: KeyBits::Bits1024,
            server_key: KeyBits::Bits1024,
        };
        TrainPlan::new(description).unwrap_err().to_string()
    };
    let dense = |outputs| NodeDescription::Dense { name: "fc".to_owned(), outputs };
    let softmax = || NodeDescription::Activation(Activation::Softmax);
    let usual = FixedPoint::default();
    assert!(refused(vec![NodeDescription::Flatten, dense(2)], 1, usual).contains("end in a softmax"));
    assert!(refused(vec![softmax(), dense(2), softmax()], 1, usual).contains("must be the last"));
    assert!(refused(vec![NodeDescription::Flatten, softmax()], 1, usual).contains("weights"));
    assert!(refused(vec![dense(2), softmax()], 0, usual).contains("1 to 65,536"));
    assert!(refused(vec![dense(usize::MAX), softmax()], 1, usual).contains("`fc`"));
    assert!(refused(vec![dense(1 << 18), dense(1 << 18), softmax()], 1, usual).contains("2^24"));
    let wide = vec![dense(1 << 17); 5].into_iter().chain([softmax()]).collect();
    assert!(refused(wide, 1, usual).contains("2^24"));
    let many = vec![NodeDescription::Flatten; 2000].into_iter().chain([dense(2), softmax()]).collect();
    assert!(refused(many, 1, usual).contains("1,024"));
    assert!(refused(vec![dense(1 << 16), softmax()], 1 << 16, usual).contains("2^26 values"));
    assert!(
        refused(vec![dense(2), softmax()], 1, FixedPoint { weight_bits: 41, ..usual }).contains("8 to 40")
    );
}
