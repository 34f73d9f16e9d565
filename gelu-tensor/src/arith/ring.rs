//! The ring mod n^2: batches of residues, whichever backend computes with them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::backend::{Backend, MAX_LANES};
use super::kernel::Kernel;
use super::limbs::{add_shorter, mul_into};
use super::montgomery_power_of_two;
use super::operands::{Factors, Selection};
use super::operations::Operations;
use super::power::Exponent;
use super::residues::{Entry, Form, Residues};
use crate::Error;

/// Moduli this engine is built for, in bits: the primes and the products of keys of 1024, 2048, 3072 and 4096 bits.
pub(crate) const MODULUS_BITS: [usize; 6] = [512, 1024, 1536, 2048, 3072, 4096];

/// The ring Z_{n^2} for an odd modulus n whose top bit is set.
///
/// Cheap to clone; clones share the constants and the operation counter, unless they are [counted
/// apart](Self::counted_apart). Residues of
/// another ring are the caller's to [refuse](Self::check). All operations take time that depends on the batch's length only, unless they say `_vartime`.
#[derive(Clone)]
pub(crate) struct Ring(Arc<Constants>, Arc<Counts>);

struct Constants {
    kernel: Box<dyn Kernel>,
    backend: Backend,
    form: Form,
    /// `B^k R^2 mod n^2` for k in 0..4, B = 2^(bits of n): what lifts the k-th run of a wide integer's limbs into
    /// Montgomery form.
    lifts: Residues,
    one: Residues,
}

#[derive(Default)]
struct Counts {
    products: AtomicU64,
    squarings: AtomicU64,
}

impl Ring {
    /// The ring mod n^2, for n as little-endian limbs.
    ///
    /// # Errors
    /// [`Error::Modulus`] when n is even, or not of one of [`MODULUS_BITS`] with its top bit set; [`Error::Backend`] when
    /// this machine does not have the backend.
    pub(crate) fn new(n: &[u64], backend: Backend) -> Result<Self, Error> {
        let bits = super::limbs::bit_length_vartime(n);
        if !MODULUS_BITS.contains(&bits) || n.len() * 64 != bits || n[0].is_multiple_of(2) {
            return Err(Error::Modulus { bits, odd: n.first().is_some_and(|limb| limb % 2 == 1) });
        }
        let kernel = backend.kernel(n)?;
        // Powers of 2 by doubling and squaring, so that nothing variable-time touches a secret modulus.
        let radix = kernel.radix_bits();
        let form = Form { ring: identity(n, backend), width: kernel.width() };
        let [mut one, mut lifts] = [Residues::new(form, 1), Residues::new(form, 4)];
        one.push_limbs(&kernel.encode_digits(&kernel.digits().large_power_of_two(radix)));
        let run = power_of_two(&*kernel, &one, bits);
        let mut lift = power_of_two(&*kernel, &one, radix);
        for _ in 0..4 {
            lifts.append(&lift);
            kernel.mul(lift.limbs_mut(), Factors::Each(run.limbs()));
        }
        Ok(Self(Arc::new(Constants { kernel, backend, form, lifts, one }), Arc::default()))
    }

    /// Limbs of n.
    pub(crate) fn limbs(&self) -> usize {
        self.modulus().len()
    }

    /// Limbs of one residue, in the backend's own form.
    fn width(&self) -> usize {
        self.0.form.width
    }

    /// Refuses residues of another ring.
    ///
    /// # Errors
    /// [`Error::ForeignResidues`].
    pub(crate) fn check(&self, residues: &Residues) -> Result<(), Error> {
        if residues.form() == self.0.form { Ok(()) } else { Err(Error::ForeignResidues) }
    }

    pub(super) fn kernel(&self) -> &dyn Kernel {
        &*self.0.kernel
    }

    /// Residues of limbs in the backend's own form.
    pub(super) fn residues_of(&self, limbs: &[u64]) -> Residues {
        let mut residues = self.empty(limbs.len() / self.width());
        residues.push_limbs(limbs);
        residues
    }

    /// `2^exponent`.
    pub(super) fn power_of_two(&self, exponent: usize) -> Residues {
        power_of_two(&*self.0.kernel, &self.0.one, exponent)
    }

    /// Bytes that one residue takes in memory.
    pub(crate) fn residue_bytes(&self) -> usize {
        8 * self.width()
    }

    /// n as little-endian limbs.
    pub(crate) fn modulus(&self) -> &[u64] {
        self.0.kernel.digits().modulus()
    }

    /// The operations done so far by this ring and its clones.
    pub(crate) fn operations(&self) -> Operations {
        Operations {
            products: self.1.products.load(Ordering::Relaxed),
            squarings: self.1.squarings.load(Ordering::Relaxed),
        }
    }

    /// The same ring with a count of its own, from zero: for work that is not part of the count.
    pub(crate) fn counted_apart(&self) -> Self {
        Self(Arc::clone(&self.0), Arc::default())
    }

