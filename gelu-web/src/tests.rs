//! Sessions over connections that break, against the servers of both modes.

use std::sync::{Arc, LazyLock};

use gelu_layers::{Conv2dConfig, Initializer};
use gelu_models::infer::{Server, ServerModel, SessionError, hidden};
use gelu_models::plan::{Deployment, Outcome, Quantization, Reveal};
use gelu_models::{Model, ModelBuilder};
use gelu_tensor::paillier::{KeyBits, RandomnessPool, SecretKey};
use gelu_wire::{Outgoing, Sequence, WirePeer};
use ndarray::Array2;
use prost::Message;
use rand::{Rng, SeedableRng, rngs::ChaCha20Rng};

use crate::proto::{self, client_frame, server_frame};
use crate::{Code, Error, Output, Session, Step, StepKind, Topic};

static KEY: LazyLock<Arc<SecretKey>> =
    LazyLock::new(|| Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng(7)).unwrap()));

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn model() -> Model {
    let mut model = ModelBuilder::new([1, 6, 6])
        .conv2d("conv1", Conv2dConfig::new(2, [3, 3]))
        .relu()
        .flatten()
        .dense("fc1", 5)
        .relu()
        .dense("fc2", 4)
        .softmax()
        .build()
        .unwrap();
    model.initialize(Initializer::KaimingUniform, &mut rng(3));
    model.calibrate(inputs(5).view()).unwrap();
    model
}

fn inputs(seed: u64) -> Array2<f32> {
    let mut rng = rng(seed);
    Array2::from_shape_fn((1, 36), |_| (rng.next_u32() >> 8) as f32 / (1 << 24) as f32)
}

fn clear(inputs: &Array2<f32>) -> Outcome {
    model()
        .compile(&Quantization::default(), &Deployment::default())
        .unwrap()
        .run_clear(inputs.view())
        .unwrap()
}

/// The server's side of a conversation, of either mode.
struct Remote<P> {
    peer: P,
    sequence: Sequence<Vec<u8>>,
    rng: ChaCha20Rng,
    error: Option<SessionError>,
}

impl<P: WirePeer<Error = SessionError>> Remote<P> {
    fn new(peer: P) -> Self {
        Self { peer, sequence: Sequence::default(), rng: rng(1), error: None }
    }

    /// Takes a client's frame, and answers an Open.
    fn take(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        match proto::ClientFrame::decode(frame).unwrap().frame.unwrap() {
            client_frame::Frame::Open(open) => {
                assert_eq!((open.version, &open.model[..]), (1, "digits"));
                assert_eq!(open.session.is_empty(), open.received == 0 && self.sequence.received() == 0);
                self.sequence.resume(open.received).unwrap();
                let opened = proto::Opened {
                    session: vec![9; 16],
                    received: self.sequence.received(),
                    kept_seconds: 120,
                };
                return Some(encode(server_frame::Frame::Opened(opened)));
            }
            client_frame::Frame::Data(data) => {
                self.sequence.arrived(data.number, data.received).unwrap();
                let message = self.peer.decode(&data.message).unwrap();
                self.error = self.peer.handle(message, &mut self.rng).err();
            }
            client_frame::Frame::Received(has) => self.sequence.confirmed(has).unwrap(),
        }
        None
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        while !self.peer.is_closed()
            && let Some(message) = self.peer.next_message(&mut self.rng).unwrap()
        {
            self.sequence.push(P::encode(&message).unwrap());
        }
        let next = self.sequence.next_message().or_else(|| self.sequence.next_receipt())?;
        Some(encode(match next {
            Outgoing::Message { number, message, received } => {
                server_frame::Frame::Data(proto::Data { number, message, received })
            }
            Outgoing::Received(has) => server_frame::Frame::Received(has),
        }))
    }
}

fn encode(frame: server_frame::Frame) -> Vec<u8> {
    proto::ServerFrame { frame: Some(frame) }.encode_to_vec()
}

/// Goes on until a condition holds, with a connection that breaks after so many frames, each time losing the last.
fn run<P: WirePeer<Error = SessionError>>(
    session: &mut Session,
    remote: &mut Remote<P>,
    frames: usize,
    until: impl Fn(&mut Session) -> bool,
) -> Result<Vec<Step>, Error> {
    let (mut steps, rng, mut moved) = (vec![], &mut rng(2), 0);
    loop {
        let opened = remote.take(&session.open()).unwrap();
        session.take_frame(&opened)?;
        assert!(session.is_open());
        for left in (0..frames).rev() {
            let mut is_idle = false;
            while !is_idle {
                let worked = session.work(rng)?;
                is_idle = worked.is_empty();
                steps.extend(worked);
            }
            if until(session) {
                return Ok(steps);
            }
            let is_lost = left == 0 && frames < usize::MAX;
            if let Some(frame) = session.next_frame() {
                if !is_lost {
                    remote.take(&frame);
                }
            } else if let Some(frame) = remote.next() {
                if !is_lost {
                    session.take_frame(&frame)?;
                }
            } else {
                panic!("both wait after {moved} frames");
            }
            moved += 1;
        }
    }
}

