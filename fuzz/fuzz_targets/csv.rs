//! Tables.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gelu_fuzz::csv(bytes));
