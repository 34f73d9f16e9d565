use std::hint::black_box;
use std::time::{Duration, Instant};

use super::backend::Backend;
#[cfg(target_arch = "x86_64")]
use super::ifma::Ifma;

/// How fast this machine can multiply and add limbs at most, on one core: what products mod n^2 are measured by.
///
/// Timed over chains of independent instructions: AVX-512 IFMA multiply-adds of eight lanes, or on other machines and
/// for the portable backend multiplications of 64-bit limbs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Limit {
    /// The instructions that were timed.
    pub backend: Backend,
    /// Instructions in a nanosecond.
    pub instructions_per_ns: f64,
}

impl Limit {
    /// Times the instructions of a backend that this machine has, for some 20 ms.
    pub fn measure(backend: Backend) -> Self {
        const RUNS: usize = 20;
        let shortest = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                let instructions = match backend {
                    Backend::Portable => portable_chains(black_box(0x9E37_79B9_7F4A_7C15)),
                    Backend::Ifma => ifma_chains(),
                };
                start.elapsed().max(Duration::from_nanos(1)).as_secs_f64() / instructions.max(1) as f64
            })
            .fold(f64::INFINITY, f64::min);
        Self { backend, instructions_per_ns: 1e-9 / shortest }
    }

    /// Nanoseconds that one n-adic product mod n^2 takes at least, for n of `bits` bits: 10 L^2 multiply-adds of limbs
    /// of 52 bits for eight products, or 5 L^2 multiplications of limbs of 64 bits for one.
    pub fn product_ns(&self, bits: usize) -> f64 {
        let instructions = match self.backend {
            Backend::Portable => 5.0 * (bits as f64 / 64.0).powi(2),
            // As many limbs as the backend takes: 20 for every 1,024 bits.
            Backend::Ifma => 10.0 * (bits as f64 * 20.0 / 1024.0).powi(2) / 8.0,
        };
        instructions / self.instructions_per_ns
    }
}

/// Multiplies 64-bit limbs in eight chains that do not wait for each other; how many times.
fn portable_chains(seed: u64) -> usize {
    const TURNS: usize = 50_000;
    let mut sums: [(u64, u64); 8] = std::array::from_fn(|i| (seed.wrapping_add(i as u64), 0));
    for _ in 0..TURNS {
        for (low, high) in &mut sums {
            (*low, *high) = seed.carrying_mul_add(*low, *high, 0);
        }
    }
    black_box(sums);
    TURNS * sums.len()
}

#[cfg(target_arch = "x86_64")]
fn ifma_chains() -> usize {
    Ifma::detect().map_or(0, Ifma::multiply_add_chains)
}

#[cfg(not(target_arch = "x86_64"))]
fn ifma_chains() -> usize {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_scales_with_the_square_of_the_bits() {
        for backend in [Backend::Portable, Backend::Ifma].into_iter().filter(|backend| backend.is_available())
        {
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
