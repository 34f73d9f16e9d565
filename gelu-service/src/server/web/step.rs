//! Conversations step by step: a request for each thing that the client has to say.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use tonic::Status;

use super::{Door, refused};
use crate::server::accept::Peer;
use crate::server::converse::SessionName;
use crate::{Refusal, proto};

/// What the first request of a conversation says.
#[derive(Debug, Deserialize)]
pub(super) struct Subject {
    #[serde(default)]
    model: String,
    #[serde(default)]
    hidden: u8,
}

pub(super) async fn step(
    State(door): State<Arc<Door>>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    Query(subject): Query<Subject>,
    request: Request,
) -> Response {
    match reply(&door, peer, (&name, subject), request.into_body()).await {
        Ok(body) => ([(CONTENT_TYPE, "application/octet-stream")], body).into_response(),
        Err(status) => {
            door.shared.note_refusal(&status);
            refused(&status)
        }
    }
}

async fn reply(
    door: &Door,
    peer: Peer,
    (name, subject): (&str, Subject),
    body: Body,
) -> Result<Body, Status> {
    let wrong = || Refusal::Malformed.status("expected 32 hexadecimal digits as the conversation's name");
    let name = SessionName(bytes_of(name).ok_or_else(wrong)?);
    if subject.hidden > 1 {
        return Err(Refusal::Malformed.status(format!("hidden: expected 0 or 1, found {}", subject.hidden)));
    }
    let open = proto::Open { model: subject.model, hidden: subject.hidden == 1, ..proto::Open::default() };
    let exchange = door.shared.exchange(name, &open, peer)?;
    let opening = door.shared.service.limits.opening;
    let chunks = body.into_data_stream().map(|chunk| {
        chunk.map_err(|error| Refusal::Malformed.status(format!("the request broke off: {error}")))
    });
    // Clients that send nothing for so long do not keep their connection.
    let chunks = tokio_stream::StreamExt::timeout(chunks, opening);
    let chunks = chunks.map(|chunk| match chunk {
        Ok(chunk) => chunk,
        Err(_) => Err(Refusal::Late.status("the rest of the request took too long")),
    });
    exchange.take(std::pin::pin!(chunks)).await?;
    // What ends before its first message is said by a status.
    let Some(first) = exchange.answer().await? else { return Ok(Body::empty()) };
    let rest = stream::try_unfold(exchange, |exchange| async move {
        Ok::<_, Status>(exchange.answer().await?.map(|message| (message, exchange)))
    });
    Ok(Body::from_stream(stream::once(async { Ok::<Bytes, Status>(first) }).chain(rest)))
}

fn bytes_of(name: &str) -> Option<[u8; 16]> {
    let digits: Option<Vec<u8>> =
        name.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() == 32)?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().ok()
}
