//! The forward process q(xₜ given x₀) and its posterior.

use candle_core::Tensor;

use crate::{
    Error, NoiseSchedule, PosteriorCoefs, PredictionType, Result,
    weighted_sum::{per_image, weighted_sum},
};

/// The posterior q(xₜ₋₁ given xₜ, x₀): a normal distribution with one variance for each image.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// The mean, shape [B, …].
    pub mean: Tensor,
    /// β̃ₜ for each timestep of the argument `t`; 0 at t = 0.
    pub variance: Vec<f64>,
    /// ln β̃ₜ for each timestep of the argument `t`. At t = 0 it is the value of t = 1 instead of −∞.
    pub log_variance_clipped: Vec<f64>,
}

impl NoiseSchedule {
    /// Noises clean images (Ho et al. 2020, eq. 4):
    ///
    /// ```text
    /// xₜ = √ᾱₜ x₀ + √(1 − ᾱₜ) ε
    /// ```
    ///
    /// `x_start` and `eps` have the shape [B, …]. `t` holds one timestep for each image, or a single one for all images.
    ///
    /// ```
    /// # use candle_core::{Device, Tensor};
    /// # use ddpm_core::{NoiseSchedule, NoiseScheduleConfig};
    /// let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
    /// let x_start = Tensor::ones((2, 784), candle_core::DType::F32, &Device::Cpu)?;
    /// let x_t = schedule.q_sample(&x_start, &[0, 19], &x_start.zeros_like()?)?;
    /// let signal: Vec<f32> = x_t.narrow(1, 0, 1)?.flatten_all()?.to_vec1()?;
    /// assert!(signal[0] > 0.999 && signal[1] < 0.008); // almost clean, almost gone
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a timestep is out of range, `t` has a length other than 1 and B, or the shapes differ.
    pub fn q_sample(&self, x_start: &Tensor, t: &[usize], eps: &Tensor) -> Result<Tensor> {
        combine(self, t, x_start, eps, |alpha_cumprod, _| {
            (alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt())
        })
    }

    /// The training target of a network that emits this quantity: ε, x₀, or v = √ᾱₜ ε − √(1−ᾱₜ) x₀. The shapes are the same
    /// as in [`NoiseSchedule::q_sample`].
    ///
    /// A training step of a network that predicts v, with candle's optimizer:
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::{Module, Optimizer, VarBuilder, VarMap};
    /// # use ddpm_core::{CounterRng, LossWeighting, NoiseSchedule, NoiseScheduleConfig, PredictionType, Purpose};
    /// # use ddpm_core::{TimestepSampler, TimestepSampling};
    /// # let vars = VarMap::new();
    /// # let layer = candle_nn::linear(4, 4, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
    /// # let mut optimizer = candle_nn::AdamW::new_lr(vars.all_vars(), 1e-3)?;
    /// # let images = Tensor::ones((8, 4), DType::F32, &Device::Cpu)?;
    /// let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020())?;
    /// let parameterization = PredictionType::VPrediction;
    /// let weights = LossWeighting::VPrediction.weights(&schedule, parameterization)?;
    /// let (sampler, rng) = (TimestepSampler::new(TimestepSampling::Uniform, weights)?, CounterRng::new(1));
    /// for step in 0..3 {
    ///     let numbers: Vec<u64> = (step * 8..(step + 1) * 8).collect(); // the addresses of the images of this batch
    ///     let drawn: Vec<_> = numbers.iter().map(|&at| sampler.sample(rng, at)).collect::<Result<_, _>>()?;
    ///     let (t, weights): (Vec<usize>, Vec<f64>) = drawn.into_iter().unzip();
    ///     let eps = rng.normal_like(Purpose::TRAIN_NOISE, &numbers, 0, &images)?;
    ///     let output = layer.forward(&schedule.q_sample(&images, &t, &eps)?)?; // a real network gets t too
    ///     let target = schedule.target(parameterization, &images, &eps, &t)?;
    ///     let errors = (output - target)?.sqr()?.mean(1)?;
    ///     let loss = (errors * Tensor::new(weights, &Device::Cpu)?.to_dtype(DType::F32)?)?.mean_all()?;
    ///     optimizer.backward_step(&loss)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// For v, as [`NoiseSchedule::q_sample`]. ε and x₀ are returned as they are.
    pub fn target(
        &self,
        parameterization: PredictionType,
        x_start: &Tensor,
        eps: &Tensor,
        t: &[usize],
    ) -> Result<Tensor> {
        match parameterization {
            PredictionType::Epsilon => Ok(eps.clone()),
            PredictionType::Sample => Ok(x_start.clone()),
            other => combine(self, t, x_start, eps, |alpha_cumprod, _| other.target(alpha_cumprod)),
        }
    }

    /// Computes the posterior q(xₜ₋₁ given xₜ, x₀) (Ho et al. 2020, eq. 6 and 7):
    ///
    /// ```text
    /// μ̃ = √ᾱₜ₋₁ βₜ / (1−ᾱₜ) · x₀ + √αₜ (1−ᾱₜ₋₁) / (1−ᾱₜ) · xₜ,   β̃ₜ = (1−ᾱₜ₋₁) / (1−ᾱₜ) · βₜ
    /// ```
    ///
    /// # Errors
    ///
    /// As [`NoiseSchedule::q_sample`].
    pub fn q_posterior(&self, x_start: &Tensor, x_t: &Tensor, t: &[usize]) -> Result<Posterior> {
        let mean = combine(self, t, x_start, x_t, |_, step| (step.x_start_coef, step.x_t_coef))?;
        let (variance, log) = (self.posterior_variance(), self.posterior_log_variance_clipped());
        Ok(Posterior {
            mean,
            variance: t.iter().map(|&t| variance[t]).collect(),
            log_variance_clipped: t.iter().map(|&t| log[t]).collect(),
        })
    }
}

/// Computes `ca(t)·a + cb(t)·b`. The function `coefficients` computes (ca, cb) from ᾱₜ and the posterior of the step
/// to t − 1, in f64. They are rounded once, to the tensors' type.
pub(crate) fn combine(
    schedule: &NoiseSchedule,
    t: &[usize],
    a: &Tensor,
    b: &Tensor,
    coefficients: impl Fn(f64, PosteriorCoefs) -> (f64, f64),
) -> Result<Tensor> {
    if a.dims() != b.dims() {
        return Err(Error::Shapes { first: a.dims().to_vec(), second: b.dims().to_vec() });
    }
    let batch = a.dims().first().copied().unwrap_or(1);
    if t.len() != 1 && t.len() != batch {
        let expected = format!("1 or {batch}, one for each image");
        return Err(Error::out_of_range("the number of timesteps", t.len(), expected));
    }
    let pairs = t
        .iter()
        .map(|&t| {
            let step = schedule.posterior_coefs(t, t.checked_sub(1))?;
            Ok(coefficients(schedule.alpha_cumprod(t)?, step))
        })
        .collect::<Result<Vec<_>>>()?;
    if let [(ca, cb)] = pairs[..] {
        return weighted_sum(&[(ca, a), (cb, b)]);
    }
    let (ca, cb): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    let column = |values: Vec<f64>| -> candle_core::Result<Tensor> {
        let values = Tensor::new(values, &candle_core::Device::Cpu)?;
        per_image(&values, a)?.to_dtype(a.dtype())?.to_device(a.device())
    };
    Ok((a.broadcast_mul(&column(ca)?)? + b.broadcast_mul(&column(cb)?)?)?)
}
