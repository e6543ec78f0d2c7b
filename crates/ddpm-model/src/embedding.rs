//! The sinusoidal time embedding of Vaswani et al. 2017 (arXiv 1706.03762, section 3.5) and Ho et al. 2020,
//! appendix B.

/// The embedding of every timestep, [`steps`, `size`] in row-major order. The first half of a row holds sines, the
/// second half cosines:
///
/// ```text
/// sin(s·ωᵢ), cos(s·ωᵢ),   s = 1000 t/T,   ωᵢ = 10000^(−i/(size/2)),   i = 0 … size/2 − 1
/// ```
///
/// T is `steps`. Ho et al. use T = 1000 and s = t. Rescaling t keeps the same range of angles for a small T, where
/// the noise levels of neighbouring timesteps differ much.
pub(crate) fn sinusoids(steps: usize, size: usize) -> Vec<f64> {
    let half = size.div_ceil(2);
    let mut table = Vec::with_capacity(steps * size);
    for t in 0..steps {
        let angle = |i: usize| 1000.0 * t as f64 / steps as f64 * 10_000_f64.powf(-(i as f64) / half as f64);
        table.extend((0..half).map(|i| angle(i).sin()));
        table.extend((0..half).map(|i| angle(i).cos()));
    }
    table
}
