//! The backend is chosen by whoever makes or reads a key, and changes no result.

use gelu_net::prelude::*;
use gelu_net::tensor::{Backend, Contents, Error, Packing};
use gelu_net::tensor::{EncTensor, FixedTensor, Format, Shape, SlotLayout};

#[test]
fn keys_on_all_backends_go_together_as_bytes() {
    let rng = &mut rand::rng();
    let key = SecretKey::generate(KeyBits::Bits1024, rng).unwrap();
    assert_eq!(key.public_key().backend(), Backend::detect());
    let format = Format::integers(100).unwrap();
    let plain = FixedTensor::new(Shape::from([3]), format, vec![-100, 7, 100]).unwrap();
    let packing = Packing { batch: 1, slot_bits: 8, key: KeyBits::Bits1024 };
    let layout = SlotLayout::images(packing, Contents::Integers(format)).unwrap();
    let encrypted = plain.encrypt(&layout, &key, rng).unwrap();
    let key = key.on(Backend::Portable).unwrap();
    let public = key.public_key();
    assert_eq!((public.backend(), public), (Backend::Portable, encrypted.key()));
    let bytes = encrypted.encode_ciphertexts();
    let here = EncTensor::decode(public, encrypted.header().clone(), &bytes).unwrap();
    assert_eq!(here.decrypt(&key).unwrap(), plain);
    assert_eq!(here.encode_ciphertexts(), bytes);
    if Backend::detect() != Backend::Portable {
        let refused = Err(Error::Backend { wanted: "portable".to_owned() });
        assert_eq!(encrypted.decrypt(&key), refused);
        assert_eq!(encrypted.add(&here).map(drop), refused.map(drop));
    }
}
