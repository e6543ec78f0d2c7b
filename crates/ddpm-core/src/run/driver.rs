//! Runs from a plan: the start, and the driver for the simple case.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::Run;
use crate::{Error, Plan, Result, Timestep, error::BoxError, weighted_sum::at_least_f32};

impl Plan {
    /// Starts a run at the images `x_t`, [B, …], of a floating-point type. To generate images, pass standard normal noise.
    /// `noise` is called only if the sampler adds noise before its first step.
    ///
    /// # Errors
    ///
    /// If [`Plan::check`] fails, the images are integers, or the noise source fails.
    pub fn start<E: Into<BoxError>>(
        &self,
        x_t: Tensor,
        mut noise: impl FnMut(&Tensor, usize) -> std::result::Result<Tensor, E>,
    ) -> Result<Run> {
        self.check()?;
        if !x_t.dtype().is_float() {
            let found = format!("{:?}", x_t.dtype());
            return Err(Error::out_of_range("the type of the start images", found, "a floating-point type"));
        }
        let mut run = Run {
            plan: self.clone(),
            position: 0,
            dtype: x_t.dtype(),
            x_t: at_least_f32(&x_t)?,
            kept: None,
            x_starts: VecDeque::new(),
            eps: VecDeque::new(),
            variance: None,
            pending: VecDeque::new(),
            asked: false,
        };
        run.draw(0, &mut noise)?;
        Ok(run)
    }

    /// Carries out the plan: starts at `x_t`, [B, …], evaluates `network(x_t, timestep)` and adds `noise`. Returns the
    /// images at the end of the list of timesteps, x₀ unless the list ends at another noise level.
    ///
    /// The network returns a prediction of the schedule's `prediction_type`, of the same shape as `x_t`, or twice as wide
    /// in dimension 1 with a learned variance. Conditioning (a class or a mask) is not an argument: capture it in the
    /// closure.
    ///
    /// # Errors
    ///
    /// If the network or the noise source fails, or the shapes do not fit.
    pub fn sample<E: Into<BoxError>, F: Into<BoxError>>(
        &self,
        x_t: Tensor,
        network: impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, E>,
        noise: impl FnMut(&Tensor, usize) -> std::result::Result<Tensor, F>,
    ) -> Result<Tensor> {
        self.sample_with(x_t, network, noise, |_| Ok(()))
    }

    /// [`Plan::sample`] with a callback that is called after each step. [`Run::step`] describes the step, and
    /// [`Run::set_x_t`] changes the images.
    ///
    /// # Errors
    ///
    /// As [`Plan::sample`], or if the callback fails.
    pub fn sample_with<E: Into<BoxError>, F: Into<BoxError>>(
        &self,
        x_t: Tensor,
        mut network: impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, E>,
        mut noise: impl FnMut(&Tensor, usize) -> std::result::Result<Tensor, F>,
        mut callback: impl FnMut(&mut Run) -> std::result::Result<(), BoxError>,
    ) -> Result<Tensor> {
        let mut run = self.start(x_t, &mut noise)?;
        while let Some(ask) = run.ask()? {
            let output = network(&ask.x_t, ask.timestep).map_err(|source| Error::Network(source.into()))?;
            drop(ask);
            run.answer(&output, &mut noise)?;
            if run.step().is_some() {
                callback(&mut run).map_err(Error::Callback)?;
            }
        }
        run.into_x_t()
    }
}
