//! Normal numbers by Box and Muller's transform.
//!
//! The logarithm, sine and cosine are polynomials (those of Moshier's Cephes library) in plain f32
//! additions and multiplications, in a fixed order: IEEE 754 defines each result, so the numbers are the
//! same bits on every platform, which a system's own `ln` and `sin` do not promise, and a compiler can
//! turn the loop into vector code.

use std::f32::consts::{FRAC_PI_2, LN_2, SQRT_2};

use super::philox::philox4x32_10;

/// Blocks of random words that are turned into numbers side by side: two vectors of AVX2.
const LANES: usize = 16;

/// Fills rows of equal length with standard normal numbers, one row for each index, four numbers from each block
/// of random words. The counter of a block is its number in the row, `purpose_and_step`, and the index.
///
/// `pulp` compiles it for the vectors that the processor has. The numbers do not depend on them: all is plain
/// arithmetic, number by number, and nothing is fused.
pub(super) struct Fill<'a> {
    pub(super) rows: &'a mut [f32],
    pub(super) each: usize,
    pub(super) indices: &'a [u64],
    pub(super) purpose_and_step: u32,
    pub(super) key: [u32; 2],
}

#[cfg(feature = "candle")]
impl pulp::WithSimd for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.fill();
    }
}

impl Fill<'_> {
    #[cfg(feature = "candle")]
    pub(super) fn run(self) {
        pulp::Arch::new().dispatch(self);
    }

    /// Without the tensor library it is compiled for the vectors of the target only.
    #[cfg(not(feature = "candle"))]
    pub(super) fn run(self) {
        self.fill();
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "words of an address")]
    fn fill(self) {
        let Self { rows, each, indices, purpose_and_step, key } = self;
        // Blocks are taken row by row, and a group of them may span several rows, which makes short rows fast.
        let blocks = each.div_ceil(4);
        let (mut row, mut block) = (0, 0);
        while row < indices.len() {
            let first = (row, block);
            let [mut numbers, mut low, mut high] = [[0; LANES]; 3];
            for lane in 0..LANES {
                let index = indices[row.min(indices.len() - 1)];
                (numbers[lane], low[lane], high[lane]) = (block as u32, index as u32, (index >> 32) as u32);
                (row, block) = if block + 1 == blocks { (row + 1, 0) } else { (row, block + 1) };
            }
            let [a, b, c, d] = philox4x32_10([numbers, [purpose_and_step; LANES], low, high], key);
            let ([z0, z1], [z2, z3]) = (pairs(&a, &b), pairs(&c, &d));
            let mut z = [[0.0; 4]; LANES];
            for (lane, z) in z.iter_mut().enumerate() {
                *z = [z0[lane], z1[lane], z2[lane], z3[lane]];
            }
            if first.0 == row {
                // All within one row, and none the last of it.
                rows[row * each + 4 * first.1..][..4 * LANES].copy_from_slice(z.as_flattened());
                continue;
            }
            let (mut row, mut block) = first;
            for z in &z {
                if row == indices.len() {
                    break;
                }
                let left = (each - 4 * block).min(4);
                rows[row * each + 4 * block..][..left].copy_from_slice(&z[..left]);
                (row, block) = if block + 1 == blocks { (row + 1, 0) } else { (row, block + 1) };
            }
        }
    }
}

/// [`pair`] in each lane.
#[inline(always)]
fn pairs(radius: &[u32; LANES], angle: &[u32; LANES]) -> [[f32; LANES]; 2] {
    let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        [first[lane], second[lane]] = pair(radius[lane], angle[lane]);
    }
    [first, second]
}

/// Two independent standard normal numbers from two words.
#[inline(always)]
fn pair(radius: u32, angle: u32) -> [f32; 2] {
    // (0, 1], so that the logarithm is finite; the smallest gives 6.8 standard deviations.
    let uniform = radius as f32 * 2.0_f32.powi(-32) + 2.0_f32.powi(-33);
    let r = (-2.0 * ln(uniform)).sqrt();
    let (sin, cos) = sin_cos_turn(angle);
    [r * cos, r * sin]
}

/// ln x for a positive normal number.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // x = m·2^e with m in [√½, √2).
    let shifted = x.to_bits().wrapping_sub((SQRT_2 * 0.5).to_bits());
    let e = (shifted.cast_signed() >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add((SQRT_2 * 0.5).to_bits()));
    let f = m - 1.0;
    let mut p = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_7e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * f + c;
    }
    let z = f * f;
    e * LN_2 + (f - 0.5 * z + f * z * p)
}

