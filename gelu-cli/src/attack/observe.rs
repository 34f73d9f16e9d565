//! What both sides see of the first update of a turn.

use gelu_tensor::Decryption;
use rand::CryptoRng;

use gelu_models::peer::{Conversation, Expected, Part, Peer};
use gelu_models::train::private::{Client, Event, Message, PrivateError, Server};

/// The first update of a turn, seen from both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObservedUpdate {
    /// The client's true steps.
    pub(crate) steps: Vec<i64>,
    /// What the server decrypts: rate times step plus mask, mod 2^l (the rate's public offset not taken off).
    pub(crate) received: Vec<u64>,
}

/// Runs the first iteration of a turn of at least two, between a server and a client that are both idle, and shows the
/// update that comes of it. The turn is given up then.
///
/// # Errors
/// [`PrivateError`]; [`PrivateError::Unexpected`] when the turn ends without an update.
pub(crate) fn observe(
    server: &mut Server,
    client: &mut Client,
    rng: &mut dyn CryptoRng,
) -> Result<ObservedUpdate, PrivateError> {
    client.join()?;
    let mut update: Option<Decryption> = None;
    loop {
        while let Some(message) = client.next_message(rng)? {
            if let (Some(Part::Update), Message::Tensor { index, ciphertexts, .. }) =
                (message.place().map(|place| place.part), &message)
            {
                let key = server.key().public_key();
                let mut received = match update.take() {
                    Some(received) => received,
                    None => Decryption::new(key, server.plan().header(Part::Update)?)?,
                };
                received.push(*index, ciphertexts, server.key())?;
                if received.is_complete() {
                    let layout = server.plan().update_layout();
                    let received = layout.read(key.size(), 0, &received.finish_residues()?)?.to_vec();
                    let steps = client.totals().map(<[i64]>::to_vec).unwrap_or_default();
                    server.abandon();
                    client.abandon();
                    return Ok(ObservedUpdate { steps, received });
                }
                update = Some(received);
            } else {
                server.handle(message, rng)?;
            }
        }
        while let Some(message) = server.next_message(rng)? {
            match client.handle(message, rng)? {
                Some(Event::Ready) => client.proceed()?,
                Some(Event::Stepped) => {
                    client.mask(rng)?;
                    client.proceed()?;
                }
                Some(Event::Ended) => {
                    let (expected, found) = (Expected::Ciphertexts, "Ended".to_owned());
                    return Err(PrivateError::Unexpected { expected, found });
                }
                None => {}
            }
        }
    }
}
