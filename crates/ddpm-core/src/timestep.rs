//! A noise level at which a network is evaluated.

#[cfg(feature = "candle")]
use candle_core::{DType, Device, Tensor};

#[cfg(feature = "candle")]
use crate::weighted_sum::weighted_sum;
use crate::{NoiseSchedule, Result};

/// A noise level at which a network is evaluated: a timestep of the schedule, or a point between two timesteps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timestep {
    t: f64,
    alpha_cumprod: f64,
    /// √(signal² + noise²), 1 for a schedule of diffusion.
    scale: f64,
}

impl Timestep {
    /// The timestep `t` at the noise level ᾱ, from 0 to 1.
    #[must_use]
    pub fn new(t: f64, alpha_cumprod: f64) -> Self {
        Self { t, alpha_cumprod, scale: 1.0 }
    }

    /// The timestep `t` of another forward process: xₜ = `signal` x₀ + `noise` ε. Both are 0 or more, and not both are 0.
    #[must_use]
    pub fn with_signal_and_noise(t: f64, signal: f64, noise: f64) -> Self {
        let scale = signal.hypot(noise);
        Self { t, alpha_cumprod: (signal / scale).powi(2), scale }
    }

    /// The timestep, the network's argument. It is 0 to T − 1 for a timestep of a schedule, and an integer unless the list
    /// was made from noise levels σ, or by a class of diffusers that interpolates. With flow matching it is up to T.
    #[must_use]
    pub fn t(self) -> f64 {
        self.t
    }

    /// The nearest integer timestep, for networks that accept only integers.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "t lies between 0 and T")]
    pub fn index(self) -> usize {
        self.t.round() as usize
    }

    /// ᾱ, the signal power left at this noise level, as a fraction of the power of signal and noise.
    #[must_use]
    pub fn alpha_cumprod(self) -> f64 {
        self.alpha_cumprod
    }

    /// The factor of x₀ in xₜ: √ᾱ, or 1 − σ with flow matching.
    #[must_use]
    pub fn signal(self) -> f64 {
        self.alpha_cumprod.sqrt() * self.scale
    }

    /// The factor of ε in xₜ: √(1−ᾱ), or σ with flow matching.
    #[must_use]
    pub fn noise(self) -> f64 {
        (1.0 - self.alpha_cumprod).sqrt() * self.scale
    }

    /// σ = √((1−ᾱ)/ᾱ), the noise level of Karras et al. 2022 (arXiv 2206.00364), whose images are xₜ/√ᾱ.
    #[must_use]
    pub fn sigma(self) -> f64 {
        sigma(self.alpha_cumprod)
    }

    /// λ = ½ ln(ᾱ/(1−ᾱ)), half the logarithm of the signal-to-noise ratio (Lu et al. 2022,
    /// arXiv 2206.00927). It grows while an image is denoised.
    #[must_use]
    pub fn half_log_snr(self) -> f64 {
        -self.sigma().ln()
    }

    /// A tensor of shape \[batch\] that holds t for each image, the form that most networks take. If `dtype` is an
    /// integer type, t is rounded.
    ///
    /// # Errors
    ///
    /// If candle fails.
    #[cfg(feature = "candle")]
    pub fn to_tensor(self, batch: usize, dtype: DType, device: &Device) -> Result<Tensor> {
        let t = if dtype.is_int() { self.t.round() } else { self.t };
        Ok(Tensor::full(t, batch, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// Noises images to this level: signal x₀ + noise ε, for tensors [B, …]. For a schedule this is √ᾱ x₀ + √(1−ᾱ) ε (Ho
    /// et al. 2020, eq. 4).
    /// [`NoiseSchedule::q_sample`] takes integer timesteps, one for each image.
    ///
    /// # Errors
    ///
    /// If the shapes differ.
    #[cfg(feature = "candle")]
    pub fn q_sample(self, x_start: &Tensor, eps: &Tensor) -> Result<Tensor> {
        weighted_sum(&[(self.signal(), x_start), (self.noise(), eps)])
    }

    /// The timestep `t` at the noise level σ: ᾱ = 1/(1+σ²).
    pub(crate) fn with_sigma(t: f64, sigma: f64) -> Self {
        Self::new(t, 1.0 / (1.0 + sigma * sigma))
    }
}

pub(crate) fn sigma(alpha_cumprod: f64) -> f64 {
    ((1.0 - alpha_cumprod) / alpha_cumprod).sqrt()
}

impl NoiseSchedule {
    /// The timestep at σ, by linear interpolation of ln σ over t. Beyond the σ of the schedule t is 0 or T − 1.
    pub(crate) fn at_sigma(&self, sigma_found: f64) -> Timestep {
        let table = self.alphas_cumprod();
        // The first timestep with a larger σ.
        let above = table.partition_point(|&alpha| sigma(alpha) <= sigma_found);
        let t = match above {
            0 => 0.0,
            above if above == table.len() => (above - 1) as f64,
            above => {
                let (low, high) = (sigma(table[above - 1]).ln(), sigma(table[above]).ln());
                (above - 1) as f64 + (sigma_found.ln() - low) / (high - low)
            }
        };
        Timestep::with_sigma(t, sigma_found)
    }

    /// The timestep `t`.
    ///
    /// # Errors
    ///
    /// If `t` is not below T.
    pub fn timestep(&self, t: usize) -> Result<Timestep> {
        Ok(Timestep::new(t as f64, self.alpha_cumprod(t)?))
    }
}

#[cfg(all(test, feature = "candle"))]
mod tests {
    use super::*;

    #[test]
    fn a_timestep_between_two_is_rounded_for_whole_numbers_only() {
        let timestep = Timestep::new(6.6, 0.5);
        let whole = timestep.to_tensor(2, DType::U32, &Device::Cpu).unwrap();
        assert_eq!(whole.to_vec1::<u32>().unwrap(), [7, 7]);
        let fraction = timestep.to_tensor(1, DType::F64, &Device::Cpu).unwrap();
        assert_eq!(fraction.to_vec1::<f64>().unwrap(), [6.6]);
    }
}
