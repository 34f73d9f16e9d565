use gelu_tensor::arith::{Comb, Operations};
use gelu_tensor::paillier::KeyBits;
use gelu_tensor::{Shape, SlotLayout};

/// Products mod n^2 that one re-randomisation takes: a comb over an exponent that hides what the operations before
/// made of the client's exponents, and one product. Stacking shifts those by a whole plaintext.
fn rerandomisation(key: KeyBits, stacked: usize) -> u64 {
    let hidden = if stacked == 1 { key.encryption_exponent() } else { key.bits() };
    Comb::products(key.hiding_exponent(hidden)) + 1
}

/// The client's work in units of a product mod n^2. A product mod p^2 costs a quarter of one; an encryption takes a
/// comb product per 5 bits of half of n's bits mod p^2 and q^2; a decryption a squaring (0.7) per bit and a product
/// per 5 bits of p and of q.
pub(super) fn client(key: KeyBits, encryptions: usize, decryptions: usize) -> u64 {
    let bits = key.bits() as u64;
    encryptions as u64 * bits / 20 + decryptions as u64 * bits * 9 / 40
}

/// The server's work on what comes down: stacking units into ciphertexts and re-randomising those.
pub(super) fn reply(key: KeyBits, down: SlotLayout, batch: usize, shape: &Shape) -> Operations {
    let units = SlotLayout { stacked: 1, ..down }.ciphertexts(batch, shape);
    let ciphertexts = down.ciphertexts(batch, shape);
    let moved = (units - ciphertexts) as u64;
    Operations {
        products: moved + ciphertexts as u64 * rerandomisation(key, down.stacked),
        squarings: moved * (down.width * down.slot_bits) as u64,
    }
}
