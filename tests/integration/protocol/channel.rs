//! Both sides of a session over a channel that loses, repeats, swaps and changes what it carries, in whatever order they
//! get to act: the right answer comes out, or an error, or both wait.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use gelu_net::wire::WirePeer;

/// What happens to a message on its way.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Lost,
    Repeated,
    /// It comes again after so many others.
    RepeatedLater(usize),
    /// The next overtakes it.
    Overtaken,
    /// One of its bytes is another.
    Changed(prop::sample::Index, u8),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Lost),
        Just(Fault::Repeated),
        (1usize..5).prop_map(Fault::RepeatedLater),
        Just(Fault::Overtaken),
        (any::<prop::sample::Index>(), 1u8..=255).prop_map(|(at, by)| Fault::Changed(at, by)),
    ]
}

/// One direction.
#[derive(Default)]
struct Channel {
    carried: VecDeque<Vec<u8>>,
    /// What comes again, and how many messages are before it.
    later: Vec<(usize, Vec<u8>)>,
    overtaken: Option<Vec<u8>>,
    /// Messages so far.
    count: usize,
    /// What happens to which message.
    faults: BTreeMap<usize, Fault>,
}

impl Channel {
    fn send(&mut self, bytes: Vec<u8>) {
        let overtaken = self.overtaken.take();
        match self.faults.get(&self.count) {
            None => self.carried.push_back(bytes),
            Some(Fault::Lost) => {}
            Some(Fault::Repeated) => self.carried.extend([bytes.clone(), bytes]),
            Some(&Fault::RepeatedLater(after)) => {
                self.later.push((self.count + after, bytes.clone()));
                self.carried.push_back(bytes);
            }
            Some(Fault::Overtaken) => self.overtaken = Some(bytes),
            Some(Fault::Changed(at, by)) => {
                let mut bytes = bytes;
                let at = at.index(bytes.len());
                bytes[at] ^= by;
                self.carried.push_back(bytes);
            }
        }
        self.carried.extend(overtaken);
        for (after, bytes) in &self.later {
            if *after == self.count {
                self.carried.push_back(bytes.clone());
            }
        }
        self.count += 1;
    }
}

/// A side that is at an end: it closed, or it failed.
type End = Option<Result<(), RunError>>;

/// Takes one message, or makes one. Whether there was anything to do.
fn act<P: WirePeer<Error = SessionError>>(
    peer: &mut P,
    (incoming, outgoing): (&mut Channel, &mut Channel),
    end: &mut End,
    mut heard: impl FnMut(&mut P, P::Event),
    mut said: impl FnMut(&[u8]),
) -> bool {
    if end.is_some() {
        return incoming.carried.pop_front().is_some();
    }
    let rng = &mut rng();
    let mut step = || -> Result<bool, RunError> {
        if let Some(bytes) = incoming.carried.pop_front() {
            let event = peer.handle(peer.decode(&bytes)?, rng).map_err(RunError::Peer)?;
            event.into_iter().for_each(|event| heard(peer, event));
            return Ok(true);
        }
        let Some(message) = peer.next_message(rng).map_err(RunError::Peer)? else { return Ok(false) };
        let bytes = P::encode(&message)?;
        said(&bytes);
        outgoing.send(bytes);
        Ok(true)
    };
    let stepped = step();
    match &stepped {
        Err(error) => {
            peer.close();
            // What the driver of sessions tells the other side.
            let reason = match error {
                RunError::Peer(error) => error.reason(),
                _ => Some(AbortReason::Malformed),
            };
            if let Some(reason) = reason {
                outgoing.send(encode(&Message::Abort { reason }));
            }
            *end = Some(Err(error.clone()));
        }
        Ok(_) if peer.is_closed() => *end = Some(Ok(())),
        Ok(_) => {}
    }
    stepped.unwrap_or(true)
}

static BRANCHED: LazyLock<Arc<ServerModel>> = LazyLock::new(branched);

/// The image of one of the two batches.
fn image(round: usize) -> Array2<f32> {
    images(2).select(ndarray::Axis(0), &[round])
}

/// What comes of each.
static CLEARS: LazyLock<[Outcome; 2]> = LazyLock::new(|| {
    let program = BRANCHED.program(&deployment(&KEY, 1)).unwrap();
    [0, 1].map(|round| program.run_clear(image(round).view()).unwrap())
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_channel_makes_a_wrong_answer(
        up in prop::collection::btree_map(0usize..8, fault(), 0..3),
        down in prop::collection::btree_map(0usize..8, fault(), 0..3),
        turns in prop::collection::vec(any::<bool>(), 64),
    ) {
        let is_honest = up.is_empty() && down.is_empty();
        let changes = up.values().chain(down.values()).any(|fault| matches!(fault, Fault::Changed(..)));
        let (mut server, mut client) = (serving(&BRANCHED), client(1));
        let mut up = Channel { faults: up, ..Channel::default() };
        let mut down = Channel { faults: down, ..Channel::default() };
        let (mut client_end, mut server_end): (End, End) = (None, None);
        let (mut outcomes, mut sums) = (vec![], BTreeMap::new());
        let mut turns = turns.into_iter().cycle();
        // Until both wait, or are at an end.
        let mut idle = [false; 2];
        while idle != [true; 2] {
            let is_clients_turn = if idle[0] || idle[1] { idle[1] } else { turns.next() == Some(true) };
            let worked = if is_clients_turn {
                let heard = |client: &mut Client, event| match event {
                    Event::Ready => (0..2).for_each(|round| client.start(image(round).view()).unwrap()),
                    Event::Done(outcome) => {
                        outcomes.push(outcome);
                        if outcomes.len() == 2 {
                            client.finish().unwrap();
                        }
                    }
                };
                act(&mut client, (&mut down, &mut up), &mut client_end, heard, |_| ())
            } else {
                let said = |bytes: &[u8]| {
                    let message = decode_message(bytes, Some(KEY.public_key()));
                    if let Ok(Message::Tensor { position, index, .. }) = message {
                        *sums.entry((position.round, position.part, index)).or_insert(0) += 1;
                    }
                };
                act(&mut server, (&mut up, &mut down), &mut server_end, |_, never| match never {}, said)
            };
            match worked {
                true => idle = [false; 2],
                false => idle[usize::from(!is_clients_turn)] = true,
            }
        }
        // Whatever was repeated, nothing was answered twice.
        prop_assert!(sums.values().all(|&times| times == 1), "{:?}", sums);
        // A ciphertext of which a byte is another is one of another value: integrity is the transport's part.
        if !changes {
            prop_assert!(outcomes.iter().zip(&*CLEARS).all(|(outcome, clear)| **outcome == *clear));
        }
        match (&client_end, &server_end) {
            (Some(Ok(())), Some(Ok(()))) => prop_assert_eq!(outcomes.len(), 2),
            _ => prop_assert!(!is_honest, "{:?} {:?}", client_end, server_end),
        }
        for end in [client_end, server_end].into_iter().flatten() {
            let is_typed = matches!(
                end,
                Ok(()) | Err(RunError::Wire(_)) | Err(RunError::Peer(
                    SessionError::Unexpected { .. } | SessionError::Numbers { .. } | SessionError::Aborted(_)
                    | SessionError::Version { .. } | SessionError::Refused(_) | SessionError::Plan(_)
                ))
            );
            prop_assert!(is_typed, "{:?}", end);
        }
    }
}
