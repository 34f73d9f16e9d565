//! What can go wrong between two machines.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gelu_models::train::private::PrivateError;
use gelu_wire::SequenceError;
use tonic::{Code, Status};

use crate::Fingerprint;

/// Why a server cannot serve, or a client cannot reach one.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// An address of a server that is none.
    #[error("expected the address of a server such as https://host:7443, found `{found}`")]
    Address {
        /// What was given.
        found: String,
    },
    /// A server without TLS would listen where other machines can reach it.
    #[error(
        "expected TLS for {address}, which other machines can reach: a server without certificates listens on 127.0.0.1 \
         or [::1] only"
    )]
    Unprotected {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// A client without TLS would talk to another machine.
    #[error("expected TLS for {host}: without certificates only a server on this machine is talked to")]
    UnprotectedServer {
        /// The server's host.
        host: String,
    },
    /// Certificates or a key that cannot be used.
    #[error("{what}: {problem}")]
    Credentials {
        /// Which of them.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {problem}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system's answer.
        problem: String,
    },
    /// There is no model of that name to be offered.
    #[error("a server needs a model to offer")]
    NoModel,
    /// A folder with a page that cannot be served.
    #[error("{}: {problem}", .path.display())]
    Page {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// What is no origin of a page.
    #[error("expected the origin of a page such as https://host or http://127.0.0.1:8000, found `{found}`")]
    Origin {
        /// What was given.
        found: String,
    },
    /// A run of training has nowhere to be kept.
    #[error("a server that trains needs a folder for its state")]
    NoLedger,
    /// A model cannot be trained as it is asked for.
    #[error("{model}: cannot be trained")]
    Training {
        /// The model's name.
        model: String,
        /// Why.
        #[source]
        error: Box<PrivateError>,
    },
    /// A server's state cannot be kept, so that the client is not told what would be lost.
    #[error("the server cannot keep the state of the run; its operator has to see to it")]
    StateUnkept,
    /// What was kept of a client's part in a run is of another run.
    #[error(
        "expected the run of training that this client has taken part in, found another one under that name"
    )]
    AnotherRun,
    /// The server cannot be reached, or a handshake failed.
    #[error("cannot reach {server}: {problem}")]
    Unreachable {
        /// Its address.
        server: String,
        /// What was found.
        problem: String,
    },
    /// The server's key is another than the one that is known.
    #[error(
        "{server}: expected the server's key {expected}, found {found}: either its operator replaced it, or another machine \
         answers in its place; ask the operator before you trust the new key"
    )]
    ForeignServer {
        /// Its address.
        server: String,
        /// The key that is known.
        expected: Fingerprint,
        /// The key that was shown.
        found: Fingerprint,
    },
    /// The server refused.
    #[error("{server} refused ({refusal}): {message}")]
    Refused {
        /// Its address.
        server: String,
        /// Which kind of refusal.
        refusal: Refusal,
        /// The server's own words.
        message: String,
    },
    /// The connection broke and could not be made again in time.
    #[error("the connection to {server} broke, and no other could be made within {} s: {problem}", .waited.as_secs())]
    Lost {
        /// Its address.
        server: String,
        /// How long was tried.
        waited: Duration,
        /// What the last attempt found.
        problem: String,
    },
    /// The other side said nothing for too long.
    #[error("the other side said nothing for {} s", .waited.as_secs())]
    Silent {
        /// How long.
        waited: Duration,
    },
    /// The other side broke the rules of the stream.
    #[error("the stream of the other side is broken: expected {expected}, found {found}")]
    Stream {
        /// What the rules allow.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The conversation is over.
    #[error("the conversation is over")]
    Ended,
    /// The server had to stop before the conversation was over.
    #[error("the server stopped before the conversation was over")]
    Stopped,
    /// A server's kept state cannot be read or written.
    #[error("{}: {problem}", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl From<SequenceError> for ServiceError {
    fn from(SequenceError { expected, found }: SequenceError) -> Self {
        Self::Stream { expected, found }
    }
}

impl ServiceError {
    /// Whether an error may pass while a client waits: the server is restarted, has no room, or holds what is left of a
    /// conversation.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Silent { .. }
            | Self::Ended
            | Self::Stopped => true,
            Self::Refused { refusal, .. } => matches!(
                refusal,
                Refusal::Stopping
                    | Refusal::UnknownSession
                    | Refusal::Busy
                    | Refusal::Connections
                    | Refusal::Turn
                    | Refusal::Late
            ),
            _ => false,
        }
    }

    /// Returns whether the server has forgotten the conversation, or is about to, and no one is to blame: it was restarted.
    /// Another conversation can do what is left to do.
    pub fn is_restart(&self) -> bool {
        matches!(self, Self::Refused { refusal: Refusal::UnknownSession | Refusal::Stopping, .. })
    }
}

