//! Ciphertexts, and tensors of them in chunks.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gelu_fuzz::tensors(bytes));
