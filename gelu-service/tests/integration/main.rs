//! Tests of the service, in one program: linking takes longer than most of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bad_peers;
mod common;
mod connections;
mod hidden;
mod loopback;
mod misbehavior;
mod training;
mod web;