    /// The backend that does the arithmetic.
    pub(crate) fn backend(&self) -> Backend {
        self.0.backend
    }

    /// An empty batch with room for `capacity` residues.
    pub(crate) fn empty(&self, capacity: usize) -> Residues {
        Residues::new(self.0.form, capacity)
    }

    /// A batch of `count` ones.
    pub(crate) fn ones(&self, count: usize) -> Residues {
        self.0.one.gather((0..count).map(|_| 0))
    }

    /// `x[i] *= y[i]`. The batches have one length.
    pub(crate) fn mul_assign(&self, x: &mut Residues, y: &Residues) {
        debug_assert!(x.len() == y.len() && x.form() == self.0.form && y.form() == self.0.form);
        self.count_products(x.len());
        self.0.kernel.mul(x.limbs_mut(), Factors::Each(y.limbs()));
    }

    /// Multiplies each `x[i]` with several entries of tables: `entries` has one for each residue, in order, then the
    /// next for each.
    ///
    /// Reads the tables at `entries`, so those must be public or the machine's cache trusted (see SECURITY.md).
    pub(crate) fn mul_assign_gather(&self, x: &mut Residues, tables: &[Residues], entries: &[Entry]) {
        debug_assert!(entries.len().is_multiple_of(x.len().max(1)));
        self.count_products(entries.len());
        self.0.kernel.mul(x.limbs_mut(), Factors::Gather { tables, entries });
    }

    /// `x[i] = x[i]^2`, `times` times over.
    pub(crate) fn square_assign(&self, x: &mut Residues, times: usize) {
        self.count_squarings(x.len() * times);
        self.0.kernel.square(x.limbs_mut(), times);
    }

    /// Appends `x[i] * factors[i mod factors.len()]` for every i in `range`, where x is the batch itself.
    ///
    /// This is how tables of powers and of subset products grow, as many side by side as there are factors.
    pub(crate) fn push_multiples(&self, x: &mut Residues, range: Range<usize>, factors: &Residues) {
        /// Products of one task, where a table is so large that other threads may help.
        const TOGETHER: usize = 8 * MAX_LANES;
        let entry = |index| Entry { table: 0, index: (index % factors.len()) as u32 };
        let entries: Vec<Entry> = range.clone().map(entry).collect();
        self.count_products(range.len());
        let start = x.copy_to_end(range);
        let limbs = x.limbs_mut()[start * self.width()..].par_chunks_mut(TOGETHER * self.width());
        let tables = std::slice::from_ref(factors);
        limbs.zip(entries.par_chunks(TOGETHER)).for_each(|(limbs, entries)| {
            self.0.kernel.mul(limbs, Factors::Gather { tables, entries });
        });
    }

    /// For each i below `runs` the product of `x[i]`, `x[i + runs]`, `x[i + 2 runs]` and so on, whose count is a
    /// multiple of `runs`: by halving, so that as many products as there can be are done side by side.
    pub(crate) fn fold_products(&self, mut x: Residues, runs: usize) -> Residues {
        while x.len() > runs {
            x = self.halve(&x, runs);
        }
        x
    }

    /// The products of a first half and a second half of runs; one left over is copied.
    pub(super) fn halve(&self, x: &Residues, runs: usize) -> Residues {
        let half = x.len() / runs / 2 * runs;
        let mut out = x.gather(0..half);
        self.mul_assign(&mut out, &x.gather(half..2 * half));
        out.append(&x.gather(2 * half..x.len()));
        out
    }

    /// `x[i]^exponent`, by fixed windows. The time depends on the exponent's bit count, not on its value, and no
    /// address depends on either.
    pub(crate) fn power(&self, x: &Residues, exponent: &Exponent) -> Residues {
        let mut out = x.clone();
        self.0.kernel.power(out.limbs_mut(), exponent, self.0.one.limbs());
        let window = self.0.kernel.power_window();
        let digits = exponent.bits().div_ceil(window);
        self.count_products(x.len() * ((1 << window) - 1 + digits));
        self.count_squarings(x.len() * window * digits.saturating_sub(1));
        out
    }

    /// A table of residues in the order that [`mul_assign_selected`](Self::mul_assign_selected) selects from: a
    /// multiple of 16 of them.
    pub(super) fn arrange_for_selection(&self, table: &Residues) -> Residues {
        self.residues_of(&self.0.kernel.arrange_for_selection(table.limbs()))
    }

    /// Residues in a form that makes products with them by [`mul_assign_selected`](Self::mul_assign_selected) cheaper,
    /// given their inverses; `None` where the backend has none.
    pub(super) fn factored(&self, residues: &Residues, inverses: &Residues) -> Option<Residues> {
        self.count_products(residues.len());
        self.0.kernel.factored(residues.limbs(), inverses.limbs()).map(|limbs| self.residues_of(&limbs))
    }

    /// The most rows in factored form that may be multiplied up.
    pub(super) fn most_factored_rows(&self) -> usize {
        self.0.kernel.most_factored_rows()
    }

