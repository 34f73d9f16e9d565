//! Which backends there are, and which of them the processor has.

use std::fmt;
use std::sync::OnceLock;

use super::kernel::{Kernel, Maker};
use super::{ifma, portable};
use crate::Error;

/// What [`Backend::preferred`] has decided.
static PREFERRED: OnceLock<Backend> = OnceLock::new();

/// Who does the arithmetic. All give the same results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// 64-bit limbs and 128-bit products, on any machine.
    Portable,
    /// AVX-512 IFMA: eight residues at a time in limbs of 52 bits, on x86-64 processors that have it.
    Ifma,
}

/// The most residues that any backend works on at a time: what batches are cut by, whichever it is.
pub const MAX_LANES: usize = {
    let (mut most, mut at) = (0, 0);
    while at < Backend::ALL.len() {
        let lanes = Backend::ALL[at].lanes();
        most = if lanes > most { lanes } else { most };
        at += 1;
    }
    most
};

impl Backend {
    /// All of them, the fastest last.
    pub const ALL: [Self; 2] = [Self::Portable, Self::Ifma];

    /// The environment variable that names the backend: `portable` or `ifma`.
    pub const VARIABLE: &str = "GELU_BACKEND";

    /// The one that rings are made with: what [`prefer`](Self::prefer) said, else what [`VARIABLE`](Self::VARIABLE)
    /// names if this machine has it, else the fastest there is. Decided once in a process, when it is first asked for.
    pub fn preferred() -> Self {
        *PREFERRED.get_or_init(|| match std::env::var(Self::VARIABLE).as_deref() {
            Ok("portable") => Self::Portable,
            _ if Self::Ifma.is_available() => Self::Ifma,
            _ => Self::Portable,
        })
    }

    /// Makes it the one that all keys and rings of this process are made with. To be called before the first of them.
    ///
    /// # Errors
    /// [`Error::Backend`] when this machine does not have it, or another one is in use already.
    pub fn prefer(self) -> Result<(), Error> {
        let refused = Error::Backend { wanted: self.name() };
        if self.is_available() && *PREFERRED.get_or_init(|| self) == self { Ok(()) } else { Err(refused) }
    }

    /// The backend of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        self.maker().is_some()
    }

    /// Residues that it works on at a time: as many cost as much as one.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable => 1,
            Self::Ifma => 8,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Ifma => "ifma",
        }
    }

    fn maker(self) -> Option<Maker> {
        match self {
            Self::Portable => portable::maker(),
            Self::Ifma => ifma::maker(),
        }
    }

    /// Its arithmetic mod n^2.
    pub(super) fn kernel(self, n: &[u64]) -> Result<Box<dyn Kernel>, Error> {
        self.maker().map(|make| make(n)).ok_or(Error::Backend { wanted: self.name() })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
