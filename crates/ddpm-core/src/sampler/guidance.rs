//! Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).

use candle_core::Tensor;
use std::ops::RangeInclusive;

use crate::{Error, NoiseSchedule, Result, Timestep, weighted_sum::weighted_sum};

/// The scale of classifier-free guidance, and the timesteps at which it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Guidance {
    scale: f64,
    interval: RangeInclusive<f64>,
}

impl Guidance {
    /// Guidance at all timesteps. `scale` is the guidance scale of diffusers, which is 1 + w of the paper. A scale of 1
    /// means no guidance.
    #[must_use]
    pub fn new(scale: f64) -> Self {
        Self { scale, interval: 0.0..=f64::INFINITY }
    }

    /// Restricts guidance to an interval of timesteps t, both ends included. Outside the interval only the conditional
    /// network is evaluated, which halves the cost. Kynkäänniemi et al. 2024 (arXiv 2404.07724) found that guidance is
    /// harmful at high noise and has little effect at low noise.
    #[must_use]
    pub fn within(self, interval: RangeInclusive<f64>) -> Self {
        Self { interval, ..self }
    }

    /// Checks that the interval lies within the schedule. Call it before sampling.
    ///
    /// # Errors
    ///
    /// If an end of the interval is NaN or outside 0 to T − 1, or the interval is reversed. Such an interval would
    /// silently disable guidance.
    pub fn check(&self, schedule: &NoiseSchedule) -> Result<()> {
        self.check_order()?;
        let (first, last) = (*self.interval.start(), *self.interval.end());
        let total = schedule.num_train_timesteps() as f64;
        if first < total && (last < total || last == f64::INFINITY) {
            return Ok(());
        }
        Err(self.refused(format!("timesteps from 0 to {}", total - 1.0)))
    }

    /// Checks that the interval starts at 0 or more and is not reversed. NaN is rejected too.
    fn check_order(&self) -> Result<()> {
        let (first, last) = (*self.interval.start(), *self.interval.end());
        if first >= 0.0 && first <= last {
            return Ok(());
        }
        Err(self.refused("a first timestep of 0 or more and a last timestep that is not below it".to_owned()))
    }

    fn refused(&self, expected: String) -> Error {
        let found = format!("{}-{}", self.interval.start(), self.interval.end());
        Error::out_of_range("the guidance interval", found, expected)
    }

    /// The scale within the interval.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The scale at a timestep. It is 1 outside the interval.
    #[must_use]
    pub fn scale_at(&self, timestep: Timestep) -> f64 {
        if self.interval.contains(&timestep.t()) { self.scale } else { 1.0 }
    }
}

/// Combines a conditional and an unconditional network into one (Ho & Salimans 2022, eq. 6):
///
/// ```text
/// prediction = unconditional + scale · (conditional − unconditional)
/// ```
///
/// The formula holds for ε, x₀ and v, because they are affine functions of each other. With scale 1 the unconditional
/// network is not evaluated. A learned variance, the second half of the output, is taken from the conditional network
/// without guidance.
///
/// The combined network fails if the interval of the guidance is reversed. [`Guidance::check`] compares the interval
/// with a schedule.
pub fn guided(
    guidance: &Guidance,
    mut conditional: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
    mut unconditional: impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>,
) -> impl FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor> {
    move |x_t, timestep| {
        guidance.check_order().map_err(candle_core::Error::wrap)?;
        let with = conditional(x_t, timestep)?;
        let scale = guidance.scale_at(timestep);
        if scale == 1.0 {
            return Ok(with);
        }
        let without = unconditional(x_t, timestep)?;
        let guide = |with: &Tensor, without: &Tensor| {
            weighted_sum(&[(1.0 - scale, without), (scale, with)]).map_err(candle_core::Error::wrap)
        };
        match (x_t.dims(), with.dims()) {
            (&[_, width, ..], &[_, found, ..]) if found == 2 * width => {
                let prediction = guide(&with.narrow(1, 0, width)?, &without.narrow(1, 0, width)?)?;
                Tensor::cat(&[prediction, with.narrow(1, width, width)?], 1)
            }
            _ => guide(&with, &without),
        }
    }
}
