#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(feature = "two-party")]
mod base_ot;
mod bits;
#[cfg(feature = "two-party")]
mod choices;
pub mod circuits;
mod clear;
mod error;
#[cfg(feature = "two-party")]
mod evaluator;
#[cfg(feature = "two-party")]
mod garbler;
#[cfg(feature = "two-party")]
mod hash;
#[cfg(feature = "two-party")]
mod labels;
mod ring;
mod sizes;
#[cfg(all(test, feature = "two-party"))]
mod tests;
#[cfg(feature = "two-party")]
mod transfer;
#[cfg(feature = "two-party")]
mod transpose;
#[cfg(feature = "two-party")]
mod wire;

#[cfg(feature = "two-party")]
pub use base_ot::{BASE_TRANSFERS, POINT_BYTES};
pub use bits::Bits;
#[cfg(feature = "two-party")]
pub use choices::Choices;
pub use clear::Clear;
pub use error::Error;
#[cfg(feature = "two-party")]
pub use evaluator::Evaluator;
#[cfg(feature = "two-party")]
pub use garbler::Garbler;
#[cfg(feature = "two-party")]
pub use labels::{Delta, LabelSeed, Labels};
pub use ring::Ring;
pub use sizes::{
    AND_BYTES, LABEL_BYTES, MAX_WIDTH, START_BYTES, extension_bytes, projection_bytes, reveal_bytes,
};
#[cfg(feature = "two-party")]
pub use transfer::{LabelReceiver, LabelSender, MAX_TRANSFERS, Opening};
#[cfg(feature = "two-party")]
pub use wire::Wire;
