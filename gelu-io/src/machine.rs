//! What figures of speed have to say of the machine that they were measured on: its processor, and how fast that can
//! multiply at most.

use std::time::{Duration, Instant};

use gelu_tensor::Backend;

/// Returns the processor's name, as Linux has it, or what kind it is.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name}, family {family}, model {model}"),
        _ => name,
    }
}

/// How fast this machine can multiply and add limbs at most, on one core: what products mod n^2 are measured by.
///
/// Timed over [chains](Backend::multiply_chains) of independent instructions.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Limit {
    /// The instructions that were timed.
    pub backend: Backend,
    /// Instructions in a nanosecond.
    instructions_per_ns: f64,
}

impl Limit {
    /// Returns what the instructions of a backend that this machine has take, timed for some 20 ms.
    pub fn measure(backend: Backend) -> Self {
        const RUNS: usize = 20;
        let shortest = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                let instructions = backend.multiply_chains();
                start.elapsed().max(Duration::from_nanos(1)).as_secs_f64() / instructions.max(1) as f64
            })
            .fold(f64::INFINITY, f64::min);
        Self { backend, instructions_per_ns: 1e-9 / shortest }
    }

    /// Returns the nanoseconds that one n-adic product mod n^2 takes at least, for n of `bits` bits.
    pub fn product_ns(&self, bits: usize) -> f64 {
        self.backend.product_instructions(bits) / self.instructions_per_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_a_name() {
        assert!(!processor().is_empty() && !processor().contains('\n'));
    }

    #[test]
    fn a_limit_scales_with_the_square_of_the_bits() {
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
            let limit = Limit::measure(backend);
            assert!(limit.instructions_per_ns.is_finite() && limit.instructions_per_ns > 0.0);
            let [small, large] = [1024, 2048].map(|bits| limit.product_ns(bits));
            assert!((large / small - 4.0).abs() < 1e-9);
        }
        // 16,000 multiply-adds for eight products at 2,048 bits.
        let limit = Limit { backend: Backend::Ifma, instructions_per_ns: 4.0 };
        assert_eq!(limit.product_ns(2048), 500.0);
    }
}
