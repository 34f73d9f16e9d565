use std::collections::HashSet;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rand::{RngExt, SeedableRng, TryCryptoRng, TryRng, rngs::ChaCha20Rng};

use super::*;
use crate::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};

static KEYS: LazyLock<[Arc<SecretKey>; 2]> = LazyLock::new(|| {
    KeyType::ALL.map(|key_type| {
        let parameters = KeyParameters { size: KeyBits::Bits1024, key_type };
        Arc::new(SecretKey::generate(parameters, &mut ChaCha20Rng::seed_from_u64(5)).unwrap())
    })
});

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn generators(count: u64) -> Vec<Box<dyn CryptoRng + Send>> {
    (100..100 + count).map(|seed| Box::new(rng(seed)) as Box<dyn CryptoRng + Send>).collect()
}

fn numbers(key: &PublicKey, residues: &Residues) -> Vec<Vec<u8>> {
    key.encode(residues).chunks(key.ciphertext_bytes()).map(<[u8]>::to_vec).collect()
}

/// A generator that panics, or waits for its channel's other end to go.
struct Broken(Option<Receiver<()>>);

impl TryRng for Broken {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.try_next_u64().map(|x| x as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        match &self.0 {
            None => panic!("a generator that fails"),
            Some(gate) => Ok(gate.recv().map_or(7, |()| 7)),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(self.try_next_u64()? as u8);
        Ok(())
    }
}

impl TryCryptoRng for Broken {}

/// Four consumers and three threads that fill, with counts that cut batches and that are more than the pool has.
#[test]
fn no_factor_is_handed_out_twice() {
    for key in &*KEYS {
        let pool = RandomnessPool::new(key.clone(), 64, generators(3));
        assert_eq!(pool.wait_until_full(), 64);
        let drawn: Vec<Residues> = thread::scope(|scope| {
            let consumers: Vec<_> = (0..4)
                .map(|seed| {
                    let pool = &pool;
                    scope.spawn(move || {
                        let mut rng = rng(seed);
                        let mut drawn = pool.public_key().ring().empty(0);
                        for _ in 0..25 {
                            let count = [0, 1, 3, 8, 13, 70][rng.random_range(0..6)];
                            let some = pool.randomizers(&mut rng, count);
                            assert_eq!(some.len(), count);
                            assert!(pool.ready() <= 64);
                            drawn.append(&some);
                        }
                        drawn
                    })
                })
                .collect();
            consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
        });
        let public = key.public_key();
        let all: Vec<_> = drawn.iter().flat_map(|some| numbers(public, some)).collect();
        assert!(pool.handed_out() >= 64 && pool.handed_out() <= all.len() as u64);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        // Encryptions of zero by the key, and what is left is none of them.
        for some in &drawn {
            assert!(key.decrypt(some).unwrap().iter().all(|&limb| limb == 0));
        }
        let left = pool.wait_until_full();
        let left = numbers(public, &pool.randomizers(&mut rng(9), left));
        assert!(left.iter().all(|factor| !all.contains(factor)));
    }
}

#[test]
fn what_the_pool_lacks_is_computed_at_once() {
    let key = &KEYS[0];
    let expected = key.randomizers(&mut rng(1), 11);
    for (capacity, threads) in [(0, 2), (7, 2), (16, 0)] {
        let pool = RandomnessPool::new(key.clone(), capacity, generators(threads));
        assert_eq!((pool.capacity(), pool.wait_until_full()), (capacity / 8 * 8, 0));
        let found = pool.randomizers(&mut rng(1), 11);
        assert_eq!(numbers(pool.public_key(), &found), numbers(key.public_key(), &expected));
        assert_eq!(pool.handed_out(), 0);
    }
    // Anyone can have a pool, not the owner alone.
    let pool = RandomnessPool::new(Arc::new(key.public_key().clone()), 23, generators(1));
    assert_eq!((pool.capacity(), pool.wait_until_full(), pool.ready()), (16, 16, 16));
    assert_eq!(pool.bytes(), 16 * pool.public_key().ring().residue_bytes());
    let found = pool.randomizers(&mut rng(1), 20);
    assert_eq!((found.len(), pool.handed_out()), (20, 16));
    assert!(key.decrypt(&found).unwrap().iter().all(|&limb| limb == 0));
}

#[test]
fn a_thread_that_panics_is_only_missing() {
    let key = &KEYS[1];
    let broken = || Box::new(Broken(None)) as Box<dyn CryptoRng + Send>;
    let pool = RandomnessPool::new(key.clone(), 16, vec![broken(), broken()]);
    assert_eq!(pool.wait_until_full(), 0);
    assert_eq!(pool.randomizers(&mut rng(2), 5).len(), 5);
    let mut some = generators(1);
    some.push(broken());
    let pool = RandomnessPool::new(key.clone(), 16, some);
    assert_eq!(pool.wait_until_full(), 16);
    assert_eq!((pool.randomizers(&mut rng(2), 5).len(), pool.handed_out()), (5, 5));
}

/// The other end of its channel goes at the end: before that, a consumer that waited for the thread would hang.
#[test]
fn nobody_waits_for_a_thread_that_is_stuck() {
    let (gate, waiting) = channel();
    let stuck: Box<dyn CryptoRng + Send> = Box::new(Broken(Some(waiting)));
    let pool = RandomnessPool::new(KEYS[0].clone(), 64, vec![stuck]);
    assert_eq!((pool.randomizers(&mut rng(3), 9).len(), pool.handed_out()), (9, 0));
    drop(gate);
}

#[test]
fn a_poisoned_lock_breaks_nothing() {
    let pool = RandomnessPool::new(KEYS[0].clone(), 32, generators(2));
    pool.wait_until_full();
    let shared = Arc::clone(&pool.shared);
    let poisoning = thread::spawn(move || {
        let _guard = shared.lock();
        panic!("under the lock");
    });
    assert!(poisoning.join().is_err() && pool.shared.state.is_poisoned());
    assert_eq!((pool.randomizers(&mut rng(4), 40).len(), pool.handed_out()), (40, 32));
    assert_eq!(pool.wait_until_full(), 32);
}

#[test]
fn nothing_of_it_is_printed() {
    let pool = RandomnessPool::new(KEYS[0].clone(), 8, generators(1));
    let text = format!("{pool:?}");
    assert!(text.contains("capacity: 8") && !text.contains("batches"), "{text}");
}
