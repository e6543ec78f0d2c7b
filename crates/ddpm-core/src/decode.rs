//! From a network's output to x̂₀ and a learned variance.

use candle_core::{D, Device, Tensor};

use crate::{
    Error, NoiseSchedule, Result, Timestep,
    error::BoxError,
    plan::{Clip, Operation, Plan, Register, Term},
    weighted_sum::{at_least_f32, keep_nan, per_image, weighted_sum_within},
};

/// A network's output at xₜ, in the type of xₜ.
pub(crate) struct Prediction {
    /// x̂₀, clipped.
    pub(crate) x_start: Tensor,
    /// ε̂, not clipped.
    pub(crate) eps: Option<Tensor>,
    /// The second half of an output with a learned variance, in [−1, 1]: the position of ln σ² between ln β̃ and ln β.
    pub(crate) variance: Option<Tensor>,
}

/// Evaluates a network, and decodes its output as the schedule says.
pub(crate) fn predict<E: Into<BoxError>>(
    schedule: &NoiseSchedule,
    x_t: &Tensor,
    timestep: Timestep,
    network: &mut impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, E>,
) -> Result<Prediction> {
    let mut plan = Plan::new(schedule);
    plan.evaluate(timestep);
    let output = network(x_t, timestep).map_err(|source| Error::Network(source.into()))?;
    decode(&plan, &plan.operations()[0], x_t, &output)
}

/// Decodes the output of an evaluation: splits off a learned variance, computes x̂₀ and clips it, and computes ε̂ if the
/// plan uses it.
pub(crate) fn decode(
    plan: &Plan,
    evaluation: &Operation,
    x_t: &Tensor,
    output: &Tensor,
) -> Result<Prediction> {
    let Operation::Evaluate { x_start, eps, .. } = evaluation else { return Err(Error::NothingAsked) };
    let output = output.to_dtype(x_t.dtype())?;
    let (output, variance) = if plan.learned_variance() { split(&output, x_t)? } else { (output, None) };
    if output.dims() != x_t.dims() {
        return Err(wrong_output(&output, format!("{:?}, the shape of the images", x_t.dims())));
    }
    let sum = |terms: &[Term], range: f64| {
        let terms = terms.iter().map(|&(factor, register)| match register {
            Register::X => Ok((factor, x_t)),
            Register::Output => Ok((factor, &output)),
            other => Err(Error::out_of_range("a term of a prediction", format!("{other:?}"), "X or Output")),
        });
        match &terms.collect::<Result<Vec<_>>>()?[..] {
            [(1.0, same)] if range.is_infinite() => Ok((*same).clone()),
            terms => weighted_sum_within(terms, range),
        }
    };
    let x_start = match plan.clip() {
        Clip::None => sum(x_start, f64::INFINITY)?,
        Clip::Range(range) => sum(x_start, range)?,
        Clip::Dynamic { ratio, max } => threshold(&sum(x_start, f64::INFINITY)?, ratio, max)?,
    };
    let uses_eps = plan.depths()[1] > 0;
    let eps = if uses_eps { Some(sum(eps, f64::INFINITY)?) } else { None };
    Ok(Prediction { x_start, eps, variance })
}

fn wrong_output(output: &Tensor, expected: String) -> Error {
    Error::out_of_range("the shape of the network's output", format!("{:?}", output.dims()), expected)
}

/// Splits an output into its two halves along dimension 1: the prediction and the learned variance.
fn split(output: &Tensor, x_t: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let fits = match (output.dims(), x_t.dims()) {
        ([b, w, rest @ ..], [image_b, image_w, image_rest @ ..]) => {
            b == image_b && *w == 2 * image_w && rest == image_rest
        }
        _ => false,
    };
    if !fits {
        let expected =
            format!("{:?} with twice the width in dimension 1, for a learned variance", x_t.dims());
        return Err(wrong_output(output, expected));
    }
    let width = x_t.dim(1)?;
    let half = |start| output.narrow(1, start, width)?.contiguous();
    Ok((half(0)?, Some(half(width)?)))
}

/// ln σ² = f ln β + (1−f) ln β̃ with f = (v+1)/2 (Nichol & Dhariwal 2021, eq. 15).
pub(crate) fn learned_log_variance(v: &Tensor, small: f64, large: f64) -> Result<Tensor> {
    let (low, high) = (small.ln(), large.ln());
    Ok(v.affine((high - low) / 2.0, f64::midpoint(low, high))?)
}

/// Dynamic thresholding, [`Clip::Dynamic`].
fn threshold(x_start: &Tensor, ratio: f64, max: f64) -> Result<Tensor> {
    let magnitudes = x_start.unsqueeze(x_start.rank())?.flatten_from(1)?.abs()?;
    // On the CPU: candle's sort on CUDA has a limit on the length.
    let magnitudes = at_least_f32(&magnitudes.to_device(&Device::Cpu)?)?.contiguous()?;
    let (sorted, _) = magnitudes.sort_last_dim(true)?;
    // The quantile is interpolated linearly between two neighbours, as in numpy and PyTorch.
    let last = sorted.dim(D::Minus1)? - 1;
    let place = ratio * last as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the last index")]
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let at = |index: usize| sorted.narrow(1, index, 1);
    let s = ((at(below)? * (1.0 - place.fract()))? + (at(above)? * place.fract())?)?;
    let s = s.clamp(1.0, max)?.to_dtype(x_start.dtype())?.to_device(x_start.device())?;
    let s = per_image(&s, x_start)?.broadcast_as(x_start.shape())?.contiguous()?;
    let clipped = x_start.minimum(&s)?.maximum(&s.neg()?)?.div(&s)?;
    Ok(keep_nan(x_start, &clipped)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More numbers than fit in the shared memory of a GPU, where candle's sort would fail.
    #[test]
    fn an_image_of_any_size_is_thresholded_and_keeps_its_nan() {
        let size = 3 * 64 * 64;
        let values: Vec<f32> = (0..size).map(|i| (i * 7919 % size) as f32 / 1000.0).collect();
        let mut with_nan = values.clone();
        with_nan[5] = f32::NAN;
        let x_start =
            Tensor::from_vec([values.clone(), with_nan].concat(), (2, 3, 64, 64), &Device::Cpu).unwrap();
        let found =
            threshold(&x_start, 0.75, 100.0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // A permutation of 0 to size − 1 in thousandths: the quantile is known.
        let s = 0.75 * (size - 1) as f32 / 1000.0;
        for (found, value) in std::iter::zip(&found[..size], &values) {
            assert!((found - value.min(s) / s).abs() < 1e-6, "{found} of {value}");
        }
        assert!(found[size + 5].is_nan());
    }
}
