//! Names that nothing has.

/// A text that is no name of what it should be one of: an activation, a schedule, a way to pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, found `{found}`")]
pub struct UnknownName {
    /// What has such a name.
    pub what: &'static str,
    /// The names that there are.
    pub expected: &'static str,
    /// The text that was given.
    pub found: String,
}
