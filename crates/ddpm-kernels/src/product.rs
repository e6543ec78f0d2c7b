//! Matrix products of panels.
//!
//! Each element of a product is one chain of fused multiply-adds over the inputs, from the first to the last, and no
//! other operation. So it has the same bits in any tile, in any batch, on any number of threads and in every instruction
//! set with a fused multiply-add. The tiling of the loops is therefore free.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::panel::{PANEL, Row, prefetch};

/// `out += x Wᵀ` for some panels of outputs.
pub(crate) struct Product<'a, 'b> {
    /// A panel for each panel of `out`, of `stride` rows: one for each input, and optionally the bias, which is not
    /// read. More panels may follow; the first ones are prefetched for the next product.
    pub(crate) weight: &'a [Row],
    pub(crate) stride: usize,
    /// The panels of inputs, with a row for each image.
    pub(crate) x: &'a [&'a [Row]],
    /// Whether the sums start from zero instead of what `out` holds.
    pub(crate) from_zero: bool,
    /// The panels of outputs, with a row for each image.
    pub(crate) out: &'a mut [&'b mut [Row]],
}

/// The number of panels of inputs, and of images, that are multiplied by all `weight` panels before the next ones are. Such
/// a block of the inputs takes 295 kB, and the weights of [`WIDE`] panels take 524 kB: together less than a second-level
/// cache of 1 MB.
const DEPTH: usize = 32;
const IMAGES: usize = 144;

/// The largest useful number of panels of a product.
const WIDE: usize = 16;

/// Divides `panels` panels among the threads: the number of panels of a product.
pub(crate) fn group(panels: usize, images: usize, threads: usize) -> usize {
    if images == 1 {
        return GROUP;
    }
    let wide = if images > 32 { WIDE } else { PAIR };
    let time = |group: usize| panels.div_ceil(group).div_ceil(threads.max(1)) * group;
    (1..=wide.div_euclid(PAIR))
        .rev()
        .map(|pairs| pairs * PAIR)
        .min_by_key(|&group| time(group))
        .unwrap_or(PAIR)
}

/// The number of panels of outputs that share the loads of the inputs.
pub(crate) const PAIR: usize = 2;

/// The number of panels that [`one_image`] computes together.
pub(crate) const GROUP: usize = 4;

impl WithSimd for Product<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 1, PAIR, 12>(simd),
            8 => self.run::<S, 2, 1, 6>(simd),
            4 => self.run::<S, 4, 1, 6>(simd),
            _ => self.run::<S, PANEL, 1, 1>(simd),
        }
    }
}

impl Product<'_, '_> {
    /// Runs the product with `V` registers for each row, `P` panels, and at most `N` images in registers.
    #[inline(always)]
    fn run<S: Simd, const V: usize, const P: usize, const N: usize>(self, simd: S) {
        let Self { weight, stride, x, from_zero, out } = self;
        let inputs = x.len() * PANEL;
        if let ([a, b, c, d], true) = (&mut *out, x.first().is_some_and(|panel| panel.len() == 1)) {
            let weights = std::array::from_fn(|panel| &weight[panel * stride..][..inputs]);
            return one_image::<S, V>(simd, weights, x, from_zero, [a, b, c, d]);
        }
        let images = x.first().map_or(0, |panel| panel.len());
        let (pairs, panels_of_out) = (out.len().div_ceil(P), out.len());
        for (at, x) in x.chunks(DEPTH).enumerate() {
            let first = at * DEPTH * PANEL;
            let deeper = first + x.len() * PANEL;
            let blocks = images.div_ceil(IMAGES);
            let bound = |block: usize| (images * block).div_euclid(blocks);
            for block in 0..blocks {
                let rows = bound(block)..bound(block + 1);
                for (i, out) in out.chunks_mut(P).enumerate() {
                    // The other blocks of images find the weights in the cache.
                    let next = match (block, i + 1 < pairs) {
                        (0, true) => (i + 1) * P * stride + first,
                        (0, false) if deeper < inputs => deeper,
                        (0, false) => panels_of_out * stride,
                        _ => weight.len(),
                    };
                    let next = weight.get(next..).unwrap_or_default();
                    let weight = &weight[i * P * stride + first..];
                    if let Ok(out) = <&mut [&mut [Row]; P]>::try_from(&mut *out) {
                        let weight = std::array::from_fn(|panel| &weight[panel * stride..]);
                        panels::<S, V, P, N>(
                            simd,
                            weight,
                            x,
                            rows.clone(),
                            from_zero && at == 0,
                            out,
                            [next, if P == PAIR { next.get(stride..).unwrap_or_default() } else { &[] }],
                        );
                    } else if let [out] = out {
                        panels::<S, V, 1, N>(
                            simd,
                            [weight],
                            x,
                            rows.clone(),
                            from_zero && at == 0,
                            &mut [out],
                            [next, &[]],
                        );
                    }
                }
            }
        }
    }
}

