//! The client of private inference for a browser: keys, encryption, decryption and everything between layers, as WebAssembly.
//!
//! What is here has no clock and no socket, and threads only of those that the page starts. A [`Session`] takes frames of the service that have arrived and says which
//! are to be sent, one bounded unit of work at a time; the Web Worker around it (`js/worker.js`) has the WebSocket and the clock.
//! Pages use the JavaScript package `@gelu-net/client`, which README.md describes.

#![forbid(unsafe_code)]

#[cfg(target_arch = "wasm32")]
mod bindings;
mod conversation;
mod drive;
mod error;
#[cfg(all(target_arch = "wasm32", feature = "measure"))]
mod measure;
mod outcome;
mod session;
mod step;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "wasm32")]
mod threads;

pub use conversation::Topic;
pub use error::{Code, Error};
pub use outcome::Output;
pub use session::Session;
pub use step::{Direction, Side, Step, StepKind};

/// What the service's `.proto` says.
mod proto {
    #![allow(
        missing_docs,
        unreachable_pub,
        dead_code,
        clippy::all,
        reason = "generated, of more than a client's frames"
    )]
    include!(concat!(env!("OUT_DIR"), "/gelu.v1.rs"));
}
