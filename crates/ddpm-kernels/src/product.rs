//! Matrix products of panels.
//!
//! Each element of a product is one chain of fused multiply-adds over the inputs, from the first to the last, and no
//! other operation. So it has the same bits in any tile, in any batch, on any number of threads and in every instruction
//! set with a fused multiply-add. The tiling of the loops is therefore free.

use pulp::{Simd, WithSimd};

use crate::{
    AdamwEma,
    optimizer::Update,
    panel::{PANEL, Row, prefetch},
};

/// The number of rows of a weight's panel that stay in the first-level cache while all images are multiplied by them.
const DEPTH: usize = 512;

/// The number of images over which a weight's gradient is summed while they stay in the first-level cache.
const IMAGES: usize = 192;

/// `out += x Wᵀ` for one or more panels of outputs. `out` has `batch` rows for each panel of outputs, and `x` has
/// `batch` rows for each panel of inputs. `weight` has `stride` rows for each panel of outputs: one for each input, and
/// optionally the bias, which is not read.
pub(crate) struct Product<'a> {
    pub(crate) weight: &'a [Row],
    pub(crate) stride: usize,
    pub(crate) x: &'a [Row],
    pub(crate) batch: usize,
    pub(crate) out: &'a mut [Row],
    pub(crate) next: Next<'a>,
}

/// The weights that the next product reads; this product prefetches them. With each sixteen inputs it prefetches
/// sixteen rows: first those from `first` on, then those `stride` rows further, and so on.
#[derive(Clone, Copy)]
pub(crate) struct Next<'a> {
    pub(crate) rows: &'a [Row],
    pub(crate) first: usize,
    pub(crate) stride: usize,
}

impl Next<'_> {
    pub(crate) const NONE: Self = Self { rows: &[], first: 0, stride: 0 };

    #[inline(always)]
    fn fetch(self, inputs: usize) {
        let first = self.first + inputs * self.stride;
        if let Some(rows) = self.rows.get(first..first + PANEL) {
            rows.iter().for_each(prefetch);
        }
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 1, 12>(simd),
            8 => self.run::<S, 2, 6>(simd),
            4 => self.run::<S, 4, 6>(simd),
            _ => self.run::<S, PANEL, 1>(simd),
        }
    }
}

impl Product<'_> {
    /// Runs the product with `V` registers for each row, and at most `N` images in registers.
    #[inline(always)]
    fn run<S: Simd, const V: usize, const N: usize>(self, simd: S) {
        let Self { weight, stride, x, batch, out, next } = self;
        let inputs = x.len().checked_div(batch).unwrap_or(0) * PANEL;
        if let (1, Ok(out)) = (batch, <&mut [Row; GROUP]>::try_from(&mut *out)) {
            let weights = std::array::from_fn(|panel| &weight[panel * stride..][..inputs]);
            return one_image::<S, V>(simd, weights, x, out);
        }
        for (weight, out) in weight.chunks(stride).zip(out.chunks_exact_mut(batch)) {
            panel::<S, V, N>(simd, &weight[..inputs], x, out, next);
        }
    }
}

/// Computes one panel of outputs in tiles of nearly equal size, of at most `N` images.
#[inline(always)]
fn panel<S: Simd, const V: usize, const N: usize>(
    simd: S,
    weight: &[Row],
    x: &[Row],
    out: &mut [Row],
    next: Next<'_>,
) {
    let batch = out.len();
    let tiles = batch.div_ceil(N);
    let depth = DEPTH.div_ceil(PANEL);
    for (piece, (weight, x)) in weight.chunks(DEPTH).zip(x.chunks(depth * batch)).enumerate() {
        let mut next = Next { first: next.first + piece * depth * next.stride, ..next };
        let mut first = 0;
        for tile in 1..=tiles {
            let end = (batch * tile).div_euclid(tiles);
            let out = &mut out[first..end];
            match end - first {
                12 => tile_of::<S, V, 12>(simd, weight, x, batch, first, out, next),
                11 => tile_of::<S, V, 11>(simd, weight, x, batch, first, out, next),
                10 => tile_of::<S, V, 10>(simd, weight, x, batch, first, out, next),
                9 => tile_of::<S, V, 9>(simd, weight, x, batch, first, out, next),
                8 => tile_of::<S, V, 8>(simd, weight, x, batch, first, out, next),
                7 => tile_of::<S, V, 7>(simd, weight, x, batch, first, out, next),
                6 => tile_of::<S, V, 6>(simd, weight, x, batch, first, out, next),
                5 => tile_of::<S, V, 5>(simd, weight, x, batch, first, out, next),
                4 => tile_of::<S, V, 4>(simd, weight, x, batch, first, out, next),
                3 => tile_of::<S, V, 3>(simd, weight, x, batch, first, out, next),
                2 => tile_of::<S, V, 2>(simd, weight, x, batch, first, out, next),
                _ => tile_of::<S, V, 1>(simd, weight, x, batch, first, out, next),
            }
            first = end;
            next = Next::NONE;
        }
    }
}

/// Computes a tile: `N` images from `first` on, whose sums stay in registers from the first input to the last.
#[inline(always)]
fn tile_of<S: Simd, const V: usize, const N: usize>(
    simd: S,
    weight: &[Row],
    x: &[Row],
    batch: usize,
    first: usize,
    out: &mut [Row],
    next: Next<'_>,
) {
    let mut sums = [[simd.splat_f32s(0.0); V]; N];
    for (sums, row) in sums.iter_mut().zip(&*out) {
        *sums = vectors::<S, V>(row);
    }
    for (inputs, (weight, x)) in weight.chunks_exact(PANEL).zip(x.chunks_exact(batch)).enumerate() {
        next.fetch(inputs);
        let (Ok(weight), Ok(x)) =
            (<&[Row; PANEL]>::try_from(weight), <&[Row; N]>::try_from(&x[first..first + N]))
        else {
            return;
        };
        for k in 0..PANEL {
            let weight = vectors::<S, V>(&weight[k]);
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = simd.splat_f32s(x.0[k]);
                for v in 0..V {
                    sums[v] = simd.mul_add_f32s(weight[v], x, sums[v]);
                }
            }
        }
    }
    for (row, sums) in out.iter_mut().zip(&sums) {
        store::<S, V>(sums, row);
    }
}

