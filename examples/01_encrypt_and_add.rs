//! Lesson 1: keys, fixed-point tensors, slots, and the two additions that Paillier ciphertexts allow.
//!
//!     cargo run --release --example 01_encrypt_and_add

use gelu_net::prelude::*;
use gelu_net::tensor::{Contents, Packing};
use gelu_net::tensor::{FixedTensor, Format, Shape, SlotLayout};

/// Real x is the integer `round(x 2^8)`.
const SCALE_BITS: i32 = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rng = &mut rand::rng();

    // The key pair belongs to whoever owns the data. Everyone else gets the public half.
    let key = SecretKey::generate(KeyBits::Bits2048, rng)?;
    let public = key.public_key().clone();
    println!("key: {public:?}, {} bytes a ciphertext", public.ciphertext_bytes());

    // Four "images" of three elements each. A format says what the integers mean (8 fractional bits) and how large
    // they may become (16 in absolute value): both are public, and both travel with the tensor.
    let format = Format::integers(16 << SCALE_BITS)?.with_scale_bits(SCALE_BITS)?;
    let tensor = |reals: &[f64]| {
        let integers = reals.iter().map(|x| (x * f64::from(SCALE_BITS).exp2()).round() as i64).collect();
        FixedTensor::new(Shape::from([3]), format, integers)
    };
    let a = tensor(&[1.5, -2.25, 0.0, 3.0, 4.0, 5.0, -1.0, -1.0, -1.0, 0.5, 0.25, 0.125])?;
    let b = tensor(&[0.5, 0.25, 10.0, -3.0, -4.0, -5.0, 1.0, 2.0, 3.0, 0.5, 0.75, 0.875])?;
    let c = tensor(&[100.0 / 256.0, -0.5, 1.0])?; // one image: it will be added to each of the four

    // A plaintext has 2048 bits and a value needs few, so that many share one: here slots are images, and the four
    // images take three ciphertexts, one for each element. A slot must hold the largest sum that is coming.
    let slots = |slot_bits| {
        let packing = Packing { batch: 4, slot_bits, key: KeyBits::Bits2048 };
        SlotLayout::images(packing, Contents::Integers(format))
    };
    let layout = slots(format.sum(format)?.sum(format)?.slot_bits())?;
    println!("layout: {layout}, {} ciphertexts", layout.ciphertexts(a.batch(), a.shape()));

    // Anyone can encrypt with the public key; the owner does it faster, with the primes.
    let encrypted_a = a.encrypt(&layout, &public, rng)?;
    let encrypted_b = b.encrypt(&layout, &key, rng)?;

    // What a server does, without the secret key: add two encrypted tensors, and one in the clear.
    let encrypted_sum = encrypted_a.add(&encrypted_b)?.add_plain(&c)?;

    // Back at the owner: the same integers as without any encryption, bit for bit.
    let sum = encrypted_sum.decrypt(&key)?;
    assert_eq!(sum, a.add(&b)?.add(&c)?);
    for (image, reals) in sum.reals().chunks(3).enumerate() {
        println!("image {image}: a + b + c = {reals:?}");
    }

    // Slots that could overflow are refused before anything is computed.
    let narrow = slots(format.slot_bits())?;
    let refused = a.encrypt(&narrow, &key, rng)?.add(&b.encrypt(&narrow, &key, rng)?);
    println!("with slots of {} bits: {}", narrow.slot_bits(), refused.err().ok_or("expected an overflow")?);
    Ok(())
}
