//! The one error type of the crate.

/// What can go wrong with sizes, and with messages of the other party.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A message, or an operand of a circuit, does not have exactly the length that it must have.
    #[error("{what}: expected {expected}, found {found}")]
    Length {
        /// What was counted, and in which unit.
        what: &'static str,
        /// The length that is needed.
        expected: usize,
        /// The length that was found.
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
    /// Bytes that do not encode a point of the group, or encode its identity, which hides nothing.
    #[error(
        "point {index} of a base transfer: expected a point of ristretto255 other than the identity, found {found}"
    )]
    Point {
        /// Which one of the message.
        index: usize,
        /// What the bytes are.
        found: &'static str,
    },
}
