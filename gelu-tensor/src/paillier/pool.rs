#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use rand::CryptoRng;

use super::{PublicKey, Randomizer};
use crate::arith::{MAX_LANES, Residues};

/// Random factors `h^rho` made ahead of time by threads in the background, so that all an
/// encryption costs is the factor `1 + m n`.
///
/// It helps whoever has idle time before the values to encrypt come. It is a [`Randomizer`] like the one that it draws
/// on, and every factor leaves it at most once. What it lacks is computed at once, as if there were no pool: nobody
/// waits for it, and a thread that has panicked is only missing.
///
/// Its threads rest when it is full, and begin again when it is less than half full: they would only compete with the
/// encryptions that it serves.
///
/// For fresh encryptions only. [Re-randomisation](crate::EncTensor::rerandomize) takes longer exponents, which hide
/// other exponents from the key's owner; those here would not.
///
/// Dropping it stops and joins the threads and wipes what is left.
pub struct RandomnessPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    source: Arc<dyn Randomizer + Send + Sync>,
    /// In whole batches.
    capacity: usize,
    state: Mutex<State>,
    /// Told when there is room, when a batch has come and when a thread has ended.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    batches: Vec<Residues>,
    /// Factors in `batches`.
    ready: usize,
    /// Factors that threads are making.
    promised: usize,
    handed_out: u64,
    threads: usize,
    /// Whether the threads are to make more, as long as there is room.
    filling: bool,
    stopping: bool,
}

impl RandomnessPool {
    /// A pool of up to `capacity` factors, rounded down to a multiple of eight, which are made together. It takes
    /// [`bytes`](Self::bytes) of memory and one thread for each generator; these must be independent of each other,
    /// for equal ones make equal factors. A thread that the system refuses is missing.
    pub fn new(
        source: Arc<dyn Randomizer + Send + Sync>,
        capacity: usize,
        generators: Vec<Box<dyn CryptoRng + Send>>,
    ) -> Self {
        let capacity = capacity / MAX_LANES * MAX_LANES;
        let state = State { threads: generators.len(), filling: true, ..State::default() };
        let shared = Arc::new(Shared { source, capacity, state: Mutex::new(state), changed: Condvar::new() });
        let threads = generators
            .into_iter()
            .filter_map(|mut rng| {
                // Made here, so that a thread that never starts is counted off too.
                let thread = Thread(Arc::clone(&shared));
                let builder = Builder::new().name("randomness".into());
                builder.spawn(move || thread.fill(&mut *rng)).ok()
            })
            .collect();
        Self { shared, threads }
    }

    /// Makes up to `count` factors now, as far as there is room, with this generator and on the caller's threads: what a
    /// pool without threads of its own is for.
    pub fn make(&self, rng: &mut dyn CryptoRng, count: usize) {
        let factors = {
            let mut state = self.shared.lock();
            let factors = count.min(self.shared.capacity.saturating_sub(state.ready + state.promised));
            state.promised += factors;
            factors
        };
        if factors > 0 {
            let promise = Promise { shared: &self.shared, factors };
            promise.keep(self.shared.source.randomizers(rng, factors));
        }
    }

    /// How many factors it can hold.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// The bytes that as many take.
    pub fn bytes(&self) -> usize {
        self.capacity() * self.public_key().ring().residue_bytes()
    }

    /// How many factors are ready.
    pub fn ready(&self) -> usize {
        self.shared.lock().ready
    }

    /// How many factors it has handed out, not counting those that were computed because it lacked them.
    pub fn handed_out(&self) -> u64 {
        self.shared.lock().handed_out
    }

    /// Waits until it is full (eight more would not fit), or as full as it gets because all of its threads have failed,
    /// and returns how many factors are ready.
    pub fn wait_until_full(&self) -> usize {
        let mut state = self.shared.lock();
        while state.ready + MAX_LANES <= self.shared.capacity && state.threads > 0 {
            // Each time anew: it may have been full, and drawn upon before this thread woke.
            if !state.filling {
                state.filling = true;
                self.shared.changed.notify_all();
            }
            state = self.shared.wait(state);
        }
        state.ready
    }

    /// Up to `count` factors, which are in the pool no longer.
    fn take(&self, count: usize) -> Vec<Residues> {
        let mut taken = vec![];
        let mut missing = count;
        let mut state = self.shared.lock();
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
        state.filling |= state.ready < self.shared.capacity / 2;
        drop(state);
        self.shared.changed.notify_all();
        taken
    }
}

/// Hands out what is ready, and computes the rest with the caller's generator.
impl Randomizer for RandomnessPool {
    fn public_key(&self) -> &PublicKey {
        self.shared.source.public_key()
    }

    fn randomizers(&self, rng: &mut dyn CryptoRng, count: usize) -> Residues {
        let mut out = self.public_key().ring().empty(count);
        self.take(count).iter().for_each(|batch| out.append(batch));
        if out.len() < count {
            out.append(&self.shared.source.randomizers(rng, count - out.len()));
        }
        out
    }
}

impl Drop for RandomnessPool {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        // One that has panicked has nothing more to say.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
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

impl Shared {
    /// A panic under the lock cannot break the state: a factor is moved, so that at worst one is lost.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that fills; when it ends, in whatever way, nobody waits for it any longer.
struct Thread(Arc<Shared>);

impl Thread {
    fn fill(self, rng: &mut dyn CryptoRng) {
        while let Some(promise) = self.promise() {
            let batch = self.0.source.randomizers(rng, promise.factors);
            promise.keep(batch);
        }
    }

    /// Room for a batch, as soon as there is some; `None` when the pool is no longer wanted.
    fn promise(&self) -> Option<Promise<'_>> {
        let mut state = self.0.lock();
        loop {
            state.filling &= state.ready + MAX_LANES <= self.0.capacity;
            // Room that is promised is not filled yet: its thread may fail, and this one must take its place.
            if state.stopping || state.filling && state.ready + state.promised + MAX_LANES <= self.0.capacity
            {
                break;
            }
            state = self.0.wait(state);
        }
        (!state.stopping).then(|| {
            state.promised += MAX_LANES;
            Promise { shared: &self.0, factors: MAX_LANES }
        })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
        self.0.changed.notify_all();
    }
}

/// Room for a batch that is being made; given back if it is not.
struct Promise<'a> {
    shared: &'a Shared,
    factors: usize,
}

impl Promise<'_> {
    fn keep(self, batch: Residues) {
        let mut state = self.shared.lock();
        state.ready += batch.len();
        state.batches.push(batch);
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.shared.lock().promised -= self.factors;
        self.shared.changed.notify_all();
    }
}
