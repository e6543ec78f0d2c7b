//! The largest speed that a product can reach on this machine.

use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Independent chains of fused multiply-adds: enough to hide the latency of one, and few enough for sixteen registers.
const CHAINS: usize = 12;
/// Multiply-adds of each chain: some milliseconds of work.
const LENGTH: usize = 2_000_000;

struct Chains {
    factor: f32,
}

impl WithSimd for Chains {
    /// The sum of all chains, so that none is optimised away, and the number of lanes of a register.
    type Output = (f32, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let (factor, term) = (simd.splat_f32s(self.factor), simd.splat_f32s(1.0 - self.factor));
        let mut chains = [simd.splat_f32s(0.0); CHAINS];
        for _ in 0..LENGTH {
            for chain in &mut chains {
                *chain = simd.mul_add_f32s(*chain, factor, term);
            }
        }
        (chains.into_iter().map(|chain| simd.reduce_sum_f32s(chain)).sum(), S::F32_LANES)
    }
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// The number of f32 values in a register of the best instructions that the kernels use on this processor: 16 with AVX-512,
/// 8 with AVX2, 4 with NEON, 1 without any of them.
#[must_use]
pub fn simd_lanes() -> usize {
    Arch::new().dispatch(Lanes)
}

/// Measures the speed of fused multiply-adds on numbers in registers, with the best instructions of this processor, on all
/// threads of the pool, in floating-point operations per second; a multiply-add counts as two. No matrix product is faster.
#[must_use]
pub fn peak_flops() -> f64 {
    let threads = rayon::current_num_threads();
    let started = Instant::now();
    let chains = (0..threads).into_par_iter().map(|_| {
        let factor = std::hint::black_box(0.5);
        Arch::new().dispatch(Chains { factor })
    });
    let sums: Vec<(f32, usize)> = chains.collect();
    let lanes: usize = std::hint::black_box(sums).iter().map(|(_, lanes)| lanes).sum();
    (2 * CHAINS * LENGTH * lanes) as f64 / started.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sum shows that every chain was computed: each converges to 1 in every lane.
    #[test]
    fn each_chain_is_computed() {
        let (sum, lanes) = Arch::new().dispatch(Chains { factor: std::hint::black_box(0.5) });
        assert_eq!(sum, (CHAINS * lanes) as f32);
        assert!(peak_flops() > 0.0);
    }
}
