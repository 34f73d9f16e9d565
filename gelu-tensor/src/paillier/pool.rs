//! Random factors of encryptions, made before the values to encrypt come.

#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rand::CryptoRng;

use super::{PublicKey, Randomizer};
use crate::arith::{MAX_LANES, Residues};

/// Random factors `h^rho` made ahead of time, so that all an encryption costs is the factor `1 + m n`.
///
/// It helps whoever has idle time before the values to encrypt come. It is a [`Randomizer`] like the one that it draws
/// on, and every factor leaves it at most once. What it lacks is computed at once, as if there were no pool: nobody
/// waits for it. It is filled by [`make`](Self::make), or by threads of the caller's that run a [`Filler`] each; one that
/// has panicked is only missing.
///
/// For fresh encryptions only. [Re-randomization](crate::EncTensor::rerandomize) takes longer exponents, which hide
/// other exponents from the key's owner; those here would not.
///
/// Dropping it wipes what is left.
pub struct RandomnessPool {
    source: Arc<dyn Randomizer + Send + Sync>,
    /// In whole batches.
    capacity: usize,
    state: Mutex<State>,
    /// Told when there is room, when a batch has come and when a filler has ended.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    batches: Vec<Residues>,
    /// Factors in `batches`.
    ready: usize,
    /// Factors that are being made.
    promised: usize,
    handed_out: u64,
    fillers: usize,
    /// Whether the fillers are to make more, as long as there is room.
    filling: bool,
    closed: bool,
}

impl RandomnessPool {
    /// Returns an empty pool for up to `capacity` factors, rounded down to a multiple of eight, which are made together. They
    /// take [`bytes`](Self::bytes) of memory.
    pub fn new(source: Arc<dyn Randomizer + Send + Sync>, capacity: usize) -> Self {
        let capacity = capacity / MAX_LANES * MAX_LANES;
        let state = State { filling: true, ..State::default() };
        Self { source, capacity, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Returns what a thread of the caller's runs to keep the pool filled. It counts as filling from now on, until it is
    /// dropped.
    pub fn filler(self: &Arc<Self>) -> Filler {
        self.lock().fillers += 1;
        Filler(Arc::clone(self))
    }

    /// Lets all fillers end, each after the batch that it is making.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Makes up to `count` factors now, as far as there is room, with this generator: what a pool without fillers is for.
    pub fn make(&self, rng: &mut dyn CryptoRng, count: usize) {
        let factors = {
            let mut state = self.lock();
            let factors = count.min(self.capacity.saturating_sub(state.ready + state.promised));
            state.promised += factors;
            factors
        };
        if factors > 0 {
            let promise = Promise { pool: self, factors };
            promise.keep(self.source.randomizers(rng, factors));
        }
    }

    /// Returns the number of factors that it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the bytes that as many take.
    pub fn bytes(&self) -> usize {
        self.capacity.saturating_mul(self.public_key().ring().residue_bytes())
    }

    /// Returns the number of factors that are ready.
    pub fn ready(&self) -> usize {
        self.lock().ready
    }

    /// Returns the number of factors that it has handed out, not counting those that were computed because it lacked them.
    pub fn handed_out(&self) -> u64 {
        self.lock().handed_out
    }

    /// Waits until it is full (eight more would not fit), or as full as it gets because it has no fillers, and returns how
    /// many factors are ready.
    pub fn wait_until_full(&self) -> usize {
        let mut state = self.lock();
        while state.ready + MAX_LANES <= self.capacity && state.fillers > 0 {
            // Each time anew: it may have been full, and drawn upon before this thread woke.
            if !state.filling {
                state.filling = true;
                self.changed.notify_all();
            }
            state = self.wait(state);
        }
        state.ready
    }

    /// Up to `count` factors, which are in the pool no longer.
    fn take(&self, count: usize) -> Vec<Residues> {
        let mut taken = vec![];
        let mut missing = count;
        let mut state = self.lock();
        while missing > 0
            && let Some(batch) = state.batches.pop()
        {
            if batch.len() <= missing {
                missing -= batch.len();
                taken.push(batch);
            } else {
                taken.push(batch.gather(0..missing));
                state.batches.push(batch.gather(missing..batch.len()));
                missing = 0;
            }
        }
        state.ready -= count - missing;
        state.handed_out += (count - missing) as u64;
        state.filling |= state.ready < self.capacity / 2;
        drop(state);
        self.changed.notify_all();
        taken
    }

    /// A panic under the lock cannot break the state: a factor is moved, so that at worst one is lost.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands out what is ready, and computes the rest with the caller's generator.
impl Randomizer for RandomnessPool {
    fn public_key(&self) -> &PublicKey {
        self.source.public_key()
    }

    fn randomizers(&self, rng: &mut dyn CryptoRng, count: usize) -> Residues {
        let mut out = self.public_key().ring().empty(count);
        self.take(count).iter().for_each(|batch| out.append(batch));
        if out.len() < count {
            out.append(&self.source.randomizers(rng, count - out.len()));
        }
        out
    }
}

impl fmt::Debug for RandomnessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RandomnessPool")
            .field("key", self.public_key())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// What keeps a [pool](RandomnessPool) filled, on a thread of the caller's. When it ends, in whatever way, nobody waits for it
/// any longer.
///
/// It rests when the pool is full, and begins again when that is less than half full: it would only compete with the
/// encryptions that the pool serves.
pub struct Filler(Arc<RandomnessPool>);

impl Filler {
    /// Fills the pool until it is [closed](RandomnessPool::close). The generators of all fillers must be independent of each
    /// other, for equal ones make equal factors.
    pub fn fill(self, rng: &mut dyn CryptoRng) {
        while let Some(promise) = self.promise() {
            let batch = self.0.source.randomizers(rng, promise.factors);
            promise.keep(batch);
        }
    }

    /// Room for a batch, as soon as there is some; `None` when the pool is closed.
    fn promise(&self) -> Option<Promise<'_>> {
        let mut state = self.0.lock();
        loop {
            state.filling &= state.ready + MAX_LANES <= self.0.capacity;
            // Room that is promised is not filled yet: its filler may fail, and this one must take its place.
            if state.closed || state.filling && state.ready + state.promised + MAX_LANES <= self.0.capacity {
                break;
            }
            state = self.0.wait(state);
        }
        (!state.closed).then(|| {
            state.promised += MAX_LANES;
            Promise { pool: &self.0, factors: MAX_LANES }
        })
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.0.lock().fillers -= 1;
        self.0.changed.notify_all();
    }
}

/// Room for a batch that is being made; given back if it is not.
struct Promise<'a> {
    pool: &'a RandomnessPool,
    factors: usize,
}

impl Promise<'_> {
    fn keep(self, batch: Residues) {
        let mut state = self.pool.lock();
        state.ready += batch.len();
        state.batches.push(batch);
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.pool.lock().promised -= self.factors;
        self.pool.changed.notify_all();
    }
}
