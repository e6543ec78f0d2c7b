//! Networks with the preconditioning of EDM.

use candle_core::Tensor;

use crate::{Error, Result, Timestep, error::BoxError, weighted_sum::weighted_sum};

/// A network that predicts x₀, from the network F of EDM (Karras et al. 2022, arXiv 2206.00364, eq. 7 and table 1), whose
/// images are x̃ = xₜ/√ᾱ:
///
/// ```text
/// x̂₀ = c_skip x̃ + c_out F(c_in x̃, ¼ ln σ),   c_skip = σ_d²/(σ²+σ_d²),   c_out = σσ_d/√(σ²+σ_d²),   c_in = 1/√(σ²+σ_d²)
/// ```
///
/// `sigma_data` is σ_d, the standard deviation of the data, 0.5 in the paper. F gets c_noise = ¼ ln σ as a number. Use it
/// with a schedule of prediction type `sample`, and with noise levels of one's own. The errors of the network are passed on;
/// it is an error too if `sigma_data` is not above 0, or σ is 0 or infinite.
///
/// ```
/// # use ddpm_core::candle_core::{Device, Tensor};
/// # use ddpm_core::{CounterRng, NoiseSchedule, NoiseScheduleConfig, PredictionType, Sampler, Steps};
/// # use ddpm_core::{edm_preconditioned, karras_sigmas, no_noise};
/// let config = NoiseScheduleConfig { prediction_type: PredictionType::Sample, ..NoiseScheduleConfig::ho2020() };
/// let schedule = NoiseSchedule::new(&config)?;
/// let plan = Sampler::heun().plan(&schedule, Steps::Sigmas(karras_sigmas(80.0, 0.002, 18)))?;
/// let network = edm_preconditioned(0.5, |x: &Tensor, c_noise: f64| x * c_noise.tanh());
/// let x_t = CounterRng::new(1).images(0..4).start(&[16], &Device::Cpu)?;
/// assert_eq!(plan.sample(x_t, network, no_noise)?.dims(), [4, 16]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn edm_preconditioned<E: Into<BoxError>>(
    sigma_data: f64,
    mut network: impl FnMut(&Tensor, f64) -> std::result::Result<Tensor, E>,
) -> impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, BoxError> {
    let positive = |name: &'static str, found: f64| {
        let is_valid = found > 0.0 && found.is_finite();
        if is_valid { Ok(()) } else { Err(Error::out_of_range(name, found, "a positive number")) }
    };
    move |x_t, timestep| {
        let (sigma, scale) = (timestep.sigma(), 1.0 / timestep.alpha_cumprod().sqrt());
        positive("sigma_data", sigma_data)?;
        positive("sigma", sigma)?;
        let deviation = sigma.hypot(sigma_data);
        let scaled = |factor: f64, x: &Tensor| -> Result<Tensor> { Ok((x * factor)?) };
        let output = network(&scaled(scale / deviation, x_t)?, sigma.ln() / 4.0).map_err(Into::into)?;
        let (skip, out) = ((sigma_data / deviation).powi(2), sigma * sigma_data / deviation);
        Ok(weighted_sum(&[(skip * scale, x_t), (out, &output)])?)
    }
}
