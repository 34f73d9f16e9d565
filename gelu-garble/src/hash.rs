//! The hash of labels: AES with a key of its own for each tweak.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Block};

/// As many labels as are hashed in one go: enough for AES to be busy, few enough to stay in the fastest cache.
pub(crate) const STRIP: usize = 64;

/// The linear orthomorphism `(l, r) -> (l ^ r, l)`: both it and what it differs by from the identity are bijections.
#[inline(always)]
pub(crate) fn sigma(x: u128) -> u128 {
    let (left, right) = (x >> 64, x & u128::from(u64::MAX));
    (left ^ right) << 64 | left
}

/// Returns the block cipher under a key.
pub(crate) fn cipher(key: u128) -> Aes128Enc {
    Aes128Enc::new(&key.to_le_bytes().into())
}

/// Encrypts numbers as blocks.
#[inline(always)]
pub(crate) fn encrypt(key: &Aes128Enc, blocks: &mut [Block]) {
    key.encrypt_blocks(blocks);
}

#[inline(always)]
pub(crate) fn block(x: u128) -> Block {
    x.to_le_bytes().into()
}

#[inline(always)]
pub(crate) fn number(block: &Block) -> u128 {
    u128::from_le_bytes(block.0)
}

/// Pseudorandom words, at most [`STRIP`]: the encryptions of counts from `at`.
pub(crate) fn generate(seed: &Aes128Enc, at: u128, words: &mut [u128]) {
    let mut blocks = [block(0); STRIP];
    let blocks = &mut blocks[..words.len()];
    blocks.iter_mut().zip(at..).for_each(|(block_, at)| *block_ = block(at));
    encrypt(seed, blocks);
    words.iter_mut().zip(&*blocks).for_each(|(word, block)| *word = number(block));
}

/// The tweaks of one garbling: a random start, and a count that only rises. Tweak i stands for the hash
/// `H(x) = AES(start ^ i, sigma(x)) ^ sigma(x)`.
pub(crate) struct Tweaks {
    start: u128,
    next: u64,
}

impl Tweaks {
    pub(crate) fn new(start: u128) -> Self {
        Self { start, next: 0 }
    }

    /// Returns the next tweak's key.
    pub(crate) fn key(&mut self) -> Aes128Enc {
        let key = cipher(self.start ^ u128::from(self.next));
        // 2^64 gates are beyond all tables.
        self.next = self.next.wrapping_add(1);
        key
    }
}
