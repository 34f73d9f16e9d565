//! Who may ask, and what a browser is told to hold the page to.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tonic::Status;

use super::{Door, refused};
use crate::server::accept::Peer;
use crate::{Refusal, ServiceError};

/// The page runs its own scripts and WebAssembly, talks to its own server, and is shown in no other page.
const POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; img-src 'self' blob:; \
                      object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Of every answer. The three on origins give the page memory that its threads can share.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
];

/// Where a page comes from that may use the server though another one serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ServiceError::Origin { found: text.to_owned() };
        let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let scheme =
            uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or_else(wrong)?;
        let authority = uri.authority().filter(|it| !it.as_str().contains('@')).ok_or_else(wrong)?;
        if !["", "/"].contains(&uri.path()) || uri.query().is_some() {
            return Err(wrong());
        }
        let origin = format!("{scheme}://{}", authority.as_str().to_ascii_lowercase());
        HeaderValue::from_str(&origin).map(Self).map_err(|_| wrong())
    }
}

/// Lets a request through, or does not; either way with the headers.
pub(super) async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let foreign =
        request.headers().get(ORIGIN).filter(|origin| door.origins.iter().any(|of| of.0 == *origin));
    let foreign = foreign.cloned();
    let mut response = match check(&door, &request, foreign.is_some()) {
        Err(status) => {
            door.shared.note_refusal(&status);
            refused(&status)
        }
        Ok(()) if foreign.is_some() && request.method() == Method::OPTIONS => preflight(),
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(origin) = foreign {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    headers.insert(VARY, HeaderValue::from_static("origin"));
    response
}

/// What a page of another server asks before it sends a request.
fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "content-type"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn check(door: &Door, request: &Request, is_known: bool) -> Result<(), Status> {
    if let Some(limit) = request.extensions().get::<Peer>().and_then(|peer| peer.beyond) {
        return Err(Refusal::Connections.status(format!(
            "this client's certificate may have {limit} connections at a time, and has them"
        )));
    }
    let host = host(request.headers(), request.uri());
    // Without TLS nothing but the name says which server a browser was led to: another page may have chosen this address for
    // its own name.
    if door.is_loopback && !host.as_ref().is_some_and(is_own_machine) {
        return Err(
            Refusal::Identity.status("expected this machine's own name, such as localhost, as the host")
        );
    }
    let Some(origin) = request.headers().get(ORIGIN).filter(|_| !is_known) else { return Ok(()) };
    // What a page of another origin only looks at, browsers do not show it.
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD)
        || request.headers().contains_key(axum::http::header::UPGRADE);
    match changes && !is_same(origin, host.as_ref()) {
        true => Err(Refusal::Identity.status(
            "expected a page of this server: one of another is let in by its origin (gelu serve --web-origin)",
        )),
        false => Ok(()),
    }
}

/// The host that was asked for, with its port.
fn host(headers: &HeaderMap, uri: &Uri) -> Option<Authority> {
    let said = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    said.or_else(|| uri.authority().cloned())
}

fn is_own_machine(host: &Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn is_same(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    match (origin.as_ref().and_then(Uri::authority), host) {
        (Some(origin), Some(host)) => origin.as_str().eq_ignore_ascii_case(host.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_a_scheme_and_a_host_and_no_path() {
        for (text, origin) in [
            ("https://pages.example", "https://pages.example"),
            ("https://Pages.example/", "https://pages.example"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().0, origin);
        }
        for wrong in
            ["", "null", "*", "pages.example", "ftp://x", "https://x/path", "https://x?q", "https://u@x"]
        {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_same_host_and_port_is_the_same_origin() {
        let host: Authority = "here.example:7480".parse().unwrap();
        let is_same = |origin: &'static str| is_same(&HeaderValue::from_static(origin), Some(&host));
        assert!(is_same("https://here.example:7480"));
        for other in ["https://here.example", "https://there.example:7480", "null", ""] {
            assert!(!is_same(other), "{other}");
        }
        for (host, is_own) in [
            ("localhost:7480", true),
            ("127.0.0.1", true),
            ("[::1]:7480", true),
            ("localhost.example", false),
            ("10.0.0.1:7480", false),
        ] {
            assert_eq!(is_own_machine(&host.parse().unwrap()), is_own, "{host}");
        }
    }
}
