//! The backend of a process is chosen by a call: in a process of its own, for it is decided once.

#![allow(clippy::unwrap_used, reason = "tests")]

use gelu_net::prelude::*;
use gelu_net::tensor::arith::Backend;
use gelu_net::tensor::paillier::SecretKey;

#[test]
fn keys_are_made_with_the_preferred_backend() {
    Backend::Portable.prefer().unwrap();
    let key = SecretKey::generate(KeyBits::Bits1024, &mut rand::rng()).unwrap();
    assert_eq!(key.public_key().ring().backend(), Backend::Portable);
    // The same again changes nothing; another one comes too late.
    Backend::Portable.prefer().unwrap();
    assert!(matches!(Backend::Ifma.prefer(), Err(gelu_net::tensor::Error::Backend { wanted: "ifma" })));
    assert_eq!(Backend::preferred(), Backend::Portable);
}
