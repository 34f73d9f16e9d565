//! The way for browsers and simple clients: a page, models as JSON, conversations over WebSocket or step by step. They are the
//! same conversations as over gRPC, under the same limits.

mod files;
mod guard;
mod listing;
mod socket;
mod step;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::transport::server::Connected;
use tracing::debug;

use self::files::Files;
use self::guard::{Origin, guard};
pub(super) use self::listing::run as listed_run;
use super::Shared;
use super::accept::{Connection, Peer};
use crate::{Refusal, ServiceError};

/// The most bytes of a request's head, and of what is read at once of its body.
const BUFFER_BYTES: usize = 64 << 10;

/// A way into a service for browsers.
#[derive(Debug)]
pub struct Web {
    pub(super) listen: SocketAddr,
    pub(super) is_open: bool,
    files: Files,
    origins: Vec<Origin>,
}

impl Web {
    /// Returns a way in at this address, without a page.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, is_open: false, files: Files::default(), origins: vec![] }
    }

    /// Serves a folder's files as the page. They are read now, and kept: at most 256 files of at most 16 MiB, 64 MiB in all, of
    /// the endings that a page needs.
    ///
    /// # Errors
    /// [`ServiceError::Page`] when the folder cannot be read, has too much in it, or no `index.html`.
    pub fn with_page(self, folder: &Path) -> Result<Self, ServiceError> {
        Ok(Self { files: Files::read(folder)?, ..self })
    }

    /// Lets pages of another server in, by their origin, such as `https://pages.example`.
    ///
    /// # Errors
    /// [`ServiceError::Origin`] when it is none.
    pub fn with_origin(mut self, origin: &str) -> Result<Self, ServiceError> {
        self.origins.push(origin.parse()?);
        Ok(self)
    }

    /// Asks for no certificate where there is TLS: whoever reaches the address may use the models. To all limits, those
    /// without a certificate are one client.
    pub fn open_to_all(self) -> Self {
        Self { is_open: true, ..self }
    }
}

/// What the requests of the way in share.
pub(super) struct Door {
    shared: Arc<Shared>,
    files: Files,
    origins: Vec<Origin>,
    /// Whether it is without TLS, and for this machine only.
    is_loopback: bool,
    /// Held by whoever has something to say still.
    alive: mpsc::Sender<()>,
}

impl Door {
    pub(super) fn new(
        shared: Arc<Shared>,
        web: Web,
        is_loopback: bool,
        alive: mpsc::Sender<()>,
    ) -> Arc<Self> {
        Arc::new(Self { shared, files: web.files, origins: web.origins, is_loopback, alive })
    }
}

/// Answers connections until they come no more or the server stops.
pub(super) async fn answer(
    door: Arc<Door>,
    mut connections: mpsc::Receiver<std::io::Result<Connection>>,
    stopping: watch::Receiver<bool>,
) {
    let opening = door.shared.service.limits.opening;
    let router = Router::new()
        .route("/v1/models", get(listing::models))
        .route("/v1/training", get(listing::training))
        .route("/v1/converse", get(socket::converse))
        .route("/v1/sessions/{id}/step", post(step::step))
        .fallback(get(file))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&door), guard))
        .with_state(Arc::clone(&door));
    while let Some(Ok(connection)) = connections.recv().await {
        let peer: Peer = connection.connect_info();
        let service = TowerToHyperService::new(router.clone().layer(Extension(peer)));
        let (mut stopping, alive) = (stopping.clone(), door.alive.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(opening)
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(TokioIo::new(connection), service)
                .with_upgrades();
            let mut served = std::pin::pin!(served);
            // The sender goes with the server.
            let stopped = async { drop(stopping.wait_for(|&stop| stop).await) };
            let ended = tokio::select! {
                ended = served.as_mut() => ended,
                () = stopped => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            };
            if let Err(error) = ended {
                debug!(address = %peer.address, %error, "connection broke");
            }
            drop(alive);
        });
    }
}

/// A file of the page.
async fn file(State(door): State<Arc<Door>>, request: Request) -> Response {
    let Some(file) = door.files.at(request.uri().path()) else {
        return (StatusCode::NOT_FOUND, Json(json!({ "error": "not-found", "message": "no such page" })))
            .into_response();
    };
    let headers = [(ETAG, file.tag.as_str()), (CACHE_CONTROL, "no-cache"), (CONTENT_TYPE, file.kind)];
    match request.headers().get(IF_NONE_MATCH).is_some_and(|known| *known == file.tag) {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, file.bytes.clone()).into_response(),
    }
}

/// The name of a refusal on the wire.
fn name_of(status: &Status) -> &'static str {
    Refusal::of(status).unwrap_or(Refusal::Other).name()
}

/// A refusal as an answer.
fn refused(status: &Status) -> Response {
    let code = match Refusal::of(status).unwrap_or(Refusal::Other) {
        Refusal::UnknownModel | Refusal::UnknownSession => StatusCode::NOT_FOUND,
        Refusal::Mode | Refusal::Version | Refusal::Enrolment | Refusal::Turn => StatusCode::CONFLICT,
        Refusal::Busy | Refusal::Connections | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Identity => StatusCode::FORBIDDEN,
        Refusal::Malformed => StatusCode::BAD_REQUEST,
        Refusal::Late => StatusCode::REQUEST_TIMEOUT,
        Refusal::Budget | Refusal::Rate => StatusCode::TOO_MANY_REQUESTS,
        Refusal::State | Refusal::Other => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, Json(json!({ "error": name_of(status), "message": status.message() }))).into_response()
}
