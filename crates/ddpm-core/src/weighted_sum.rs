//! Weighted sums of tensors in one pass over memory. Samplers need no other operation on images.

use candle_core::{DType, Device, Storage, Tensor, WithDType};
use rayon::prelude::*;

use crate::{Error, Result};

/// The number of values for which another thread is worth waking.
const PIECE: usize = 1 << 16;

/// The number of values of the sum that stay in the first-level cache while all terms are added.
const BLOCK: usize = 1 << 12;

/// Computes Σ factor · tensor over one or more tensors of the same shape. Each factor is rounded once, to the
/// tensors' type. The terms are added in order, from the first to the last.
///
/// On a CPU this reads each tensor once and writes the result once. On other devices, and for tensors that track
/// gradients, candle's tensor operations compute the same sum.
pub(crate) fn weighted_sum(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    weighted_sum_within(terms, f64::INFINITY)
}

/// [`weighted_sum`], clipped to ±`range`.
pub(crate) fn weighted_sum_within(terms: &[(f64, &Tensor)], range: f64) -> Result<Tensor> {
    let (first_factor, first) = terms[0];
    for (_, tensor) in terms {
        if tensor.dims() != first.dims() {
            return Err(Error::Shapes { first: first.dims().to_vec(), second: tensor.dims().to_vec() });
        }
    }
    if let Some(sum) = on_cpu::<f32>(terms, range)? {
        return Ok(sum);
    }
    if let Some(sum) = on_cpu::<f64>(terms, range)? {
        return Ok(sum);
    }
    let mut sum = (first * first_factor)?;
    for &(factor, tensor) in &terms[1..] {
        sum = (sum + (tensor * factor)?)?;
    }
    if range.is_finite() { Ok(keep_nan(&sum, &sum.clamp(-range, range)?)?) } else { Ok(sum) }
}

/// `clipped`, but NaN where `x` is NaN. On CUDA and Metal the minimum or maximum of NaN and a number is the number, so a
/// clipped NaN would be an ordinary pixel.
pub(crate) fn keep_nan(x: &Tensor, clipped: &Tensor) -> candle_core::Result<Tensor> {
    x.eq(x)?.where_cond(clipped, x)
}

/// Converts a tensor to f32, for computations that half precision is too coarse for. A tensor in f64 stays f64.
pub(crate) fn at_least_f32(tensor: &Tensor) -> candle_core::Result<Tensor> {
    tensor.to_dtype(if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 })
}

/// Reshapes one value for each image, [B] or [B, 1], to [B, 1, …], which broadcasts over `images`, [B, …].
pub(crate) fn per_image(values: &Tensor, images: &Tensor) -> candle_core::Result<Tensor> {
    let mut shape = vec![1; images.rank()];
    if let Some(batch) = shape.first_mut() {
        *batch = values.elem_count();
    }
    values.reshape(shape)
}

/// Returns `None` unless all tensors are contiguous, of type `T`, on the CPU, and without gradient tracking.
fn on_cpu<T: WithDType>(terms: &[(f64, &Tensor)], range: f64) -> Result<Option<Tensor>> {
    let is_supported = |tensor: &Tensor| {
        tensor.device().is_cpu() && tensor.dtype() == T::DTYPE && tensor.is_contiguous() && !tensor.track_op()
    };
    if !terms.iter().all(|(_, tensor)| is_supported(tensor)) {
        return Ok(None);
    }
    let (shape, count) = (terms[0].1.shape(), terms[0].1.elem_count());
    let locked: Vec<_> = terms.iter().map(|(_, tensor)| tensor.storage_and_layout()).collect();
    let mut values = Vec::with_capacity(terms.len());
    for ((factor, _), (storage, layout)) in std::iter::zip(terms, &locked) {
        let Storage::Cpu(storage) = &**storage else { return Ok(None) };
        let slice = T::cpu_storage_as_slice(storage)?;
        values.push((T::from_f64(*factor), &slice[layout.start_offset()..][..count]));
    }
    let mut sum = vec![T::zero(); count];
    let blocks = |(piece, sum): (usize, &mut [T])| {
        for (block, sum) in sum.chunks_mut(BLOCK).enumerate() {
            let first = piece * PIECE + block * BLOCK;
            for (at, &(factor, values)) in values.iter().enumerate() {
                let values = &values[first..][..sum.len()];
                if at == 0 {
                    std::iter::zip(&mut *sum, values).for_each(|(sum, &value)| *sum = value * factor);
                } else {
                    std::iter::zip(&mut *sum, values).for_each(|(sum, &value)| *sum += value * factor);
                }
            }
            if range.is_finite() {
                sum.iter_mut().for_each(|sum| *sum = clip(*sum, T::from_f64(range)));
            }
        }
    };
    // A single piece needs no other thread: handing it to the pool would take longer than the work.
    if count <= PIECE {
        blocks((0, &mut sum));
    } else {
        sum.par_chunks_mut(PIECE).enumerate().for_each(blocks);
    }
    Ok(Some(Tensor::from_vec(sum, shape, &Device::Cpu)?))
}

