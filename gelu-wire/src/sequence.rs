//! Numbers of messages, so that a conversation outlives its connections.

use std::collections::VecDeque;

/// After so many messages the other side is told that they have arrived, so that it need not keep them.
const TOLD_EVERY: u64 = 8;

/// One side's numbers of a conversation: messages count from 0 in each direction, are kept until the other side has them, and go
/// out again over the next connection.
///
/// ```
/// use gelu_wire::{Outgoing, Sequence};
///
/// let mut ours = Sequence::default();
/// ours.push("hello");
/// ours.resume(0)?;
/// assert!(matches!(ours.next_message(), Some(Outgoing::Message { number: 0, .. })));
/// // The connection breaks, and the other side has nothing: it is sent again.
/// ours.resume(0)?;
/// assert!(matches!(ours.next_message(), Some(Outgoing::Message { number: 0, .. })));
/// // It breaks once more, after the message arrived.
/// ours.resume(1)?;
/// assert!(ours.next_message().is_none());
/// # Ok::<(), gelu_wire::SequenceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sequence<M> {
    /// Messages that have arrived.
    received: u64,
    /// How many of them the other side knows of.
    told: u64,
    /// Messages that the other side may not have yet.
    outbox: VecDeque<M>,
    /// The number of the first of them.
    kept_from: u64,
    /// The number of the next to be sent over this connection.
    next: u64,
}

/// What is to be sent next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing<M> {
    /// A message.
    Message {
        /// Messages that were sent before.
        number: u64,
        /// The message.
        message: M,
        /// Messages that have arrived here.
        received: u64,
    },
    /// How many messages have arrived here, where there is no message to say it with.
    Received(u64),
}

/// Numbers that do not fit what was sent and received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side's numbers of messages: expected {expected}, found {found}")]
pub struct SequenceError {
    /// What the rules allow.
    pub expected: &'static str,
    /// What came.
    pub found: String,
}

impl<M> Default for Sequence<M> {
    fn default() -> Self {
        Self { received: 0, told: 0, outbox: VecDeque::new(), kept_from: 0, next: 0 }
    }
}

impl<M: Clone> Sequence<M> {
    /// Returns how many messages have arrived so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns how many messages have been sent, over this connection or those before.
    pub fn sent(&self) -> u64 {
        self.next
    }

    /// Returns how many messages are kept since the other side may not have them yet.
    pub fn kept(&self) -> usize {
        self.outbox.len()
    }

    /// Returns whether everything that was said has been sent over the connection that there is.
    pub fn is_flushed(&self) -> bool {
        self.next == self.made()
    }

    /// Adds a message that is to be sent.
    pub fn push(&mut self, message: M) {
        self.outbox.push_back(message);
    }

    /// Begins a new connection, over which the other side says how many messages it has.
    ///
    /// # Errors
    /// [`SequenceError`] when it cannot have so many, or claims to lack some that it had.
    pub fn resume(&mut self, has: u64) -> Result<(), SequenceError> {
        if !(self.kept_from..=self.made()).contains(&has) {
            return Err(SequenceError {
                expected: "as many messages as were sent and not confirmed",
                found: format!("{has}, where {} to {} are possible", self.kept_from, self.made()),
            });
        }
        self.forget(has);
        self.next = has;
        self.told = self.received;
        Ok(())
    }

    /// Takes note of a message's arrival, with which the other side says how many it has.
    ///
    /// # Errors
    /// [`SequenceError`] when it is not the next one, or the other side cannot have so many.
    pub fn arrived(&mut self, number: u64, has: u64) -> Result<(), SequenceError> {
        self.confirmed(has)?;
        if number != self.received {
            return Err(SequenceError {
                expected: "messages one after the other",
                found: format!("message {number} after {}", self.received),
            });
        }
        self.received += 1;
        Ok(())
    }