fn session(hidden: bool, reveal: Reveal) -> Session {
    let pool = Arc::new(RandomnessPool::new(KEY.clone(), 4096));
    Session::new(Arc::clone(&KEY), pool, Topic { model: "digits".to_owned(), hidden }, reveal).unwrap()
}

fn server_model() -> Arc<ServerModel> {
    Arc::new(ServerModel::new(model(), Quantization::default()))
}

fn infer<P: WirePeer<Error = SessionError>>(
    session: &mut Session,
    remote: &mut Remote<P>,
    input: &Array2<f32>,
    frames: usize,
) -> (Output, Vec<Step>) {
    session.start(input.as_slice().unwrap()).unwrap();
    let mut output = None;
    let found = std::cell::RefCell::new(&mut output);
    let steps = run(session, remote, frames, |session| {
        **found.borrow_mut() = session.take_output();
        found.borrow().is_some()
    });
    (output.unwrap(), steps.unwrap())
}

#[test]
fn both_modes_give_the_integers_of_the_clear_run_over_connections_that_break() {
    for frames in [usize::MAX, 9, 4] {
        let (mut session, mut remote) =
            (session(false, Reveal::Logits), Remote::new(Server::new(server_model())));
        run(&mut session, &mut remote, frames, |session| session.is_ready()).unwrap();
        assert_eq!((session.kept_seconds(), session.plan().unwrap().segments().len()), (120, 3));
        session.prepare(1);
        run(&mut session, &mut remote, frames, |session| session.is_prepared()).unwrap();
        for seed in 10..12 {
            let input = inputs(seed);
            let (output, steps) = infer(&mut session, &mut remote, &input, frames);
            let expected = clear(&input);
            assert_eq!(output.integers, expected.integers.values());
            assert_eq!(output.class, expected.predictions()[0]);
            assert_eq!(output.logits, expected.logits.iter().copied().collect::<Vec<_>>());
            let sum: f64 = output.probabilities.unwrap().iter().sum();
            assert!((sum - 1.0).abs() < 1e-9, "{sum}");
            // What is shown is what was done.
            let count = |kind: StepKind| steps.iter().filter(|step| step.kind == kind).count();
            assert_eq!(count(StepKind::Activate), 3);
            let ciphertexts = |kind: StepKind| {
                steps.iter().filter(|step| step.kind == kind).map(|step| step.ciphertexts).sum::<usize>()
            };
            let plan = session.plan().unwrap();
            let up: usize = plan.segments().iter().map(|segment| segment.ciphertexts_up()).sum();
            let down: usize = plan.segments().iter().map(|segment| segment.ciphertexts_down()).sum();
            assert_eq!((ciphertexts(StepKind::Send), ciphertexts(StepKind::Receive)), (up, down));
            assert!(steps.iter().any(|step| step.name == "fc1" && step.kind == StepKind::Encrypt));
        }
        session.finish().unwrap();
        run(&mut session, &mut remote, usize::MAX, |session| session.is_over()).unwrap();
    }
}

#[test]
fn a_hidden_model_gives_the_same_over_connections_that_break() {
    let input = inputs(20);
    let expected = clear(&input);
    for (reveal, frames) in [(Reveal::Logits, usize::MAX), (Reveal::Logits, 5), (Reveal::Class, 9)] {
        let mut session = session(true, reveal);
        let mut remote = Remote::new(hidden::Server::new(server_model()));
        run(&mut session, &mut remote, frames, |session| session.is_ready()).unwrap();
        session.prepare(2);
        run(&mut session, &mut remote, frames, |session| session.is_prepared()).unwrap();
        for _ in 0..3 {
            let (output, _) = infer(&mut session, &mut remote, &input, frames);
            assert_eq!(output.class, expected.predictions()[0]);
            match reveal {
                Reveal::Logits => assert_eq!(output.integers, expected.integers.values()),
                Reveal::Class => assert!(output.integers.is_empty() && output.logits.is_empty()),
            }
        }
    }
}

