//! The estimator of the variational bound.

use std::f64::consts::LN_2;

use candle_core::{DType, Device, Tensor};

use super::{
    Bound, BoundTerm, Levels, RunningMean, check_ends_at_x_start, host, predict_noised, prior_bits, step_bits,
};
use crate::{
    Error, NoiseSchedule, PosteriorCoefs, Result, ReverseVariance, Steps, Timestep,
    decode::{Prediction, learned_log_variance},
    error::BoxError,
    timesteps::Transition,
    weighted_sum::at_least_f32,
};

/// Estimates the [`Bound`] over any number of images, in batches. It stores running means only, so its memory does not
/// grow with the number of images.
#[derive(Clone, Debug)]
pub struct BoundEstimator {
    schedule: NoiseSchedule,
    prior: RunningMean,
    steps: Vec<StepEstimator>,
    total: RunningMean,
}

#[derive(Clone, Debug)]
struct StepEstimator {
    step: Transition,
    posterior: PosteriorCoefs,
    variance: Variance,
    bits: RunningMean,
    mse: RunningMean,
}

/// σ² of a reverse step.
#[derive(Clone, Copy, Debug)]
enum Variance {
    /// One value for all pixels.
    Same(f64),
    /// A value between two bounds for each pixel, from the network's second output.
    LearnedRange { small: f64, large: f64 },
}

impl BoundEstimator {
    /// Starts an estimate for the reverse chain over the timesteps of `steps` with the given variances.
    ///
    /// The last step adds no noise when sampling, but its likelihood needs a variance. For
    /// [`ReverseVariance::FixedSmall`], where it would be 0, it is the variance of the step before, as Ho et al. clip its
    /// logarithm. If there is only one step, it is β.
    ///
    /// # Errors
    ///
    /// If the variance does not fit the schedule or the list, a variance is 0, as with [`ReverseVariance::Zero`] (the
    /// bound is then infinite), or the list does not end at x₀.
    pub fn new(
        schedule: &NoiseSchedule,
        steps: impl Into<Steps>,
        variance: &ReverseVariance,
    ) -> Result<Self> {
        let timesteps = &steps.into().timesteps(schedule)?;
        variance.check(schedule, timesteps)?;
        check_ends_at_x_start(timesteps)?;
        let mut before = None;
        let steps = timesteps.transitions().map(|step| {
            let posterior = PosteriorCoefs::between(step.from.alpha_cumprod(), step.to);
            let large = posterior.beta;
            let small = if step.is_last { before.unwrap_or(large) } else { posterior.variance };
            before = Some(small);
            let variance = match variance {
                ReverseVariance::FixedSmall => Variance::Same(small),
                ReverseVariance::FixedLarge => Variance::Same(large),
                ReverseVariance::Zero => Variance::Same(0.0),
                ReverseVariance::LearnedRange => Variance::LearnedRange { small, large },
                ReverseVariance::PerStep(list) => Variance::Same(list[step.index]),
            };
            match variance {
                Variance::Same(0.0) => Err(Error::NoVariance { position: step.index }),
                _ => Ok(StepEstimator {
                    step,
                    posterior,
                    variance,
                    bits: RunningMean::default(),
                    mse: RunningMean::default(),
                }),
            }
        });
        let steps = steps.collect::<Result<_>>()?;
        Ok(Self {
            schedule: schedule.clone(),
            prior: RunningMean::default(),
            steps,
            total: RunningMean::default(),
        })
    }

