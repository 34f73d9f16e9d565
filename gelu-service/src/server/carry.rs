//! Carries messages between a stream and the link of its conversation.

use gelu_wire::Outgoing;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

use crate::link::Link;
use crate::proto::{client_frame, server_frame};
use crate::{Refusal, ServiceError, proto};

/// Carries frames between a stream and a link until one of them ends.
pub(super) async fn carry(
    link: &Link,
    connection: u64,
    mut frames: impl Stream<Item = Result<proto::ClientFrame, Status>> + Unpin,
    sender: mpsc::Sender<Result<proto::ServerFrame, Status>>,
) {
    let incoming = async {
        loop {
            let taken = match frames.next().await {
                Some(Ok(proto::ClientFrame { frame: Some(client_frame::Frame::Data(data)) })) => {
                    link.deliver(connection, (data.number, data.message), data.received).await
                }
                Some(Ok(proto::ClientFrame { frame: Some(client_frame::Frame::Received(has)) })) => {
                    link.confirmed(connection, has)
                }
                Some(Ok(_)) => Err(ServiceError::Stream {
                    expected: "messages after the first frame",
                    found: "another frame".to_owned(),
                }),
                // Of gRPC, and of a WebSocket.
                Some(Err(status))
                    if status.code() == Code::OutOfRange
                        || Refusal::of(&status) == Some(Refusal::Malformed) =>
                {
                    Err(ServiceError::Stream {
                        expected: "frames of the service, within the limit",
                        found: status.message().to_owned(),
                    })
                }
                // The connection broke, or the client has hung up and may come back.
                Some(Err(_)) | None => return None,
            };
            if let Err(error) = taken {
                return Some(error);
            }
        }
    };
    let outgoing = async {
        loop {
            let next = match link.next(connection).await {
                Ok(Some(Outgoing::Message { number, message, received })) => {
                    server_frame::Frame::Data(proto::Data { number, message, received })
                }
                Ok(Some(Outgoing::Received(received))) => server_frame::Frame::Received(received),
                Ok(None) => return None,
                Err(error) => return Some(error),
            };
            if sender.send(Ok(frame(next))).await.is_err() {
                return Some(ServiceError::Ended);
            }
        }
    };
    tokio::select! {
        broken = incoming => {
            let status = match broken {
                Some(error) => {
                    if matches!(error, ServiceError::Stream { .. }) {
                        link.end(error.clone());
                    }
                    status_of(error)
                }
                // No refusal: the client may come back.
                None => Status::unavailable("the client's half of the stream ended"),
            };
            let _ = sender.try_send(Err(status));
        },
        ended = outgoing => if let Some(error) = ended {
            let _ = sender.try_send(Err(status_of(error)));
        },
    }
}

pub(super) fn frame(frame: server_frame::Frame) -> proto::ServerFrame {
    proto::ServerFrame { frame: Some(frame) }
}

pub(super) fn status_of(error: ServiceError) -> Status {
    let refusal = match &error {
        ServiceError::Stream { .. } => Refusal::Malformed,
        ServiceError::Silent { .. } => Refusal::Late,
        ServiceError::Ended => Refusal::UnknownSession,
        ServiceError::Stopped => Refusal::Stopping,
        ServiceError::StateUnkept => Refusal::State,
        _ => Refusal::Other,
    };
    refusal.status(error.to_string())
}
