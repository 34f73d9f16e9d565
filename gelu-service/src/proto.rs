//! The messages of `gelu.proto`, and the service's traits.

#![allow(missing_docs, unreachable_pub, clippy::all)]

tonic::include_proto!("gelu.v1");

/// The description of the service, for reflection.
pub(crate) const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gelu.v1.bin"));
