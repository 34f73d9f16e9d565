//! Private inference that hides the model: sums are additive shares of both sides, activations garbled circuits on shares, and
//! all homomorphic work is done before an image is there.
//!
//! ```text
//! client                                               server
//! Hello {key, queries, memory, reveal, ...}  ->
//!                                            <-        Accept {session, description, transfers}
//! ahead, for some queries together, any number of times:
//! Tensor {preparation, masks r} ...          ->
//!                                            <-        Tensor {preparation, W r + s} ...
//! Choices {query, segment, block} ...        ->
//!                                            <-        Tables {query, segment, block} ...
//! with an image, for each segment:
//! Shares {query, segment, x - r}             ->
//!                                            <-        Labels {query, segment, block} ..., at the end Sums {query}
//! ```
//!
//! The client's shares of a segment's sums are c = W r + s mod 2^l, which it decrypts ahead; the server's, with the image,
//! d = W (x - r) + b - s. The circuits add both, compute the [`IntegerStep`](gelu_layers::IntegerStep) behind the segment,
//! and leave shares of its result. So the client sees uniform numbers, and the server none that depend on the image but
//! x - r mod 2^l. Both follow the protocol: a client that does not can read the weights.
//!
//! What was prepared for a query is spent by it. Queries have numbers that only rise, and a server has none twice.

mod circuit;
mod client;
mod material;
mod message;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Answer, Client, Event};
pub use message::{Block, Message};
pub use server::Server;

use crate::plan::HiddenPlan;

/// The version of the protocol that this crate speaks.
pub(crate) const HIDDEN_VERSION: u16 = 1;

/// Bytes of memory that a server keeps prepared queries of a client in: with more to a query they are fewer, but one at least.
pub(crate) const SERVER_BYTES: usize = 250_000_000;

impl HiddenPlan {
    /// Returns how many queries may be prepared and not yet used, where the client keeps them in so many bytes of memory; one
    /// at least.
    pub fn most_prepared(&self, client_bytes: usize) -> usize {
        let client = client_bytes / self.client_bytes().max(1);
        let server = SERVER_BYTES / self.server_bytes().max(1);
        client.min(server).clamp(1, Client::MOST_PREPARED)
    }
}
