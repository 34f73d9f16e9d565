use std::collections::VecDeque;

use rand::CryptoRng;

use crate::train::private::{Client, Event, Message, Part, PrivateError, Server};

/// The first update of a turn, seen from both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedUpdate {
    /// The client's true steps.
    pub steps: Vec<i64>,
    /// What the server decrypts: rate times step plus mask, mod 2^l (the rate's public offset not taken off).
    pub received: Vec<u64>,
}

/// Runs the first iteration of a turn of at least two, between a server and a client that are both idle, and shows the
/// update that comes of it. The turn is given up then.
///
/// # Errors
/// [`PrivateError`]; [`PrivateError::State`] when the turn ends without an update.
pub fn observe(
    server: &mut Server,
    client: &mut Client,
    rng: &mut dyn CryptoRng,
) -> Result<ObservedUpdate, PrivateError> {
    let mut queue = VecDeque::from([client.join()?]);
    let mut chunks = vec![];
    while let Some(message) = queue.pop_front() {
        if let (Some(Part::Update), Message::Tensor { ciphertexts, .. }) = (message.part(), &message) {
            chunks.push(ciphertexts.clone());
            if !queue.is_empty() {
                continue;
            }
            let steps = client.totals().map(<[i64]>::to_vec).unwrap_or_default();
            let received = server.plan().update_layout().decrypt(server.key(), 0, &chunks)?.to_vec();
            server.abandon();
            client.abandon();
            return Ok(ObservedUpdate { steps, received });
        }
        for answer in server.handle(message, rng)? {
            if let Some(Event::Ready | Event::Taken) = client.handle(answer)? {
                queue.extend(client.proceed(rng)?);
            }
        }
    }
    Err(PrivateError::State("the turn ended without an update"))
}
