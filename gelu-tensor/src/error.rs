use crate::Shape;

/// What can go wrong with numbers, keys, ciphertexts and encrypted tensors.
///
/// Every variant carries what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor or kernel has another shape than the operation takes.
    #[error("{what}: expected shape {expected}, found {found}")]
    Shape {
        /// Which operand.
        what: &'static str,
        /// The shape the operation takes.
        expected: Shape,
        /// The shape it was given.
        found: Shape,
    },
    /// A window (kernel, stride, padding) that does not fit its input.
    #[error("window {window} does not fit input {input}: {why}")]
    Window {
        /// The window, as text.
        window: String,
        /// The input's shape.
        input: Shape,
        /// The rule that is broken.
        why: &'static str,
    },
    /// A count (elements, images, ciphertexts) is not what it must be.
    #[error("{what}: expected {expected}, found {found}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// The count that is needed.
        expected: usize,
        /// The count that was found.
        found: usize,
    },
    /// A modulus the engine is not built for.
    #[error("a modulus must be odd and have 512, 1024, 1536, 2048, 3072 or 4096 bits; found {bits} bits, {}", if *.odd { "odd" } else { "even" })]
    Modulus {
        /// Its bits.
        bits: usize,
        /// Whether it is odd.
        odd: bool,
    },
    /// A key that breaks a rule.
    #[error("bad key: {rule}; found {found}")]
    Key {
        /// The rule.
        rule: &'static str,
        /// What breaks it.
        found: String,
    },
    /// Two primes that do not make a key together.
    #[error("bad key: {rule}")]
    PrimePair {
        /// The rule.
        rule: &'static str,
    },
    /// A number that is no ciphertext.
    #[error("ciphertext {index} {rule}")]
    Ciphertext {
        /// Which one.
        index: usize,
        /// The rule it breaks.
        rule: &'static str,
    },
}
