//! The kernels. Loops are plain f32 arithmetic without fused operations, compiled for each instruction set
//! and chosen when the program runs, so that they give the same bits on all of them; only the matrix
//! products of the `gemm` crate depend on the instruction set.
//!
//! This is the one module of the libraries with `unsafe` code: the call of `gemm`.

use gemm::Parallelism;
use pulp::Arch;
use rayon::prelude::*;

/// The length of a piece of an elementwise loop that one thread works on at a time.
const CHUNK: usize = 8 * 1024;

/// A matrix in memory with the distances between its rows and between its columns.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols);
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    fn transposed(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// The rows from `first` on, `count` of them.
    fn row_range(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows);
        Self { data: &self.data[first * self.row_stride..], rows: count, ..self }
    }
}

/// `dst = lhs · rhs`, or `dst += lhs · rhs`; `dst` is row by row.
#[allow(unsafe_code, reason = "gemm takes pointers and strides")]
fn gemm(dst: &mut [f32], lhs: Matrix<'_>, rhs: Matrix<'_>, accumulate: bool) {
    let (m, k, n) = (lhs.rows, lhs.cols, rhs.cols);
    assert_eq!((dst.len(), rhs.rows), (m * n, k));
    for matrix in [lhs, rhs] {
        let last = (matrix.rows - 1) * matrix.row_stride + (matrix.cols - 1) * matrix.col_stride;
        assert!(last < matrix.data.len());
    }
    let stride = usize::cast_signed;
    // SAFETY: `dst` is exclusively ours and has m·n elements, addressed as row·n + column. The largest index
    // into each source was checked above, and f32 has no invalid values.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            stride(n),
            accumulate,
            lhs.data.as_ptr(),
            stride(lhs.col_stride),
            stride(lhs.row_stride),
            rhs.data.as_ptr(),
            stride(rhs.col_stride),
            stride(rhs.row_stride),
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// The rows of a tile of a product with `rows` rows: an eighth, in whole registers.
fn tile(rows: usize) -> usize {
    rows.div_ceil(8).next_multiple_of(8).max(32)
}

/// `dst = lhs · rhs` (or `+=`) by tiles of rows, in parallel; `prepare` sees each tile first.
fn tiled(
    dst: &mut [f32],
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    accumulate: bool,
    prepare: impl Fn(usize, &mut [f32]) + Sync,
) {
    let rows = tile(lhs.rows);
    dst.par_chunks_mut(rows * rhs.cols).enumerate().for_each(|(i, tile)| {
        let first = i * rows;
        prepare(first, tile);
        gemm(tile, lhs.row_range(first, rows.min(lhs.rows - first)), rhs, accumulate);
    });
}

/// `out = W x + b (+ add)`: `out` and `add` are [outputs, B], `weight` [outputs, inputs], `x` [inputs, B].
pub(super) fn linear(
    out: &mut [f32],
    weight: &[f32],
    bias: &[f32],
    x: &[f32],
    add: Option<&[f32]>,
    batch: usize,
) {
    let (outputs, inputs) = (bias.len(), size(x.len(), batch));
    let (weight, x) = (Matrix::new(weight, outputs, inputs), Matrix::new(x, inputs, batch));
    tiled(out, weight, x, true, |first, tile| {
        let bias = &bias[first..];
        for ((row, &bias), i) in tile.chunks_mut(batch).zip(bias).zip(first..) {
            match add {
                Some(add) => {
                    for (value, add) in row.iter_mut().zip(&add[i * batch..]) {
                        *value = bias + add;
                    }
                }
                None => row.fill(bias),
            }
        }
    });
}

/// ∂W = ∂out · xᵀ, [outputs, inputs].
pub(super) fn weight_gradient(gradient: &mut [f32], upstream: &[f32], x: &[f32], batch: usize) {
    let (outputs, inputs) = (size(upstream.len(), batch), size(x.len(), batch));
    let (upstream, x) = (Matrix::new(upstream, outputs, batch), Matrix::new(x, inputs, batch));
    tiled(gradient, upstream, x.transposed(), false, |_, _| {});
}

/// ∂b, the sum of ∂out over the batch.
pub(super) fn bias_gradient(gradient: &mut [f32], upstream: &[f32], batch: usize) {
    for (sum, row) in gradient.iter_mut().zip(upstream.chunks(batch)) {
        *sum = row.iter().sum();
    }
}

/// ∂x = Wᵀ · ∂out, [inputs, B], written or added.
pub(super) fn input_gradient(
    gradient: &mut [f32],
    weight: &[f32],
    upstream: &[f32],
    batch: usize,
    more: bool,
) {
    let (outputs, inputs) = (size(upstream.len(), batch), size(gradient.len(), batch));
    let (weight, upstream) = (Matrix::new(weight, outputs, inputs), Matrix::new(upstream, outputs, batch));
    tiled(gradient, weight.transposed(), upstream, more, |_, _| {});
}

/// `out = x · sigmoid(x)`.
pub(super) fn silu(x: &[f32], out: &mut [f32]) {
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
        Arch::new().dispatch(|| {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = x * sigmoid(x);
            }
        });
    });
}

/// ∂x = ∂out · s(1 + x(1 − s)) with s = sigmoid(x), written or added.
pub(super) fn silu_gradient(x: &[f32], upstream: &[f32], gradient: &mut [f32], more: bool) {
    let pieces = gradient.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(upstream.par_chunks(CHUNK));
    pieces.for_each(|((gradient, x), upstream)| {
        Arch::new().dispatch(|| {
            for ((gradient, &x), &upstream) in gradient.iter_mut().zip(x).zip(upstream) {
                let s = sigmoid(x);
                // A choice of numbers, not of branches: the loop stays vector code.
                let before = if more { *gradient } else { 0.0 };
                *gradient = before + upstream * (s * (1.0 + x * (1.0 - s)));
            }
        });
    });
}

