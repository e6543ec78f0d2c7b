//! The fit of a plan of few steps to a long run of the same model.

use std::collections::BTreeSet;

use candle_core::{DType, Tensor};
use ddpm_core::{BoxError, CounterRng, Multistep, Purpose, Sampler, Steps, Timestep, Timesteps, no_noise};

use crate::{Denoiser, DenoiserGuidance, Error, FittedPlan, Result, device::run_on_device};

/// The number of timesteps of the long run, unless the schedule has fewer.
const TEACHER_STEPS: usize = 50;

/// The configuration of a fit.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanFitConfig {
    /// The seed of the images on which the plan is fitted. Their noise is never that of a sample.
    pub seed: u64,
    /// The number of these images, 1 or more. They and their predictions are in memory at once.
    pub num_images: usize,
    /// Guidance, of the long run and of the fitted plan.
    pub guidance: DenoiserGuidance,
}

/// A long run of a model without noise, and the fit of plans of few steps to it.
///
/// The long run, or teacher, is Heun's method (Karras et al. 2022) at all timesteps of the schedule, or at 50 of them. A
/// plan of few steps starts from the same noise. Each of its steps is fitted by least squares to the images of the teacher
/// at the timestep to which the step leads ([`Multistep::fit`]).
#[derive(Debug)]
pub struct PlanFit<'a> {
    denoiser: &'a Denoiser,
    guidance: DenoiserGuidance,
    labels: Vec<u32>,
    x_t: Tensor,
    /// The timesteps of the teacher, in descending order.
    timesteps: Vec<usize>,
    /// The images after each of its steps.
    images: Vec<Tensor>,
}

impl<'a> PlanFit<'a> {
    /// Runs the teacher, which also takes the timesteps of `list`.
    ///
    /// # Errors
    ///
    /// If there are no images, guidance does not fit the model, or a timestep is not one of the schedule.
    pub fn new(denoiser: &'a Denoiser, config: &PlanFitConfig, list: &[usize]) -> Result<Self> {
        if config.num_images == 0 {
            return Err(Error::out_of_range("the number of images of a fit", 0, "1 or more"));
        }
        denoiser.check_guidance(&config.guidance)?;
        let schedule = denoiser.schedule();
        let spaced = Timesteps::spaced(schedule, schedule.num_train_timesteps().min(TEACHER_STEPS))?;
        let all: BTreeSet<usize> = spaced.indices().into_iter().chain(list.iter().copied()).collect();
        let timesteps: Vec<usize> = all.into_iter().rev().collect();
        let plan = Sampler::heun().plan(schedule, Steps::Explicit(timesteps.clone()))?;
        let indices: Vec<u64> = (0..).take(config.num_images).collect();
        let shape = [denoiser.config().pixels()];
        let rng = CounterRng::new(config.seed);
        let x_t = rng.normal(Purpose::PLAN_FIT, &indices, 0, &shape, DType::F32, denoiser.device())?;
        let classes = u32::try_from(denoiser.config().num_classes).unwrap_or(u32::MAX).max(1);
        let labels = (0..classes).cycle().take(config.num_images).collect();
        let guidance = config.guidance.clone();
        let mut fit = Self { denoiser, guidance, labels, x_t, timesteps, images: Vec::new() };
        let mut images = Vec::new();
        run_on_device(&denoiser.device().location(), || {
            plan.sample_with(fit.x_t.clone(), fit.network(), no_noise, |run| {
                images.push(run.x_t().clone());
                Ok(())
            })
        })?;
        fit.images = images;
        Ok(fit)
    }

    fn network(&self) -> impl Fn(&Tensor, Timestep) -> Result<Tensor> {
        |x_t, at| self.denoiser.output(x_t, at.index(), &self.labels, self.guidance.scales_at(at))
    }

    /// Fits a method with these timesteps. Returns it with the root of the mean squared difference from the teacher's
    /// images after each step, on the scale [−1, 1].
    ///
    /// # Errors
    ///
    /// If the list is not strictly descending, or has a timestep at which the teacher has no image.
    pub fn fit(&self, timesteps: &[usize]) -> Result<(Multistep, Vec<f64>)> {
        // The image at a timestep is the one after the step before.
        let at = |t: &usize| self.timesteps.iter().position(|other| other == t)?.checked_sub(1);
        let last = self.images.len().checked_sub(1);
        let targets = timesteps.iter().skip(1).map(at).chain([last]);
        let targets: Option<Vec<Tensor>> = targets.map(|i| Some(self.images.get(i?)?.clone())).collect();
        let targets = targets.ok_or_else(|| {
            let expected = format!("strictly descending values of {:?}", self.timesteps);
            Error::out_of_range("the list of timesteps", format!("{timesteps:?}"), expected)
        })?;
        let schedule = self.denoiser.schedule();
        let fit = || Multistep::fit(schedule, timesteps, self.x_t.clone(), &targets, self.network());
        Ok(run_on_device(&self.denoiser.device().location(), fit)?)
    }

    /// Searches for the list of `n` timesteps whose fit ends closest to the teacher's x₀. It starts from evenly spaced
    /// timesteps and moves one at a time to a neighbour, as long as that is an improvement: a local minimum. `observe` is
    /// called with each list that is tried and its error, on the scale [−1, 1].
    ///
    /// # Errors
    ///
    /// If `n` is 0 or above the number of timesteps of the teacher, or the observer fails.
    pub fn search(
        &self,
        n: usize,
        mut observe: impl FnMut(&[usize], f64) -> std::result::Result<(), BoxError>,
    ) -> Result<Vec<usize>> {
        let total = self.timesteps.len();
        if !(1..=total).contains(&n) {
            return Err(Error::out_of_range("the number of steps", n, format!("1 to {total}")));
        }
        // Places in the list of the teacher. The first step starts where the noise is.
        let list = |places: &[usize]| places.iter().map(|&place| self.timesteps[place]).collect::<Vec<_>>();
        let mut error = |places: &[usize]| -> Result<f64> {
            let list = list(places);
            let error = self.fit(&list)?.1.last().copied().unwrap_or(f64::INFINITY);
            observe(&list, error).map_err(ddpm_core::Error::Callback)?;
            Ok(error)
        };
        let mut best: Vec<usize> = (0..n).map(|i| (i * total).div_euclid(n)).collect();
        let mut least = error(&best)?;
        let mut tried = BTreeSet::from([best.clone()]);
        let mut is_better = true;
        while std::mem::take(&mut is_better) {
            for place in 1..n {
                for moved in [best[place] + 1, best[place] - 1] {
                    let mut other = best.clone();
                    other[place] = moved;
                    let is_list = moved < total && other.is_sorted_by(|before, after| before < after);
                    if !is_list || !tried.insert(other.clone()) {
                        continue;
                    }
                    let found = error(&other)?;
                    if found < least {
                        (best, least, is_better) = (other, found, true);
                    }
                }
            }
        }
        Ok(list(&best))
    }

    /// The file of a method that [`PlanFit::fit`] returned.
    ///
    /// # Errors
    ///
    /// As [`Denoiser::sha256`].
    pub fn plan(&self, method: Multistep) -> Result<FittedPlan> {
        FittedPlan::new(self.denoiser, &self.guidance, method)
    }
}
