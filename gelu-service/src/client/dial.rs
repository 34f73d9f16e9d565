//! How a client reaches a server: TLS, the server's key, and errors in words.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::Patience;
use crate::proto::gelu_client::GeluClient;
use crate::stream::{CLIENT_FRAME_BYTES, SERVER_FRAME_BYTES, Stream};
use crate::{ClientSecurity, DEFAULT_PORT, Fingerprint, Refusal, ServiceError};

/// How to reach the server.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// As it was given.
    server: String,
    authority: (String, u16),
    tls: Option<Secured>,
    patience: Patience,
    /// The key that the server showed last.
    shown: Mutex<Option<Fingerprint>>,
    /// Why the last attempt was given up, where the layers between have no words for it.
    fault: Mutex<Option<ServiceError>>,
}

struct Secured {
    connector: TlsConnector,
    name: ServerName<'static>,
    known: Option<Fingerprint>,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured")
            .field("name", &self.name)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Dialer {
    pub(crate) fn new(
        server: &str,
        security: &ClientSecurity,
        patience: Patience,
    ) -> Result<Self, ServiceError> {
        let wrong = || ServiceError::Address { found: server.to_owned() };
        let uri: Uri = server.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
        if has_path || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong());
        }
        let tls = match security {
            ClientSecurity::Tls { credentials, known } if uri.scheme_str() == Some("https") => {
                Some(Secured {
                    connector: TlsConnector::from(Arc::new(credentials.client_config()?)),
                    name: ServerName::try_from(host.clone()).map_err(|_| wrong())?,
                    known: *known,
                })
            }
            ClientSecurity::Tls { .. } => return Err(wrong()),
            ClientSecurity::Loopback => {
                let is_here = host == "localhost"
                    || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
                if !is_here || uri.scheme_str() != Some("http") {
                    return Err(ServiceError::UnprotectedServer { host });
                }
                None
            }
        };
        Ok(Self {
            server: server.trim_end_matches('/').to_owned(),
            authority: (host, uri.port_u16().unwrap_or(DEFAULT_PORT)),
            tls,
            patience,
            shown: Mutex::new(None),
            fault: Mutex::new(None),
        })
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    pub(super) fn shown(&self) -> Option<Fingerprint> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as a connection may take.
    pub(super) async fn in_time<F: Future>(&self, answer: F) -> Result<F::Output, ServiceError> {
        self.within(self.patience.connect, answer).await
    }

    pub(crate) async fn within<F: Future>(
        &self,
        limit: Duration,
        answer: F,
    ) -> Result<F::Output, ServiceError> {
        let late = |_| self.unreachable(format!("no answer within {} s", limit.as_secs()));
        tokio::time::timeout(limit, answer).await.map_err(late)
    }

    pub(super) fn unreachable(&self, problem: impl Into<String>) -> ServiceError {
        ServiceError::Unreachable { server: self.server.clone(), problem: problem.into() }
    }

    /// What a status means: a refusal in the server's words, or a connection that broke.
    pub(crate) fn failure(&self, status: &Status) -> ServiceError {
        if let Some(fault) = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return fault;
        }
        match Refusal::of(status) {
            Some(refusal) => ServiceError::Refused {
                server: self.server.clone(),
                refusal,
                message: status.message().to_owned(),
            },
            None => self.unreachable(causes(status)),
        }
    }

    pub(super) async fn dial(self: &Arc<Self>) -> Result<GeluClient<Channel>, ServiceError> {
        Ok(GeluClient::new(self.channel().await?)
            .max_decoding_message_size(SERVER_FRAME_BYTES)
            .max_encoding_message_size(CLIENT_FRAME_BYTES))
    }

    /// Connects.
    pub(crate) async fn channel(self: &Arc<Self>) -> Result<Channel, ServiceError> {
        let (host, port) = &self.authority;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        // TLS is spoken below, where the server's key can be looked at.
        let endpoint = Endpoint::from_shared(format!("http://{host}:{port}"))
            .map_err(|_| ServiceError::Address { found: self.server.clone() })?
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true);
        let dialer = Arc::clone(self);
        let connector = service_fn(move |_: Uri| {
            let dialer = Arc::clone(&dialer);
            async move { dialer.connect().await.map(TokioIo::new) }
        });
        self.in_time(endpoint.connect_with_connector(connector)).await?.map_err(|error| {
            let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
            fault.unwrap_or_else(|| self.unreachable(causes(&error)))
        })
    }

    async fn connect(self: &Arc<Self>) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((&self.authority.0[..], self.authority.1)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let stream = tls.connector.connect(tls.name.clone(), stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(Fingerprint::of);
        let checked = match shown {
            None => Err(self.unreachable("the server has no certificate")),
            Some(Err(error)) => Err(error),
            Some(Ok(found)) => match tls.known {
                Some(expected) if expected != found => {
                    Err(ServiceError::ForeignServer { server: self.server.clone(), expected, found })
                }
                _ => Ok(found),
            },
        };
        match checked {
            Ok(found) => {
                *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                Ok(Box::new(Watched { stream, dialer: Arc::clone(self) }))
            }
            Err(error) => {
                *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        }
    }
}

/// A stream whose alerts are noted: in TLS 1.3 a server looks at the client's certificate when the client is through with
/// its handshake, and what it says then reaches HTTP/2 as a broken connection.
struct Watched {
    stream: TlsStream<TcpStream>,
    dialer: Arc<Dialer>,
}

/// Alerts of a server that does not take the client's certificate.
const REFUSING: [AlertDescription; 7] = [
    AlertDescription::AccessDenied,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRequired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::UnsupportedCertificate,
];

impl Watched {
    fn note(&self, error: &io::Error) {
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = error
            && REFUSING.contains(alert)
        {
            let fault = ServiceError::Refused {
                server: self.dialer.server.clone(),
                refusal: Refusal::Identity,
                message: format!("it does not take this client's certificate: {alert:?}"),
            };
            *self.dialer.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        }
    }

    /// Whoever cannot write because the other side hung up has not heard yet why: what it said is waited for, and is there, or
    /// the end is.
    fn after_hearing<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Poll::Ready(Err(error)) = &written else { return written };
        if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
            return written;
        }
        let mut bytes = [0; 64];
        match Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut bytes)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(heard) => {
                if let Err(error) = heard {
                    self.note(&error);
                }
                written
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &read {
            self.note(error);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.after_hearing(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.after_hearing(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An error and what lies below it, from the outside in, without repeating itself.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = vec![];
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.downcast_ref::<Status>() {
            Some(status) => status.message().to_owned(),
            None => error.to_string(),
        };
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}
