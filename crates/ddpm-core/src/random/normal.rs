//! Normal numbers by Box and Muller's transform.
//!
//! The logarithm, sine and cosine are polynomials (those of Moshier's Cephes library) in plain f32
//! additions and multiplications, in a fixed order: IEEE 754 defines each result, so the numbers are the
//! same bits on every platform, which a system's own `ln` and `sin` do not promise, and a compiler can
//! turn the loop into vector code.

use std::f32::consts::{FRAC_PI_2, LN_2, SQRT_2};

/// Blocks of random words that are turned into numbers side by side: two vectors of AVX2.
pub(super) const LANES: usize = 16;

/// Fills `row` with standard normal numbers, four from each block of random words. `words` returns the words of
/// the blocks `first`, `first` + 1, ….
///
/// `pulp` compiles it for the vectors that the processor has. The numbers do not depend on them: all is plain
/// arithmetic, number by number, and nothing is fused.
pub(super) struct Fill<'a, W> {
    pub(super) row: &'a mut [f32],
    pub(super) words: W,
}

impl<W: Fn(u32) -> [[u32; LANES]; 4]> pulp::WithSimd for Fill<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for (chunk, first) in self.row.chunks_mut(4 * LANES).zip((0..).step_by(LANES)) {
            let [a, b, c, d] = (self.words)(first);
            let ([z0, z1], [z2, z3]) = (pairs(&a, &b), pairs(&c, &d));
            let mut z = [[0.0; 4]; LANES];
            for lane in 0..LANES {
                z[lane] = [z0[lane], z1[lane], z2[lane], z3[lane]];
            }
            chunk.copy_from_slice(&z.as_flattened()[..chunk.len()]);
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
    use pulp::Arch;

    use super::{Fill, LANES, ln, pair, sin_cos_turn};
    use crate::random::philox::philox4x32_10;

    fn blocks(seed: u32) -> impl Fn(u32) -> [[u32; LANES]; 4] {
        move |first| {
            philox4x32_10(
                [std::array::from_fn(|lane| first + lane as u32), [0; LANES], [0; LANES], [0; LANES]],
                [seed, 0],
            )
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

    /// Moments against those of N(0, 1), within five standard errors, and the distribution function by
    /// Kolmogorov and Smirnov's test against quantiles known in closed form.
    #[test]
    fn a_million_numbers_are_standard_normal() {
        let mut z = vec![0.0_f32; 1_000_000];
        Arch::new().dispatch(Fill { row: &mut z, words: blocks(7) });
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
        let mut z = vec![0.0_f32; 400_000];
        Arch::new().dispatch(Fill { row: &mut z, words: blocks(8) });
        for lag in 1..=4 {
            let products = z.iter().zip(&z[lag..]).map(|(&a, &b)| f64::from(a) * f64::from(b));
            let correlation = products.sum::<f64>() / (z.len() - lag) as f64;
            assert!(correlation.abs() < 5.0 / f64::sqrt(z.len() as f64), "lag {lag}: {correlation}");
        }
    }
}