#[test]
fn inputs_that_do_not_fit_leave_the_session_open() {
    let (mut session, mut remote) =
        (session(false, Reveal::Logits), Remote::new(Server::new(server_model())));
    assert_eq!(session.start(&[0.0; 36]).unwrap_err().code(), Code::Input);
    run(&mut session, &mut remote, usize::MAX, |session| session.is_ready()).unwrap();
    let error = session.start(&[0.0; 35]).unwrap_err();
    assert!(error.to_string().contains("expected 36 numbers, in the shape [1, 6, 6], found 35"), "{error}");
    let mut input = inputs(30);
    input[[0, 3]] = f32::NAN;
    assert_eq!(session.start(input.as_slice().unwrap()).unwrap_err().code(), Code::Input);
    let input = inputs(31);
    session.start(input.as_slice().unwrap()).unwrap();
    assert_eq!(session.start(input.as_slice().unwrap()).unwrap_err().code(), Code::Input);
    let mut output = None;
    let found = std::cell::RefCell::new(&mut output);
    run(&mut session, &mut remote, usize::MAX, |session| {
        **found.borrow_mut() = session.take_output();
        found.borrow().is_some()
    })
    .unwrap();
    assert_eq!(output.unwrap().integers, clear(&input).integers.values());
}

/// A plan for another batch, and one that is none.
#[test]
fn plans_that_do_not_hold_together_end_the_session_and_tell_the_server() {
    let changes: [fn(&str) -> String; 2] =
        [|text| text.replace("\"batch\":1", "\"batch\":2"), |text| text.replace("\"lanes\":", "\"lanes\":0")];
    for (change, expected) in changes.into_iter().zip([Code::Plan, Code::Protocol]) {
        let (mut session, mut remote) =
            (session(false, Reveal::Logits), Remote::new(Server::new(server_model())));
        let rng = &mut rng(4);
        let opened = remote.take(&session.open()).unwrap();
        session.take_frame(&opened).unwrap();
        session.work(rng).unwrap();
        remote.take(&session.next_frame().unwrap());
        let frame = proto::ServerFrame::decode(&remote.next().unwrap()[..]).unwrap();
        let Some(server_frame::Frame::Data(data)) = frame.frame else { panic!("a message") };
        // The header's length is in the bytes from 6 to 10.
        let header = change(std::str::from_utf8(&data.message[18..]).unwrap());
        let mut message = data.message[..18].to_vec();
        message[6..10].copy_from_slice(&(header.len() as u32).to_le_bytes());
        message.extend_from_slice(header.as_bytes());
        session.take_frame(&encode(server_frame::Frame::Data(proto::Data { message, ..data }))).unwrap();
        let error = session.work(rng).unwrap_err();
        assert_eq!(error.code(), expected, "{error}");
        assert!(session.is_over() && session.start(&[0.0; 36]).is_err());
        remote.take(&session.next_frame().unwrap());
        assert!(matches!(remote.error, Some(SessionError::Aborted(_))), "{:?}", remote.error);
    }
}

#[test]
fn frames_that_are_not_due_end_the_session() {
    let opened = |session: Vec<u8>| {
        encode(server_frame::Frame::Opened(proto::Opened { session, received: 0, kept_seconds: 1 }))
    };
    let data =
        |number| encode(server_frame::Frame::Data(proto::Data { number, message: vec![1], received: 0 }));
    let wrong: [Vec<Vec<u8>>; 6] = [
        vec![vec![0xff; 5]],
        vec![data(0)],
        vec![opened(vec![1; 16]), opened(vec![1; 16])],
        vec![opened(vec![1; 16]), data(1)],
        vec![opened(vec![1; 16]), encode(server_frame::Frame::Received(1))],
        vec![vec![0; gelu_wire::MESSAGE_BYTES + 4097]],
    ];
    for frames in wrong {
        let mut session = session(false, Reveal::Logits);
        session.open();
        let (last, before) = frames.split_last().unwrap();
        before.iter().for_each(|frame| session.take_frame(frame).unwrap());
        assert_eq!(session.take_frame(last).unwrap_err().code(), Code::Protocol);
        assert!(session.is_over());
    }
    // Another conversation than the one to go on with.
    let mut session = session(false, Reveal::Logits);
    session.open();
    session.take_frame(&opened(vec![1; 16])).unwrap();
    session.open();
    assert!(session.take_frame(&opened(vec![2; 16])).is_err());
}

#[test]
fn a_server_that_refuses_is_heard() {
    // The server reveals classes alone, and this client wants logits.
    let mut session = session(true, Reveal::Logits);
    let server = hidden::Server::new(server_model()).revealing(Reveal::Class);
    let mut remote = Remote::new(server);
    let rng = &mut rng(5);
    let opened = remote.take(&session.open()).unwrap();
    session.take_frame(&opened).unwrap();
    session.work(rng).unwrap();
    remote.take(&session.next_frame().unwrap());
    assert_eq!(remote.error, Some(SessionError::NotRevealed));
    let reason = gelu_models::peer::PeerError::reason(&SessionError::NotRevealed).unwrap();
    let abort = gelu_models::peer::Conversation::abort(reason);
    let message = hidden::Server::encode(&abort).unwrap();
    let frame = encode(server_frame::Frame::Data(proto::Data { number: 0, message, received: 1 }));
    session.take_frame(&frame).unwrap();
    assert_eq!(session.work(rng).unwrap_err().code(), Code::Refused);
}
