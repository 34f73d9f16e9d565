//! Turns: who computes next where many conversations share a machine.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Lets conversations compute one unit after another, in the order in which they ask for it: a conversation that has had a
/// turn waits behind all that were waiting before it.
///
/// The pool that does the arithmetic has no such order. A thread of it that waits for a part of one conversation's work takes
/// up work of another meanwhile, which the first then has to wait for; which conversations lose that way is chance.
#[derive(Debug)]
pub struct Turns {
    /// How many may compute at once.
    at_once: u64,
    state: Mutex<State>,
    passed_on: Condvar,
}

/// As many at once as the pool has threads, and at least two: one computes where another has something to do that does not
/// divide.
impl Default for Turns {
    fn default() -> Self {
        Self::new(rayon::current_num_threads().max(2))
    }
}

#[derive(Debug, Default)]
struct State {
    /// Turns that were asked for.
    asked: u64,
    /// Turns that are over.
    over: u64,
}

/// A turn, until it is dropped.
#[must_use = "a turn is over when it is dropped"]
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// Returns turns of which so many, at least one, are taken at once.
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1) as u64;
        Self { at_once, state: Mutex::default(), passed_on: Condvar::new() }
    }

    /// Returns how many wait for a turn.
    pub fn waiting(&self) -> usize {
        let state = self.state();
        state.asked.saturating_sub(state.over + self.at_once) as usize
    }

    /// Waits for a turn: until all that asked before have one or have had it.
    pub fn take(&self) -> Turn<'_> {
        let mut state = self.state();
        let own = state.asked;
        state.asked += 1;
        while own >= state.over + self.at_once {
            state = self.passed_on.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }

    /// A thread that panicked changed nothing by half.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().over += 1;
        self.0.passed_on.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Each asks when those before it wait already, and the first asks again behind them all.
    #[test]
    fn turns_go_to_those_who_wait_in_the_order_in_which_they_asked() {
        let turns = Arc::new(Turns::new(1));
        let order = Arc::new(Mutex::new(vec![]));
        let held = turns.take();
        let threads: Vec<_> = (0..8)
            .map(|conversation| {
                let (others, order) = (Arc::clone(&turns), Arc::clone(&order));
                let thread = thread::spawn(move || {
                    for _ in 0..2 {
                        let turn = others.take();
                        order.lock().unwrap().push(conversation);
                        drop(turn);
                    }
                });
                while turns.waiting() <= conversation {
                    thread::yield_now();
                }
                thread
            })
            .collect();
        drop(held);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let order = order.lock().unwrap();
        let first: Vec<usize> = order.iter().copied().filter(|&of| of != 0).take(7).collect();
        assert_eq!(first, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((order.len(), order[0]), (16, 0));
        // No second turn of anybody lies before a first one.
        assert!((0..8).all(|who| order[..8].iter().filter(|&&of| of == who).count() == 1), "{order:?}");
    }

    #[test]
    fn as_many_compute_at_once_as_may() {
        let turns = Arc::new(Turns::new(2));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..6)
            .map(|_| {
                let (turns, now, most) = (Arc::clone(&turns), Arc::clone(&now), Arc::clone(&most));
                thread::spawn(move || {
                    for _ in 0..20 {
                        let turn = turns.take();
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }
}
