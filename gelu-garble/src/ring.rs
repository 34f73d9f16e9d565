//! The rings of additive shares, and their numbers as bytes.

use crate::Error;

/// The ring of integers mod 2^m, for m of 1 to 64.
///
/// ```
/// use gelu_garble::Ring;
///
/// let ring = Ring::new(5)?;
/// assert_eq!((ring.wrap(35), ring.signed(29)), (3, -3));
/// assert_eq!(ring.unpack(&ring.pack(&[1, 31, 7]), 3)?, [1, 31, 7]);
/// # Ok::<(), gelu_garble::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ring {
    bits: u32,
}

impl Ring {
    /// Returns the ring of integers mod 2^`bits`.
    ///
    /// # Errors
    /// [`Error::Range`] when the bits are not 1 to 64.
    pub fn new(bits: u32) -> Result<Self, Error> {
        if (1..=64).contains(&bits) {
            return Ok(Self { bits });
        }
        Err(Error::Range { what: "bits of a ring", least: 1, most: 64, found: bits as usize })
    }

    /// Returns the number m of bits.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Returns the residue in `[0, 2^m)`.
    #[inline]
    pub fn wrap(self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - self.bits))
    }

    /// Returns the representative of a residue in `[-2^(m-1), 2^(m-1))`.
    #[inline]
    pub fn signed(self, value: u64) -> i64 {
        let unused = 64 - self.bits;
        (value << unused) as i64 >> unused
    }

    /// Returns how many bytes [`pack`](Self::pack) makes of so many numbers.
    pub fn packed_bytes(self, count: usize) -> usize {
        count.saturating_mul(self.bits as usize).div_ceil(8)
    }

    /// Returns residues as bytes, m bits each, the lowest bits first. Bits of the last byte that are left over are zero.
    pub fn pack(self, values: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.packed_bytes(values.len()));
        self.pack_into(values, &mut bytes);
        bytes
    }

    /// Appends what [`pack`](Self::pack) returns.
    pub(crate) fn pack_into(self, values: &[u64], bytes: &mut Vec<u8>) {
        let (mut held, mut bits) = (0u128, 0);
        for &value in values {
            held |= u128::from(self.wrap(value)) << bits;
            bits += self.bits;
            while bits >= 8 {
                bytes.push(held as u8);
                held >>= 8;
                bits -= 8;
            }
        }
        if bits > 0 {
            bytes.push(held as u8);
        }
    }

    /// Returns the `count` residues that [`pack`](Self::pack) made bytes of.
    ///
    /// # Errors
    /// [`Error::Length`] when the bytes are not as many as that makes.
    pub fn unpack(self, bytes: &[u8], count: usize) -> Result<Vec<u64>, Error> {
        let expected = self.packed_bytes(count);
        if bytes.len() != expected {
            return Err(Error::Length { what: "bytes of residues", expected, found: bytes.len() });
        }
        let (mut held, mut bits, mut bytes) = (0u128, 0, bytes.iter());
        let next = |_| {
            while bits < self.bits {
                held |= u128::from(bytes.next().copied().unwrap_or(0)) << bits;
                bits += 8;
            }
            let value = self.wrap(held as u64);
            held >>= self.bits;
            bits -= self.bits;
            value
        };
        Ok((0..count).map(next).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_residues_come_back(bits in 1u32..=64, values in prop::collection::vec(any::<u64>(), 0..50)) {
            let ring = Ring::new(bits).unwrap();
            let residues: Vec<u64> = values.iter().map(|&value| ring.wrap(value)).collect();
            let bytes = ring.pack(&values);
            prop_assert_eq!(bytes.len(), ring.packed_bytes(values.len()));
            prop_assert_eq!(ring.unpack(&bytes, values.len()).unwrap(), &residues[..]);
            prop_assert!(residues.iter().all(|&x| ring.wrap(ring.signed(x) as u64) == x));
            let longer = [&bytes[..], &[0]].concat();
            let refused = Error::Length { what: "bytes of residues", expected: bytes.len(), found: longer.len() };
            prop_assert_eq!(ring.unpack(&longer, values.len()), Err(refused));
        }
    }

    #[test]
    fn rings_have_1_to_64_bits() {
        assert_eq!(Ring::new(64).unwrap().wrap(u64::MAX), u64::MAX);
        for found in [0, 65] {
            let refused = Error::Range { what: "bits of a ring", least: 1, most: 64, found: found as usize };
            assert_eq!(Ring::new(found), Err(refused));
        }
    }
}