    /// Takes the other side's word for how many messages it has. One that was overtaken says less than is known.
    ///
    /// # Errors
    /// [`SequenceError`] when it cannot have so many.
    pub fn confirmed(&mut self, has: u64) -> Result<(), SequenceError> {
        if has > self.next {
            let found = format!("{has} of {}", self.next);
            return Err(SequenceError { expected: "no more messages than were sent", found });
        }
        self.forget(has);
        Ok(())
    }

    /// Returns the next message to send over this connection, if there is one.
    pub fn next_message(&mut self) -> Option<Outgoing<M>> {
        let message = self.outbox.get((self.next - self.kept_from) as usize)?.clone();
        self.next += 1;
        self.told = self.received;
        Some(Outgoing::Message { number: self.next - 1, message, received: self.received })
    }

    /// Returns whether it is time to say how many messages have arrived, be it without a message.
    pub fn is_receipt_due(&self) -> bool {
        self.received - self.told >= TOLD_EVERY
    }

    /// Returns how many messages have arrived, if it is time to say so without a message.
    pub fn next_receipt(&mut self) -> Option<Outgoing<M>> {
        self.is_receipt_due().then(|| {
            self.told = self.received;
            Outgoing::Received(self.received)
        })
    }

    fn made(&self) -> u64 {
        self.kept_from + self.kept() as u64
    }

    fn forget(&mut self, has: u64) {
        while self.kept_from < has && self.outbox.pop_front().is_some() {
            self.kept_from += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Moves up to `frames` of them; the last is lost on the way.
    fn carry(from: &mut Sequence<u8>, to: &mut Sequence<u8>, heard: &mut Vec<u8>, frames: usize) {
        for moved in 0..frames {
            let next = from.next_message().or_else(|| from.next_receipt());
            match next {
                None => return,
                Some(_) if moved + 1 == frames => {}
                Some(Outgoing::Message { number, message, received }) => {
                    to.arrived(number, received).unwrap();
                    heard.push(message);
                }
                Some(Outgoing::Received(has)) => to.confirmed(has).unwrap(),
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_repeated_or_reordered(
            counts in prop::array::uniform2(0_u8..40),
            cuts in prop::collection::vec((1_usize..12, 1_usize..12), 0..8),
        ) {
            let mut sides = [Sequence::default(), Sequence::default()];
            for (side, count) in sides.iter_mut().zip(counts) {
                (0..count).for_each(|at| side.push(at));
            }
            let mut heard = [vec![], vec![]];
            for (up, down) in cuts.into_iter().chain([(usize::MAX, usize::MAX)]) {
                let [first, second] = &mut sides;
                let has = [first.received(), second.received()];
                first.resume(has[1]).unwrap();
                second.resume(has[0]).unwrap();
                carry(first, second, &mut heard[1], up);
                carry(second, first, &mut heard[0], down);
            }
            prop_assert_eq!(&heard[1], &(0..counts[0]).collect::<Vec<_>>());
            prop_assert_eq!(&heard[0], &(0..counts[1]).collect::<Vec<_>>());
            prop_assert!(sides.iter().all(Sequence::is_flushed));
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let mut ours = Sequence::default();
        (0..3_u8).for_each(|at| ours.push(at));
        assert!(ours.resume(4).is_err());
        ours.resume(0).unwrap();
        ours.next_message().unwrap();
        assert!(ours.confirmed(2).is_err() && ours.arrived(1, 0).is_err());
        ours.arrived(0, 1).unwrap();
        assert!(ours.arrived(0, 1).is_err());
        // What it had it cannot lack.
        assert!(ours.resume(0).is_err());
        ours.resume(3).unwrap();
        assert!(ours.is_flushed() && ours.next_message().is_none() && ours.next_receipt().is_none());
        (1..8).for_each(|number| ours.arrived(number, 3).unwrap());
        assert_eq!(ours.next_receipt(), None);
        ours.resume(3).unwrap();
        (8..16).for_each(|number| ours.arrived(number, 3).unwrap());
        assert_eq!((ours.next_receipt(), ours.next_receipt()), (Some(Outgoing::Received(16)), None));
    }
}
