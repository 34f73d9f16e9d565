use gelu_io::machine::{Limit, processor};
use gelu_tensor::Backend;
use serde::{Deserialize, Serialize};

/// What figures were measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// Threads that ours and the rivals compute on.
    pub(crate) threads: usize,
    /// The arithmetic of ours.
    pub(crate) backend: String,
}

impl Machine {
    pub(crate) fn here(backend: Backend) -> Self {
        let (threads, backend) = (rayon::current_num_threads(), backend.name().to_owned());
        Self { processor: processor(), threads, backend }
    }
}

/// Nanoseconds of a product mod n^2 with a key of 2048 bits at the machine's limit, on one core.
pub(crate) fn limit_ns(backend: Backend) -> f64 {
    Limit::measure(backend).product_ns(2048)
}
