//! A conversation with a server over as many connections as it takes: messages in numbered frames.

use gelu_wire::{MESSAGE_BYTES, Outgoing, Sequence};
use prost::Message;

use crate::Error;
use crate::proto::{self, client_frame, server_frame};

/// The version of the service that this client speaks.
const SERVICE_VERSION: u32 = 1;

/// The most bytes of a frame: any message, and what is around it.
const FRAME_BYTES: usize = MESSAGE_BYTES + (1 << 12);

/// What a conversation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The model's name at the server.
    pub model: String,
    /// Whether it is to be hidden from this client.
    pub hidden: bool,
}

/// One side of a conversation. Frames are those of the service's gRPC stream.
#[derive(Debug)]
pub(crate) struct Conversation {
    topic: Topic,
    /// What the server called it; empty before.
    session: Vec<u8>,
    sequence: Sequence<Vec<u8>>,
    /// Whether there is a connection over which the server has answered.
    is_open: bool,
    kept_seconds: u32,
}

impl Conversation {
    pub(crate) fn new(topic: Topic) -> Self {
        Self { topic, session: vec![], sequence: Sequence::default(), is_open: false, kept_seconds: 0 }
    }

    /// The first frame of a new connection. What was sent over the one before and has not arrived is sent again.
    pub(crate) fn open(&mut self) -> Vec<u8> {
        self.is_open = false;
        encode(client_frame::Frame::Open(proto::Open {
            version: SERVICE_VERSION,
            model: self.topic.model.clone(),
            session: self.session.clone(),
            received: self.sequence.received(),
            training: false,
            client: String::new(),
            hidden: self.topic.hidden,
        }))
    }

    /// Takes a frame that has arrived, and returns the message in it, if there is one.
    pub(crate) fn take(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let unexpected = |expected, found: &str| Err(Error::Frame { expected, found: found.to_owned() });
        if frame.len() > FRAME_BYTES {
            return unexpected("a frame within the limit", &format!("{} bytes", frame.len()));
        }
        let frame = match proto::ServerFrame::decode(frame) {
            Ok(frame) => frame.frame,
            Err(error) => return unexpected("a frame of the service", &error.to_string()),
        };
        match (self.is_open, frame) {
            (false, Some(server_frame::Frame::Opened(opened))) => {
                if !self.session.is_empty() && self.session != opened.session {
                    return unexpected("the conversation to go on", "another one");
                }
                self.sequence.resume(opened.received)?;
                (self.session, self.kept_seconds) = (opened.session, opened.kept_seconds);
                self.is_open = true;
                Ok(None)
            }
            (false, _) => unexpected("a connection that begins with Opened", "another frame"),
            (true, Some(server_frame::Frame::Data(data))) => {
                self.sequence.arrived(data.number, data.received)?;
                Ok(Some(data.message))
            }
            (true, Some(server_frame::Frame::Received(has))) => {
                self.sequence.confirmed(has)?;
                Ok(None)
            }
            (true, _) => unexpected("messages after the first frame", "another frame"),
        }
    }

    pub(crate) fn say(&mut self, message: Vec<u8>) {
        self.sequence.push(message);
    }

    /// The next frame to send over the connection that there is.
    pub(crate) fn next_frame(&mut self) -> Option<Vec<u8>> {
        if !self.is_open {
            return None;
        }
        let next = self.sequence.next_message().or_else(|| self.sequence.next_receipt())?;
        Some(encode(match next {
            Outgoing::Message { number, message, received } => {
                client_frame::Frame::Data(proto::Data { number, message, received })
            }
            Outgoing::Received(has) => client_frame::Frame::Received(has),
        }))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.sequence.is_flushed()
    }

    /// Seconds that the server keeps the conversation after a connection broke.
    pub(crate) fn kept_seconds(&self) -> u32 {
        self.kept_seconds
    }
}

fn encode(frame: client_frame::Frame) -> Vec<u8> {
    proto::ClientFrame { frame: Some(frame) }.encode_to_vec()
}
