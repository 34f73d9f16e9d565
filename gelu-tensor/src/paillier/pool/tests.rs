//! Pools under consumers, and with fillers that fail.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use rand::{RngExt, SeedableRng, TryCryptoRng, TryRng, rngs::ChaCha20Rng};

use super::*;
use crate::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};

static KEYS: LazyLock<[Arc<SecretKey>; 2]> = LazyLock::new(|| {
    KeyType::ALL.map(|key_type| {
        let parameters = KeyParameters { size: KeyBits::Bits1024, key_type };
        Arc::new(crate::testing::secret_key(parameters, &mut ChaCha20Rng::seed_from_u64(5)).unwrap())
    })
});

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn generators(count: u64) -> Vec<Box<dyn CryptoRng + Send>> {
    (100..100 + count).map(|seed| Box::new(rng(seed)) as Box<dyn CryptoRng + Send>).collect()
}

/// A pool with a thread for each generator, which end with it.
struct Filled {
    pool: Arc<RandomnessPool>,
    threads: Vec<JoinHandle<()>>,
}

impl Filled {
    fn new(
        source: Arc<dyn Randomizer + Send + Sync>,
        capacity: usize,
        generators: Vec<Box<dyn CryptoRng + Send>>,
    ) -> Self {
        let pool = Arc::new(RandomnessPool::new(source, capacity));
        let start = |mut rng: Box<dyn CryptoRng + Send>| {
            let filler = pool.filler();
            thread::spawn(move || filler.fill(&mut *rng))
        };
        let threads = generators.into_iter().map(start).collect();
        Self { pool, threads }
    }
}

impl std::ops::Deref for Filled {
    type Target = RandomnessPool;

