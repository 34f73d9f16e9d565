//! Files of public and secret keys.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gelu_fuzz::keys(bytes));
