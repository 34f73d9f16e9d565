//! Conversations as requests and replies, for whatever carries bytes: several messages to a request, each with its length
//! before it, four bytes, little-endian; so are those of a reply.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::accept::Peer;
use super::carry::status_of;
use super::converse::{Session, SessionName, unknown_session};
use super::{Service, Shared};
use crate::stream::CLIENT_FRAME_BYTES;
use crate::{Refusal, ServiceError, proto};

/// Appends a message to those of a request.
pub fn append_message(messages: &mut Vec<u8>, message: &[u8]) {
    messages.extend_from_slice(&(message.len() as u32).to_le_bytes());
    messages.extend_from_slice(message);
}

/// Returns the messages of a reply.
///
/// # Errors
/// [`ServiceError::Stream`] when the last of them is not whole.
pub fn split_messages(bytes: &[u8]) -> Result<Vec<Vec<u8>>, ServiceError> {
    let mut bytes = BytesMut::from(bytes);
    let mut messages = vec![];
    while let Some(message) = take_message(&mut bytes) {
        messages.push(message.into());
    }
    match bytes.is_empty() {
        true => Ok(messages),
        false => Err(ServiceError::Stream {
            expected: "whole messages with their lengths",
            found: "fewer bytes".to_owned(),
        }),
    }
}

/// The length that the first message says it has, once that has arrived.
fn length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?);
    usize::try_from(length).ok()
}

/// Takes the first message, if it is whole.
fn take_message(bytes: &mut BytesMut) -> Option<Bytes> {
    let length = length(bytes)?;
    if bytes.len() - 4 < length {
        return None;
    }
    bytes.advance(4);
    Some(bytes.split_to(length).freeze())
}

/// A conversation for as long as a request is being answered.
pub(super) struct Exchange {
    shared: Arc<Shared>,
    name: SessionName,
    session: Arc<Session>,
    connection: u64,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.session.link.disconnect(self.connection);
    }
}

impl Shared {
    /// Goes on with the conversation of that name for another request, or begins it.
    pub(super) fn exchange(
        self: &Arc<Self>,
        name: SessionName,
        open: &proto::Open,
        peer: Peer,
    ) -> Result<Exchange, Status> {
        let session = match self.find(name, peer) {
            Some(session) => session,
            None if open.model.is_empty() => return Err(unknown_session()),
            None => self.begin(name, open, peer)?.1,
        };
        let connection = session.link.connect_again().map_err(status_of)?;
        Ok(Exchange { shared: Arc::clone(self), name, session, connection })
    }
}

impl Exchange {
    /// Takes the messages of a request as its bytes arrive. What breaks the rules ends the conversation.
    pub(super) async fn take(
        &self,
        chunks: impl Stream<Item = Result<Bytes, Status>> + Unpin,
    ) -> Result<(), Status> {
        self.take_inner(chunks).await.inspect_err(|status| {
            if Refusal::of(status) == Some(Refusal::Malformed) {
                let found = status.message().to_owned();
                self.session.link.end(ServiceError::Stream { expected: "whole messages", found });
            }
        })
    }

    async fn take_inner(
        &self,
        mut chunks: impl Stream<Item = Result<Bytes, Status>> + Unpin,
    ) -> Result<(), Status> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?);
            while let Some(message) = take_message(&mut bytes) {
                self.deliver(message).await?;
            }
            if let Some(length) = length(&bytes).filter(|&length| length > CLIENT_FRAME_BYTES) {
                return Err(Refusal::Malformed.status(format!(
                    "expected messages of at most {CLIENT_FRAME_BYTES} bytes, found one of {length}"
                )));
            }
        }
        match bytes.is_empty() {
            true => Ok(()),
            false => {
                Err(Refusal::Malformed
                    .status("expected whole messages with their lengths, found fewer bytes"))
            }
        }
    }

    async fn deliver(&self, message: Bytes) -> Result<(), Status> {
        let link = &self.session.link;
        link.deliver(self.connection, (link.received(), message), 0).await.map_err(status_of)
    }

    /// The next message of the reply, with its length; `None` when there are no more before another request.
    pub(super) async fn answer(&self) -> Result<Option<Bytes>, Status> {
        let Some(message) = self.session.link.answer(self.connection).await.map_err(status_of)? else {
            if self.session.link.is_finished() {
                self.shared.forget(self.name);
            }
            return Ok(None);
        };
        let mut reply = Vec::with_capacity(4 + message.len());
        append_message(&mut reply, &message);
        Ok(Some(reply.into()))
    }
}

/// A service without a network: bytes in, bytes out. What it keeps and allows is the same.
#[derive(Debug)]
pub struct Steps {
    shared: Arc<Shared>,
}

impl Service {
    /// Returns the service for whatever carries requests. A conversation ends as others do: when its client ends it, or when it
    /// is left alone for as long as the limits say.
    ///
    /// # Errors
    /// [`ServiceError::NoModel`] when there is nothing to offer.
    pub fn into_steps(self) -> Result<Steps, ServiceError> {
        if self.models.is_empty() {
            return Err(ServiceError::NoModel);
        }
        Ok(Steps { shared: Arc::new(Shared::new(self)) })
    }
}

impl Steps {
    /// Takes the messages of a request and returns those of the reply, each with its length before it, four bytes,
    /// little-endian. The first request of a conversation begins it; its name is 16 bytes that the client drew at random.
    ///
    /// # Errors
    /// [`ServiceError::Stream`] for bytes that are no messages, [`ServiceError::Refused`] when there is no room, no such model
    /// or not in that mode.
    pub fn step(
        &self,
        name: [u8; 16],
        (model, is_hidden): (&str, bool),
        messages: &[u8],
    ) -> Result<Vec<u8>, ServiceError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let peer = Peer { address, identity: None, beyond: None, may_train: false };
        let open = proto::Open { model: model.to_owned(), hidden: is_hidden, ..proto::Open::default() };
        let waits = tokio::runtime::Builder::new_current_thread().build();
        let waits = waits.map_err(|error| ServiceError::Unreachable {
            server: model.to_owned(),
            problem: error.to_string(),
        })?;
        let messages = split_messages(messages)?;
        let reply = waits.block_on(async {
            let exchange = self.shared.exchange(SessionName(name), &open, peer)?;
            for message in messages {
                exchange.deliver(message.into()).await?;
            }
            let mut reply = vec![];
            while let Some(message) = exchange.answer().await? {
                reply.extend_from_slice(&message);
            }
            Ok(reply)
        });
        reply.map_err(|status: Status| {
            self.shared.note_refusal(&status);
            ServiceError::Refused {
                server: model.to_owned(),
                refusal: Refusal::of(&status).unwrap_or(Refusal::Other),
                message: status.message().to_owned(),
            }
        })
    }

    /// Returns how many conversations there are.
    pub fn sessions(&self) -> usize {
        self.shared.sessions().len()
    }
}
