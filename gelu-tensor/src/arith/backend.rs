use std::fmt;
use std::sync::OnceLock;

use zeroize::Zeroizing;

#[cfg(target_arch = "x86_64")]
use super::ifma;
use super::limbs::select_row;
use super::operations::Operations;
use super::portable;
use super::power::Exponent;
use super::residues::{Entry, Residues};
use crate::Error;

/// What [`Backend::preferred`] has decided.
static PREFERRED: OnceLock<Backend> = OnceLock::new();

/// Who does the arithmetic. Both give the same results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// 64-bit limbs and 128-bit products, on any machine.
    Portable,
    /// AVX-512 IFMA: eight residues at a time in limbs of 52 bits, on x86-64 processors that have it.
    Ifma,
}

impl Backend {
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
        [Self::Portable, Self::Ifma].into_iter().find(|backend| backend.name() == name)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => ifma::Ifma::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Ifma => false,
        }
    }

    /// Residues that it works on at a time: as many cost as much as one.
    pub fn lanes(self) -> usize {
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
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The factors of a batch of products.
#[derive(Clone, Copy)]
pub(super) enum Factors<'a> {
    /// One for each residue.
    Each(&'a [u64]),
    /// For each residue several, one after another.
    Gather {
        /// The tables.
        tables: &'a [Residues],
        /// What each residue is multiplied with first, then what it is multiplied with next, and so on.
        entries: &'a [Entry],
    },
    /// The same for all.
    One(&'a [u64]),
}

/// Look-ups in the rows of a comb, which are arranged for selection.
#[derive(Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) rows: &'a [Residues],
    /// How many times all rows are gone through, with a squaring in between.
    pub(super) rounds: usize,
    /// Which entry of a row a residue is multiplied with. Rows are counted on from round to round.
    pub(super) digit: &'a (dyn Fn(usize, usize) -> u64 + Sync),
    /// The residue of 1, for rows in [factored](Engine::factored) form, which allow one round.
    pub(super) factored: Option<&'a [u64]>,
}

/// A backend with the constants of one modulus.
pub(super) enum Engine {
    Portable(portable::Context),
    #[cfg(target_arch = "x86_64")]
    Ifma(ifma::Context),
}

impl Engine {
    pub(super) fn new(n: &[u64], backend: Backend) -> Result<Self, Error> {
        match backend {
            Backend::Portable => Ok(Self::Portable(portable::Context::new(n))),
            #[cfg(target_arch = "x86_64")]
            Backend::Ifma => {
                let ifma = ifma::Ifma::detect().ok_or(Error::Backend { wanted: backend.name() })?;
                Ok(Self::Ifma(ifma::Context::new(ifma, n)))
            }
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Ifma => Err(Error::Backend { wanted: backend.name() }),
        }
    }

    pub(super) fn backend(&self) -> Backend {
        match self {
            Self::Portable(_) => Backend::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(_) => Backend::Ifma,
        }
    }

    /// Arithmetic on digits, which all backends share.
    pub(super) fn portable(&self) -> &portable::Context {
        match self {
            Self::Portable(context) => context,
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.portable(),
        }
    }

    /// Limbs of one residue.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Portable(context) => 2 * context.modulus().len(),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.width(),
        }
    }

    /// log2 R.
    pub(super) fn radix_bits(&self) -> usize {
        match self {
            Self::Portable(context) => 64 * context.modulus().len(),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.radix_bits(),
        }
    }

    /// Digits `a + b n` of 64-bit limbs as the limbs of a residue. The value does not change: Montgomery form is the
    /// caller's.
    pub(super) fn encode_digits(&self, digits: &[u64]) -> Zeroizing<Vec<u64>> {
        match self {
            Self::Portable(_) => Zeroizing::new(digits.to_vec()),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.encode_digits(digits),
        }
    }

    /// The other way round; both digits are below n then.
    pub(super) fn decode_digits(&self, residue: &[u64]) -> Zeroizing<Vec<u64>> {
        match self {
            Self::Portable(_) => Zeroizing::new(residue.to_vec()),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.decode_digits(residue),
        }
    }

    pub(super) fn mul(&self, x: &mut [u64], factors: Factors<'_>) {
        match self {
            Self::Portable(context) => context.mul(x, factors),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.mul(x, factors),
        }
    }

    pub(super) fn square(&self, x: &mut [u64], times: usize) {
        match self {
            Self::Portable(context) => context.square(x, times),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.square(x, times),
        }
    }

    /// `x[i] = x[i]^exponent`, given the residue of 1, and how many products and squarings that takes for each. Reads
    /// all entries of its tables.
    pub(super) fn power(&self, x: &mut [u64], exponent: &Exponent, one: &[u64]) -> Operations {
        let window = match self {
            Self::Portable(_) => portable::POWER_WINDOW,
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(_) => ifma::POWER_WINDOW,
        };
        match self {
            Self::Portable(context) => context.power(x, exponent, one),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.power(x, exponent, one),
        }
        let digits = exponent.bits().div_ceil(window);
        let [products, squarings] = [(1 << window) - 1 + digits, window * digits.saturating_sub(1)];
        Operations { products: products as u64, squarings: squarings as u64 }
    }

    /// A table of residues in the order that [`mul_selected`](Self::mul_selected) selects from.
    pub(super) fn arrange_for_selection(&self, table: &[u64]) -> Zeroizing<Vec<u64>> {
        match self {
            Self::Portable(_) => Zeroizing::new(table.to_vec()),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.arrange_for_selection(table),
        }
    }

    /// Residues in a form that makes products with them cheaper, given their inverses; `None` where there is none.
    pub(super) fn factored(&self, residues: &[u64], inverses: &[u64]) -> Option<Zeroizing<Vec<u64>>> {
        match self {
            Self::Portable(_) => None,
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => Some(context.factored(residues, inverses)),
        }
    }

    /// Multiplies `x[i]` with entry `digit(row, i)` of each row, round by round, reading all entries.
    pub(super) fn mul_selected(&self, x: &mut [u64], selection: Selection<'_>) {
        match self {
            Self::Portable(context) => {
                let width = self.width();
                let mut factors = Zeroizing::new(vec![0; x.len()]);
                for (index, row) in (0..selection.rounds).flat_map(|_| selection.rows).enumerate() {
                    if index > 0 && index.is_multiple_of(selection.rows.len()) {
                        context.square(x, 1);
                    }
                    for (residue, factor) in factors.chunks_exact_mut(width).enumerate() {
                        select_row(factor, row.limbs(), (selection.digit)(index, residue));
                    }
                    context.mul(x, Factors::Each(&factors));
                }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.mul_selected(x, selection),
        }
    }

    pub(super) fn add(&self, x: &mut [u64], y: &[u64]) {
        match self {
            Self::Portable(context) => context.add(x, y),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.add(x, y),
        }
    }

    pub(super) fn sub(&self, x: &mut [u64], y: &[u64]) {
        match self {
            Self::Portable(context) => context.sub(x, y),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.sub(x, y),
        }
    }

    /// `x[i] *= 1 + m[i] n`, given the residue of R (that is, R in Montgomery form).
    pub(super) fn mul_one_plus(&self, x: &mut [u64], m: &[u64], r: &[u64]) {
        match self {
            Self::Portable(context) => context.mul_one_plus(x, m),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.mul_one_plus(x, m, r),
        }
    }

    /// Residues mod the square of another engine's modulus, of which this one's is a factor of half the limbs; `None`
    /// where the backend has no way of its own. See [`Crt`](super::Crt) for the constants.
    pub(super) fn project(
        &self,
        (whole, residues): (&Self, &[u64]),
        constants: [&[u64]; 2],
    ) -> Option<Zeroizing<Vec<u64>>> {
        match (self, whole) {
            #[cfg(target_arch = "x86_64")]
            (Self::Ifma(context), Self::Ifma(whole)) => Some(context.project((whole, residues), constants)),
            _ => None,
        }
    }

    /// The other way round, from residues mod the squares of both factors.
    pub(super) fn combine(
        &self,
        parts: [(&Self, &[u64]); 2],
        factors: [&[u64]; 4],
    ) -> Option<Zeroizing<Vec<u64>>> {
        match (self, parts) {
            #[cfg(target_arch = "x86_64")]
            (Self::Ifma(context), [(Self::Ifma(p), p_residues), (Self::Ifma(q), q_residues)]) => {
                Some(context.combine([(p, p_residues), (q, q_residues)], factors))
            }
            _ => None,
        }
    }

    /// `x[i] /= R`: out of Montgomery form.
    pub(super) fn reduce(&self, x: &mut [u64]) {
        match self {
            Self::Portable(context) => {
                let mut one = vec![0; self.width()];
                one[0] = 1;
                context.mul(x, Factors::One(&one));
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(context) => context.reduce(x),
        }
    }
}