    /// Adds a batch of images `x_start`, [B, …] of 8-bit levels in [−1, 1]. The network is evaluated once for each
    /// timestep of the list, at xₜ = √ᾱₜ x₀ + √(1−ᾱₜ) ε with ε from `noise`. [`Plan::sample`](crate::Plan::sample) describes
    /// the network.
    ///
    /// If it fails, the estimate stays as it was before the call.
    ///
    /// # Errors
    ///
    /// If a pixel value is not one of the 256 levels, the network or the noise source fails, or the shapes do not fit.
    pub fn add<E: Into<BoxError>, F: Into<BoxError>>(
        &mut self,
        x_start: &Tensor,
        mut network: impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, E>,
        mut noise: impl FnMut(&Tensor, usize) -> std::result::Result<Tensor, F>,
    ) -> Result<()> {
        let levels = Levels::of(x_start)?;
        let first = self.steps[0].step.from.alpha_cumprod();
        let prior: Vec<f64> =
            levels.mean_squares().into_iter().map(|square| prior_bits(first, square)).collect();
        let mut total = prior.clone();
        let mut terms = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let prediction = predict_noised(&self.schedule, x_start, step.step, &mut network, &mut noise)?;
            // [B, D]
            let errors =
                at_least_f32(&(x_start - &prediction.x_start)?)?.sqr()?.reshape((prior.len(), ()))?;
            let mse = host(&errors.mean(1)?)?;
            let bits = if step.step.is_last {
                step.decoder(&levels, &prediction)?
            } else {
                step.divergence(&errors, &mse, &prediction)?
            };
            std::iter::zip(&mut total, &bits).for_each(|(total, bits)| *total += bits);
            terms.push((bits, mse));
        }
        self.prior.extend(&prior);
        self.total.extend(&total);
        for (step, (bits, mse)) in std::iter::zip(&mut self.steps, terms) {
            step.bits.extend(&bits);
            step.mse.extend(&mse);
        }
        Ok(())
    }

    /// The bound over all images that were added.
    ///
    /// # Errors
    ///
    /// If no images were added.
    pub fn finish(&self) -> Result<Bound> {
        let images = self.total.count();
        if images == 0 {
            return Err(Error::NoImages);
        }
        let step = |step: &StepEstimator| BoundTerm {
            t: step.step.from.t(),
            alpha_cumprod: step.step.from.alpha_cumprod(),
            bits_per_dim: step.bits.estimate(),
            mse: step.mse.mean(),
        };
        Ok(Bound {
            images,
            total_bits_per_dim: self.total.estimate(),
            prior_bits_per_dim: self.prior.estimate(),
            steps: self.steps.iter().map(step).collect(),
        })
    }
}

impl StepEstimator {
    /// The term [`step_bits`] of each image.
    fn divergence(&self, errors: &Tensor, mse: &[f64], prediction: &Prediction) -> Result<Vec<f64>> {
        match self.variance {
            Variance::Same(variance) => {
                Ok(mse.iter().map(|mse| step_bits(&self.posterior, variance, *mse)).collect())
            }
            Variance::LearnedRange { small, large } => {
                let weight = self.posterior.x_start_coef.powi(2) / self.posterior.variance;
                let log_ratio = learned_log_variance(learned(prediction)?, 1.0, large / small)?;
                let log_ratio = log_ratio.reshape(errors.shape())?;
                let weighted = (errors * weight)? + 1.0;
                let nats = ((log_ratio.neg()?.exp()? * weighted?)? + (log_ratio - 1.0)?)?;
                Ok(host(&nats.mean(1)?)?.into_iter().map(|nats| 0.5 * nats / LN_2).collect())
            }
        }
    }

    /// The decoder term −log₂ p(x₀ given xₜ) of each image, in bits per dimension.
    fn decoder(&self, levels: &Levels, prediction: &Prediction) -> Result<Vec<f64>> {
        let means = host(&prediction.x_start)?;
        Ok(match self.variance {
            Variance::Same(variance) => levels.bits(&means, |_| variance),
            Variance::LearnedRange { small, large } => {
                let learned = learned(prediction)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
                let log_variance = host(&learned_log_variance(&learned, small, large)?)?;
                levels.bits(&means, |i| log_variance[i].exp())
            }
        })
    }
}

fn learned(prediction: &Prediction) -> Result<&Tensor> {
    prediction.variance.as_ref().ok_or(Error::NoLearnedVariance)
}
