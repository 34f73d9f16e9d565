//! The threads that share parallel work, each on a core of its own.
//!
//! Left to themselves, two threads that are woken together for short work may begin on one core while another is idle,
//! and the work is over before the system moves one of them: what two threads take is then what one would take. On a
//! machine with two cores that was the rule (BENCHMARKS.md).

use anyhow::Context;
use rayon::ThreadPoolBuilder;

/// The environment variable that lets the system place the threads: `off`.
const VARIABLE: &str = "GELU_PIN";

/// Threads of the whole process.
pub(crate) fn start() -> anyhow::Result<()> {
    let wanted = std::env::var("RAYON_NUM_THREADS").ok().and_then(|threads| threads.parse().ok());
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = wanted.filter(|&threads| threads > 0).unwrap_or(available);
    builder(threads)?.build_global().context("threads")
}

/// A pool of so many threads. Where they are as many as the cores that this process may use, each stays on one; fewer
/// are left to the system, or two processes would choose the same cores.
pub(crate) fn builder(threads: usize) -> anyhow::Result<ThreadPoolBuilder> {
    let pinned = match std::env::var(VARIABLE).as_deref() {
        Err(_) | Ok("on") => true,
        Ok("off") => false,
        Ok(other) => anyhow::bail!("{VARIABLE}: expected `on` or `off`, found `{other}`"),
    };
    let builder = ThreadPoolBuilder::new().num_threads(threads);
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if !pinned || threads == 1 || cores.len() != threads {
        return Ok(builder);
    }
    // A thread that cannot be pinned works all the same.
    Ok(builder.start_handler(move |index| {
        if let Some(&core) = cores.get(index) {
            core_affinity::set_for_current(core);
        }
    }))
}
