//! Hidden inference: the integers of the clear run, single use of what is prepared, and every message that does not belong.

mod views;

use std::sync::{Arc, LazyLock};

use gelu_layers::{Activation, AvgPool2dConfig, Conv2dConfig};
use gelu_tensor::Window;
use gelu_tensor::paillier::{KeyBits, SecretKey};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::infer::{ServerModel, SessionError};
use crate::peer::{Blame, Misuse, Peer, PeerError};
use crate::plan::{Deployment, HiddenPlan, Outcome, PlanError, Program, Quantization, Reveal};
use crate::tests::{calibrated, fill, images, secret_key};
use crate::{Model, ModelBuilder, zoo};

static KEY: LazyLock<Arc<SecretKey>> =
    LazyLock::new(|| Arc::new(secret_key(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(3))));

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(4)
}

fn small() -> Model {
    calibrated(ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).softmax())
}

/// Its last segment adds a term of hidden activations and one of the image.
fn branched() -> Model {
    calibrated(
        ModelBuilder::new([4])
            .residual_with(|main| main.dense("a", 6).relu().dense("b", 2), |shortcut| shortcut.dense("c", 2)),
    )
}

fn serve(model: Model, quantization: &Quantization) -> Server {
    Server::new(Arc::new(ServerModel::new(model, quantization.clone()))).on(KEY.public_key().backend())
}

fn program(model: &Model, queries: usize) -> Program {
    program_with(model, queries, &Quantization::default())
}

fn program_with(model: &Model, queries: usize, quantization: &Quantization) -> Program {
    let lanes = KEY.public_key().backend().lanes();
    let key = KeyBits::Bits1024.into();
    let deployment = Deployment { key, batch: queries, lanes, ..Deployment::default() };
    model.compile_hidden(quantization, &deployment).unwrap()
}

fn clear(model: &Model, images: &Array2<f32>) -> Outcome {
    program(model, 1).run_clear(images.view()).unwrap()
}

/// Both sides, and what has crossed.
struct Conversation {
    client: Client,
    server: Server,
    rng: ChaCha20Rng,
    crossed: Vec<Message>,
}

impl Conversation {
    fn new(model: Model, queries: u32, reveal: Reveal) -> Self {
        Self::with(model, &Quantization::default(), (queries, reveal))
    }

    fn with(model: Model, quantization: &Quantization, (queries, reveal): (u32, Reveal)) -> Self {
        let (client, server) = (Client::new(Arc::clone(&KEY), queries, reveal), serve(model, quantization));
        let mut new = Self { client, server, rng: rng(), crossed: vec![] };
        assert!(matches!(new.event().unwrap(), Some(Event::Ready)));
        new
    }

    /// Carries messages until something happens; `None` when both wait.
    fn event(&mut self) -> Result<Option<Event>, SessionError> {
        loop {
            let mut waits = true;
            while let Some(message) = self.client.next_message(&mut self.rng)? {
                waits = false;
                self.crossed.push(message.clone());
                self.server.handle(message, &mut self.rng)?;
                if self.client.is_closed() {
                    return Ok(None);
                }
            }
            while let Some(message) = self.server.next_message(&mut self.rng)? {
                waits = false;
                self.crossed.push(message.clone());
                if let Some(event) = self.client.handle(message, &mut self.rng)? {
                    return Ok(Some(event));
                }
            }
            if waits {
                return Ok(None);
            }
        }
    }

    fn prepare(&mut self) {
        self.client.prepare().unwrap();
        assert!(matches!(self.event(), Ok(Some(Event::Prepared))));
    }

