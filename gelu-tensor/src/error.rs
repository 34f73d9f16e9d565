//! The one error type of the crate.

use crate::Shape;

/// What can go wrong with numbers, keys, ciphertexts and encrypted tensors.
///
/// Every variant carries what was expected and what was found, as far as whoever sent it may know.
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
    /// A count (elements, images, ciphertexts) is not exactly what it must be.
    #[error("{what}: expected {expected}, found {found}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// The count that is needed.
        expected: usize,
        /// The count that was found.
        found: usize,
    },
    /// More than there may be.
    #[error("{what}: expected at most {limit}, found {found}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The most there may be.
        limit: usize,
        /// The count that was found.
        found: usize,
    },
    /// Fewer than are needed.
    #[error("{what}: expected at least {least}, found {found}")]
    TooFew {
        /// What was counted.
        what: &'static str,
        /// The fewest that are needed.
        least: usize,
        /// The count that was found.
        found: usize,
    },
    /// A number that is not in its range.
    #[error("{what}: expected {least} to {most}, found {found}")]
    Range {
        /// What it is.
        what: &'static str,
        /// The least it may be.
        least: usize,
        /// The most it may be.
        most: usize,
        /// What was found.
        found: usize,
    },
    /// A count that does not come out even.
    #[error("{what}: expected a multiple of {of}, found {found}")]
    Multiple {
        /// What was counted.
        what: &'static str,
        /// What it must be a multiple of.
        of: usize,
        /// The count that was found.
        found: usize,
    },
    /// A chunk of a tensor that is not the next.
    #[error("chunks of a tensor: expected number {expected}, found number {found}")]
    Order {
        /// How many came before.
        expected: u32,
        /// As many as the chunk says.
        found: u32,
    },
    /// An activation whose parameters are not finite or not in order.
    #[error("activation: expected parameters that are finite and in order")]
    Activation,
    /// A function of the client's own, which is computed by the client of a session only: neither in the clear nor in
    /// training.
    #[error("a function of the client's own is computed by the client of a session only")]
    ClientFunction,
    /// A function of the client's own that the graph names and the client does not have.
    #[error("the client has no function `{name}`, which the graph calls; add it with `with_function`")]
    MissingFunction {
        /// Its name in the graph.
        name: String,
    },
    /// A scale beyond which reals would leave the range of an `f64`.
    #[error("scale: expected at most {limit} fractional bits either way, found {found}")]
    ScaleRange {
        /// The most fractional bits, and the least negated.
        limit: i32,
        /// What was found.
        found: i32,
    },
    /// A modulus the engine is not built for.
    #[error("a modulus must be odd and have 512, 1024, 1536, 2048, 3072 or 4096 bits; found {bits} bits, {}", if *.odd { "odd" } else { "even" })]
    Modulus {
        /// Its bits.
        bits: usize,
        /// Whether it is odd.
        odd: bool,
    },
    /// A backend that does not exist, that this machine does not have, or that is another one than a key's.
    #[error(
        "backend: expected portable or, where the machine and the key have them, adx, neon, avx2, avx512, avxifma or ifma, found `{wanted}`"
    )]
    Backend {
        /// Its name.
        wanted: String,
    },
    /// Residues that are not of the key or the backend of an operation.
    #[error("expected residues of the operation's own key and backend, found some of another")]
    ForeignResidues,
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
    /// Values that need more bits than there are.
    #[error(
        "overflow: values need {needed_bits} bits, but only {available_bits} are available; use fewer bits for weights or activations, or a larger key"
    )]
    Overflow {
        /// Bits that every possible value fits in.
        needed_bits: usize,
        /// Bits that a slot (or an integer) has.
        available_bits: usize,
    },
    /// Two tensors of different scales that cannot be added.
    #[error("scale: expected {expected} fractional bits, found {found}")]
    Scale {
        /// The scale of the first.
        expected: i32,
        /// The scale of the second.
        found: i32,
    },
    /// An integer weight outside the range that was declared for it.
    #[error("weight {index} is {found}, which does not fit {bits} bits ({})", if *.signed { "signed" } else { "unsigned" })]
    Weight {
        /// Which one.
        index: usize,
        /// Its value.
        found: i32,
        /// The declared bits.
        bits: u32,
        /// Whether they include a sign.
        signed: bool,
    },
    /// A row of integer weights whose absolute values sum to more than was stated of them.
    #[error("a row of weights: expected absolute values that sum to at most {limit}, found {found}")]
    RowSum {
        /// The stated sum.
        limit: u64,
        /// The largest sum that was found.
        found: u64,
    },
    /// Numbers that are NaN or infinite.
    #[error("{what}: expected finite numbers, found {found} of {of} that are not")]
    NotFinite {
        /// What they are.
        what: &'static str,
        /// How many are not finite.
        found: usize,
        /// How many there are.
        of: usize,
    },
    /// A value outside the bound of its format.
    #[error("value {index} is outside the bound {bound}")]
    Value {
        /// Which one.
        index: usize,
        /// The bound.
        bound: u64,
    },
    /// A tensor whose slots are not laid out as an operation needs them.
    #[error("{operation} needs ciphertexts laid out as {expected}, found {found}")]
    Layout {
        /// The operation.
        operation: &'static str,
        /// What it needs.
        expected: &'static str,
        /// What it was given.
        found: String,
    },
    /// A tensor encrypted under another key.
    #[error("expected ciphertexts under key {expected}, found some under key {found}")]
    ForeignKey {
        /// The first bytes of the expected key's fingerprint, in hexadecimal.
        expected: String,
        /// Those of the key that was found.
        found: String,
    },
    /// A ciphertext that cannot be decrypted, for its random factor lies outside the key's group. Deliberately says
    /// nothing more: not which one of a batch, nor modulo which prime.
    #[error(
        "expected ciphertexts made under this key, found one whose random factor lies outside the key's group"
    )]
    Randomness,
    /// A decrypted plaintext that no honest computation gives.
    #[error("ciphertext {index} decrypts to a value outside the range that its format allows")]
    Plaintext {
        /// Which one.
        index: usize,
    },
}
