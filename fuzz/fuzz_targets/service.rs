//! What comes over a connection of the network service, and certificates.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gelu_service::fuzzing::service(bytes));
