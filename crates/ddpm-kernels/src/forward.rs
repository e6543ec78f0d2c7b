//! The forward pass of one layer.

use pulp::{Simd, WithSimd};

use crate::{
    elementwise::{Silu, Start},
    panel::Row,
    product::Product,
};

/// Some panels of a layer's output for some rows: `out = x Wᵀ (+ b) (+ add)`, then SiLU if `silu` is true.
pub(crate) struct Forward<'a, 'b> {
    /// The panels of W, of which `out` needs the first ones; the last row of each is the bias.
    pub(crate) weight: &'a [Row],
    pub(crate) stride: usize,
    pub(crate) x: &'a [&'a [Row]],
    /// Whether the sums start from what `out` holds, instead of the bias and `add`.
    pub(crate) continues: bool,
    /// The panels that are added; empty if none are.
    pub(crate) add: &'a [Add<'a>],
    pub(crate) silu: bool,
    pub(crate) out: &'a mut [&'b mut [Row]],
    /// Receives the derivative of SiLU; empty if it is not needed.
    pub(crate) slope: &'a mut [&'b mut [Row]],
}

/// A panel that a layer adds.
#[derive(Clone, Copy)]
pub(crate) enum Add<'a> {
    /// A row for each row of the output.
    Rows(&'a [Row]),
    /// The panel of the conditions, and the index of the condition of each image. The output's rows are one or more
    /// patches of these images.
    Conditions(&'a [Row], &'a [usize]),
}

impl WithSimd for Forward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { weight, stride, x, continues, add, silu, out, slope } = self;
        let started = if continues { 0 } else { out.len() };
        for (panel, (out, weight)) in out.iter_mut().zip(weight.chunks(stride)).enumerate().take(started) {
            Start { bias: &weight[stride - 1], add: add.get(panel).copied(), out }.with_simd(simd);
        }
        Product { weight, stride, x, from_zero: false, out }.with_simd(simd);
        if silu {
            let mut slope = slope.iter_mut();
            for z in out {
                Silu { z, slope: slope.next().map_or(&mut [], |slope| slope) }.with_simd(simd);
            }
        }
    }
}
