//! Which backends there are, and which of them the processor has.

use std::fmt;
use std::str::FromStr;

use super::kernel::{Kernel, Maker};
use super::{ifma, portable};
use crate::Error;

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

    /// Returns the fastest that this machine has: what keys are made on, unless they are told [otherwise].
    ///
    /// [otherwise]: crate::paillier::SecretKey::on
    pub fn detect() -> Self {
        Self::ALL.into_iter().rfind(|backend| backend.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        self.maker().is_some()
    }

    /// Returns the number of residues that it works on at a time: as many cost as much as one.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable => 1,
            Self::Ifma => 8,
        }
    }

    /// Returns its name.
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
        self.maker().map(|make| make(n)).ok_or_else(|| Error::Backend { wanted: self.name().to_owned() })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let named = Self::ALL.into_iter().find(|backend| backend.name() == name);
        named.ok_or_else(|| Error::Backend { wanted: name.to_owned() })
    }
}
