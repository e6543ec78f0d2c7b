//! The gradient of a weight, fused with the optimizer step.

use std::iter::zip;

use pulp::{Simd, WithSimd};

use crate::{
    AdamwEma,
    optimizer::Update,
    panel::{PANEL, Row, prefetch},
    product::{PAIR, store, vectors},
};

/// The largest number of rows over which a gradient is summed before the next sixteen inputs: they stay in the
/// second-level cache.
const ROWS: usize = 512;

/// Computes the gradient ∂outᵀ x of some panels of a weight and takes the optimizer step.
///
/// Each element of the gradient is one chain of fused multiply-adds over the rows, from the first to the last.
pub(crate) struct WeightGradient<'a, 'b> {
    /// One or two panels of ∂out.
    pub(crate) upstream: &'a [&'a [Row]],
    /// The panels of the inputs, with as many rows.
    pub(crate) x: &'a [&'a [Row]],
    pub(crate) step: AdamwEma,
    /// For each panel of `upstream`, the rows of each part of the state, in the order of
    /// [`StatePart::ALL`](crate::StatePart::ALL).
    pub(crate) state: &'a mut [[&'b mut [Row]; 4]],
}

impl WithSimd for WeightGradient<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { upstream, x, step, state } = self;
        if let (16, Ok(upstream), Ok(state)) = (
            S::F32_LANES,
            <&[&[Row]; PAIR]>::try_from(upstream),
            <&mut [[&mut [Row]; 4]; PAIR]>::try_from(&mut *state),
        ) {
            return panels::<S, PAIR>(simd, *upstream, x, step, state);
        }
        for (upstream, state) in zip(upstream, state) {
            panels::<S, 1>(simd, [upstream], x, step, std::array::from_mut(state));
        }
    }
}

/// Sums the gradient of `P` panels, and updates their state.
#[inline(always)]
fn panels<S: Simd, const P: usize>(
    simd: S,
    upstream: [&[Row]; P],
    x: &[&[Row]],
    step: AdamwEma,
    state: &mut [[&mut [Row]; 4]; P],
) {
    let rows = upstream[0].len();
    // With few rows one panel of inputs after another; with many rows all panels for some rows, then for the next ones.
    let group = if rows <= ROWS { 1 } else { x.len().max(1) };
    let mut gradients = vec![[[Row::ZERO; PANEL]; P]; group];
    for (at, x) in x.chunks(group).enumerate() {
        let first = at * group * PANEL;
        // Loads the state into the cache while the gradient is computed.
        for rows in state.iter().flatten() {
            rows[first..first + x.len() * PANEL].iter().for_each(prefetch);
        }
        gradients.fill([[Row::ZERO; PANEL]; P]);
        for start in (0..rows).step_by(ROWS) {
            let part = start..rows.min(start + ROWS);
            let upstream = upstream.map(|panel| &panel[part.clone()]);
            for (x, gradient) in zip(x, &mut gradients) {
                add::<S, P>(simd, upstream, &x[part.clone()], gradient);
            }
        }
        for (i, gradient) in gradients.iter().take(x.len()).enumerate() {
            let rows = first + i * PANEL..first + (i + 1) * PANEL;
            for (state, gradient) in zip(&mut *state, gradient) {
                let state = state.each_mut().map(|part| &mut part[rows.clone()]);
                Update { step, gradient, state }.with_simd(simd);
            }
        }
    }
}

/// Adds the gradient of the sixteen inputs of a panel.
#[inline(always)]
fn add<S: Simd, const P: usize>(simd: S, upstream: [&[Row]; P], x: &[Row], to: &mut [[Row; PANEL]; P]) {
    match (S::F32_LANES, P) {
        (16, 1) => inputs::<S, 1, P, 16>(simd, upstream, x, 0, to),
        (16, _) => {
            inputs::<S, 1, P, 8>(simd, upstream, x, 0, to);
            inputs::<S, 1, P, 8>(simd, upstream, x, 8, to);
        }
        (8, _) => {
            inputs::<S, 2, P, 6>(simd, upstream, x, 0, to);
            inputs::<S, 2, P, 5>(simd, upstream, x, 6, to);
            inputs::<S, 2, P, 5>(simd, upstream, x, 11, to);
        }
        (4, _) => (0..8).for_each(|i| inputs::<S, 4, P, 2>(simd, upstream, x, 2 * i, to)),
        _ => (0..PANEL).for_each(|k| inputs::<S, PANEL, P, 1>(simd, upstream, x, k, to)),
    }
}

/// Adds the gradient of `N` inputs of a panel from `first` on; the sums stay in registers from the first row to the last.
#[inline(always)]
fn inputs<S: Simd, const V: usize, const P: usize, const N: usize>(
    simd: S,
    upstream: [&[Row]; P],
    x: &[Row],
    first: usize,
    to: &mut [[Row; PANEL]; P],
) {
    let mut sums = [[[simd.splat_f32s(0.0); V]; N]; P];
    for (sums, to) in zip(&mut sums, &*to) {
        for (sums, row) in zip(sums, &to[first..]) {
            *sums = vectors::<S, V>(row);
        }
    }
    for (row, x) in x.iter().enumerate() {
        let upstream: [[S::f32s; V]; P] = std::array::from_fn(|p| vectors::<S, V>(&upstream[p][row]));
        for (i, &x) in x.0[first..first + N].iter().enumerate() {
            let x = simd.splat_f32s(x);
            for p in 0..P {
                for v in 0..V {
                    sums[p][i][v] = simd.mul_add_f32s(upstream[p][v], x, sums[p][i][v]);
                }
            }
        }
    }
    for (sums, to) in zip(&sums, to) {
        for (sums, row) in zip(sums, &mut to[first..]) {
            store::<S, V>(sums, row);
        }
    }
}

#[cfg(test)]
mod tests;
