//! Elementwise loops. They fuse a multiply-add only where the code calls `mul_add`, so they give the same bits in all
//! instruction sets.

use std::iter::zip;

use pulp::{Simd, WithSimd};

use crate::{
    forward::Add,
    panel::{PANEL, Row},
};

/// `z ← silu(z)`; writes the derivative of SiLU at each z to `slope` if `slope` is not empty.
pub(crate) struct Silu<'a> {
    pub(crate) z: &'a mut [Row],
    /// The same number of rows as `z`, or empty.
    pub(crate) slope: &'a mut [Row],
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
pub(crate) struct Multiply<'a> {
    pub(crate) to: &'a mut [Row],
    pub(crate) by: &'a [Row],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        zip(self.to, self.by).for_each(|(to, by)| each(simd, to, by, S::mul_f32s));
    }
}

/// `to = f(to, by)` for each register of a row. Loops over a row's numbers are not always compiled to whole registers.
#[inline(always)]
fn each<S: Simd>(simd: S, to: &mut Row, by: &Row, f: impl Fn(S, S::f32s, S::f32s) -> S::f32s) {
    let ((to, _), (by, _)) = (S::as_mut_simd_f32s(&mut to.0), S::as_simd_f32s(&by.0));
    zip(to, by).for_each(|(to, &by)| *to = f(simd, *to, by));
}

/// `out = bias (+ add)`: the start values of a layer's sums.
pub(crate) struct Start<'a> {
    pub(crate) bias: &'a Row,
    pub(crate) add: Option<Add<'a>>,
    pub(crate) out: &'a mut [Row],
}

impl WithSimd for Start<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { bias, add, out } = self;
        let start = |out: &mut Row, add: &Row| {
            *out = *bias;
            each(simd, out, add, S::add_f32s);
        };
        match add {
            None => out.fill(*bias),
            Some(Add::Rows(add)) => zip(out, add).for_each(|(out, add)| start(out, add)),
            Some(Add::Conditions(add, of_row)) => {
                for out in out.chunks_mut(of_row.len()) {
                    zip(out, of_row).for_each(|(out, &row)| start(out, &add[row]));
                }
            }
        }
    }
}

/// `to += by`.
pub(crate) fn add(to: &mut [Row], by: &[Row]) {
    for (to, by) in to.iter_mut().zip(by) {
        for i in 0..PANEL {
            to.0[i] += by.0[i];
        }
    }
}

/// The sum of two rows.
#[inline(always)]
pub(crate) fn sum(a: &Row, b: &Row) -> Row {
    Row(std::array::from_fn(|i| a.0[i] + b.0[i]))
}

/// 1/(1 + e⁻ˣ).
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// eˣ with an error of at most two units in the last place, without a branch. The polynomial is from Moshier's Cephes
/// library.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Outside this range eˣ overflows or loses precision; the sigmoid there is 1, or below 2e-38.
    let x = x.clamp(-87.0, 87.0);
    // Adding 1.5·2²³ rounds to the nearest integer n and leaves n in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    // ln 2 is split into two constants, so that x − n·ln 2 is nearly exact.
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = r.mul_add(p, c);
    }
    let y = p.mul_add(r * r, r + 1.0);
    // Multiply by 2ⁿ: n goes into the exponent bits.
    y * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_f64() {
        for i in -8_600..=8_600 {
            let x = i as f32 * 0.01 + 0.003;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() < 3e-7 * exact, "exp({x}) = {} not {exact}", exp(x));
        }
        assert!(sigmoid(-1e30) >= 0.0 && sigmoid(-1e30) < 1e-37 && sigmoid(1e30) == 1.0);
    }
}
