//! Interpolation between images.

use candle_core::{D, DType, Device, Tensor};

use crate::{NoiseSchedule, Result, weighted_sum::weighted_sum};

/// A point between two images at timestep `t` (Ho et al. 2020, section 4.3 and figure 8):
///
/// ```text
/// xₜ = (1−λ) q(xₜ given a) + λ q(xₜ given b)
/// ```
///
/// Denoise it with any sampler and a list of timesteps that starts at `t`. A larger `t` gives a coarser and
/// more varied image between the two. `a`, `b` and the noises are [B, …]; the paper keeps the noises while λ
/// goes from 0 to 1. With different noises the mixture has less variance than level `t` (half of it in the
/// middle), with the same one it does not.
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

/// Spherical interpolation of each image of a batch (Shoemake 1985; Song et al. 2021, section 5.3), which keeps
/// the norm of noise: for encodings by [`ddim_inverse`](super::ddim_inverse), and for starts.
///
/// ```text
/// sin((1−λ)θ)/sin θ · a + sin(λθ)/sin θ · b,   θ the angle between a and b
/// ```
///
/// Where the two are nearly parallel it is linear.
///
/// # Errors
///
/// If the shapes differ or the tensor library fails.
pub fn slerp(a: &Tensor, b: &Tensor, lambda: f64) -> Result<Tensor> {
    // On the CPU in f64: the squares leave the range of half precision, and not every device has f64.
    let flat =
        |x: &Tensor| x.unsqueeze(x.rank())?.flatten_from(1)?.to_device(&Device::Cpu)?.to_dtype(DType::F64);
    let dot = |x: &Tensor, y: &Tensor| x.mul(y)?.sum(D::Minus1);
    let (x, y) = (flat(a)?, flat(b)?);
    let cosine = (dot(&x, &y)? / (dot(&x, &x)? * dot(&y, &y)?)?.sqrt()?)?;
    let factors = |cosine: f64| {
        let angle = cosine.clamp(-1.0, 1.0).acos();
        // Not for black images either, of which there is no angle.
        if angle.sin().is_nan() || angle.sin() < 1e-6 {
            return (1.0 - lambda, lambda);
        }
        (((1.0 - lambda) * angle).sin() / angle.sin(), (lambda * angle).sin() / angle.sin())
    };
    let images: Vec<Tensor> = std::iter::zip(0.., cosine.to_vec1::<f64>()?)
        .map(|(image, cosine)| {
            let (of_a, of_b) = factors(cosine);
            weighted_sum(&[(of_a, &a.narrow(0, image, 1)?), (of_b, &b.narrow(0, image, 1)?)])
        })
        .collect::<Result<_>>()?;
    if images.is_empty() { Ok(a.clone()) } else { Ok(Tensor::cat(&images, 0)?) }
}
