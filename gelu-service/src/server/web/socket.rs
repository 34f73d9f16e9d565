//! Conversations over WebSocket: each binary message is a frame of the gRPC stream.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Door, name_of};
use crate::server::accept::Peer;
use crate::stream::CLIENT_FRAME_BYTES;
use crate::{Refusal, proto};

/// How often a client is asked whether it is there.
const PING: Duration = Duration::from_secs(20);
/// For anything from a client that is there, and for it to take a frame.
const QUIET: Duration = Duration::from_secs(60);
/// For a client to close its side.
const CLOSING: Duration = Duration::from_secs(2);

/// The code that refusals close a WebSocket with.
const REFUSED: u16 = 4000;
const NORMAL: u16 = 1000;
/// The most bytes that a close frame has room for beside its code.
const REASON_BYTES: usize = 123;

pub(super) async fn converse(
    State(door): State<Arc<Door>>,
    Extension(peer): Extension<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade
        .max_message_size(CLIENT_FRAME_BYTES)
        .max_frame_size(CLIENT_FRAME_BYTES)
        .on_upgrade(move |socket| hold(door, peer, socket))
}

async fn hold(door: Arc<Door>, peer: Peer, socket: WebSocket) {
    // Lets the server wait for the last words.
    let _alive = door.alive.clone();
    let (mut sink, stream) = socket.split();
    let (sender, frames) = mpsc::channel(1);
    let reading = tokio::spawn(read(stream, sender));
    let answered = match door.shared.open(peer, ReceiverStream::new(frames)).await {
        Ok(answers) => answer(&mut sink, answers).await,
        Err(status) => Some(status),
    };
    let (code, reason) = match answered {
        Some(status) => (REFUSED, reason(&status)),
        None => (NORMAL, String::new()),
    };
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    // Whoever does not read it will not be waited for, and whoever goes on talking is not heard.
    let _ = tokio::time::timeout(CLOSING, sink.send(close)).await;
    let abort = reading.abort_handle();
    let _ = tokio::time::timeout(CLOSING, reading).await;
    abort.abort();
}

/// Hands on frames, and once nobody takes them drops what comes, until the client has closed.
async fn read(mut stream: SplitStream<WebSocket>, sender: mpsc::Sender<Result<proto::ClientFrame, Status>>) {
    while let Ok(Some(Ok(message))) = tokio::time::timeout(QUIET, stream.next()).await {
        let frame = match message {
            Message::Binary(bytes) => proto::ClientFrame::decode(bytes)
                .map_err(|error| Refusal::Malformed.status(format!("expected a frame: {error}"))),
            Message::Text(_) => Err(Refusal::Malformed.status("expected binary frames, found text")),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return,
        };
        // There may be nobody to take it any more.
        let _ = sender.send(frame).await;
    }
}

/// Sends frames until there are no more; returns why, if that is a refusal.
async fn answer(
    sink: &mut SplitSink<WebSocket, Message>,
    mut answers: ReceiverStream<Result<proto::ServerFrame, Status>>,
) -> Option<Status> {
    let mut ping = tokio::time::interval(PING);
    loop {
        let message = tokio::select! {
            answer = answers.next() => match answer? {
                Ok(frame) => Message::Binary(frame.encode_to_vec().into()),
                Err(status) => return Some(status),
            },
            _ = ping.tick() => Message::Ping(bytes::Bytes::new()),
        };
        // A connection that takes nothing is given up: the client may come back with another.
        match tokio::time::timeout(QUIET, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return None,
        }
    }
}

/// The refusal's name and the server's words, as many as there is room for.
fn reason(status: &Status) -> String {
    let mut text = format!("{}: {}", name_of(status), status.message());
    while text.len() > REASON_BYTES {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_into_a_close_frame() {
        assert_eq!(reason(&Refusal::Busy.status("later")), "busy: later");
        let long = reason(&Refusal::Malformed.status("\u{e4}".repeat(200)));
        assert!(long.len() <= REASON_BYTES && long.len() >= REASON_BYTES - 1);
    }
}