/// Loads a row into registers.
#[inline(always)]
fn vectors<S: Simd, const V: usize>(row: &Row) -> [S::f32s; V] {
    let (vectors, _) = S::as_simd_f32s(&row.0);
    std::array::from_fn(|v| vectors[v])
}

/// Stores registers into a row.
#[inline(always)]
fn store<S: Simd, const V: usize>(vectors: &[S::f32s; V], row: &mut Row) {
    let (to, _) = S::as_mut_simd_f32s(&mut row.0);
    to[..V].copy_from_slice(vectors);
}

/// The number of panels that [`one_image`] computes together.
pub(crate) const GROUP: usize = 4;

/// Computes several panels of outputs for one image: with a single panel, each multiply-add would wait for the one
/// before.
#[inline(always)]
fn one_image<S: Simd, const V: usize>(
    simd: S,
    [a, b, c, d]: [&[Row]; GROUP],
    x: &[Row],
    out: &mut [Row; GROUP],
) {
    let mut sums: [[S::f32s; V]; GROUP] = std::array::from_fn(|panel| vectors::<S, V>(&out[panel]));
    let ab = a.chunks_exact(PANEL).zip(b.chunks_exact(PANEL));
    let cd = c.chunks_exact(PANEL).zip(d.chunks_exact(PANEL));
    for (((a, b), (c, d)), x) in ab.zip(cd).zip(x) {
        for (k, &x) in x.0.iter().enumerate() {
            let x = simd.splat_f32s(x);
            for (sums, weight) in sums.iter_mut().zip([a, b, c, d]) {
                let weight = vectors::<S, V>(&weight[k]);
                for v in 0..V {
                    sums[v] = simd.mul_add_f32s(weight[v], x, sums[v]);
                }
            }
        }
    }
    for (row, sums) in out.iter_mut().zip(&sums) {
        store::<S, V>(sums, row);
    }
}

/// Computes the gradient ∂outᵀ x of one panel of a weight and takes the optimizer step, sixteen inputs at a time.
/// `upstream` is the panel of ∂out, with a row for each image, and `x` holds the panels of the inputs.
pub(crate) struct WeightGradient<'a> {
    pub(crate) upstream: &'a [Row],
    pub(crate) x: &'a [Row],
    pub(crate) step: AdamwEma,
    /// The rows of each part of the state, in the order of [`StatePart::ALL`](crate::StatePart::ALL).
    pub(crate) state: [&'a mut [Row]; 4],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { upstream, x, step, state } = self;
        let batch = upstream.len();
        let [a, b, c, d] = state.map(|rows| rows.chunks_exact_mut(PANEL));
        for (((a, b), (c, d)), x) in a.zip(b).zip(c.zip(d)).zip(x.chunks_exact(batch)) {
            let state = [a, b, c, d];
            // Loads the state into the cache while the gradient is computed.
            state.iter().for_each(|rows| rows.iter().for_each(prefetch));
            let mut out = [Row::ZERO; PANEL];
            for (upstream, x) in upstream.chunks(IMAGES).zip(x.chunks(IMAGES)) {
                match S::F32_LANES {
                    16 => inputs::<S, 1, 16>(simd, upstream, x, 0, &mut out),
                    8 => {
                        inputs::<S, 2, 6>(simd, upstream, x, 0, &mut out);
                        inputs::<S, 2, 5>(simd, upstream, x, 6, &mut out);
                        inputs::<S, 2, 5>(simd, upstream, x, 11, &mut out);
                    }
                    4 => {
                        inputs::<S, 4, 6>(simd, upstream, x, 0, &mut out);
                        inputs::<S, 4, 5>(simd, upstream, x, 6, &mut out);
                        inputs::<S, 4, 5>(simd, upstream, x, 11, &mut out);
                    }
                    _ => (0..PANEL).for_each(|k| inputs::<S, PANEL, 1>(simd, upstream, x, k, &mut out)),
                }
            }
            Update { step, gradient: &out, state }.with_simd(simd);
        }
    }
}

/// Adds the gradient of `N` inputs of a panel from `first` on; the sums stay in registers from the first image to the
/// last.
#[inline(always)]
fn inputs<S: Simd, const V: usize, const N: usize>(
    simd: S,
    upstream: &[Row],
    x: &[Row],
    first: usize,
    out: &mut [Row],
) {
    let out = &mut out[first..first + N];
    let mut sums = [[simd.splat_f32s(0.0); V]; N];
    for (sums, row) in sums.iter_mut().zip(&*out) {
        *sums = vectors::<S, V>(row);
    }
    for (upstream, x) in upstream.iter().zip(x) {
        let upstream = vectors::<S, V>(upstream);
        for (sums, &x) in sums.iter_mut().zip(&x.0[first..first + N]) {
            let x = simd.splat_f32s(x);
            for v in 0..V {
                sums[v] = simd.mul_add_f32s(upstream[v], x, sums[v]);
            }
        }
    }
    for (row, sums) in out.iter_mut().zip(&sums) {
        store::<S, V>(sums, row);
    }
}

#[cfg(test)]
mod tests;
