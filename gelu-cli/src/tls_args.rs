//! Files of certificates and keys, of servers and clients.

use std::path::Path;

use anyhow::{Context, bail};
use gelu_io::files::{check_owner_only, read_limited};
use gelu_service::Credentials;

/// More than chains of certificates have.
const MOST_BYTES: u64 = 1 << 20;

/// The files, and the options that name them.
pub(crate) struct TlsFiles<'a> {
    pub(crate) certificate: (Option<&'a Path>, &'static str),
    pub(crate) key: (Option<&'a Path>, &'static str),
    pub(crate) authority: (Option<&'a Path>, &'static str),
}

/// The credentials in the files, or none where that is what is wanted.
pub(crate) fn credentials(files: &TlsFiles<'_>, is_insecure: bool) -> anyhow::Result<Option<Credentials>> {
    let TlsFiles { certificate, key, authority } = files;
    let (Some(chain), Some(secret), Some(root)) = (certificate.0, key.0, authority.0) else {
        if is_insecure {
            return Ok(None);
        }
        bail!(
            "expected {}, {} and {}, or --insecure for a trial on this machine; `gelu certs` makes certificates for a trial",
            certificate.1,
            key.1,
            authority.1
        );
    };
    check_owner_only(secret)?;
    let read = |path: &Path| read_limited(path, MOST_BYTES);
    let key = zeroize::Zeroizing::new(read(secret)?);
    let credentials = Credentials::from_pem(&read(chain)?, &key, &read(root)?);
    let credentials = credentials
        .with_context(|| format!("{}, {}, {}", chain.display(), secret.display(), root.display()))?;
    Ok(Some(credentials))
}
