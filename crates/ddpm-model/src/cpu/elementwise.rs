//! Loops over numbers. A multiply-add is fused where it says so and nowhere else, so that they give the same bits
//! in all instruction sets.

use std::iter::zip;

use pulp::{Arch, Simd, WithSimd};

use super::panel::{PANEL, Row};

/// `z ← silu(z)`, and its slope into `slope` if there are rows for it.
pub(super) struct Silu<'a> {
    pub(super) z: &'a mut [Row],
    /// As many rows, or none.
    pub(super) slope: &'a mut [Row],
}

impl WithSimd for Silu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        if self.slope.is_empty() {
            for row in self.z {
                for z in &mut row.0 {
                    *z *= sigmoid(*z);
                }
            }
            return;
        }
        for (z, slope) in self.z.iter_mut().zip(self.slope) {
            for (z, slope) in z.0.iter_mut().zip(&mut slope.0) {
                let s = sigmoid(*z);
                *slope = s * (1.0 + *z * (1.0 - s));
                *z *= s;
            }
        }
    }
}

/// `to *= by`.
pub(super) struct Multiply<'a> {
    pub(super) to: &'a mut [Row],
    pub(super) by: &'a [Row],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (to, by) in self.to.iter_mut().zip(self.by) {
            for (to, by) in to.0.iter_mut().zip(&by.0) {
                *to *= by;
            }
        }
    }
}

/// `out = bias (+ add)`: where a layer's sums start. Row number i of `out` takes row `of_row[i]` of `add`.
pub(super) struct Start<'a> {
    pub(super) bias: &'a Row,
    pub(super) add: Option<(&'a [Row], Option<&'a [usize]>)>,
    pub(super) out: &'a mut [Row],
}

impl WithSimd for Start<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { bias, add, out } = self;
        match add {
            None => out.fill(*bias),
            Some((add, None)) => zip(out, add).for_each(|(out, add)| *out = sum(bias, add)),
            Some((add, Some(of_row))) => {
                zip(out, of_row).for_each(|(out, &row)| *out = sum(bias, &add[row]));
            }
        }
    }
}

/// `to += by`.
pub(super) fn add(to: &mut [Row], by: &[Row]) {
    for (to, by) in to.iter_mut().zip(by) {
        *to = sum(to, by);
    }
}

/// The sum of two rows.
#[inline(always)]
pub(super) fn sum(a: &Row, b: &Row) -> Row {
    Row(std::array::from_fn(|i| a.0[i] + b.0[i]))
}

/// The constants of a step of AdamW and of the moving average, as f32.
#[derive(Clone, Copy, Debug)]
pub struct AdamwEma {
    /// β₁ and 1 − β₁.
    pub first: [f32; 2],
    /// β₂ and 1 − β₂.
    pub second: [f32; 2],
    /// What is added to the root.
    pub eps: f32,
    /// What a matrix keeps: 1 − lr·λ. Biases do not decay.
    pub keep: f32,
    /// lr / (1 − β₁ᵏ).
    pub rate: f32,
    /// 1 / √(1 − β₂ᵏ).
    pub second_scale: f32,
    /// The average's decay d and 1 − d.
    pub ema: [f32; 2],
}

/// One step of AdamW and of the moving average, in one pass over memory: of the weights, the first and the
/// second moments of the gradient, and the averaged weights.
pub fn adamw_ema(step: AdamwEma, gradient: &[Row], [weight, first, second, ema]: [&mut [Row]; 4]) {
    Arch::new().dispatch(Update { step, gradient, weight, first, second, ema });
}

/// [`adamw_ema`], also for a loop that has chosen its instruction set.
pub(super) struct Update<'a> {
    pub(super) step: AdamwEma,
    pub(super) gradient: &'a [Row],
    pub(super) weight: &'a mut [Row],
    pub(super) first: &'a mut [Row],
    pub(super) second: &'a mut [Row],
    pub(super) ema: &'a mut [Row],
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let AdamwEma { first: [b1, c1], second: [b2, c2], eps, keep, rate, second_scale, ema: [d, e] } =
            self.step;
        let moments = self.first.iter_mut().zip(self.second);
        let weights = self.weight.iter_mut().zip(self.ema);
        for (((m, v), (w, a)), g) in moments.zip(weights).zip(self.gradient) {
            for i in 0..PANEL {
                let (m, v, w, a, g) = (&mut m.0[i], &mut v.0[i], &mut w.0[i], &mut a.0[i], g.0[i]);
                *m = b1 * *m + c1 * g;
                *v = b2 * *v + c2 * (g * g);
                *w = keep * *w - rate * *m / (v.sqrt() * second_scale + eps);
                *a = d * *a + e * *w;
            }
        }
    }
}

/// 1/(1 + e⁻ˣ).
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// eˣ to two units in the last place, without a branch: the polynomial of Moshier's Cephes library.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Beyond, eˣ would overflow or lose its precision; a sigmoid is 1, or below 2e-38, there.
    let x = x.clamp(-87.0, 87.0);
    // Adding 1.5·2²³ rounds to the nearest whole number n, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    // ln 2 in two parts, so that the difference is exact.
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = r.mul_add(p, c);
    }
    let y = p.mul_add(r * r, r + 1.0);
    // Times 2ⁿ.
    y * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_that_of_f64() {
        for i in -8_600..=8_600 {
            let x = i as f32 * 0.01 + 0.003;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() < 3e-7 * exact, "exp({x}) = {} not {exact}", exp(x));
        }
        assert!(sigmoid(-1e30) >= 0.0 && sigmoid(-1e30) < 1e-37 && sigmoid(1e30) == 1.0);
    }
}