    fn deref(&self) -> &RandomnessPool {
        &self.pool
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.pool.close();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn numbers(key: &PublicKey, residues: &Residues) -> Vec<Vec<u8>> {
    key.encode(residues).chunks(key.ciphertext_bytes()).map(<[u8]>::to_vec).collect()
}

/// A generator that says when it is first asked, by dropping `asked`, waits for the other end of `gate` to go, and then
/// draws from `rng`, or panics for want of one.
#[derive(Default)]
struct Gated {
    asked: Option<Sender<()>>,
    gate: Option<Receiver<()>>,
    rng: Option<ChaCha20Rng>,
}

impl TryRng for Gated {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.try_next_u64().map(|x| x as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.asked = None;
        if let Some(gate) = self.gate.take() {
            // Nothing is ever sent.
            let _ = gate.recv();
        }
        self.rng.as_mut().expect("a generator that fails").try_fill_bytes(bytes)
    }
}

impl TryCryptoRng for Gated {}

/// Four consumers and three threads that fill, with counts that cut batches and that are more than the pool has.
#[test]
fn no_factor_is_handed_out_twice() {
    for key in &*KEYS {
        let pool = Filled::new(key.clone(), 64, generators(3));
        assert_eq!(pool.wait_until_full(), 64);
        let drawn: Vec<Residues> = thread::scope(|scope| {
            let consumers: Vec<_> = (0..4)
                .map(|seed| {
                    let pool = &*pool;
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
        let pool = Filled::new(key.clone(), capacity, generators(threads));
        assert_eq!((pool.capacity(), pool.wait_until_full()), (capacity / 8 * 8, 0));
        let found = pool.randomizers(&mut rng(1), 11);
        assert_eq!(numbers(pool.public_key(), &found), numbers(key.public_key(), &expected));
        assert_eq!(pool.handed_out(), 0);
    }
    // Anyone can have a pool, not the owner alone.
    let pool = Filled::new(Arc::new(key.public_key().clone()), 23, generators(1));
    assert_eq!((pool.capacity(), pool.wait_until_full(), pool.ready()), (16, 16, 16));
    assert_eq!(pool.bytes(), 16 * pool.public_key().ring().residue_bytes());
    let found = pool.randomizers(&mut rng(1), 20);
    assert_eq!((found.len(), pool.handed_out()), (20, 16));
    assert!(key.decrypt(&found).unwrap().iter().all(|&limb| limb == 0));
}

#[test]
fn a_pool_without_threads_is_filled_at_once() {
    let key = &KEYS[1];
    let pool = RandomnessPool::new(key.clone(), 45);
    pool.make(&mut rng(1), 1000);
    assert_eq!((pool.ready(), pool.capacity()), (40, 40));
    let expected = numbers(key.public_key(), &key.randomizers(&mut rng(1), 40));
    let found = numbers(key.public_key(), &pool.randomizers(&mut rng(2), 12));
    assert!(found.iter().all(|factor| expected.contains(factor)));
    // Full again, with twelve others.
    pool.make(&mut rng(3), 7);
    assert_eq!(pool.ready(), 35);
    pool.make(&mut rng(4), 7);
    pool.make(&mut rng(5), 7);
    let all = numbers(key.public_key(), &pool.randomizers(&mut rng(5), 40));
    assert_eq!((pool.ready(), pool.handed_out()), (0, 52));
    assert_eq!(all.iter().filter(|factor| expected.contains(factor)).count(), 28);
    assert!(all.iter().all(|factor| !found.contains(factor)));
    assert!(key.decrypt(&pool.randomizers(&mut rng(6), 3)).unwrap().iter().all(|&limb| limb == 0));
}

#[test]
fn a_thread_that_panics_is_only_missing() {
    let key = &KEYS[1];
    let broken = || Box::new(Gated::default()) as Box<dyn CryptoRng + Send>;
    let pool = Filled::new(key.clone(), 16, vec![broken(), broken()]);
    assert_eq!(pool.wait_until_full(), 0);
    assert_eq!(pool.randomizers(&mut rng(2), 5).len(), 5);
    let mut some = generators(1);
    some.push(broken());
    let pool = Filled::new(key.clone(), 16, some);
    assert_eq!(pool.wait_until_full(), 16);
    assert_eq!((pool.randomizers(&mut rng(2), 5).len(), pool.handed_out()), (5, 5));
}

/// The room that a thread was promised is filled by another when the thread fails, even one that found no room before.
#[test]
fn a_promise_that_is_not_kept_is_taken_over() {
    let (asked, start) = channel();
    let (failing, fail) = channel();
    let generators: Vec<Box<dyn CryptoRng + Send>> = vec![
        Box::new(Gated { asked: Some(asked), gate: Some(fail), rng: None }),
        Box::new(Gated { asked: None, gate: Some(start), rng: Some(rng(100)) }),
    ];
    let pool = Filled::new(KEYS[0].clone(), 16, generators);
    // The good thread rests with eight made and eight promised to the other.
    let mut state = pool.lock();
    while state.ready < 8 {
        state = pool.wait(state);
    }
    drop(state);
    thread::sleep(std::time::Duration::from_millis(20));
    drop(failing);
    assert_eq!(pool.wait_until_full(), 16);
}

/// Whoever waits while others draw sees it full in the end.
#[test]
fn waiting_beside_consumers_ends() {
    let pool = Filled::new(KEYS[1].clone(), 16, generators(2));
    thread::scope(|scope| {
        for seed in 0..2 {
            let pool = &pool;
            scope.spawn(move || {
                (0..50).for_each(|_| assert_eq!(pool.randomizers(&mut rng(seed), 3).len(), 3))
            });
        }
        for _ in 0..50 {
            pool.wait_until_full();
        }
    });
    assert!(pool.wait_until_full() > 8);
}

/// The other end of its channel goes at the end: before that, a consumer that waited for the thread would hang.
#[test]
fn nobody_waits_for_a_thread_that_is_stuck() {
    let (gate, waiting) = channel();
    let stuck: Box<dyn CryptoRng + Send> =
        Box::new(Gated { asked: None, gate: Some(waiting), rng: Some(rng(100)) });
    let pool = Filled::new(KEYS[0].clone(), 64, vec![stuck]);
    assert_eq!((pool.randomizers(&mut rng(3), 9).len(), pool.handed_out()), (9, 0));
    drop(gate);
}

#[test]
fn a_poisoned_lock_breaks_nothing() {
    let pool = Filled::new(KEYS[0].clone(), 32, generators(2));
    pool.wait_until_full();
    let shared = Arc::clone(&pool.pool);
    let poisoning = thread::spawn(move || {
        let _guard = shared.lock();
        panic!("under the lock");
    });
    assert!(poisoning.join().is_err() && pool.state.is_poisoned());
    assert_eq!((pool.randomizers(&mut rng(4), 40).len(), pool.handed_out()), (40, 32));
    assert_eq!(pool.wait_until_full(), 32);
}

#[test]
fn nothing_of_it_is_printed() {
    let pool = Filled::new(KEYS[0].clone(), 8, generators(1));
    let text = format!("{:?}", pool.pool);
    assert!(text.contains("capacity: 8") && !text.contains("batches"), "{text}");
}
