//! Both modes of inference as one: what a peer does with a message, which it says next, and what it does meanwhile.

use std::sync::Arc;

use gelu_models::infer::{Client, Event, SessionError, hidden};
use gelu_models::peer::{Conversation as _, Idle, Part, Peer, Place};
use gelu_models::plan::{Plan, Reveal};
use gelu_tensor::paillier::{RandomnessPool, SecretKey};
use gelu_wire::WirePeer;
use ndarray::ArrayView2;
use rand::CryptoRng;

use crate::step::segment;
use crate::{Error, Output, StepKind};

/// Factors that a thread makes at a time, between which messages can be taken: as many as are made together.
const FACTORS_AT_A_TIME: usize = 8;

/// Bytes of memory for prepared queries of a hidden model: a page has 4 GB at most, and a telephone less.
const QUERY_BYTES: usize = 256 << 20;

/// Random factors by their name in steps.
const FACTORS: &str = "random factors";

pub(crate) enum Mode {
    Revealed(Revealed),
    Hidden(Box<Hidden>),
}

/// Every layer's sums are this side's to see.
pub(crate) struct Revealed {
    client: Client,
    pool: Arc<RandomnessPool>,
    /// Factors that somebody waits for.
    wanted: usize,
    /// Ciphertexts that the input in flight will still take.
    left: usize,
    /// Ciphertexts of the tensor of sums that is arriving.
    taken: usize,
}

/// The model is hidden from this side.
pub(crate) struct Hidden {
    client: hidden::Client,
    /// Queries that somebody waits for.
    wanted: usize,
}

/// What a message led to.
pub(crate) enum News {
    Nothing,
    Ready,
    Done(Output),
}

/// A message that was taken or made, and the kind of work that this was.
pub(crate) struct Moved {
    pub(crate) place: Option<Place>,
    pub(crate) work: StepKind,
}

impl Mode {
    pub(crate) fn revealed(key: Arc<SecretKey>, pool: Arc<RandomnessPool>) -> Result<Self, Error> {
        let mut client = Client::new(key, 1);
        client.draw_from(pool.clone()).map_err(|error| Error::Key(error.to_string()))?;
        Ok(Self::Revealed(Revealed { client, pool, wanted: 0, left: 0, taken: 0 }))
    }

    pub(crate) fn hidden(key: Arc<SecretKey>, reveal: Reveal) -> Self {
        let client = hidden::Client::new(key, 1, reveal).keeping(QUERY_BYTES);
        Self::Hidden(Box::new(Hidden { client, wanted: 0 }))
    }

