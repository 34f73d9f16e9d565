//! What a circuit is written against.

/// Something that computes a circuit gate by gate, for many sets of inputs side by side.
///
/// A circuit is a function that is generic over this trait, so that one text runs in the [clear](crate::Clear), is
/// garbled, and is evaluated. What a gate does must not depend on the values of its inputs, which no back end shows.
/// Exclusive or and negation cost nothing in a garbled circuit.
pub trait Bits {
    /// One bit of every set of inputs.
    type Wire: Clone;

    /// Returns `x & y`.
    fn and(&mut self, x: &Self::Wire, y: &Self::Wire) -> Self::Wire;

    /// Returns `x ^ y`.
    fn xor(&mut self, x: &Self::Wire, y: &Self::Wire) -> Self::Wire;

    /// Returns `!x`.
    fn not(&mut self, x: &Self::Wire) -> Self::Wire;

    /// Returns how many ANDs were computed so far, each side-by-side gate counted once.
    fn ands(&self) -> usize;

    /// Returns `x | y`, by one AND.
    fn or(&mut self, x: &Self::Wire, y: &Self::Wire) -> Self::Wire {
        let (x, y) = (self.not(x), self.not(y));
        let neither = self.and(&x, &y);
        self.not(&neither)
    }
}
