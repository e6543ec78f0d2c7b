//! Reverse steps that are mixtures: how much of what the network says is believed, value by value.

mod components;

use std::f64::consts::LN_2;

use candle_core::Tensor;
use rayon::prelude::*;

use components::{Beliefs, COMPONENTS, DOUBTS, LevelBeliefs, LogDensities, Step};

use super::{Levels, Palettes, check_ends_at_x_start, host, largest, predict_noised};
use crate::{
    Error, NoiseMode, NoiseSchedule, Result, ScheduleConfig, Timestep, Timesteps,
    sampler::{Output, Prediction},
    timesteps::Transition,
};

/// Rounds of expectation and maximisation.
const ROUNDS: usize = 200;

/// The distributions of the reverse steps of a list, as mixtures, chosen by training images.
///
/// A normal distribution cannot say that a pixel is either exactly black or grey, and one wrong certainty costs it
/// bits without end. But the bound holds for any p(x_prev given xₜ). Here it is, for each value independently,
///
/// ```text
/// p(x_prev given xₜ) = Σⱼ wⱼ ∫ q(x_prev given xₜ, x₀) bⱼ(x₀) dx₀      and at last   p(x₀ given xₜ) = Σⱼ wⱼ bⱼ(x₀)
/// ```
///
/// with beliefs bⱼ that doubt the network more or less. The network says N(x̂₀, v) of x₀ given xₜ, which by Bayes'
/// rule is the product of what the value's own xₜ says and of the network's contribution, N(m, 1/τ):
///
/// ```text
/// 1/v = ᾱ/(1−ᾱ) + τ            x̂₀/v = √ᾱ xₜ/(1−ᾱ) + τ m
/// ```
///
/// A doubt k divides τ by k, which gives N(mₖ, vₖ). Of each there are two components: that normal distribution, and
/// one of the 256 levels, with probabilities in proportion to f(g) N(g; mₖ, vₖ), where f is how frequent a level is
/// among training images; that only in steps that can tell levels apart at all. The weights w, which are those of a
/// step, are the most likely ones by the expectation–maximisation algorithm (Dempster et al. 1977); with all of the
/// weight on the first kind and k = 1 it is [`NoiseMode::Learned`]. In the last step f depends on the image as a
/// whole, by the [`Palettes`] with their shares π: p(x₀ given xₜ) = Σ_f π_f Π p_f(value), the product over the values.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixtures {
    /// f.
    palettes: Palettes,
    steps: Vec<StepMixture>,
    pub(super) output: Output,
}

/// The mixture of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StepMixture {
    /// w.
    weights: LogDensities,
    /// v of a network that says no variance: its mean squared error.
    variance: f64,
}

impl Mixtures {
    /// Chooses the weights by training images `x_start`, [B, …] of 8-bit levels in [−1, 1], some hundreds, all at
    /// once, with palettes of as many as one likes. With [`NoiseMode::Learned`] the network puts out the variance of
    /// x₀ beside its prediction; with another mode its mean squared error at a timestep is taken for it. `model` and
    /// `noise` as for [`BoundEstimator::add`](super::BoundEstimator::add). Memory: 224 bytes for each value.
    ///
    /// # Errors
    ///
    /// If there are no images or they are not of 8-bit levels, the mode is [`NoiseMode::LearnedRange`], which has no
    /// variance of x₀, the list does not end at x₀, the network or the noise source fails, or shapes do not fit.
    pub fn fit(
        schedule: &NoiseSchedule,
        timesteps: &Timesteps,
        mode: &NoiseMode,
        palettes: Palettes,
        x_start: &Tensor,
        mut model: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
        mut noise: impl FnMut(&Tensor, usize) -> Result<Tensor>,
    ) -> Result<Self> {
        mode.check(schedule, timesteps)?;
        check_ends_at_x_start(timesteps)?;
        let output = match Output::of(schedule, mode) {
            Output::WithVariance if *mode != NoiseMode::Learned => return Err(Error::NoLearnedVariance),
            output => output,
        };
        let (levels, unclipped) = (Levels::of(x_start)?, unclipped(schedule)?);
        if levels.all().is_empty() {
            return Err(Error::NoImages);
        }
        let of_images = palettes.of_images(levels.images());
        let mut steps = Vec::new();
        for step in timesteps.transitions() {
            let (x_t, prediction) =
                predict_noised(&unclipped, output, x_start, step, &mut model, &mut noise)?;
            let errors = host(&(x_start - &prediction.x_start)?.sqr()?)?;
            let variance = errors.iter().sum::<f64>() / errors.len() as f64;
            let mut mixture = StepMixture { weights: starting_weights(), variance };
            let parts = Parts::new(schedule, step, x_start, &x_t, &prediction, &mut noise)?;
            let said: Vec<LogDensities> = if step.is_last {
                parts.probabilities(&mixture, &levels, &of_images)
            } else {
                parts.ratios(&mixture, palettes.overall(), |said| said)
            };
            mixture.maximise(&said);
            steps.push(mixture);
        }
        Ok(Self { palettes, steps, output })
    }

