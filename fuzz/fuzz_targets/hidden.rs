//! Messages of inference that hides the model.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gelu_fuzz::hidden(bytes));
