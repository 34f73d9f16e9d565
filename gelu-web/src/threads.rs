//! The engine's threads: Web Workers that share this module's memory. JavaScript starts them, and each becomes a thread of the
//! pool by a call that does not return.

#![allow(missing_docs, unreachable_pub, reason = "for the worker of the package, not for pages")]

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use rayon::{ThreadBuilder, ThreadPoolBuilder};
use wasm_bindgen::prelude::*;

/// Threads of the pool that no worker runs yet.
static WAITING: Mutex<VecDeque<ThreadBuilder>> = Mutex::new(VecDeque::new());
static ADDED: Condvar = Condvar::new();

/// What another worker needs to share this module: its code and its memory.
#[wasm_bindgen(js_name = shared)]
pub fn shared() -> js_sys::Array {
    [wasm_bindgen::module(), wasm_bindgen::memory()].into_iter().collect()
}

/// Makes the pool, of this worker, which computes where it would only wait, and of `threads - 1` that run [`run_thread`].
#[wasm_bindgen(js_name = makeThreads)]
pub fn make_threads(threads: usize) -> Result<(), JsValue> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).use_current_thread().spawn_handler(|thread| {
        WAITING.lock().unwrap_or_else(PoisonError::into_inner).push_back(thread);
        ADDED.notify_one();
        Ok(())
    });
    pool.build_global().map_err(|error| js_sys::Error::new(&error.to_string()).into())
}

/// Runs a thread of the pool, for as long as this worker lives.
#[wasm_bindgen(js_name = runThread)]
pub fn run_thread() {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = loop {
        match waiting.pop_front() {
            Some(thread) => break thread,
            None => waiting = ADDED.wait(waiting).unwrap_or_else(PoisonError::into_inner),
        }
    };
    drop(waiting);
    thread.run();
}