    /// The weights of each step, in the order of the list: of the normal distributions from the smallest doubt to the
    /// largest, then of those of levels.
    #[must_use]
    pub fn weights(&self) -> Vec<&[f64]> {
        self.steps.iter().map(|step| step.weights.as_slice()).collect()
    }

    /// A step's term of the bound for each image, in bits per dimension.
    #[allow(clippy::too_many_arguments, reason = "what a step of the bound is made of")]
    pub(super) fn bits(
        &self,
        schedule: &NoiseSchedule,
        step: Transition,
        x_start: &Tensor,
        levels: &Levels,
        x_t: &Tensor,
        prediction: &Prediction,
        noise: &mut impl FnMut(&Tensor, usize) -> Result<Tensor>,
    ) -> Result<Vec<f64>> {
        let parts = Parts::new(schedule, step, x_start, x_t, prediction, noise)?;
        let mixture = &self.steps[step.index];
        let dimensions = levels.dimensions();
        let logs: Vec<f64> = if step.is_last {
            let image = |image| parts.log_probability(image * dimensions, levels, mixture, &self.palettes);
            (0..levels.images().len()).into_par_iter().map(image).collect()
        } else {
            let logs = parts.ratios(mixture, self.palettes.overall(), |said| mixture.log_density(&said));
            logs.chunks(dimensions).map(|image| image.iter().sum()).collect()
        };
        let nats_of_a_bit = dimensions as f64 * LN_2;
        Ok(logs.into_iter().map(|log| -log / nats_of_a_bit).collect())
    }

    /// A mixture for each step of the list.
    pub(super) fn check(&self, timesteps: &Timesteps) -> Result<()> {
        let (found, expected) = (self.steps.len(), timesteps.len());
        if found == expected {
            Ok(())
        } else {
            Err(Error::TableLength { table: "mixtures", found, expected })
        }
    }
}

/// Nearly all on what the network says, so that a step where everything is as good stays there.
fn starting_weights() -> LogDensities {
    const REST: f64 = 5e-3;
    std::array::from_fn(
        |j| if DOUBTS.get(j) == Some(&1.0) { 1.0 - (COMPONENTS - 1) as f64 * REST } else { REST },
    )
}

/// ln Σ e^log.
fn log_sum_exp(logs: &[f64]) -> f64 {
    let most = largest(logs);
    most + logs.iter().map(|log| (log - most).exp()).sum::<f64>().ln()
}

/// The schedule, but for clipping: a belief is split by Bayes' rule, so it must be whole.
pub(super) fn unclipped(schedule: &NoiseSchedule) -> Result<NoiseSchedule> {
    let config = schedule.config();
    NoiseSchedule::new(&ScheduleConfig { clip_sample: false, thresholding: false, ..config.clone() })
}

impl StepMixture {
    /// ln Σ w b.
    fn log_density(&self, said: &LogDensities) -> f64 {
        let most = largest(said);
        let sum: f64 = std::iter::zip(said, &self.weights).map(|(said, w)| w * (said - most).exp()).sum();
        most + sum.ln()
    }

