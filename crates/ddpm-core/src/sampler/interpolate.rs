//! Interpolation between images.

use candle_core::{D, DType, Device, Tensor};

use crate::{NoiseSchedule, Result, weighted_sum::weighted_sum};

/// Mixes two images at timestep `t` (Ho et al. 2020, section 4.3 and figure 8):
///
/// ```text
/// xₜ = (1−λ) q(xₜ given a) + λ q(xₜ given b)
/// ```
///
/// Denoise the result with any sampler and a list of timesteps that starts at `t`. A larger `t` gives a coarser and
/// more varied interpolation. `a`, `b`, `eps_a` and `eps_b` have the shape [B, …]. λ is between 0 and 1; the paper uses
/// the same noise for all λ. If `eps_a` and `eps_b` are independent, the noise of the mixture has a smaller variance
/// than 1 − ᾱₜ, half of it at λ = ½. If they are equal, the variance is 1 − ᾱₜ.
///
/// # Errors
///
/// If `t` is out of range or the shapes differ.
pub fn interpolate(
    schedule: &NoiseSchedule,
    t: usize,
    [a, b]: [&Tensor; 2],
    [eps_a, eps_b]: [&Tensor; 2],
    lambda: f64,
) -> Result<Tensor> {
    let (a, b) = (schedule.q_sample(a, &[t], eps_a)?, schedule.q_sample(b, &[t], eps_b)?);
    weighted_sum(&[(1.0 - lambda, &a), (lambda, &b)])
}

/// Spherical interpolation of each image of a batch (Shoemake 1985; Song et al. 2021, section 5.3). It preserves the
/// norm of noise, so use it for start images and for encodings by [`ddim_inverse`](super::ddim_inverse).
///
/// ```text
/// sin((1−λ)θ)/sin θ · a + sin(λθ)/sin θ · b,   θ the angle between a and b
/// ```
///
/// If the two are nearly parallel, the interpolation is linear.
///
/// # Errors
///
/// If the shapes differ or candle fails.
pub fn slerp(a: &Tensor, b: &Tensor, lambda: f64) -> Result<Tensor> {
    // The angle is computed in f64 on the CPU: squares overflow in half precision, and not every device has f64.
    let flat =
        |x: &Tensor| x.unsqueeze(x.rank())?.flatten_from(1)?.to_device(&Device::Cpu)?.to_dtype(DType::F64);
    let dot = |x: &Tensor, y: &Tensor| x.mul(y)?.sum(D::Minus1);
    let (x, y) = (flat(a)?, flat(b)?);
    let cosine = (dot(&x, &y)? / (dot(&x, &x)? * dot(&y, &y)?)?.sqrt()?)?;
    let factors = |cosine: f64| {
        let angle = cosine.clamp(-1.0, 1.0).acos();
        // Images of norm 0 have no angle, so they are interpolated linearly too.
        if angle.sin().is_nan() || angle.sin() < 1e-6 {
            return (1.0 - lambda, lambda);
        }
        (((1.0 - lambda) * angle).sin() / angle.sin(), (lambda * angle).sin() / angle.sin())
    };
    let images: Vec<Tensor> = std::iter::zip(0.., cosine.to_vec1::<f64>()?)
        .map(|(image, cosine)| {
            let (factor_a, factor_b) = factors(cosine);
            weighted_sum(&[(factor_a, &a.narrow(0, image, 1)?), (factor_b, &b.narrow(0, image, 1)?)])
        })
        .collect::<Result<_>>()?;
    if images.is_empty() { Ok(a.clone()) } else { Ok(Tensor::cat(&images, 0)?) }
}
