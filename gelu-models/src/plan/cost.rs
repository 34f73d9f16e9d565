use gelu_tensor::arith::{Comb, Operations};
use gelu_tensor::paillier::KeyParameters;
use gelu_tensor::{Shape, SlotLayout};

/// What a layout costs around the product: the server's operations on the reply, and their time and the client's.
pub(super) struct Reply {
    /// The server's operations mod n^2: stacking units into ciphertexts and re-randomising those.
    pub(super) operations: Operations,
    /// The time of both sides in hundredths of a product mod n^2, on vectors of so many lanes.
    pub(super) weight: u64,
}

/// A ciphertext on its way in the same unit: 200 products, or some 65 us, which half a kilobyte takes at 60
/// Mbit/s. Without it single images would be stacked less, for hardly any gain of time.
const TRANSFER: u64 = 20_000;

/// The cost of `encryptions` of the client and of the reply of this layout.
pub(super) fn reply(
    (key, lanes): (KeyParameters, usize),
    encryptions: usize,
    down: SlotLayout,
    (batch, shape): (usize, &Shape),
) -> Reply {
    let ciphertexts = down.ciphertexts(batch, shape);
    let moves = (down.stacked - 1) as u64;
    let rerandomise = rerandomisation(key, down.stacked, ciphertexts);
    let each = Operations {
        products: moves + rerandomise.products,
        squarings: moves * (down.width * down.slot_bits) as u64 + rerandomise.squarings,
    };
    // Lanes that stay empty take as much time as full ones.
    let [filled_up, filled_down] =
        [encryptions, ciphertexts].map(|count| count.next_multiple_of(lanes) as u64);
    Reply {
        operations: each * ciphertexts as u64,
        weight: filled_down * (each.cost() + decryption(key))
            + filled_up * encryption(key)
            + (encryptions + ciphertexts) as u64 * TRANSFER,
    }
}

/// Operations mod n^2 of one re-randomisation: a comb over an exponent that hides what the operations before made of
/// the client's exponents, and one product. Stacking shifts those by a whole plaintext.
fn rerandomisation(key: KeyParameters, stacked: usize, count: usize) -> Operations {
    let hidden = if stacked == 1 { key.encryption_exponent() } else { key.size.bits() };
    let comb = Comb::quick_operations(key.hiding_exponent(hidden, count));
    Operations { products: comb.products + 1, ..comb }
}

/// An encryption in hundredths of a product mod n^2: a product mod p^2, a quarter of one, per 6 bits of the exponent,
/// which has no more bits than that of a decryption, and the same mod q^2.
fn encryption(key: KeyParameters) -> u64 {
    key.decryption_exponent() as u64 * 2 * 100 / 24
}

/// A decryption in the same unit: a squaring (0.7) per bit of the exponent and a product per 4 bits, mod p^2 and q^2.
fn decryption(key: KeyParameters) -> u64 {
    key.decryption_exponent() as u64 * 2 * 95 / 4
}
