//! AdamW fused with the exponential moving average (EMA) of the weights.

use pulp::{Simd, WithSimd};

use crate::panel::{PANEL, Row};

/// The coefficients of one step of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) and of the weights' moving
/// average, rounded to f32. Step k = 0, 1, … with the gradient g is
///
/// ```text
/// m ← β₁m + (1−β₁)g      v ← β₂v + (1−β₂)g²
/// w ← keep·w − rate · m / (second_scale·√v + eps)
/// ema ← d·ema + (1−d)·w
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AdamwEma {
    /// β₁ and 1 − β₁.
    pub first: [f32; 2],
    /// β₂ and 1 − β₂.
    pub second: [f32; 2],
    /// Added to the denominator, so that the division stays finite.
    pub eps: f32,
    /// 1 − lr·λ, the factor of weight decay for matrices. Biases do not decay.
    pub keep: f32,
    /// lr / (1 − β₁ᵏ⁺¹).
    pub rate: f32,
    /// 1 / √(1 − β₂ᵏ⁺¹).
    pub second_scale: f32,
    /// The decay d of the average and 1 − d.
    pub ema: [f32; 2],
}

impl AdamwEma {
    /// Updates one weight `w`, its moments `m` and `v` and its average `ema`.
    #[inline(always)]
    pub fn update(&self, gradient: f32, w: &mut f32, m: &mut f32, v: &mut f32, ema: &mut f32) {
        let Self { first: [b1, c1], second: [b2, c2], eps, keep, rate, second_scale, ema: [d, e] } = *self;
        *m = b1 * *m + c1 * gradient;
        *v = b2 * *v + c2 * (gradient * gradient);
        *w = keep * *w - rate * *m / (v.sqrt() * second_scale + eps);
        *ema = d * *ema + e * *w;
    }
}

/// A part of the training state; each part holds one number for each weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatePart {
    /// The moving average of the weights.
    Ema,
    /// The first moment m: the moving average of the gradients.
    First,
    /// The second moment v: the moving average of the squared gradients.
    Second,
    /// The weights.
    Weights,
}

impl StatePart {
    /// All parts, in alphabetical order.
    pub const ALL: [Self; 4] = [Self::Ema, Self::First, Self::Second, Self::Weights];
}

/// An optimizer step for rows of weights, in one pass over memory.
pub(crate) struct Update<'a> {
    pub(crate) step: AdamwEma,
    pub(crate) gradient: &'a [Row],
    /// The rows of each part of the state, in the order of [`StatePart::ALL`].
    pub(crate) state: [&'a mut [Row]; 4],
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { step, gradient, state: [ema, first, second, weight] } = self;
        let (moments, weights) = (first.iter_mut().zip(second), weight.iter_mut().zip(ema));
        for (((m, v), (w, a)), g) in moments.zip(weights).zip(gradient) {
            for i in 0..PANEL {
                step.update(g.0[i], &mut w.0[i], &mut m.0[i], &mut v.0[i], &mut a.0[i]);
            }
        }
    }
}
