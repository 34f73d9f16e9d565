//! Work that takes time: without the interpreter's lock, on a thread of its own, and stopped by Ctrl-C.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::ForkError;

/// How often Python is asked whether a signal has come.
pub(crate) const ATTENTION: Duration = Duration::from_millis(20);

/// The process whose threads compute; 0 before any has.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Fails in a process that was forked from one that has computed: threads are not inherited, and work would wait for them
/// forever.
pub(crate) fn enter() -> PyResult<()> {
    let own = std::process::id();
    match PROCESS.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst) {
        Err(other) if other != own => Err(ForkError::new_err(format!(
            "process {own} was forked from process {other}, in which gelu had begun to compute, and its threads are not here: \
             start workers by 'spawn' or 'forkserver' (multiprocessing.set_start_method), or import and use gelu after the fork"
        ))),
        _ => Ok(()),
    }
}

/// Sets how many threads compute, in all of the process. Without it they are as many as cores. They are never bound to cores.
///
/// Raises RuntimeError when something was computed before.
#[pyfunction]
pub(crate) fn set_num_threads(threads: usize) -> PyResult<()> {
    enter()?;
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    built.map_err(|_| {
        PyRuntimeError::new_err("expected set_num_threads before the first computation, found it after one")
    })
}

/// Returns how many threads compute.
#[pyfunction]
pub(crate) fn get_num_threads() -> PyResult<usize> {
    enter()?;
    Ok(rayon::current_num_threads())
}

/// Asks running work to stop.
#[derive(Default)]
pub(crate) struct Stop {
    is_asked: AtomicBool,
    hang_up: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Stop {
    pub(crate) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }

    /// Has work that waits for something woken up by this.
    pub(crate) fn wake_by(&self, hang_up: impl Fn() + Send + 'static) {
        *self.hang_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hang_up));
    }

    fn ask(&self) {
        self.is_asked.store(true, Ordering::SeqCst);
        if let Some(hang_up) = &*self.hang_up.lock().unwrap_or_else(PoisonError::into_inner) {
            hang_up();
        }
    }
}

/// Does work on another thread. `heard` takes, on the calling one, what the work says. When it fails, or a signal's handler
/// raises (KeyboardInterrupt), the work is asked to stop, which it does after its present step, and the exception is raised.
pub(crate) fn interruptible<N: Send, R: Send>(
    py: Python<'_>,
    stop: &Stop,
    mut heard: impl FnMut(N) -> PyResult<()>,
    work: impl FnOnce(&dyn Fn(N)) -> R + Send,
) -> PyResult<R> {
    enter()?;
    std::thread::scope(|scope| {
        let (sender, mut receiver) = channel::<N>();
        let work = move || {
            work(&|said| {
                // The receiver goes after the work.
                let _ = sender.send(said);
            })
        };
        let worker = std::thread::Builder::new().name("gelu".to_owned()).spawn_scoped(scope, work)?;
        let mut failed: Option<PyErr> = None;
        loop {
            let (back, said) = py.detach(move || {
                let said = receiver.recv_timeout(ATTENTION);
                (receiver, said)
            });
            receiver = back;
            let went = match said {
                Ok(said) if failed.is_none() => heard(said),
                Ok(_) => Ok(()),
                Err(RecvTimeoutError::Timeout) => py.check_signals(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Err(error) = went {
                stop.ask();
                failed.get_or_insert(error);
            }
        }
        let result = py.detach(move || worker.join()).unwrap_or_else(|panic| resume_unwind(panic));
        match failed {
            Some(error) => Err(error),
            None => Ok(result),
        }
    })
}

/// Does work that says nothing and cannot be stopped.
pub(crate) fn detached<R: Send>(py: Python<'_>, work: impl FnOnce() -> R + Send) -> PyResult<R> {
    enter()?;
    Ok(py.detach(work))
}