    pub(crate) fn plan(&self) -> Option<&Arc<Plan>> {
        match self {
            Self::Revealed(own) => own.client.plan(),
            Self::Hidden(own) => own.client.plan(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Revealed(own) => own.client.is_closed(),
            Self::Hidden(own) => own.client.is_closed(),
        }
    }

    pub(crate) fn close(&mut self) {
        match self {
            Self::Revealed(own) => own.client.close(),
            Self::Hidden(own) => own.client.close(),
        }
    }

    /// The message that tells the other side of an error; none where it knows.
    pub(crate) fn abort(&self, error: &Error) -> Option<Vec<u8>> {
        use gelu_models::peer::PeerError as _;
        let reason = match error {
            Error::Session(error) => error.reason()?,
            Error::Wire(error) => error.reason(),
            _ => return None,
        };
        let message = match self {
            Self::Revealed(_) => Client::encode(&gelu_models::infer::Message::abort(reason)),
            Self::Hidden(_) => hidden::Client::encode(&hidden::Message::abort(reason)),
        };
        message.ok()
    }

    pub(crate) fn start(&mut self, input: ArrayView2<'_, f32>) -> Result<(), SessionError> {
        match self {
            Self::Revealed(own) => {
                own.client.start(input)?;
                own.left = own.factors_of_an_input();
                Ok(())
            }
            Self::Hidden(own) => own.client.start(input),
        }
    }

    pub(crate) fn finish(&mut self) -> Result<(), SessionError> {
        match self {
            Self::Revealed(own) => own.client.finish(),
            Self::Hidden(own) => own.client.finish(),
        }
    }

    /// Asks for random factors, or for whole queries of a hidden model, for so many inputs.
    pub(crate) fn prepare(&mut self, inputs: usize) {
        match self {
            Self::Revealed(own) => {
                own.wanted = own.factors_of_an_input().saturating_mul(inputs).min(own.pool.capacity());
            }
            Self::Hidden(own) => own.wanted = inputs,
        }
    }

    /// Whether what was asked for is there, or as much of it as there is room for.
    pub(crate) fn is_prepared(&self) -> bool {
        match self {
            Self::Revealed(own) => own.pool.ready() >= own.wanted,
            Self::Hidden(own) => {
                own.client.prepared() >= own.wanted || !own.client.is_preparing() && !own.client.has_room()
            }
        }
    }

    pub(crate) fn take(&mut self, bytes: &[u8], rng: &mut dyn CryptoRng) -> Result<(Moved, News), Error> {
        match self {
            Self::Revealed(own) => {
                let (place, event) = take(&mut own.client, bytes, rng)?;
                let news = match event {
                    None => News::Nothing,
                    Some(Event::Ready) => News::Ready,
                    Some(Event::Done(outcome)) => News::Done(Output::of(&outcome)),
                };
                Ok((Moved { place, work: own.kind_of_sums(place) }, news))
            }
            Self::Hidden(own) => {
                let (place, event) = take(&mut own.client, bytes, rng)?;
                let news = match event {
                    None | Some(hidden::Event::Prepared) => News::Nothing,
                    Some(hidden::Event::Ready) => News::Ready,
                    Some(hidden::Event::Done(answer)) => News::Done(Output::of_answer(&answer)),
                };
                let work = match place.map(|place| place.part) {
                    Some(Part::Labels { .. }) => StepKind::Evaluate,
                    Some(_) => StepKind::Prepare,
                    None => StepKind::Open,
                };
                Ok((Moved { place, work }, news))
            }
        }
    }

    pub(crate) fn make(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<(Moved, Vec<u8>)>, Error> {
        match self {
            Self::Revealed(own) => {
                let Some((place, bytes)) = make(&mut own.client, rng)? else { return Ok(None) };
                own.left = own.left.saturating_sub(place.map_or(0, |place| place.ciphertexts));
                let work = if place.is_some() { StepKind::Encrypt } else { StepKind::Open };
                Ok(Some((Moved { place, work }, bytes)))
            }
            Self::Hidden(own) => {
                if own.client.prepared() < own.wanted && !own.client.is_preparing() && own.client.has_room() {
                    own.client.prepare()?;
                }
                let Some((place, bytes)) = make(&mut own.client, rng)? else { return Ok(None) };
                let work = match place.map(|place| place.part) {
                    Some(Part::Shares { .. }) => StepKind::Evaluate,
                    Some(_) => StepKind::Prepare,
                    None => StepKind::Open,
                };
                Ok(Some((Moved { place, work }, bytes)))
            }
        }
    }

    /// Uses time in which there is nothing to take or to say; what was made, and how many.
    pub(crate) fn idle(&mut self, rng: &mut dyn CryptoRng) -> Option<(&'static str, usize)> {
        match self {
            Self::Revealed(own) => {
                let missing = own.wanted.max(own.left).saturating_sub(own.pool.ready());
                (missing > 0).then(|| (FACTORS, make_factors(&own.pool, rng)))
            }
            Self::Hidden(own) => match own.client.idle(rng) {
                Idle::Nothing => None,
                Idle::Worked => Some((FACTORS, 0)),
                Idle::Background(work) => {
                    work();
                    Some(("tables", 0))
                }
            },
        }
    }
}

/// Makes a few random factors, if a pool has room for them, and returns how many.
pub(crate) fn make_factors(pool: &RandomnessPool, rng: &mut dyn CryptoRng) -> usize {
    let count = FACTORS_AT_A_TIME * rayon::current_num_threads();
    pool.make(rng, count);
    count
}

impl Revealed {
    fn factors_of_an_input(&self) -> usize {
        let plan = self.client.plan();
        plan.map_or(0, |plan| plan.segments().iter().map(|segment| segment.ciphertexts_up()).sum())
    }

    /// The work on a message of sums: with a tensor's last the layers behind it are computed.
    fn kind_of_sums(&mut self, place: Option<Place>) -> StepKind {
        let Some(own) = place else { return StepKind::Open };
        self.taken += own.ciphertexts;
        let plan = self.client.plan().zip(segment(place));
        let all = plan
            .and_then(|(plan, at)| plan.segments().get(at))
            .map_or(0, |segment| segment.ciphertexts_down());
        if self.taken < all {
            return StepKind::Decrypt;
        }
        self.taken = 0;
        StepKind::Activate
    }
}

fn take<P: WirePeer<Error = SessionError>>(
    peer: &mut P,
    bytes: &[u8],
    rng: &mut dyn CryptoRng,
) -> Result<(Option<Place>, Option<P::Event>), Error> {
    let message = peer.decode(bytes)?;
    let place = message.place();
    Ok((place, peer.handle(message, rng)?))
}

/// A message that was made, and what it is of.
type Made = (Option<Place>, Vec<u8>);

fn make<P: WirePeer<Error = SessionError>>(
    peer: &mut P,
    rng: &mut dyn CryptoRng,
) -> Result<Option<Made>, Error> {
    let Some(message) = peer.next_message(rng)? else { return Ok(None) };
    Ok(Some((message.place(), P::encode(&message)?)))
}
