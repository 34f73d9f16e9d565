use std::mem;
use std::sync::Arc;

use gelu_tensor::EncTensor;
use gelu_tensor::paillier::{KeyParameters, PublicKey};
use rand::CryptoRng;

use super::{Message, PROTOCOL_VERSION, Position, SessionError, SessionId};
use crate::Model;
use crate::plan::{PlanError, PlanOptions, Program, Segment};

/// A model that a server offers: the network, and how it is to be planned for any client.
#[derive(Debug)]
pub struct ServerModel {
    model: Model,
    options: PlanOptions,
    max_batch: usize,
}

impl ServerModel {
    /// The model with options of which key and batch are each client's own choice.
    pub fn new(model: Model, options: PlanOptions) -> Self {
        Self { model, options, max_batch: 1024 }
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The program for a client's key and batch.
    ///
    /// # Errors
    /// [`PlanError`] when the batch is zero or too large, or the numbers do not fit the key.
    pub fn program(&self, key: impl Into<KeyParameters>, batch: usize) -> Result<Program, PlanError> {
        if batch > self.max_batch {
            let found = batch.to_string();
            return Err(PlanError::Option { what: "batch", expected: "at most 1024 images", found });
        }
        let KeyParameters { size, key_type } = key.into();
        self.model.plan(&PlanOptions { key: size, key_type, batch, ..self.options.clone() })
    }
}

/// The server's side of one session.
#[derive(Debug)]
pub struct Server {
    model: Arc<ServerModel>,
    state: State,
}

#[derive(Debug)]
enum State {
    Listening,
    Computing { key: PublicKey, program: Box<Program>, next: Position },
    Closed,
}

impl Server {
    /// A session that waits for a client's hello.
    pub fn new(model: Arc<ServerModel>) -> Self {
        Self { model, state: State::Listening }
    }

    /// The key of the client, which decoding its next message needs; `None` before its hello and after the end.
    pub fn key(&self) -> Option<&PublicKey> {
        match &self.state {
            State::Computing { key, .. } => Some(key),
            State::Listening | State::Closed => None,
        }
    }

    /// The name of a segment of the session's plan.
    pub fn segment_name(&self, step: u32) -> Option<&str> {
        match &self.state {
            State::Computing { program, .. } => {
                program.plan().segments.get(step as usize).map(|segment| segment.name.as_str())
            }
            State::Listening | State::Closed => None,
        }
    }

    /// Work that can be done while the client has not sent anything yet: tables of its key. It changes no result.
    pub fn prepare(&self) {
        let State::Computing { key, program, .. } = &self.state else { return };
        let plan = program.plan();
        for segment in &plan.segments {
            key.prepare_rerandomisation(segment.ciphertexts_down(plan.batch), hidden_bits(segment, key));
        }
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Ends the session: what must happen when a message could not even be decoded.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Takes a message and gives the reply; `None` after the client's last.
    ///
    /// # Errors
    /// [`SessionError`]; the session is closed then.
    pub fn handle(
        &mut self,
        message: Message,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Message>, SessionError> {
        // The state is consumed: whatever goes wrong leaves a closed session.
        match (mem::replace(&mut self.state, State::Closed), message) {
            (State::Closed, _) => Err(SessionError::Closed),
            (_, Message::Abort { reason }) => Err(SessionError::Aborted(reason)),
            (State::Listening, Message::Hello { version, key, batch }) => {
                if version != PROTOCOL_VERSION {
                    return Err(SessionError::Version { expected: PROTOCOL_VERSION, found: version });
                }
                let program =
                    self.model.program(key.parameters(), batch as usize).map_err(SessionError::Refused)?;
                let mut session = SessionId([0; 16]);
                rng.fill_bytes(&mut session.0);
                let plan = Box::new(program.plan().clone());
                let next = Position { session, round: 0, step: 0 };
                self.state = State::Computing { key, program: Box::new(program), next };
                Ok(Some(Message::Accept { session, plan }))
            }
            (State::Listening, other) => {
                Err(SessionError::Unexpected { expected: "Hello", found: other.to_string() })
            }
            (State::Computing { next, .. }, Message::Finish { session })
                if session == next.session && next.step == 0 =>
            {
                Ok(None)
            }
            (State::Computing { key, program, next }, Message::Activations { position, tensor })
                if position == next =>
            {
                let sums = segment(&program, &key, next.step, &tensor, rng)?;
                let last = next.step as usize + 1 == program.layers().len();
                let after = if last {
                    Position { round: next.round.wrapping_add(1), step: 0, ..next }
                } else {
                    Position { step: next.step + 1, ..next }
                };
                self.state = State::Computing { key, program, next: after };
                Ok(Some(Message::Sums { position: next, tensor: sums }))
            }
            (State::Computing { .. }, other) => Err(SessionError::Unexpected {
                expected: "Activations of the next step in this session",
                found: other.to_string(),
            }),
        }
    }
}

/// One segment on ciphertexts: product, bias, repacking, re-randomisation.
fn segment(
    program: &Program,
    key: &PublicKey,
    step: u32,
    tensor: &EncTensor,
    rng: &mut dyn CryptoRng,
) -> Result<EncTensor, SessionError> {
    let plan = program.plan();
    let expected = plan.segments[step as usize].up_header(plan.batch);
    let found = tensor.header();
    if found != expected || tensor.key() != key {
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        return Err(SessionError::Tensor { step, expected, found });
    }
    let layer = &program.layers()[step as usize];
    let segment = &plan.segments[step as usize];
    let count = segment.ciphertexts_down(plan.batch);
    let exponents = key.hiding_exponents(rng, count, hidden_bits(segment, key));
    // Stacking leaves cores idle, which make the random factors meanwhile.
    let (sums, fresh) = rayon::join(
        || layer.forward_encrypted(tensor).and_then(|sums| sums.repack(segment.down.stacked)),
        || exponents.powers(),
    );
    sums.map(|sums| sums.rerandomize_with(fresh, rng))
        .map_err(|source| SessionError::Numbers { step, source })
}

/// About how many bits the exponents in a segment's sums have: stacking shifts those of the client's encryptions by a
/// whole plaintext.
fn hidden_bits(segment: &Segment, key: &PublicKey) -> usize {
    let shifted = if segment.down.stacked > 1 { key.size().bits() } else { 0 };
    key.parameters().encryption_exponent().max(shifted)
}
