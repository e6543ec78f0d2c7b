//! Classifier-free guidance, Ho & Salimans 2022 (arXiv 2207.12598).

use candle_core::Tensor;
use std::ops::RangeInclusive;

use crate::{Error, NoiseSchedule, Result, Timestep, weighted_sum::weighted_sum};

/// How much a conditional prediction is exaggerated, and at which timesteps.
#[derive(Clone, Debug, PartialEq)]
pub struct Guidance {
    scale: f64,
    interval: RangeInclusive<f64>,
}

impl Guidance {
    /// Guidance at all timesteps. `scale` is that of diffusers, which is the paper's 1 + w: 1 is none.
    #[must_use]
    pub fn new(scale: f64) -> Self {
        Self { scale, interval: 0.0..=f64::INFINITY }
    }

    /// Guidance at the timesteps t of an interval only, both ends included; elsewhere the prediction is the
    /// conditional one alone, and costs half (Kynkäänniemi et al. 2024, arXiv 2404.07724: guidance harms at
    /// high noise and is of no use at low noise).
    #[must_use]
    pub fn within(self, interval: RangeInclusive<f64>) -> Self {
        Self { interval, ..self }
    }

    /// Whether the interval fits the schedule; for a sampler to ask before its first step.
    ///
    /// # Errors
    ///
    /// If an end of the interval is NaN or beyond the timesteps 0 to T − 1, or the first end is above the last: such
    /// an interval would switch guidance off without notice.
    pub fn check(&self, schedule: &NoiseSchedule) -> Result<()> {
        self.check_order()?;
        let (first, last) = (*self.interval.start(), *self.interval.end());
        let total = schedule.num_train_timesteps() as f64;
        if first < total && (last < total || last == f64::INFINITY) {
            return Ok(());
        }
        Err(self.refused(format!("timesteps from 0 to {}", total - 1.0)))
    }

    /// What can be checked without a schedule. NaN is refused as well.
    fn check_order(&self) -> Result<()> {
        let (first, last) = (*self.interval.start(), *self.interval.end());
        if first >= 0.0 && first <= last {
            return Ok(());
        }
        Err(self.refused("a first timestep of 0 or more and a last one that is not below it".to_owned()))
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

    /// The scale at a timestep: 1 outside the interval.
    #[must_use]
    pub fn scale_at(&self, timestep: Timestep) -> f64 {
        if self.interval.contains(&timestep.t()) { self.scale } else { 1.0 }
    }
}

/// One network of two, a conditional and an unconditional one (Ho & Salimans 2022, eq. 6):
///
/// ```text
/// prediction = unconditional + scale · (conditional − unconditional)
/// ```
///
/// It holds for ε, x₀ and v alike, since they are affine functions of each other. With scale 1 the second
/// network is not asked. A learnt variance, the second half of an output, is the conditional one.
///
/// The network fails if the guidance has a reversed interval. Compare an interval with the schedule by
/// [`Guidance::check`].
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