    /// The answer to images, for which more may be prepared.
    fn answer(&mut self, images: &Array2<f32>) -> Answer {
        self.client.start(images.view()).unwrap();
        loop {
            match self.event().unwrap() {
                Some(Event::Done(answer)) => return answer,
                Some(Event::Prepared) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Until a message of this kind is the server's to take, which `change` then gives it changed.
    fn tamper(mut self, which: fn(&Message) -> bool, change: impl Fn(Message) -> Message) -> SessionError {
        loop {
            while let Some(message) = self.client.next_message(&mut self.rng).unwrap() {
                let message = if which(&message) { change(message) } else { message };
                if let Err(error) = self.server.handle(message, &mut self.rng) {
                    assert!(self.server.is_closed());
                    return error;
                }
            }
            let message = self.server.next_message(&mut self.rng).unwrap().expect("nothing was refused");
            let message = if which(&message) { change(message) } else { message };
            if let Err(error) = self.client.handle(message, &mut self.rng) {
                assert!(self.client.is_closed());
                return error;
            }
        }
    }
}

fn check(model: &Model, queries: u32, count: usize, seed: u64) {
    check_with(model, &Quantization::default(), (queries, count), seed);
}

fn check_with(model: &Model, quantization: &Quantization, (queries, count): (u32, usize), seed: u64) {
    let images = images(model, count, seed).into_dimensionality::<ndarray::Ix2>().unwrap();
    let program = program_with(model, 1, quantization);
    let expected = program.run_clear(images.view()).unwrap();
    let mut conversation = Conversation::with(model.clone(), quantization, (queries, Reveal::Logits));
    let Answer::Logits(outcome) = conversation.answer(&images) else { panic!("logits") };
    assert_eq!(outcome.integers, expected.integers);
    assert_eq!((&outcome.logits, &outcome.outputs), (&expected.logits, &expected.outputs));
    let Ok(_) = HiddenPlan::new(program.plan(), Reveal::Class) else { return };
    let mut conversation = Conversation::with(model.clone(), quantization, (queries, Reveal::Class));
    assert_eq!(conversation.answer(&images), Answer::Classes(expected.predictions()));
}

#[test]
fn hidden_networks_give_the_integers_of_the_clear_run() {
    check(&small(), 1, 1, 1);
    check(&small(), 3, 7, 2);
    check(&branched(), 2, 3, 3);
    let one = calibrated(ModelBuilder::new([4]).dense("fc", 3));
    check(&one, 2, 3, 4);
}

#[test]
fn a_hidden_lenet5_gives_the_integers_of_the_clear_run() {
    let mut model = zoo::lenet5().unwrap();
    fill(&mut model, 5);
    model.calibrate(images(&model, 3, 7).view()).unwrap();
    check(&model, 2, 2, 8);
}

/// The mean behind its first activation is taken on shares, and the second activation changes nothing.
#[test]
fn a_hidden_conv1_gives_the_integers_of_the_clear_run() {
    let model = calibrated_conv1();
    let program = program(&model, 1);
    let terms: Vec<_> = program.plan().segments().iter().flat_map(|segment| &segment.terms).collect();
    assert_eq!(terms.len(), 2);
    assert_eq!(terms[1].sums.as_ref().unwrap().output().elements(), 180);
    check(&model, 2, 2, 8);
}

/// What a shortcut carries is a term of the next sums, and what both sides have shares of.
#[test]
fn hidden_residual_networks_give_the_integers_of_the_clear_run() {
    let same = || Conv2dConfig::new(2, [3, 3]).with_padding([1, 1]);
    let start = || ModelBuilder::new([1, 6, 6]).conv2d("a", same()).relu();
    let identity = start().residual(|main| main.conv2d("b", same()).relu().conv2d("c", same())).relu();
    check(&calibrated(identity.global_avg_pool2d().flatten().dense("d", 3).softmax()), 2, 3, 1);
    let halved = || Conv2dConfig::new(3, [3, 3]).with_padding([1, 1]).with_stride([2, 2]);
    let projection = start().residual_with(
        |main| {
            main.conv2d("b", halved()).relu().conv2d("c", Conv2dConfig::new(3, [3, 3]).with_padding([1, 1]))
        },
        |shortcut| shortcut.conv2d("e", Conv2dConfig::new(3, [1, 1]).with_stride([2, 2])),
    );
    let mut model = calibrated(projection.relu().flatten().dense("d", 3).softmax());
    check(&model, 2, 3, 2);
    // Integers, coarser than the other term's: what goes into them is multiplied.
    let (_, shortcut) = model.layers_mut().find(|(name, _)| *name == "e").unwrap();
    shortcut.parameters_mut().weight.fill(0.5);
    let factors =
        program(&model, 1).plan().segments()[2].terms.iter().map(|term| term.factor).collect::<Vec<_>>();
    assert!(factors[0] == 1 && factors[1] > 1, "{factors:?}");
    check(&model, 2, 3, 2);
    // Nothing has weights between two activations, and a mean of nine is no power of two.
    let windows = Window::new([3, 3]).with_stride([3, 3]);
    let mean = start().avg_pool2d_with("pool", AvgPool2dConfig::new(windows)).activation(Activation::Tanh);
    check(&calibrated(mean.flatten().dense("d", 3)), 1, 2, 3);
}

#[test]
fn a_hidden_resnet8_gives_the_integers_of_the_clear_run() {
    let input = gelu_tensor::Shape::from([3, 8, 8]);
    let config = zoo::ResnetConfig { input, depth: 8, width: 2, classes: 4, batch_norm: true };
    let mut model = zoo::resnet(&config).unwrap();
    fill(&mut model, 7);
    model.calibrate(images(&model, 3, 9).view()).unwrap();
    let program = program(&model, 1);
    let hidden = HiddenPlan::new(program.plan(), Reveal::Logits).unwrap();
    // The shortcut of the first block is added on shares alone; those of the others have weights.
    let terms = hidden.segments().iter().map(|own| own.multiplied.len());
    assert_eq!(terms.collect::<Vec<_>>(), [1, 1, 1, 1, 2, 1, 2, 1]);
    assert_eq!(program.plan().segments()[2].terms.len(), 2);
    check(&model, 2, 2, 10);
}

/// 188,416 activations, in blocks of tables that memory has room for.
#[test]
fn a_hidden_resnet20_gives_the_integers_of_the_clear_run() {
    let mut model = zoo::resnet20(10).unwrap();
    fill(&mut model, 11);
    model.calibrate(images(&model, 2, 12).view()).unwrap();
    check(&model, 1, 1, 13);
}

/// The largest of overlapping windows, some of them beyond the image; before its activation or behind it.
#[test]
fn hidden_max_pooling_gives_the_integers_of_the_clear_run() {
    let start = || ModelBuilder::new([2, 5, 5]).conv2d("a", Conv2dConfig::new(2, [2, 2]));
    let window = Window::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
    let behind = start().relu().max_pool2d_with(window).flatten().dense("b", 3);
    check(&calibrated(behind), 2, 3, 1);
    let before = start().max_pool2d([2, 2]).activation(Activation::LeakyRelu { slope: 0.5 });
    check(&calibrated(before.conv2d("b", Conv2dConfig::new(2, [1, 1])).flatten().dense("c", 3)), 2, 3, 2);
    let alone = start().max_pool2d([2, 2]).flatten().dense("b", 3);
    check(&calibrated(alone), 1, 2, 3);
}

#[test]
fn a_hidden_lenet5_of_max_pooling_gives_the_integers_of_the_clear_run() {
    let setting = zoo::Setting { pooling: Some(zoo::Pooling::Max), ..zoo::Setting::default() };
    let mut model = zoo::Network::Lenet5.build(&setting).unwrap();
    fill(&mut model, 5);
    model.calibrate(images(&model, 3, 7).view()).unwrap();
    check(&model, 1, 1, 8);
}

/// Networks of all that can be computed on shares, and of what cannot, which is refused.
#[test]
fn random_hidden_networks_give_the_integers_of_the_clear_run() {
    let activations = [
        Activation::Relu,
        Activation::LeakyRelu { slope: 0.25 },
        Activation::Clip { min: -0.5, max: 0.75 },
        Activation::Tanh,
    ];
    let (mut checked, mut with_branches, mut with_factors) = (0, 0, 0);
    for seed in 0..100 {
        let model = crate::tests::random_model_of(seed, &activations);
        let plan = program(&model, 1);
        if let Err(error) = HiddenPlan::new(plan.plan(), Reveal::Logits) {
            let is_refusal = matches!(error, PlanError::Hidden { .. } | PlanError::Numbers { .. });
            assert!(is_refusal, "{seed}: {error}");
            continue;
        }
        checked += 1;
        let segments = plan.plan().segments();
        let terms = || segments.iter().flat_map(|own| &own.terms);
        with_branches += usize::from(segments.iter().any(|own| own.terms.len() > 1));
        with_factors += usize::from(terms().any(|term| term.factor > 1 && term.multiples.is_none()));
        check(&model, 1, 2, seed);
    }
    let counts = (checked, with_branches, with_factors);
    assert!(checked > 30 && with_branches > 5 && with_factors > 2, "{counts:?}");
}

/// More results than circuits of one block.
#[test]
fn wide_layers_are_garbled_in_blocks() {
    let same = Conv2dConfig::new(3, [3, 3]).with_padding([1, 1]);
    let model = calibrated(ModelBuilder::new([1, 20, 20]).conv2d("a", same).relu().flatten().dense("b", 3));
    let hidden = HiddenPlan::new(program(&model, 1).plan(), Reveal::Class).unwrap();
    assert_eq!(hidden.segments()[0].blocks().map(|sums| sums.len()).collect::<Vec<_>>(), [1024, 176]);
    check(&model, 1, 1, 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn random_hidden_chains_give_the_integers_of_the_clear_run(
        seed: u64, which in 0..6usize, pool: bool, padded: bool, queries in 1u32..4, count in 1usize..4,
        weight_bits in 2u32..12, activation_bits in 2u32..12, margin in 0.3f64..1.5,
    ) {
        let activation = [
            Activation::Relu,
            Activation::Relu6,
            Activation::Clip { min: -0.4, max: 0.9 },
            Activation::LeakyRelu { slope: 0.25 },
            Activation::Sigmoid,
            Activation::Tanh,
        ][which];
        let padding = usize::from(padded);
        let conv = Conv2dConfig::new(2, [3, 3]).with_padding([padding, padding]);
        let builder = ModelBuilder::new([2, 6, 6]).conv2d("a", conv).activation(activation);
        let builder = if pool { builder.conv2d("b", Conv2dConfig::new(2, [3, 3])).avg_pool2d("pool", [2, 2]) } else { builder };
        let builder = if pool { builder.activation(activation) } else { builder };
        let mut model = builder.flatten().dense("c", 4).softmax().build().unwrap();
        fill(&mut model, seed);
        model.calibrate(images(&model, 4, seed ^ 1).view()).unwrap();
        let quantization =
            Quantization { weight_bits, activation_bits: Some(activation_bits), range_margin: margin, ..Quantization::default() };
        // Sigmoid and tanh of too many steps are refused, and nothing else.
        let hidden = HiddenPlan::new(program_with(&model, 1, &quantization).plan(), Reveal::Logits);
        prop_assert!(hidden.is_ok() || matches!(activation, Activation::Sigmoid | Activation::Tanh));
        prop_assume!(hidden.is_ok());
        check_with(&model, &quantization, (queries, count), seed);
    }
}

#[test]
fn what_crosses_is_what_the_plan_says() {
    for reveal in [Reveal::Logits, Reveal::Class] {
        crosses_what_the_plan_says(branched(), reveal);
        let same = || Conv2dConfig::new(2, [3, 3]).with_padding([1, 1]);
        let start = || ModelBuilder::new([1, 5, 5]).conv2d("a", same());
        let pooled = start().max_pool2d_with(Window::new([3, 3]).with_stride([2, 2])).relu();
        crosses_what_the_plan_says(calibrated(pooled.flatten().dense("b", 3)), reveal);
        let shortcut = start().relu().residual(|main| main.conv2d("b", same()).relu().conv2d("c", same()));
        let model = calibrated(shortcut.relu().global_avg_pool2d().flatten().dense("d", 3));
        crosses_what_the_plan_says(model, reveal);
        crosses_what_the_plan_says(calibrated_conv1(), reveal);
    }
}

fn calibrated_conv1() -> Model {
    let mut model = zoo::conv1().unwrap();
    fill(&mut model, 6);
    model.calibrate(images(&model, 3, 7).view()).unwrap();
    model
}

fn crosses_what_the_plan_says(model: Model, reveal: Reveal) {
    let images = images(&model, 1, 5).into_dimensionality::<ndarray::Ix2>().unwrap();
    let mut conversation = Conversation::new(model, 2, reveal);
    conversation.prepare();
    let ahead = conversation.crossed.len();
    conversation.answer(&images);
    let hidden = conversation.client.hidden_plan().unwrap();
    for (index, own) in (0..).zip(hidden.segments()) {
        let sum = |messages: &[Message], of: fn(&Message) -> (Option<u32>, usize)| {
            let of = messages.iter().map(of).filter(|(segment, _)| *segment == Some(index));
            of.map(|(_, bytes)| bytes).sum::<usize>()
        };
        let (ahead, online) = conversation.crossed.split_at(ahead);
        let choices = |message: &Message| match message {
            Message::Choices { block, choices } => (Some(block.segment), choices.len()),
            _ => (None, 0),
        };
        let tables = |message: &Message| match message {
            Message::Tables { block, tables } => (Some(block.segment), tables.len()),
            _ => (None, 0),
        };
        let shares = |message: &Message| match message {
            Message::Shares { segment, shares, .. } => (Some(*segment), shares.len()),
            _ => (None, 0),
        };
        let labels = |message: &Message| match message {
            Message::Labels { block, labels } => (Some(block.segment), labels.len()),
            Message::Sums { segment, shares, .. } => (Some(*segment), shares.len()),
            _ => (None, 0),
        };
        assert_eq!(sum(ahead, choices), 2 * own.transfers);
        assert_eq!(sum(ahead, tables), 2 * own.tables);
        assert_eq!((sum(online, shares), sum(online, labels)), (own.shares, own.answer));
    }
    assert!(!conversation.crossed[ahead..].iter().any(|message| matches!(message, Message::Tensor { .. })));
}

#[test]
fn what_was_prepared_is_used_once_and_in_order() {
    let images = images(&small(), 5, 3).into_dimensionality::<ndarray::Ix2>().unwrap();
    let mut conversation = Conversation::new(small(), 3, Reveal::Logits);
    conversation.prepare();
    assert_eq!((conversation.client.prepared(), conversation.server.prepared()), (3, 3));
    let batch = images.select(ndarray::Axis(0), &[0, 1]);
    conversation.answer(&batch);
    // One is left, and more are prepared for the rest.
    assert_eq!((conversation.client.prepared(), conversation.server.prepared()), (1, 1));
    let Answer::Logits(outcome) = conversation.answer(&images) else { panic!("logits") };
    assert_eq!(outcome.integers, clear(&small(), &images).integers);
    assert_eq!((conversation.client.prepared(), conversation.server.prepared()), (2, 2));
    let queries = conversation.crossed.iter().filter_map(|message| match message {
        Message::Shares { query, segment: 0, .. } => Some(*query),
        _ => None,
    });
    assert_eq!(queries.collect::<Vec<_>>(), (0..7).collect::<Vec<u64>>());
    conversation.client.finish().unwrap();
    assert!(matches!(conversation.event(), Ok(None)));
    assert!(conversation.client.is_closed() && conversation.server.is_closed());
}

/// A second evaluation of the same circuits would show the client more than a result.
#[test]
fn a_query_is_not_answered_twice() {
    for used in [0, 1, 9] {
        let mut conversation = Conversation::new(small(), 2, Reveal::Logits);
        conversation.prepare();
        let images = Array2::from_elem((1, 4), 0.5);
        conversation.answer(&images);
        conversation.answer(&images);
        let again = conversation.crossed.iter().rev().find_map(|message| match message {
            Message::Shares { segment: 0, shares, .. } => Some(shares.clone()),
            _ => None,
        });
        let message = Message::Shares { query: used, segment: 0, shares: again.unwrap() };
        let error = conversation.server.handle(message, &mut conversation.rng).unwrap_err();
        assert!(matches!(error, SessionError::Unexpected { .. }), "{error}");
        assert_eq!(error.blame(), Blame::Peer);
        assert!(conversation.server.is_closed());
    }
}

/// With a later query, those before are gone.
#[test]
fn numbers_of_queries_only_rise() {
    let mut conversation = Conversation::new(small(), 3, Reveal::Logits);
    conversation.prepare();
    let shares = |query| {
        let hidden = conversation.client.hidden_plan().unwrap();
        Message::Shares { query, segment: 0, shares: vec![0; hidden.segments()[0].shares] }
    };
    let (second, first) = (shares(1), shares(0));
    conversation.server.handle(second, &mut conversation.rng).unwrap();
    assert_eq!(conversation.server.prepared(), 1);
    let error = conversation.server.handle(first, &mut conversation.rng).unwrap_err();
    assert!(matches!(error, SessionError::Unexpected { .. }), "{error}");
}

/// How far counts are from equal ones.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

/// The highest and the lowest bits of what the server gets of one image again and again, and of another: as those of random
/// numbers. What masks are taken off of is far from it.
#[test]
fn what_the_server_sees_of_an_image_is_uniform() {
    let model = small();
    for value in [0.0, 0.75] {
        let mut conversation = Conversation::new(model.clone(), 125, Reveal::Class);
        for _ in 0..8 {
            conversation.answer(&Array2::from_elem((125, 4), value));
        }
        let hidden = conversation.client.hidden_plan().unwrap();
        for (index, own) in (0..).zip(hidden.segments()) {
            let (mut highest, mut lowest) = ([0; 16], [0; 16]);
            let mut inputs = 0;
            for message in &conversation.crossed {
                let Message::Shares { segment, shares, .. } = message else { continue };
                if *segment != index {
                    continue;
                }
                let elements = [4, 3][index as usize];
                for share in own.shared.unpack(shares, elements).unwrap() {
                    highest[(share >> (own.shared.bits() - 4)) as usize] += 1;
                    lowest[(share & 15) as usize] += 1;
                    inputs += 1;
                }
            }
            assert!(inputs >= 3000, "{inputs}");
            // 15 degrees of freedom: above 56 once in a million times.
            let found = [chi_square(&highest), chi_square(&lowest)];
            assert!(found.iter().all(|found| *found < 56.0), "segment {index}: {found:?}");
            // No two alike: a mask is never used twice.
            let sent = conversation.crossed.iter().filter_map(|message| match message {
                Message::Shares { segment, shares, .. } if *segment == index => Some(shares),
                _ => None,
            });
            let all: Vec<_> = sent.collect();
            let different: std::collections::BTreeSet<_> = all.iter().collect();
            assert_eq!((all.len(), different.len()), (1000, 1000));
        }
    }
}

fn started(reveal: Reveal) -> Conversation {
    let mut conversation = Conversation::new(small(), 2, reveal);
    conversation.client.start(Array2::from_elem((1, 4), 0.5).view()).unwrap();
    conversation
}

/// What SECURITY.md says of clients that do not follow the protocol (Muse, USENIX Security 2021): one that adds to its share of an
/// activation reads the weights behind it, one query for each.
#[test]
fn a_client_that_adds_to_its_shares_reads_the_last_layer() {
    let model = small();
    let inputs = 3;
    let mut conversation = Conversation::new(model.clone(), 4, Reveal::Logits);
    conversation.prepare();
    let ring = conversation.client.hidden_plan().unwrap().segments()[1].shared;
    let mut sums = |raised: Option<usize>| {
        let Conversation { client, server, rng, .. } = &mut conversation;
        client.start(Array2::from_elem((1, 4), 0.5).view()).unwrap();
        loop {
            while let Some(mut message) = client.next_message(rng).unwrap() {
                if let (Message::Shares { segment: 1, shares, .. }, Some(raised)) = (&mut message, raised) {
                    let mut numbers = ring.unpack(shares, inputs).unwrap();
                    numbers[raised] = ring.wrap(numbers[raised] + 1);
                    *shares = ring.pack(&numbers);
                }
                server.handle(message, rng).unwrap();
            }
            let message = server.next_message(rng).unwrap().unwrap();
            if let Some(Event::Done(Answer::Logits(outcome))) = client.handle(message, rng).unwrap() {
                return outcome.integers.values().to_vec();
            }
        }
    };
    let honest = sums(None);
    let mut read = vec![0; honest.len() * inputs];
    for input in 0..inputs {
        for (output, (raised, honest)) in sums(Some(input)).iter().zip(&honest).enumerate() {
            read[output * inputs + input] = raised - honest;
        }
    }
    let program = program(&model, 1);
    let weights = program.weights(1)[0].values().iter().map(|&weight| i64::from(weight));
    assert_eq!(read, weights.collect::<Vec<i64>>());
    assert!(read.iter().any(|weight| *weight != 0));
}

/// Cut, lengthened, and from elsewhere: every kind of message that has bytes or a place.
#[test]
fn messages_that_do_not_belong_end_the_session() {
    type Change = fn(&mut Vec<u8>);
    let cut: Change = |bytes| bytes.truncate(bytes.len() - 1);
    let lengthen: Change = |bytes| bytes.push(0);
    let empty: Change = Vec::clear;
    for change in [cut, lengthen, empty] {
        let bytes = move |message| match message {
            Message::Choices { block, mut choices } => {
                change(&mut choices);
                Message::Choices { block, choices }
            }
            Message::Tables { block, mut tables } => {
                change(&mut tables);
                Message::Tables { block, tables }
            }
            Message::Shares { query, segment, mut shares } => {
                change(&mut shares);
                Message::Shares { query, segment, shares }
            }
            Message::Labels { block, mut labels } => {
                change(&mut labels);
                Message::Labels { block, labels }
            }
            Message::Sums { query, segment, mut shares } => {
                change(&mut shares);
                Message::Sums { query, segment, shares }
            }
            other => other,
        };
        let kinds: [fn(&Message) -> bool; 5] = [
            |message| matches!(message, Message::Choices { .. }),
            |message| matches!(message, Message::Tables { .. }),
            |message| matches!(message, Message::Shares { .. }),
            |message| matches!(message, Message::Labels { .. }),
            |message| matches!(message, Message::Sums { .. }),
        ];
        for kind in kinds {
            let error = started(Reveal::Logits).tamper(kind, bytes);
            assert!(matches!(error, SessionError::Garbling { .. }), "{error}");
            assert_eq!(error.blame(), Blame::Peer);
        }
    }
    let elsewhere: [fn(&mut Block); 3] =
        [|block| block.query += 1, |block| block.segment += 1, |block| block.block += 1];
    for change in elsewhere {
        let place = move |message| match message {
            Message::Choices { mut block, choices } => {
                change(&mut block);
                Message::Choices { block, choices }
            }
            Message::Tables { mut block, tables } => {
                change(&mut block);
                Message::Tables { block, tables }
            }
            Message::Labels { mut block, labels } => {
                change(&mut block);
                Message::Labels { block, labels }
            }
            other => other,
        };
        let kinds: [fn(&Message) -> bool; 3] = [
            |message| matches!(message, Message::Choices { .. }),
            |message| matches!(message, Message::Tables { .. }),
            |message| matches!(message, Message::Labels { .. }),
        ];
        for kind in kinds {
            let error = started(Reveal::Class).tamper(kind, place);
            assert!(matches!(error, SessionError::Unexpected { .. }), "{error}");
        }
    }
    let error = started(Reveal::Logits).tamper(
        |message| matches!(message, Message::Tensor { .. }),
        |message| match message {
            Message::Tensor { mut position, index, ciphertexts } => {
                position.round += 1;
                Message::Tensor { position, index, ciphertexts }
            }
            other => other,
        },
    );
    assert!(matches!(error, SessionError::Unexpected { .. }), "{error}");
}

#[test]
fn messages_out_of_turn_end_the_session() {
    let block = Block { query: 0, segment: 0, block: 0 };
    let early = [
        Message::Choices { block, choices: vec![] },
        Message::Shares { query: 0, segment: 0, shares: vec![] },
        Message::Labels { block, labels: vec![] },
        Message::Sums { query: 0, segment: 1, shares: vec![] },
        Message::Tables { block, tables: vec![] },
    ];
    for message in early {
        let Conversation { mut client, mut server, mut rng, .. } =
            Conversation::new(small(), 1, Reveal::Logits);
        let error = server.handle(message.clone(), &mut rng).unwrap_err();
        assert!(matches!(error, SessionError::Unexpected { .. }), "{error}");
        let error = client.handle(message, &mut rng).unwrap_err();
        assert!(matches!(error, SessionError::Unexpected { .. }), "{error}");
        assert!(client.is_closed() && server.is_closed());
    }
}

#[test]
fn no_more_is_prepared_than_a_server_keeps() {
    let mut conversation = Conversation::new(small(), 200, Reveal::Logits);
    conversation.prepare();
    let error = conversation.client.prepare().unwrap_err();
    assert_eq!(error, SessionError::Prepared { expected: Client::MOST_PREPARED, found: 400 });
    let mut client = Client::new(Arc::clone(&KEY), 257, Reveal::Logits);
    let hello = client.next_message(&mut rng()).unwrap().unwrap();
    let error = serve(small(), &Quantization::default()).handle(hello, &mut rng()).unwrap_err();
    assert_eq!(error, SessionError::Prepared { expected: Client::MOST_PREPARED, found: 257 });
}

#[test]
fn callers_are_told_what_they_did_wrong() {
    let images = Array2::from_elem((1, 4), 0.5);
    let mut new = Client::new(Arc::clone(&KEY), 1, Reveal::Logits);
    assert_eq!(new.prepare(), Err(Misuse::NotAccepted.into()));
    let mut conversation = started(Reveal::Logits);
    assert_eq!(conversation.client.start(images.view()), Err(Misuse::BatchesInFlight.into()));
    assert_eq!(conversation.client.start(images.view()), Err(SessionError::Closed));
    assert_eq!(started(Reveal::Logits).client.finish(), Err(Misuse::WithinBatch.into()));
    let mut conversation = Conversation::new(small(), 1, Reveal::Logits);
    let error = conversation.client.start(Array2::<f32>::zeros((1, 5)).view()).unwrap_err();
    assert!(matches!(error, SessionError::Images(_)), "{error}");
}

#[test]
fn networks_that_cannot_be_hidden_are_refused_by_name() {
    let model = calibrated(ModelBuilder::new([4]).dense("a", 3).activation(Activation::Gelu).dense("b", 2));
    let mut client = Client::new(Arc::clone(&KEY), 1, Reveal::Logits);
    let hello = client.next_message(&mut rng()).unwrap().unwrap();
    let error = serve(model, &Quantization::default()).handle(hello, &mut rng()).unwrap_err();
    let expected = PlanError::Hidden { node: "gelu1".to_owned() };
    assert_eq!(error, SessionError::Refused(expected));
}