/// `x` clipped to ±`range`; NaN stays NaN.
fn clip<T: WithDType>(x: T, range: T) -> T {
    let low = T::zero() - range;
    if x < low {
        low
    } else if x > range {
        range
    } else {
        x
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    /// Tensors of more than one piece; two of them are views with an offset.
    fn terms(dtype: DType) -> [Tensor; 3] {
        let long = Tensor::arange(0.0_f64, 200_000.0, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        [0, 7, 99_999].map(|start| long.narrow(0, start, 100_000).unwrap().reshape((10, 10_000)).unwrap())
    }

    #[test]
    fn the_fast_sum_is_the_sum_by_tensor_operations_bit_for_bit() {
        for dtype in [DType::F32, DType::F64] {
            let [a, b, c] = terms(dtype);
            let fast = weighted_sum(&[(0.3, &a), (-1.7, &b), (1e-3, &c)]).unwrap();
            let slow =
                ((((&a * 0.3).unwrap() + (&b * -1.7).unwrap()).unwrap()) + (&c * 1e-3).unwrap()).unwrap();
            let bits = |x: Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>();
            assert_eq!(bits(fast).unwrap(), bits(slow).unwrap());
        }
    }

    #[test]
    fn clipping_is_candles_clamp_and_keeps_nan() {
        let [a, b, _] = terms(DType::F32);
        let values = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let clipped = weighted_sum_within(&[(1.0, &a), (-2.0, &b)], 50.0).unwrap();
        let sum = weighted_sum(&[(1.0, &a), (-2.0, &b)]).unwrap();
        assert_eq!(values(clipped), values(sum.clamp(-50.0, 50.0).unwrap()));
        let nan = Tensor::new(&[f32::NAN, 2.0, -2.0, 0.5], &Device::Cpu).unwrap();
        let clipped = values(weighted_sum_within(&[(1.0, &nan)], 1.0).unwrap());
        assert!(clipped[0].is_nan() && clipped[1..] == [1.0, -1.0, 0.5]);
    }

    /// As after a clip on CUDA, where the NaN is lost. What was infinite stays clipped.
    #[test]
    fn a_nan_that_a_device_clips_is_put_back() {
        let tensor = |values: [f32; 4]| Tensor::new(&values, &Device::Cpu).unwrap();
        let x = tensor([f32::NAN, 2.0, f32::INFINITY, 0.5]);
        let kept = keep_nan(&x, &tensor([-1.0, 1.0, 1.0, 0.5])).unwrap().to_vec1::<f32>().unwrap();
        assert!(kept[0].is_nan() && kept[1..] == [1.0, 1.0, 0.5], "{kept:?}");
    }

    #[test]
    fn gradients_pass_a_clip_only_where_it_changes_nothing() {
        let x = Var::new(&[-2.0_f32, -0.5, 0.5, 2.0], &Device::Cpu).unwrap();
        let clipped = weighted_sum_within(&[(3.0, &x)], 2.0).unwrap();
        let gradient = clipped.sum_all().unwrap().backward().unwrap().get(&x).unwrap().clone();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [0.0, 3.0, 3.0, 0.0]);
    }

    #[test]
    fn gradients_and_other_layouts_go_through_tensors() {
        let [a, b, _] = terms(DType::F32);
        let a = Var::from_tensor(&a).unwrap();
        let sum = weighted_sum(&[(2.0, &a), (3.0, &b)]).unwrap();
        let gradient = sum.sum_all().unwrap().backward().unwrap().get(&a).unwrap().clone();
        assert_eq!(gradient.mean_all().unwrap().to_scalar::<f32>().unwrap(), 2.0);
        let (a, b) = (a.t().unwrap(), b.t().unwrap());
        let sum = weighted_sum(&[(2.0, &a), (3.0, &b)]).unwrap();
        assert_eq!(sum.narrow(0, 5, 1).unwrap().to_vec2::<f32>().unwrap()[0][0], 2.0 * 5.0 + 3.0 * 12.0);
    }

    #[test]
    fn different_shapes_are_refused() {
        let [a, ..] = terms(DType::F32);
        let failed = weighted_sum(&[(1.0, &a), (1.0, &a.narrow(0, 0, 1).unwrap())]);
        assert!(matches!(failed, Err(Error::Shapes { .. })));
    }
}
