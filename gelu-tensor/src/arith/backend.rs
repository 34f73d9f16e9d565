//! Which backends there are, and which of them the processor has.

use std::fmt;
use std::str::FromStr;

#[cfg(all(test, target_arch = "x86_64"))]
use super::ifma::Emulation;
use super::kernel::{Instructions, Kernel};
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::simd128::Simd128;
#[cfg(target_arch = "x86_64")]
use super::{adx::Adx, avx2::Avx2, avx512::Avx512, ifma::FourLanes, ifma::Ifma};
use crate::Error;

/// Who does the arithmetic. All give the same results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// 64-bit limbs and 128-bit products, on any machine.
    Portable,
    /// The same with BMI2 and ADX, which add products of limbs with two carries at a time, on x86-64 processors that have
    /// both.
    Adx,
    /// WebAssembly's vectors: limbs of 28 bits, four of them at a time, in modules that are compiled for them.
    Simd128,
    /// NEON: two residues at a time in limbs of 49 bits that are doubles, on AArch64 processors.
    Neon,
    /// AVX2 and FMA: four residues at a time in limbs of 49 bits that are doubles, on x86-64 processors that have both.
    Avx2,
    /// AVX-512 F: eight residues at a time in the same limbs, on x86-64 processors that have it; those that have IFMA too
    /// are faster with that.
    Avx512,
    /// AVX-IFMA: four residues at a time in limbs of 52 bits, on x86-64 processors that have it, or AVX-512 IFMA with VL.
    AvxIfma,
    /// AVX-512 IFMA: eight residues at a time in limbs of 52 bits, on x86-64 processors that have it.
    Ifma,
}

pub(crate) const MAX_LANES: usize = Backend::MAX_LANES;

impl Backend {
    /// All of them, the fastest last.
    pub const ALL: [Self; 8] = [
        Self::Portable,
        Self::Adx,
        Self::Simd128,
        Self::Neon,
        Self::Avx2,
        Self::Avx512,
        Self::AvxIfma,
        Self::Ifma,
    ];

    /// The most residues that any of them works on at a time: what batches are cut by, whichever it is.
    pub const MAX_LANES: usize = {
        let (mut most, mut at) = (0, 0);
        while at < Self::ALL.len() {
            let lanes = Self::ALL[at].lanes();
            most = if lanes > most { lanes } else { most };
            at += 1;
        }
        most
    };

    /// Returns the fastest that this machine has: what keys are made on, unless they are told [otherwise].
    ///
    /// [otherwise]: crate::paillier::SecretKey::on
    pub fn detect() -> Self {
        Self::ALL.into_iter().rfind(|backend| backend.is_available()).unwrap_or(Self::Portable)
    }

    /// Returns whether this machine has the backend's instructions.
    pub fn is_available(self) -> bool {
        self.instructions().is_some()
    }

    /// Returns the number of residues that it works on at a time: as many cost as much as one.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Portable | Self::Adx | Self::Simd128 => 1,
            Self::Neon => 2,
            Self::Avx2 | Self::AvxIfma => 4,
            Self::Avx512 | Self::Ifma => 8,
        }
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Adx => "adx",
            Self::Simd128 => "simd128",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::AvxIfma => "avxifma",
            Self::Ifma => "ifma",
        }
    }

    /// Multiplies limbs with the backend's own instructions, in chains that do not wait for each other, and returns how
    /// many instructions that took (none where this machine lacks the backend): what a bench times, to know the least time
    /// that [products](Self::product_instructions) can take.
    pub fn multiply_chains(self) -> usize {
        self.instructions().map_or(0, |instructions| instructions.multiply_chains())
    }

    /// Returns the multiplications of one product mod n^2, for n of `bits` bits: 5 L^2 of limbs of 64 bits, half as many
    /// instructions as that of limbs of 28 bits, or 10 L^2
    /// multiply-adds for as many products as there are lanes, of limbs of 49 bits (21 for every 1,024 bits of n) or of 52
    /// bits (20 for every 1,024 bits).
    pub fn product_instructions(self, bits: usize) -> f64 {
        match self {
            Self::Portable | Self::Adx => 5.0 * (bits as f64 / 64.0).powi(2),
            Self::Simd128 => 5.0 * (bits as f64 / 28.0).powi(2) / 2.0,
            Self::Neon | Self::Avx2 | Self::Avx512 => {
                10.0 * (bits as f64 * 21.0 / 1024.0).powi(2) / self.lanes() as f64
            }
            Self::AvxIfma | Self::Ifma => 10.0 * (bits as f64 * 20.0 / 1024.0).powi(2) / self.lanes() as f64,
        }
    }

    fn instructions(self) -> Option<Box<dyn Instructions>> {
        match self {
            Self::Portable => Some(Box::new(Portable)),
            #[cfg(target_arch = "x86_64")]
            Self::Adx => Adx::detect().map(|adx| Box::new(adx) as _),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Neon::detect().map(|neon| Box::new(neon) as _),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().map(|avx2| Box::new(avx2) as _),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().map(|avx512| Box::new(avx512) as _),
            #[cfg(target_arch = "x86_64")]
            Self::AvxIfma => FourLanes::detect().map(|four| Box::new(four) as _),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => Ifma::detect().map(|ifma| Box::new(ifma) as _),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::Simd128 => Some(Box::new(Simd128)),
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Self::Simd128 => None,
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon => None,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Adx | Self::Avx2 | Self::Avx512 | Self::AvxIfma | Self::Ifma => None,
        }
    }

    /// Its arithmetic mod n^2.
    pub(super) fn kernel(self, n: &[u64]) -> Result<Box<dyn Kernel>, Error> {
        let wanted = || Error::Backend { wanted: self.name().to_owned() };
        let instructions = self.instructions();
        #[cfg(test)]
        let instructions = instructions.or_else(|| self.emulation());
        Ok(instructions.ok_or_else(wanted)?.kernel(n))
    }

    /// The same arithmetic on processors that lack the instructions, in tests.
    #[cfg(test)]
    pub(super) fn emulation(self) -> Option<Box<dyn Instructions>> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::AvxIfma => Some(Box::new(Emulation::<4>)),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => Some(Box::new(Emulation::<8>)),
            _ => None,
        }
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