    /// Expectation–maximisation over the weights, which has one maximum.
    fn maximise(&mut self, said: &[LogDensities]) {
        const PIECE: usize = 4096;
        let densities: Vec<LogDensities> = said
            .par_iter()
            .map(|said| {
                let most = largest(said);
                said.map(|said| (said - most).exp())
            })
            .collect();
        for _ in 0..ROUNDS {
            let shares = densities.par_chunks(PIECE).map(|piece| {
                let mut sums = [0.0; COMPONENTS];
                for densities in piece {
                    let total: f64 = std::iter::zip(densities, &self.weights).map(|(b, w)| b * w).sum();
                    for (sum, (b, w)) in sums.iter_mut().zip(std::iter::zip(densities, &self.weights)) {
                        *sum += b * w / total;
                    }
                }
                sums
            });
            // In the order of the pieces, whichever thread was first.
            let shares: Vec<LogDensities> = shares.collect();
            self.weights = std::array::from_fn(|j| {
                shares.iter().map(|sums| sums[j]).sum::<f64>() / densities.len() as f64
            });
        }
    }
}

/// What a step knows of the values of a batch.
struct Parts {
    step: Step,
    x_start: Vec<f64>,
    x_t: Vec<f64>,
    mean: Vec<f64>,
    /// None if the network does not say it.
    variance: Option<Vec<f64>>,
    /// The noise of x_prev; empty in the last step.
    noise: Vec<f64>,
}

impl Parts {
    fn new(
        schedule: &NoiseSchedule,
        step: Transition,
        x_start: &Tensor,
        x_t: &Tensor,
        prediction: &Prediction,
        noise: &mut impl FnMut(&Tensor, usize) -> Result<Tensor>,
    ) -> Result<Self> {
        // A number that no step asks for by itself.
        let draw = schedule.num_train_timesteps() + step.draw;
        Ok(Self {
            step: Step::new(step),
            x_start: host(x_start)?,
            x_t: host(x_t)?,
            mean: host(&prediction.x_start)?,
            variance: prediction.variance.as_ref().map(host).transpose()?,
            noise: if step.is_last { Vec::new() } else { host(&noise(x_start, draw)?)? },
        })
    }

    /// Something of the components' log ratios, of each value.
    fn ratios<T: Send>(
        &self,
        mixture: &StepMixture,
        frequencies: &[f64],
        map: impl Fn(LogDensities) -> T + Sync,
    ) -> Vec<T> {
        self.each(mixture, |i, beliefs| {
            map(self.step.log_ratios(beliefs, self.x_start[i], self.noise[i], frequencies))
        })
    }

    /// The components' log probabilities of each level, where `frequencies` are those of an image.
    fn probabilities(
        &self,
        mixture: &StepMixture,
        levels: &Levels,
        of_images: &[&[f64]],
    ) -> Vec<LogDensities> {
        self.each(mixture, |i, beliefs| {
            let image = i.div_euclid(levels.dimensions());
            LevelBeliefs::new(beliefs, levels.all()[i]).log_probabilities(of_images[image])
        })
    }

    /// ln Σ π Π p(value) over the palettes, of the image whose values start at `first`.
    fn log_probability(
        &self,
        first: usize,
        levels: &Levels,
        mixture: &StepMixture,
        palettes: &Palettes,
    ) -> f64 {
        let mut logs: Vec<f64> = palettes.iter().map(|(_, share)| share.ln()).collect();
        for i in first..first + levels.dimensions() {
            let beliefs = LevelBeliefs::new(self.beliefs(i, mixture), levels.all()[i]);
            for (log, (frequencies, _)) in logs.iter_mut().zip(palettes.iter()) {
                *log += mixture.log_density(&beliefs.log_probabilities(frequencies));
            }
        }
        log_sum_exp(&logs)
    }

    fn beliefs(&self, i: usize, mixture: &StepMixture) -> Beliefs {
        let variance = self.variance.as_ref().map_or(mixture.variance, |variance| variance[i]);
        self.step.beliefs(self.x_t[i], self.mean[i], variance)
    }

    fn each<T: Send>(&self, mixture: &StepMixture, map: impl Fn(usize, Beliefs) -> T + Sync) -> Vec<T> {
        let value = |i: usize| map(i, self.beliefs(i, mixture));
        (0..self.x_t.len()).into_par_iter().with_min_len(256).map(value).collect()
    }
}

#[cfg(test)]
mod tests;