    /// Multiplies `x[i]` with entry `digit(row, i)` of each of the rows, which are arranged for selection and may be
    /// factored, round by round. Every entry is read, so that no address depends on a digit.
    pub(super) fn mul_assign_selected(
        &self,
        x: &mut Residues,
        (rows, factored): (&[Residues], bool),
        rounds: usize,
        digit: &(dyn Fn(usize, usize) -> u64 + Sync),
    ) {
        self.count_products(x.len() * (rounds * rows.len() + usize::from(factored)));
        self.count_squarings(x.len() * rounds.saturating_sub(1));
        let factored = factored.then(|| self.0.one.limbs());
        self.0.kernel.mul_selected(x.limbs_mut(), Selection { rows, rounds, digit, factored });
    }

    /// `x[i] += y[i] mod n^2`.
    pub(crate) fn add_assign(&self, x: &mut Residues, y: &Residues) {
        self.0.kernel.add(x.limbs_mut(), y.limbs());
    }

    /// `x[i] -= y[i] mod n^2`.
    pub(crate) fn sub_assign(&self, x: &mut Residues, y: &Residues) {
        self.0.kernel.sub(x.limbs_mut(), y.limbs());
    }

    /// `x[i] *= 1 + m[i] n`, for `m[i] < n` given as limbs, one after another: two products mod n each.
    ///
    /// This is Paillier's plaintext addition (and, on a power of h, encryption).
    pub(crate) fn mul_assign_one_plus(&self, x: &mut Residues, m: &[u64]) {
        debug_assert_eq!(m.len(), x.len() * self.limbs());
        self.0.kernel.mul_one_plus(x.limbs_mut(), m, self.0.lifts.residue(0));
    }

    /// Lifts integers into the ring: `count` little-endian integers of `wide.len() / count` limbs each, which must
    /// be a multiple of the ring's limbs and at most four times them. They are reduced mod n^2.
    pub(crate) fn lift(&self, wide: &[u64], count: usize) -> Residues {
        let limbs = self.limbs();
        let runs = wide.len() / count.max(1) / limbs;
        debug_assert!(runs <= 4 && runs * limbs * count == wide.len());
        let mut out: Option<Residues> = None;
        for run in 0..runs {
            let mut part = self.empty(count);
            for integer in wide.chunks_exact(runs * limbs) {
                let digits = self.0.kernel.digits().split(&integer[run * limbs..][..limbs]);
                part.push_limbs(&self.0.kernel.encode_digits(&digits));
            }
            self.count_products(count);
            self.0.kernel.mul(part.limbs_mut(), Factors::One(self.0.lifts.residue(run)));
            match &mut out {
                Some(out) => self.add_assign(out, &part),
                None => out = Some(part),
            }
        }
        out.unwrap_or_else(|| self.empty(0))
    }

    /// The residues out of Montgomery form: for each its digits `a` and `b` with `c = a + b n`, both below n.
    pub(crate) fn digits(&self, x: &Residues) -> Zeroizing<Vec<u64>> {
        let mut out = x.clone();
        self.0.kernel.reduce(out.limbs_mut());
        let mut digits = Zeroizing::new(Vec::with_capacity(2 * self.limbs() * x.len()));
        for residue in out.limbs().chunks_exact(self.width()) {
            digits.extend_from_slice(&self.0.kernel.decode_digits(residue));
        }
        digits
    }

    /// The residues as integers below n^2, of twice the ring's limbs each.
    pub(crate) fn lower(&self, x: &Residues) -> Zeroizing<Vec<u64>> {
        let mut out = self.digits(x);
        let mut product = Zeroizing::new(vec![0; 2 * self.limbs()]);
        for digits in out.chunks_exact_mut(2 * self.limbs()) {
            let (a, b) = digits.split_at(self.limbs());
            mul_into(&mut product, b, self.modulus());
            add_shorter(&mut product, a);
            digits.copy_from_slice(&product);
        }
        out
    }

    fn count_products(&self, count: usize) {
        self.1.products.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn count_squarings(&self, count: usize) {
        self.1.squarings.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What tells rings apart. Of a secret prime it tells no more than its product with another.
fn identity(n: &[u64], backend: Backend) -> u64 {
    let mut digest = hmac_sha256::Hash::new();
    digest.update(backend.name());
    n.iter().for_each(|limb| digest.update(limb.to_le_bytes()));
    let digest: [u8; 32] = digest.finalize();
    digest[..8].iter().fold(0, |identity, &byte| identity << 8 | u64::from(byte))
}

/// `2^exponent`, given the residue of 1.
fn power_of_two(kernel: &dyn Kernel, one: &Residues, exponent: usize) -> Residues {
    let mut power = one.clone();
    let square = |x: &mut [u64]| kernel.square(x, 1);
    montgomery_power_of_two(power.limbs_mut(), exponent, square, |x, y| kernel.add(x, y));
    power
}

/// Does not print the modulus, which may be a secret prime.
impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} bits, {})", 64 * self.limbs(), self.backend())
    }
}
