//! The fit of a multistep method to the images of a longer run.

use candle_core::Tensor;

use super::{Multistep, MultistepStep, least_squares::least_squares};
use crate::{
    Error, NoiseSchedule, Result, Timestep, Timesteps, decode::predict, error::BoxError, likelihood::host,
    weighted_sum::weighted_sum,
};

impl Multistep {
    /// Fits the factors, step by step, to the images of another run from the same start: a run of many steps of a solver
    /// without noise, in practice. `x_t`, [B, …], are the images at the first timestep, and `targets` are the images after
    /// each step, of the same shape; the last ones are x₀. `network` is the network of [`Plan::sample`](crate::Plan::sample).
    ///
    /// Each step minimizes the squared difference from its target over all images and pixels, given the images that the
    /// steps before have reached. So a later step corrects errors of the earlier ones:
    ///
    /// ```text
    /// min ‖a xₜ + b₀ x̂₀ + b₁ x̂₀′ + … − target‖²   over a, b₀, b₁, …
    /// ```
    ///
    /// The solution is in closed form, in f64. A prediction that depends linearly on the tensors before it gets the factor
    /// 0. Returns the method and the root of the mean squared difference after each step, in the units of the images.
    ///
    /// ```
    /// # use candle_core::{Device, Tensor};
    /// # use ddpm_core::{CounterRng, Multistep, NoiseSchedule, NoiseScheduleConfig, Sampler, Steps, Timestep, no_noise};
    /// # let schedule = NoiseSchedule::new(&NoiseScheduleConfig { clip_sample: false, ..NoiseScheduleConfig::mnist20() })?;
    /// # let network = |x_t: &Tensor, timestep: Timestep| x_t * (1.0 - timestep.alpha_cumprod()).sqrt();
    /// let timesteps = [19, 12, 5];
    /// let x_t = CounterRng::new(7).images(0..100).start(&[16], &Device::Cpu)?;
    /// // The images after each of 20 steps, from t = 19.
    /// let mut images = Vec::new();
    /// let teacher = Sampler::dpmpp_2m().plan(&schedule, Steps::All)?;
    /// teacher.sample_with(x_t.clone(), network, no_noise, |run| Ok(images.push(run.x_t().clone())))?;
    /// let target = |t: usize| images[18 - t].clone(); // after the step that leads to t
    /// let targets = [target(12), target(5), images[19].clone()];
    /// let (method, errors) = Multistep::fit(&schedule, &timesteps, x_t, &targets, network)?;
    /// assert!(errors[2] < 1e-5); // this network is linear, so three steps can be exact
    /// assert_eq!(method.plan(&schedule)?.evaluations(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the timesteps are not strictly descending timesteps of the schedule, the number of targets is not the number
    /// of timesteps, shapes differ, an image is NaN or infinite, or the network fails.
    pub fn fit<E: Into<BoxError>>(
        schedule: &NoiseSchedule,
        timesteps: &[usize],
        mut x_t: Tensor,
        targets: &[Tensor],
        mut network: impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, E>,
    ) -> Result<(Self, Vec<f64>)> {
        let list = Timesteps::explicit(schedule, timesteps.to_vec())?;
        if targets.len() != list.len() {
            return Err(Error::TableLength { table: "targets", found: targets.len(), expected: list.len() });
        }
        let (mut steps, mut errors) = (Vec::new(), Vec::new());
        // The latest first.
        let mut x_starts = Vec::new();
        for (&at, target) in std::iter::zip(list.as_slice(), targets) {
            x_starts.insert(0, predict(schedule, &x_t, at, &mut network)?.x_start);
            let columns: Vec<&Tensor> = std::iter::once(&x_t).chain(&x_starts).collect();
            let factors = least_squares(&columns, target)?;
            let terms: Vec<_> = std::iter::zip(factors.iter().copied(), columns).collect();
            let reached = weighted_sum(&terms)?;
            errors.push(distance(&reached, target)?);
            x_t = reached;
            let [x_t, x_start @ ..] = &factors[..] else { return Err(Error::NoTimesteps) };
            steps.push(MultistepStep { t: at.index(), x_t: *x_t, x_start: x_start.to_vec() });
        }
        Ok((Self { steps }, errors))
    }
}

/// The root of the mean squared difference.
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (host(a)?, host(b)?);
    let sum: f64 = std::iter::zip(&a, &b).map(|(a, b)| (a - b).powi(2)).sum();
    Ok((sum / a.len() as f64).sqrt())
}
