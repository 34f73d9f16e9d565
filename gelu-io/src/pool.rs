//! Threads that make random factors of encryptions in the background.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use gelu_tensor::paillier::{Randomizer, RandomnessPool};
use rand::CryptoRng;

/// A [pool](RandomnessPool) that threads keep filled. Dropping it stops and joins them.
#[derive(Debug)]
pub struct BackgroundPool {
    pool: Arc<RandomnessPool>,
    threads: Vec<JoinHandle<()>>,
}

impl BackgroundPool {
    /// Returns a pool of up to `capacity` factors, rounded down to a multiple of eight, that one thread for each generator
    /// fills; the generators must be independent of each other. A thread that the system refuses is missing.
    pub fn new(
        source: Arc<dyn Randomizer + Send + Sync>,
        capacity: usize,
        generators: Vec<Box<dyn CryptoRng + Send>>,
    ) -> Self {
        let pool = Arc::new(RandomnessPool::new(source, capacity));
        let threads = generators.into_iter().filter_map(|mut rng| {
            // Made here, so that one whose thread never starts is counted off too.
            let filler = pool.filler();
            Builder::new().name("randomness".into()).spawn(move || filler.fill(&mut *rng)).ok()
        });
        let threads = threads.collect();
        Self { pool, threads }
    }

    /// Returns the pool, which others may draw from.
    pub fn pool(&self) -> &Arc<RandomnessPool> {
        &self.pool
    }
}

impl Drop for BackgroundPool {
    fn drop(&mut self) {
        self.pool.close();
        // One that has panicked has nothing more to say.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

#[cfg(test)]
mod tests {
    use gelu_tensor::paillier::{KeyBits, SecretKey};
    use rand::{SeedableRng, rngs::ChaCha20Rng};

    use super::*;

    #[test]
    fn threads_fill_the_pool_and_end_with_it() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let key = Arc::new(SecretKey::generate(KeyBits::Bits1024, rng).unwrap());
        let generators = [2, 3].map(|seed| Box::new(ChaCha20Rng::seed_from_u64(seed)) as _).into();
        let background = BackgroundPool::new(key, 20, generators);
        let pool = Arc::clone(background.pool());
        assert_eq!((pool.wait_until_full(), pool.capacity()), (16, 16));
        assert_eq!(pool.randomizers(rng, 5).len(), 5);
        drop(background);
        // Nobody fills it any longer, and what it has can still be had.
        assert_eq!((Arc::strong_count(&pool), pool.randomizers(rng, 16).len()), (1, 16));
        assert_eq!(pool.wait_until_full(), pool.ready());
    }
}
