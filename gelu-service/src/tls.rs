//! TLS 1.3 with certificates on both sides: who may talk to whom.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use webpki::EndEntityCert;

use crate::ServiceError;

/// What TLS negotiates with the other side: HTTP/2, which gRPC needs.
const ALPN: &[u8] = b"h2";

/// What it negotiates with browsers: HTTP/1.1, which WebSockets begin with.
const WEB_ALPN: &[u8] = b"http/1.1";

/// A certificate with its key, and the authority that the other side's certificate must come from.
#[derive(Debug)]
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authority: Arc<RootCertStore>,
}

impl Credentials {
    /// Reads PEM: this side's certificate, followed by those between it and its authority if there are any; its private
    /// key; and the certificates of the authorities that the other side's must come from.
    ///
    /// # Errors
    /// [`ServiceError::Credentials`] that says which of them cannot be used.
    pub fn from_pem(chain: &[u8], key: &[u8], authority: &[u8]) -> Result<Self, ServiceError> {
        let parsed = |what, pem| {
            let parsed: Result<Vec<CertificateDer<'static>>, _> =
                CertificateDer::pem_slice_iter(pem).collect();
            match parsed {
                Ok(found) if found.is_empty() => {
                    Err(fault(what, "expected a certificate in PEM, found none"))
                }
                Ok(found) => Ok(found),
                Err(error) => Err(fault(what, error)),
            }
        };
        let mut roots = RootCertStore::empty();
        for certificate in parsed("certificate of the authority", authority)? {
            roots.add(certificate).map_err(|error| fault("certificate of the authority", error))?;
        }
        Ok(Self {
            chain: parsed("certificate", chain)?,
            key: PrivateKeyDer::from_pem_slice(key).map_err(|error| fault("private key", error))?,
            authority: Arc::new(roots),
        })
    }

    /// Returns the fingerprint of the certificate's key.
    ///
    /// # Errors
    /// [`ServiceError::Credentials`] when the certificate cannot be read.
    pub fn fingerprint(&self) -> Result<Fingerprint, ServiceError> {
        let missing = || fault("certificate", "expected one, found none");
        Fingerprint::of(self.chain.first().ok_or_else(missing)?)
    }

    pub(crate) fn server_config(&self) -> Result<ServerConfig, ServiceError> {
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.authority), Arc::clone(&provider))
                .build()
                .map_err(|error| fault("certificate of the clients' authority", error))?;
        self.config(provider, verifier, ALPN)
    }

    /// For browsers, which have certificates as a rule only where somebody saw to it: if it is open, none is asked for.
    pub(crate) fn web_config(&self, is_open: bool) -> Result<ServerConfig, ServiceError> {
        match is_open {
            true => self.config(Arc::new(ring::default_provider()), Arc::new(NoClientAuth), WEB_ALPN),
            false => {
                let mut config = self.server_config()?;
                config.alpn_protocols = vec![WEB_ALPN.to_vec()];
                Ok(config)
            }
        }
    }

    fn config(
        &self,
        provider: Arc<CryptoProvider>,
        verifier: Arc<dyn ClientCertVerifier>,
        alpn: &[u8],
    ) -> Result<ServerConfig, ServiceError> {
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                let builder = builder.with_client_cert_verifier(verifier);
                builder.with_single_cert(self.chain.clone(), self.key.clone_key())
            })
            .map_err(|error| fault("certificate and private key", error))?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }

    pub(crate) fn client_config(&self) -> Result<ClientConfig, ServiceError> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                let builder = builder.with_root_certificates(Arc::clone(&self.authority));
                builder.with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            })
            .map_err(|error| fault("certificate and private key", error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

fn fault(what: &'static str, problem: impl fmt::Display) -> ServiceError {
    ServiceError::Credentials { what, problem: problem.to_string() }
}

/// How a server protects its connections.
#[derive(Debug)]
pub enum ServerSecurity {
    /// TLS 1.3, for clients with a certificate of the authority.
    Tls(Credentials),
    /// Not at all: for trials on one machine.
    Loopback,
}

/// How a client protects its connection.
#[derive(Debug)]
pub enum ClientSecurity {
    /// TLS 1.3, to a server with a certificate of the authority.
    Tls {
        /// This side's.
        credentials: Credentials,
        /// The server's key, where it is known: no other is accepted.
        known: Option<Fingerprint>,
    },
    /// Not at all: for trials on one machine.
    Loopback,
}

/// The SHA-256 of a certificate's public key: it stays the same when a certificate is renewed with its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, ServiceError> {
        let certificate =
            EndEntityCert::try_from(certificate).map_err(|error| fault("certificate", error))?;
        Ok(Self(hmac_sha256::Hash::hash(&certificate.subject_public_key_info())))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || fault("fingerprint", format!("expected 64 hexadecimal digits, found `{text}`"));
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
        let bytes: Vec<u8> = digits
            .ok_or_else(wrong)?
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte: u8, digit| byte << 4 | digit))
            .collect();
        match text.len() {
            64 => bytes.try_into().map(Self).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}
