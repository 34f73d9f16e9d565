//! An authority for trials, which signs certificates for a server and its clients.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::{Credentials, ServiceError};

/// An authority made for a trial or a test, with keys of ECDSA on P-256. Its own key is forgotten with it, so that nobody
/// can sign more certificates later; for lasting use, certificates come from an authority of one's own.
///
/// ```
/// use gelu_service::TrialAuthority;
///
/// let authority = TrialAuthority::new(30)?;
/// let server = authority.server(&["localhost".to_owned()])?;
/// let client = authority.client("hospital")?;
/// assert_ne!(server.credentials()?.fingerprint()?, client.credentials()?.fingerprint()?);
/// # Ok::<(), gelu_service::ServiceError>(())
/// ```
pub struct TrialAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    days: u32,
}

/// A certificate of a [`TrialAuthority`] with its key, in PEM.
pub struct TrialCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key: a secret.
    pub key: String,
    /// The authority's certificate.
    pub authority: String,
}

impl TrialCertificate {
    /// Returns them as credentials.
    ///
    /// # Errors
    /// [`ServiceError::Credentials`] when they have been changed into something that cannot be used.
    pub fn credentials(&self) -> Result<Credentials, ServiceError> {
        Credentials::from_pem(self.certificate.as_bytes(), self.key.as_bytes(), self.authority.as_bytes())
    }
}

impl std::fmt::Debug for TrialCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrialCertificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TrialAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrialAuthority").field("days", &self.days).finish_non_exhaustive()
    }
}

impl TrialAuthority {
    /// Returns a new authority, whose certificates hold for so many days from yesterday.
    ///
    /// # Errors
    /// [`ServiceError::Credentials`] when no certificate can be made.
    pub fn new(days: u32) -> Result<Self, ServiceError> {
        let key = key()?;
        // Two authorities of one name would pass for each other until their signatures are looked at.
        let id = &hmac_sha256::Hash::hash(key.public_key_raw())[..4];
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut params = params(&[], &format!("gelu-net trial authority {id}"), days)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(fault)?;
        Ok(Self { issuer, days })
    }

    /// Returns the authority's own certificate in PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// Returns a certificate for a server of these names or addresses.
    ///
    /// # Errors
    /// [`ServiceError::Credentials`] when a name is none.
    pub fn server(&self, names: &[String]) -> Result<TrialCertificate, ServiceError> {
        let name = names.first().map_or("server", String::as_str);
        self.sign(params(names, name, self.days)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Returns a certificate for a client.
    ///
    /// # Errors
    /// [`ServiceError::Credentials`] when no certificate can be made.
    pub fn client(&self, name: &str) -> Result<TrialCertificate, ServiceError> {
        self.sign(params(&[], name, self.days)?, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<TrialCertificate, ServiceError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(fault)?;
        Ok(TrialCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            authority: self.certificate(),
        })
    }
}

fn key() -> Result<KeyPair, ServiceError> {
    KeyPair::generate().map_err(fault)
}

/// What all certificates have in common. They hold from yesterday, since clocks differ.
fn params(names: &[String], name: &str, days: u32) -> Result<CertificateParams, ServiceError> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(fault)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let yesterday = std::time::SystemTime::now() - day;
    params.not_before = yesterday.into();
    params.not_after = (yesterday + day * days.saturating_add(1)).into();
    Ok(params)
}

fn fault(error: rcgen::Error) -> ServiceError {
    ServiceError::Credentials { what: "certificate", problem: error.to_string() }
}
