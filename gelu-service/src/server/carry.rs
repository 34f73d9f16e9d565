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
                if matches!(error, ServiceError::Stream { .. }) {
                    link.end(error.clone());
                }
                if link.why().is_some() {
                    // What was said before the end goes out first; the other direction says why it ended.
                    return std::future::pending().await;
                }
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
            // Another connection took this one's place; or the client is gone, which is no refusal: it may come back.
            let gone = || Status::unavailable("the client's half of the stream ended");
            let _ = sender.try_send(Err(broken.map_or_else(gone, status_of)));
        },
        ended = outgoing => if let Some(error) = ended {
            let _ = sender.send(Err(status_of(error))).await;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use gelu_io::transport::Transport;

    use super::*;
    use crate::link::LinkPatience;

    #[tokio::test]
    async fn what_was_said_before_the_end_goes_out_before_the_reason() {
        let wait = Duration::from_secs(10);
        // Which direction is looked at first is random.
        for _ in 0..40 {
            let link = Link::new(LinkPatience { silence: wait, absence: wait });
            let connection = link.connect(0).unwrap();
            link.send(b"last words".to_vec()).unwrap();
            link.end(ServiceError::Stopped);
            let data = proto::Data { number: 0, message: Bytes::from_static(b"a flood"), received: 0 };
            let frame = proto::ClientFrame { frame: Some(client_frame::Frame::Data(data)) };
            let frames = tokio_stream::iter(std::iter::repeat_n(Ok(frame), 5));
            let (sender, mut receiver) = mpsc::channel(1);
            let ((), (said, why)) = tokio::join!(carry(&link, connection, frames, sender), async {
                (receiver.recv().await, receiver.recv().await)
            });
            let Some(Ok(proto::ServerFrame { frame: Some(server_frame::Frame::Data(data)) })) = said else {
                panic!("{said:?}")
            };
            assert_eq!(data.message, b"last words"[..]);
            assert_eq!(Refusal::of(&why.unwrap().unwrap_err()), Some(Refusal::Stopping));
        }
    }
}
