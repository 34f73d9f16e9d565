//! NumPy arrays, and archives of them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gelu_fuzz::npz(bytes));
