//! Spherical interpolation between images.

use candle_core::{D, DType, Device, Tensor};

use crate::{Result, weighted_sum::weighted_sum};

/// Spherical interpolation of each image of a batch (Shoemake 1985; Song et al. 2021, section 5.3). It preserves the
/// norm of noise, so use it for start images and for encodings by [`Sampler::DdimInverse`](crate::Sampler::DdimInverse).
///
/// ```text
/// sin((1−λ)θ)/sin θ · a + sin(λθ)/sin θ · b,   θ the angle between a and b
/// ```
///
/// If the two are nearly parallel or nearly opposite, the interpolation is linear.
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
