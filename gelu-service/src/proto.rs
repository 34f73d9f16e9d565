//! The messages of `gelu.proto`, and the service's traits.

#![allow(missing_docs, unreachable_pub, clippy::all)]

tonic::include_proto!("gelu.v1");
