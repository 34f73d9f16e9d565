//! Between residues mod n^2 and those mod p^2 and q^2, for who knows the factors of n = p q
//! (docs/arithmetic.md, section 6).

use zeroize::Zeroizing;

use super::backend::Factors;
use super::{Residues, Ring};

/// The ring mod n^2 and the rings mod the squares of its factors, which have half as many limbs.
///
/// Constant-time in the factors and in the residues.
pub(crate) struct Crt {
    whole: Ring,
    parts: [Ring; 2],
    /// For each part the other factor's residue in the low half, and R times it in the high half.
    cofactors: [Residues; 2],
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
            // R mod n^2 is the square of R mod p^2: half the limbs.
            let mut factor = idempotent.clone();
            whole.mul_assign(&mut factor, &whole.power_of_two(part.radix_bits()));
            idempotents.append(&factor);
            let mut prime = part.modulus().to_vec();
            prime.resize(whole.limbs(), 0);
            whole.mul_assign(&mut factor, &whole.lift(&prime, 1));
            idempotents.append(&factor);
        }
        let cofactor = |part: &Ring, other: &Ring| {
            let (engine, limbs) = (part.engine(), part.limbs());
            let mut digits = engine.portable().split(other.modulus());
            let in_montgomery_form = engine.decode_digits(part.lift(other.modulus(), 1).residue(0));
            digits[limbs..].copy_from_slice(&in_montgomery_form[..limbs]);
            part.residues_of(&engine.encode_digits(&digits))
        };
        let [p, q] = parts;
        let cofactors = [cofactor(p, q), cofactor(q, p)];
        Self { whole: whole.clone(), parts: parts.map(Ring::clone), cofactors, idempotents }
    }

    /// The residues mod the square of one of the factors.
    pub(crate) fn project(&self, part: usize, x: &Residues) -> Residues {
        let (ring, whole) = (&self.parts[part], &self.whole);
        let constants = [ring.one(), self.cofactors[part].residue(0)];
        match ring.engine().project((whole.engine(), x.limbs()), constants) {
            Some(limbs) => ring.residues_of(&limbs),
            None => ring.lift(&whole.lower(x), x.len()),
        }
    }

    /// The residues mod n^2 that are these mod the squares of the factors.
    pub(crate) fn combine(&self, [p, q]: [&Residues; 2]) -> Residues {
        let whole = self.whole.engine();
        let engines = self.parts.each_ref().map(Ring::engine);
        let factors = [0, 1, 2, 3].map(|k| self.idempotents.residue(k));
        if let Some(limbs) = whole.combine([(engines[0], p.limbs()), (engines[1], q.limbs())], factors) {
            return self.whole.residues_of(&limbs);
        }
        let halves = |x: &Residues, side: usize, half: usize| {
            let mut out = self.whole.empty(x.len());
            for at in 0..x.len() {
                let digits = engines[side].decode_digits(x.residue(at));
                let limbs = digits.len() / 2;
                let mut digit = Zeroizing::new(vec![0; 4 * limbs]);
                digit[..limbs].copy_from_slice(&digits[half * limbs..][..limbs]);
                out.push_limbs(&whole.encode_digits(&digit));
            }
            whole.mul(out.limbs_mut(), Factors::One(factors[2 * side + half]));
            out
        };
        let mut out = halves(p, 0, 0);
        for addend in [halves(p, 0, 1), halves(q, 1, 0), halves(q, 1, 1)] {
            self.whole.add_assign(&mut out, &addend);
        }
        out
    }
}
