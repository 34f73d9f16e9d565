//! What was done, for whoever looks on.

use gelu_models::peer::{Part, Place};
use gelu_models::plan::Plan;

/// The most bytes of a [sample](Step::sample).
const SAMPLE: usize = 4096;

/// One thing that was done. Its time is for the caller to take: there is no clock here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The part of the network that it is about, such as `conv1`, or what else it is about.
    pub name: String,
    /// What was done.
    pub kind: StepKind,
    /// Bytes of the message, if one travels.
    pub bytes: usize,
    /// The ciphertexts that were made, travelled, or were taken.
    pub ciphertexts: usize,
    /// The first 4 kB of what travels.
    pub sample: Vec<u8>,
}

/// The kinds of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Key, plan, or the end of a session.
    Open,
    /// Random factors, or masks and circuits of a hidden model, before there is an input.
    Prepare,
    /// An input, or what the client computed of sums, was encrypted.
    Encrypt,
    /// Sums were decrypted.
    Decrypt,
    /// The last sums of a layer were decrypted, and what comes after it computed.
    Activate,
    /// Circuits were evaluated on shares.
    Evaluate,
    /// A message is to be sent.
    Send,
    /// A message has arrived.
    Receive,
}

/// Who, or what, does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This side.
    Client,
    /// The connection.
    Wire,
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Up,
    /// From it.
    Down,
}

impl StepKind {
    /// Returns its name in JavaScript.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Prepare => "prepare",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Activate => "activate",
            Self::Evaluate => "evaluate",
            Self::Send => "send",
            Self::Receive => "receive",
        }
    }

    /// Returns who does it.
    pub fn side(self) -> Side {
        match self {
            Self::Send | Self::Receive => Side::Wire,
            _ => Side::Client,
        }
    }

    /// Returns which way a message goes; `None` where none does.
    pub fn direction(self) -> Option<Direction> {
        match self {
            Self::Send => Some(Direction::Up),
            Self::Receive => Some(Direction::Down),
            _ => None,
        }
    }
}

impl Step {
    pub(crate) fn of_client(name: impl Into<String>, kind: StepKind, ciphertexts: usize) -> Self {
        Self { name: name.into(), kind, bytes: 0, ciphertexts, sample: vec![] }
    }

    /// A message on its way, and what this side does to make it or with it.
    pub(crate) fn of_message(
        (way, work): (StepKind, StepKind),
        plan: Option<&Plan>,
        place: Option<Place>,
        bytes: &[u8],
    ) -> [Self; 2] {
        let name = name(plan, place);
        let ciphertexts = place.map_or(0, |place| place.ciphertexts);
        let sample = bytes[..bytes.len().min(SAMPLE)].to_vec();
        let message = Self { name: name.clone(), kind: way, bytes: bytes.len(), ciphertexts, sample };
        [message, Self::of_client(name, work, ciphertexts)]
    }
}

/// The segment that a part of a tensor, or of circuits, belongs to.
pub(crate) fn segment(place: Option<Place>) -> Option<usize> {
    match place?.part {
        Part::Inputs { segment, .. }
        | Part::Sums { segment }
        | Part::Choices { segment }
        | Part::Tables { segment }
        | Part::Shares { segment }
        | Part::Labels { segment } => Some(segment as usize),
        _ => None,
    }
}

fn name(plan: Option<&Plan>, place: Option<Place>) -> String {
    let named = plan.zip(segment(place)).and_then(|(plan, segment)| plan.segments().get(segment));
    named.map_or_else(|| "session".to_owned(), |segment| segment.name.clone())
}