/// Sine and cosine of `word`/2³² of a turn.
#[inline(always)]
fn sin_cos_turn(word: u32) -> (f32, f32) {
    // The nearest quarter turn and what is left, at most an eighth, are exact in whole numbers.
    let quarter = word.wrapping_add(1 << 29) >> 30;
    let rest = word.wrapping_sub(quarter << 30).cast_signed();
    let x = rest as f32 * (FRAC_PI_2 * 2.0_f32.powi(-30));
    let z = x * x;
    let sin = x + x * z * (-1.666_665_5e-1 + z * (8.332_161e-3 + z * -1.951_529_6e-4));
    let cos = 1.0 - 0.5 * z + z * z * (4.166_664_6e-2 + z * (-1.388_731_6e-3 + z * 2.443_315_7e-5));
    let (s, c) = if quarter & 1 == 0 { (sin, cos) } else { (cos, sin) };
    (if quarter & 2 == 0 { s } else { -s }, if (quarter + 1) & 2 == 0 { c } else { -c })
}

#[cfg(test)]
mod tests {
    use super::{Fill, ln, pair, philox4x32_10, sin_cos_turn};

    fn filled(seed: u32, indices: &[u64], each: usize) -> Vec<f32> {
        let mut rows = vec![0.0; indices.len() * each];
        Fill { rows: &mut rows, each, indices, purpose_and_step: 0, key: [seed, 0] }.run();
        rows
    }

    /// One number after the other, as the definition has it.
    #[test]
    #[allow(clippy::cast_possible_truncation, reason = "words of an address")]
    fn groups_of_blocks_give_the_numbers_of_single_blocks_for_rows_of_any_length() {
        for each in [1, 3, 4, 5, 63, 64, 65, 784] {
            let indices = [0, 7, 1 << 40, 3, 9];
            let expected = indices.iter().flat_map(|&index: &u64| {
                let row = (0..each as u32).step_by(4).zip(0..).flat_map(move |(_, block)| {
                    let counter = [block, 0, index as u32, (index >> 32) as u32].map(|word| [word]);
                    let [[a], [b], [c], [d]] = philox4x32_10(counter, [5, 0]);
                    [pair(a, b), pair(c, d)].concat()
                });
                row.take(each)
            });
            assert!(filled(5, &indices, each).into_iter().eq(expected), "{each}");
        }
    }

    fn words() -> impl Iterator<Item = u32> {
        (0..=u32::MAX).step_by(9_973).chain([0, 1, 2, u32::MAX - 1, u32::MAX])
    }

    #[test]
    fn logarithm_sine_and_cosine_agree_with_f64() {
        for word in words() {
            let u = word as f32 * 2.0_f32.powi(-32) + 2.0_f32.powi(-33);
            let exact = f64::from(u).ln();
            assert!((f64::from(ln(u)) - exact).abs() <= 2e-7 * exact.abs(), "ln {u}");
            let (sin, cos) = sin_cos_turn(word);
            let angle = f64::from(word) / 4_294_967_296.0 * std::f64::consts::TAU;
            assert!((f64::from(sin) - angle.sin()).abs() < 2e-7, "sin at {word}");
            assert!((f64::from(cos) - angle.cos()).abs() < 2e-7, "cos at {word}");
        }
    }

    #[test]
    fn extreme_words_give_finite_numbers() {
        for word in words() {
            let [a, b] = pair(word, word.rotate_left(16));
            assert!(a.is_finite() && b.is_finite() && a.hypot(b) < 6.8, "{word}: {a} {b}");
        }
    }

    /// RunningMean against those of N(0, 1), within five standard errors, and the distribution function by
    /// Kolmogorov and Smirnov's test against quantiles known in closed form.
    #[test]
    fn a_million_numbers_are_standard_normal() {
        let z = filled(7, &[0], 1_000_000);
        let n = z.len() as f64;
        let moment = |k: i32| z.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / n;
        for (k, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let tolerance = 5.0 * f64::sqrt(variance / n);
            assert!((moment(k) - expected).abs() < tolerance, "moment {k}: {}", moment(k));
        }
        for (quantile, probability) in [
            (-3.090_232, 0.001),
            (-1.644_854, 0.05),
            (-0.674_490, 0.25),
            (0.0, 0.5),
            (0.674_490, 0.75),
            (1.644_854, 0.95),
            (3.090_232, 0.999),
        ] {
            let below = z.iter().filter(|&&x| f64::from(x) < quantile).count() as f64 / n;
            let tolerance = 5.0 * f64::sqrt(probability * (1.0 - probability) / n);
            assert!((below - probability).abs() < tolerance, "below {quantile}: {below}");
        }
    }

    #[test]
    fn neighbours_are_uncorrelated() {
        let z = filled(8, &[0], 400_000);
        for lag in 1..=4 {
            let products = z.iter().zip(&z[lag..]).map(|(&a, &b)| f64::from(a) * f64::from(b));
            let correlation = products.sum::<f64>() / (z.len() - lag) as f64;
            assert!(correlation.abs() < 5.0 / f64::sqrt(z.len() as f64), "lag {lag}: {correlation}");
        }
    }
}
