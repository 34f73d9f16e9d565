//! Connections: at most so many, also of each certificate, each with a handshake that ends in time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::Limits;
use super::admission::{Admission, Counted, Entry};
use super::metrics::Metrics;
use crate::stream::Stream;
use crate::{Fingerprint, Refusal};

/// A connection that has passed its handshake.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    peer: Peer,
    /// When it is closed, if that is settled.
    until: Option<Pin<Box<Sleep>>>,
    /// Gives its place to another when the connection is gone.
    _place: OwnedSemaphorePermit,
    _counted: Option<Counted>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// `None` without TLS.
    pub(super) identity: Option<Fingerprint>,
    /// How many connections its certificate may have, where this one is beyond that.
    pub(super) beyond: Option<usize>,
    /// Whether it may take part in runs of training, whose clients are told apart by their certificates.
    pub(super) may_train: bool,
}

/// What a listener asks of those who come.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) tls: Option<TlsAcceptor>,
    /// Whether a client needs a certificate, where there is TLS.
    pub(super) is_open: bool,
    pub(super) may_train: bool,
}

/// Accepts connections until the task is aborted.
pub(super) async fn accept(
    listener: TcpListener,
    entrance: Entrance,
    limits: Limits,
    accepted: mpsc::Sender<io::Result<Connection>>,
    metrics: Arc<Metrics>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let admission = Admission::new(limits.connections_per_client);
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, address) = match listener.accept().await {
            Ok(found) => found,
            Err(error) => {
                // Such as too many open files: others may be closed meanwhile.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (entrance, accepted, metrics) = (entrance.clone(), accepted.clone(), Arc::clone(&metrics));
        let admission = Arc::clone(&admission);
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(limits.opening, shake(stream, address, entrance)).await;
            match shaken {
                Ok(Ok((stream, mut peer))) => {
                    let (until, counted) = match peer.identity.map(|identity| admission.enter(identity)) {
                        None => (None, None),
                        Some(Entry::Yes(counted)) => (None, Some(counted)),
                        Some(Entry::ToBeTold(counted)) => {
                            peer.beyond = Some(admission.limit());
                            (Some(Box::pin(tokio::time::sleep(limits.opening))), Some(counted))
                        }
                        Some(Entry::No) => {
                            warn!(%address, client = ?peer.identity, "closed: too many connections");
                            return metrics.refused(Refusal::Connections);
                        }
                    };
                    let connection = Connection { stream, peer, until, _place: place, _counted: counted };
                    // The server may have stopped.
                    let _ = accepted.send(Ok(connection)).await;
                }
                Ok(Err((refusal, problem))) => {
                    warn!(%address, %problem, "handshake failed");
                    metrics.refused(refusal);
                }
                Err(_) => {
                    warn!(%address, "handshake took too long");
                    metrics.refused(Refusal::Late);
                }
            }
        });
    }
}

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    Entrance { tls, is_open, may_train }: Entrance,
) -> Result<(Box<dyn Stream>, Peer), (Refusal, String)> {
    let fault = |refusal, error: &dyn std::error::Error| (refusal, error.to_string());
    // Small messages must not wait for others.
    stream.set_nodelay(true).map_err(|error| fault(Refusal::Other, &error))?;
    let unnamed = Peer { address, identity: None, beyond: None, may_train };
    let Some(tls) = tls else {
        return Ok((Box::new(stream), unnamed));
    };
    let stream = tls.accept(stream).await.map_err(|error| fault(refusal_of(&error), &error))?;
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(<[_]>::first);
    let Some(certificate) = certificate else {
        return match is_open {
            true => Ok((Box::new(stream), unnamed)),
            false => Err((Refusal::Identity, "no certificate".to_owned())),
        };
    };
    let identity = Fingerprint::of(certificate).map_err(|error| fault(Refusal::Identity, &error))?;
    debug!(%address, %identity, "connected");
    Ok((Box::new(stream), Peer { identity: Some(identity), ..unnamed }))
}

/// Whether it is the client's certificate that is wrong, or that there is none.
fn refusal_of(error: &io::Error) -> Refusal {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Refusal::Identity
        }
        Some(rustls::Error::AlertReceived(_)) => Refusal::Other,
        _ => Refusal::Malformed,
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