/// Computes these rows of `P` panels of outputs in tiles of nearly equal size, of at most `N` images.
#[inline(always)]
fn panels<S: Simd, const V: usize, const P: usize, const N: usize>(
    simd: S,
    weight: [&[Row]; P],
    x: &[&[Row]],
    rows: Range<usize>,
    from_zero: bool,
    out: &mut [&mut [Row]; P],
    next: [&[Row]; PAIR],
) {
    let tiles = rows.len().div_ceil(N);
    let mut first = rows.start;
    for i in 1..=tiles {
        let end = rows.start + (rows.len() * i).div_euclid(tiles);
        let prefetched = (PANEL * (i - 1)).div_euclid(tiles)..(PANEL * i).div_euclid(tiles);
        let tile = Tile { first, from_zero, prefetched };
        match end - first {
            12 => tile_of::<S, V, P, 12>(simd, weight, x, &tile, out, next),
            11 => tile_of::<S, V, P, 11>(simd, weight, x, &tile, out, next),
            10 => tile_of::<S, V, P, 10>(simd, weight, x, &tile, out, next),
            9 => tile_of::<S, V, P, 9>(simd, weight, x, &tile, out, next),
            8 => tile_of::<S, V, P, 8>(simd, weight, x, &tile, out, next),
            7 => tile_of::<S, V, P, 7>(simd, weight, x, &tile, out, next),
            6 => tile_of::<S, V, P, 6>(simd, weight, x, &tile, out, next),
            5 => tile_of::<S, V, P, 5>(simd, weight, x, &tile, out, next),
            4 => tile_of::<S, V, P, 4>(simd, weight, x, &tile, out, next),
            3 => tile_of::<S, V, P, 3>(simd, weight, x, &tile, out, next),
            2 => tile_of::<S, V, P, 2>(simd, weight, x, &tile, out, next),
            _ => tile_of::<S, V, P, 1>(simd, weight, x, &tile, out, next),
        }
        first = end;
    }
}

/// A tile of a product.
struct Tile {
    /// Its first image.
    first: usize,
    from_zero: bool,
    /// With each sixteen inputs, it prefetches these of the sixteen rows of the next weights.
    prefetched: Range<usize>,
}

/// Computes a tile: `N` images from `first` on, whose sums stay in registers from the first input to the last.
#[inline(always)]
fn tile_of<S: Simd, const V: usize, const P: usize, const N: usize>(
    simd: S,
    weight: [&[Row]; P],
    x: &[&[Row]],
    tile: &Tile,
    out: &mut [&mut [Row]; P],
    next: [&[Row]; PAIR],
) {
    let Tile { first, from_zero, ref prefetched } = *tile;
    let mut sums = [[[simd.splat_f32s(0.0); V]; N]; P];
    if !from_zero {
        for (sums, out) in sums.iter_mut().zip(&*out) {
            for (sums, row) in sums.iter_mut().zip(&out[first..]) {
                *sums = vectors::<S, V>(row);
            }
        }
    }
    for (inputs, x) in x.iter().enumerate() {
        for next in next {
            let rows = next.get(inputs * PANEL + prefetched.start..inputs * PANEL + prefetched.end);
            rows.unwrap_or_default().iter().for_each(prefetch);
        }
        let Ok(x) = <&[Row; N]>::try_from(&x[first..first + N]) else { return };
        let weight: [&[Row]; P] = std::array::from_fn(|p| &weight[p][inputs * PANEL..][..PANEL]);
        for k in 0..PANEL {
            let weight: [[S::f32s; V]; P] = std::array::from_fn(|p| vectors::<S, V>(&weight[p][k]));
            for (image, x) in x.iter().enumerate() {
                let x = simd.splat_f32s(x.0[k]);
                for p in 0..P {
                    for v in 0..V {
                        sums[p][image][v] = simd.mul_add_f32s(weight[p][v], x, sums[p][image][v]);
                    }
                }
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        for (sums, row) in sums.iter().zip(&mut out[first..]) {
            store::<S, V>(sums, row);
        }
    }
}

/// Loads a row into registers.
#[inline(always)]
pub(crate) fn vectors<S: Simd, const V: usize>(row: &Row) -> [S::f32s; V] {
    let (vectors, _) = S::as_simd_f32s(&row.0);
    std::array::from_fn(|v| vectors[v])
}

/// Stores registers into a row.
#[inline(always)]
pub(crate) fn store<S: Simd, const V: usize>(vectors: &[S::f32s; V], row: &mut Row) {
    let (to, _) = S::as_mut_simd_f32s(&mut row.0);
    to[..V].copy_from_slice(vectors);
}

/// Computes several panels of outputs for one image: with a single panel, each multiply-add would wait for the one
/// before.
#[inline(always)]
fn one_image<S: Simd, const V: usize>(
    simd: S,
    [a, b, c, d]: [&[Row]; GROUP],
    x: &[&[Row]],
    from_zero: bool,
    out: [&mut &mut [Row]; GROUP],
) {
    let start = |panel: usize| vectors::<S, V>(if from_zero { &Row::ZERO } else { &out[panel][0] });
    let mut sums: [[S::f32s; V]; GROUP] = std::array::from_fn(start);
    let ab = a.chunks_exact(PANEL).zip(b.chunks_exact(PANEL));
    let cd = c.chunks_exact(PANEL).zip(d.chunks_exact(PANEL));
    for (((a, b), (c, d)), x) in ab.zip(cd).zip(x) {
        for (k, &x) in x[0].0.iter().enumerate() {
            let x = simd.splat_f32s(x);
            for (sums, weight) in sums.iter_mut().zip([a, b, c, d]) {
                let weight = vectors::<S, V>(&weight[k]);
                for v in 0..V {
                    sums[v] = simd.mul_add_f32s(weight[v], x, sums[v]);
                }
            }
        }
    }
    for (out, sums) in out.into_iter().zip(&sums) {
        store::<S, V>(sums, &mut out[0]);
    }
}

#[cfg(test)]
mod tests;