/// Kinds of refusals, as gRPC names them on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The server has no such model.
    UnknownModel,
    /// The model is not offered in the mode that was asked for: hidden from the client, or not.
    Mode,
    /// The server does not know the conversation: it ended, was left alone for too long, or the server was restarted.
    UnknownSession,
    /// The server has as many conversations as it takes.
    Busy,
    /// The client's certificate has as many connections as it may have.
    Connections,
    /// The server is about to stop.
    Stopping,
    /// The server speaks another version.
    Version,
    /// The client's certificate is not accepted, or another than that of the conversation.
    Identity,
    /// The server could not make sense of what was sent.
    Malformed,
    /// The client was silent or away for too long.
    Late,
    /// The client cannot take part in the training run as it asks to.
    Enrolment,
    /// It is not the client's turn.
    Turn,
    /// The client has had what it may have.
    Budget,
    /// The client has had what it may have for now.
    Rate,
    /// The server cannot keep its state.
    State,
    /// Something else.
    Other,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownModel => "no such model",
            Self::Mode => "no such mode",
            Self::UnknownSession => "no such conversation",
            Self::Busy => "too many conversations",
            Self::Connections => "too many connections",
            Self::Stopping => "stopping",
            Self::Version => "another version",
            Self::Identity => "certificate",
            Self::Malformed => "malformed",
            Self::Late => "too late",
            Self::Enrolment => "no place",
            Self::Turn => "no turn",
            Self::Budget => "budget",
            Self::Rate => "too fast",
            Self::State => "state",
            Self::Other => "failed",
        })
    }
}

/// The metadata in which the kind of a refusal travels, since gRPC has fewer.
const REFUSAL: &str = "gelu-refusal";

impl Refusal {
    const ALL: [(Self, Code, &'static str); 16] = [
        (Self::UnknownModel, Code::NotFound, "unknown-model"),
        (Self::Mode, Code::FailedPrecondition, "mode"),
        (Self::UnknownSession, Code::NotFound, "unknown-session"),
        (Self::Busy, Code::ResourceExhausted, "busy"),
        (Self::Connections, Code::ResourceExhausted, "connections"),
        (Self::Stopping, Code::Unavailable, "stopping"),
        (Self::Version, Code::FailedPrecondition, "version"),
        (Self::Identity, Code::PermissionDenied, "identity"),
        (Self::Malformed, Code::InvalidArgument, "malformed"),
        (Self::Late, Code::DeadlineExceeded, "late"),
        (Self::Enrolment, Code::FailedPrecondition, "enrolment"),
        (Self::Turn, Code::FailedPrecondition, "turn"),
        (Self::Budget, Code::ResourceExhausted, "budget"),
        (Self::Rate, Code::ResourceExhausted, "rate"),
        (Self::State, Code::Internal, "state"),
        (Self::Other, Code::Unknown, "other"),
    ];

    fn code_and_name(self) -> (Code, &'static str) {
        let found = Self::ALL.into_iter().find(|(kind, ..)| *kind == self);
        found.map_or((Code::Unknown, "other"), |(_, code, name)| (code, name))
    }

    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        self.code_and_name().1
    }

    /// The status that a server answers with.
    pub(crate) fn status(self, message: impl Into<String>) -> Status {
        let (code, name) = self.code_and_name();
        let mut status = Status::new(code, message);
        status.metadata_mut().insert(REFUSAL, tonic::metadata::MetadataValue::from_static(name));
        status
    }

    /// The refusal in a status that a server of this kind sent; `None` for those that gRPC makes by itself.
    pub(crate) fn of(status: &Status) -> Option<Self> {
        let name = status.metadata().get(REFUSAL)?.to_str().ok()?.to_owned();
        Self::ALL.into_iter().find(|(.., known)| *known == name).map(|(kind, ..)| kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_its_status() {
        for (refusal, code, _) in Refusal::ALL {
            let status = refusal.status("in the server's words");
            assert_eq!((Refusal::of(&status), status.code()), (Some(refusal), code));
        }
        assert_eq!(Refusal::of(&Status::unavailable("made by gRPC")), None);
    }
}