/// `to += from`.
pub(super) fn add(from: &[f32], to: &mut [f32]) {
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    });
}

/// `to` [cols, rows] is the transpose of `from` [rows, cols].
pub(super) fn transpose(from: &[f32], to: &mut [f32], rows: usize) {
    const BLOCK: usize = 16;
    let cols = size(from.len(), rows);
    assert_eq!(from.len(), to.len());
    to.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(i, block)| {
        let first = i * BLOCK;
        for (row, from) in from.chunks(cols).enumerate() {
            for (to, from) in block.chunks_mut(rows).zip(&from[first..]) {
                to[row] = *from;
            }
        }
    });
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
    /// What a weight keeps: 1 − lr·λ.
    pub keep: f32,
    /// lr / (1 − β₁ᵏ).
    pub rate: f32,
    /// 1 / √(1 − β₂ᵏ).
    pub second_scale: f32,
    /// The average's decay d and 1 − d.
    pub ema: [f32; 2],
}

/// One step of AdamW and of the moving average, in one pass over memory. All slices are of one length.
pub fn adamw_ema(
    step: AdamwEma,
    weight: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    ema: &mut [f32],
) {
    let len = weight.len();
    assert!([gradient.len(), first.len(), second.len(), ema.len()] == [len; 4]);
    let AdamwEma { first: [b1, c1], second: [b2, c2], eps, keep, rate, second_scale, ema: [d, e] } = step;
    weight
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(first.par_chunks_mut(CHUNK))
        .zip(second.par_chunks_mut(CHUNK))
        .zip(ema.par_chunks_mut(CHUNK))
        .for_each(|((((weight, gradient), first), second), ema)| {
            Arch::new().dispatch(|| {
                let moments = first.iter_mut().zip(second);
                for (((w, &g), (m, v)), a) in weight.iter_mut().zip(gradient).zip(moments).zip(ema) {
                    *m = b1 * *m + c1 * g;
                    *v = b2 * *v + c2 * (g * g);
                    *w = keep * *w - rate * *m / (v.sqrt() * second_scale + eps);
                    *a = d * *a + e * *w;
                }
            });
        });
}

/// 1/(1 + e⁻ˣ).
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// eˣ to two units in the last place, without a branch: the polynomial of Moshier's Cephes library.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "a whole number from −127 to 127")]
fn exp(x: f32) -> f32 {
    // Where it would overflow or lose its precision; sigmoid is 0 or 1 to the last bit long before.
    let x = x.clamp(-87.0, 87.0);
    // Adding and subtracting 1.5·2²³ rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, so that the difference is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let y = p * (r * r) + r + 1.0;
    y * f32::from_bits((((n as i32) + 127) << 23).cast_unsigned())
}

/// The other dimension of a matrix of `len` elements.
fn size(len: usize, one: usize) -> usize {
    len.checked_div(one).unwrap_or(0)
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

    /// An odd shape, so that tiles and blocks are cut off, against the definition.
    #[test]
    fn products_are_those_of_the_definition() {
        let (outputs, inputs, batch) = (75, 41, 19);
        let numbers = |n: usize, k: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * k) % 101) as f32 / 50.0 - 1.0).collect()
        };
        let (weight, bias) = (numbers(outputs * inputs, 7), numbers(outputs, 3));
        let (x, add, upstream) =
            (numbers(inputs * batch, 11), numbers(outputs * batch, 5), numbers(outputs * batch, 13));
        let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-4, "{a} {b}");

        let mut out = vec![9.0; outputs * batch];
        linear(&mut out, &weight, &bias, &x, Some(&add), batch);
        let mut dx = vec![2.0; inputs * batch];
        input_gradient(&mut dx, &weight, &upstream, batch, true);
        let (mut dw, mut db) = (vec![9.0; outputs * inputs], vec![9.0; outputs]);
        weight_gradient(&mut dw, &upstream, &x, batch);
        bias_gradient(&mut db, &upstream, batch);
        for o in 0..outputs {
            close(db[o], (0..batch).map(|b| upstream[o * batch + b]).sum());
            for b in 0..batch {
                let product: f32 = (0..inputs).map(|i| weight[o * inputs + i] * x[i * batch + b]).sum();
                close(out[o * batch + b], product + bias[o] + add[o * batch + b]);
            }
            for i in 0..inputs {
                close(
                    dw[o * inputs + i],
                    (0..batch).map(|b| upstream[o * batch + b] * x[i * batch + b]).sum(),
                );
            }
        }
        for i in 0..inputs {
            for b in 0..batch {
                let product: f32 =
                    (0..outputs).map(|o| weight[o * inputs + i] * upstream[o * batch + b]).sum();
                close(dx[i * batch + b], 2.0 + product);
            }
        }
    }

    #[test]
    fn transposing_twice_gives_back_the_matrix() {
        let from: Vec<f32> = (0..37 * 53).map(|i| i as f32).collect();
        let (mut to, mut back) = (vec![0.0; from.len()], vec![0.0; from.len()]);
        transpose(&from, &mut to, 37);
        assert_eq!(to[37 * 2 + 5], from[53 * 5 + 2]);
        transpose(&to, &mut back, 53);
        assert_eq!(back, from);
    }
}
