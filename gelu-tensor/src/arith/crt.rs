//! Between residues mod n^2 and those mod p^2 and q^2, for who knows the factors of n = p q
//! (docs/arithmetic.md, section 6).

use super::{Residues, Ring};

/// Which factor of n.
#[derive(Clone, Copy)]
pub(crate) enum Factor {
    P,
    Q,
}

/// The ring mod n^2 and the rings mod the squares of its factors, which have half as many limbs.
///
/// Constant-time in the factors and in the residues.
pub(crate) struct Crt {
    whole: Ring,
    parts: [Ring; 2],
    /// For each part what the four parts of a residue mod n^2 are multiplied with: 1, a power of two, and n times both, not
    /// in Montgomery form.
    projections: [Residues; 2],
    /// What the two halves of a residue of each part are multiplied with: in that part its R, and its R times the factor,
    /// and 0 in the other part.
    idempotents: Residues,
}

impl Crt {
    /// The rings, given the residue that is 1 mod the first part and 0 mod the second.
    pub(crate) fn new(whole: &Ring, parts: [&Ring; 2], first_idempotent: &Residues) -> Self {
        let mut second_idempotent = whole.ones(1);
        whole.sub_assign(&mut second_idempotent, first_idempotent);
        let mut idempotents = whole.empty(4);
        for (part, idempotent) in parts.into_iter().zip([first_idempotent, &second_idempotent]) {
            // R of n over R of p, which is R of p where that is half as long.
            let mut factor = idempotent.clone();
            let excess = whole.kernel().radix_bits() - part.kernel().radix_bits();
            whole.mul_assign(&mut factor, &whole.power_of_two(excess));
            idempotents.append(&factor);
            let mut prime = part.modulus().to_vec();
            prime.resize(whole.limbs(), 0);
            whole.mul_assign(&mut factor, &whole.lift(&prime, 1));
            idempotents.append(&factor);
        }
        let projection = |part: &Ring| {
            let kernel = part.kernel();
            // The square of p's R over n's R, which is 1 where p's R is half as long.
            let excess = 2 * kernel.radix_bits() - whole.kernel().radix_bits();
            let mut factors = part.power_of_two(excess);
            factors.append(&part.power_of_two(excess + kernel.cut_bits()));
            let mut multiples = factors.clone();
            let modulus = part.lift(whole.modulus(), 1);
            part.mul_assign(&mut multiples, &modulus.gather([0, 0]));
            factors.append(&multiples);
            let mut limbs = part.empty(4);
            for digits in part.digits(&factors).chunks_exact(2 * part.limbs()) {
                limbs.push_limbs(&kernel.encode_digits(digits));
            }
            limbs
        };
        let projections = parts.map(projection);
        Self { whole: whole.clone(), parts: parts.map(Ring::clone), projections, idempotents }
    }

    /// The residues mod the square of one of the factors.
    pub(crate) fn project(&self, factor: Factor, x: &Residues) -> Residues {
        let (ring, factors) = (&self.parts[factor as usize], &self.projections[factor as usize]);
        let factors = [0, 1, 2, 3].map(|k| factors.residue(k));
        ring.residues_of(&ring.kernel().project((self.whole.kernel(), x.limbs()), factors))
    }

    /// The residues mod n^2 that are these mod the squares of the factors.
    pub(crate) fn combine(&self, [p, q]: [&Residues; 2]) -> Residues {
        let kernels = self.parts.each_ref().map(Ring::kernel);
        let factors = [0, 1, 2, 3].map(|k| self.idempotents.residue(k));
        let parts = [(kernels[0], p.limbs()), (kernels[1], q.limbs())];
        self.whole.residues_of(&self.whole.kernel().combine(parts, factors))
    }
}
