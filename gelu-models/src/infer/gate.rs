//! What a server lets a client ask for.

use std::fmt;

/// Asked before every batch whether its inputs are let in: a budget, kept wherever the server's owner wants it.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Lets a batch of so many inputs in, and notes that it did.
    ///
    /// # Errors
    /// [`Denied`] when it does not; nothing is noted then.
    fn admit(&self, inputs: usize) -> Result<(), Denied>;
}

/// Why a batch is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The client has had as many inputs as it may have, or too many for this batch.
    #[error("the client has used {used} of the {allowed} inputs that it may ask for")]
    Spent {
        /// Inputs that it has had.
        used: u64,
        /// Inputs that it may have in all.
        allowed: u64,
    },
    /// The client has had as many inputs of late as it may have in an hour, or too many for this batch.
    #[error("the client may ask for {allowed} inputs an hour; its hour ends in {seconds} s")]
    TooFast {
        /// Inputs that it may have in an hour.
        allowed: u64,
        /// Seconds until its hour ends.
        seconds: u64,
    },
    /// What it has had could not be looked up or noted.
    #[error("cannot keep account of what the client asks for: {problem}")]
    Unknown {
        /// What went wrong.
        problem: String,
    },
}
