//! Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), on an interval, rescaled, annealed.

use candle_core::Tensor;
use std::ops::RangeInclusive;

use crate::{
    Error, NoiseSchedule, Result, Timestep,
    error::BoxError,
    weighted_sum::{at_least_f32, per_image, weighted_sum},
};

/// The scale of classifier-free guidance, and the timesteps at which it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Guidance {
    scale: f64,
    interval: RangeInclusive<f64>,
    rescale: f64,
    annealing: Option<RangeInclusive<f64>>,
}

impl Guidance {
    /// Guidance at all timesteps. `scale` is the guidance scale of diffusers, which is 1 + w of the paper. A scale of 1
    /// means no guidance.
    #[must_use]
    pub fn new(scale: f64) -> Self {
        Self { scale, interval: 0.0..=f64::INFINITY, rescale: 0.0, annealing: None }
    }

    /// Restricts guidance to an interval of timesteps t, both ends included. Outside the interval only the conditional
    /// network is evaluated, which halves the cost. Kynkäänniemi et al. 2024 (arXiv 2404.07724) found that guidance is
    /// harmful at high noise and has little effect at low noise.
    #[must_use]
    pub fn within(self, interval: RangeInclusive<f64>) -> Self {
        Self { interval, ..self }
    }

    /// Anneals the condition: the scale at each timestep, also where it is 1, is multiplied by γ(t), which falls from 1 at
    /// the first timestep of the interval to 0 at the last. From there on the prediction is the unconditional one, so
    /// noise alone decides the coarse shape. If both ends are the same timestep, γ is a step behind it.
    ///
    /// ```text
    /// γ(t) = 1 for t ≤ first,   (last − t)/(last − first) in between,   0 for t ≥ last
    /// ```
    ///
    /// This is the dynamic guidance of condition-annealed sampling (CADS, Sadat et al. 2023, arXiv 2310.17347), which also
    /// adds noise to the embedding of the condition; the index of a class has no place for it. With scale 1 the guided
    /// prediction is the mean over a class that is dropped with probability 1 − γ.
    #[must_use]
    pub fn annealed(self, interval: RangeInclusive<f64>) -> Self {
        Self { annealing: Some(interval), ..self }
    }

    /// Moves the standard deviation of each guided prediction towards the deviation of the conditional prediction. `rescale`
    /// is φ of Lin et al. 2023 (arXiv 2305.08891, section 3.4), from 0, the default, to 1; the paper uses 0.7. It prevents
    /// overexposed images with a large scale and a schedule that ends in pure noise.
    ///
    /// # Errors
    ///
    /// If `rescale` is not between 0 and 1.
    pub fn rescaled(self, rescale: f64) -> Result<Self> {
        if (0.0..=1.0).contains(&rescale) {
            return Ok(Self { rescale, ..self });
        }
        Err(Error::out_of_range("guidance rescale", rescale, "0 to 1"))
    }

    /// Checks that the intervals lie within the schedule. Call it before sampling.
    ///
    /// # Errors
    ///
    /// If an end of an interval is NaN or outside 0 to T − 1, or an interval is reversed. Such an interval would
    /// silently disable guidance or annealing.
    pub fn check(&self, schedule: &NoiseSchedule) -> Result<()> {
        self.check_order()?;
        let total = schedule.num_train_timesteps() as f64;
        for (name, interval) in self.intervals() {
            let (first, last) = (*interval.start(), *interval.end());
            if !(first < total && (last < total || last == f64::INFINITY)) {
                return Err(refused(name, interval, format!("timesteps from 0 to {}", total - 1.0)));
            }
        }
        Ok(())
    }

    /// Checks that each interval starts at 0 or more and is not reversed. NaN is rejected too.
    fn check_order(&self) -> Result<()> {
        for (name, interval) in self.intervals() {
            let (first, last) = (*interval.start(), *interval.end());
            if !(first >= 0.0 && first <= last) {
                let expected = "a first timestep of 0 or more and a last timestep that is not below it";
                return Err(refused(name, interval, expected.to_owned()));
            }
        }
        Ok(())
    }

    fn intervals(&self) -> impl Iterator<Item = (&'static str, &RangeInclusive<f64>)> {
        let annealing = self.annealing.iter().map(|interval| ("the annealing interval", interval));
        std::iter::once(("the guidance interval", &self.interval)).chain(annealing)
    }

    /// The scale within the interval.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The interval of timesteps with guidance, both ends included. Without [`Guidance::within`] it is 0 to infinity.
    #[must_use]
    pub fn interval(&self) -> &RangeInclusive<f64> {
        &self.interval
    }

    /// The interval of [`Guidance::annealed`], or `None`.
    #[must_use]
    pub fn annealing(&self) -> Option<&RangeInclusive<f64>> {
        self.annealing.as_ref()
    }

    /// φ of [`Guidance::rescaled`], 0 to 1; 0 does not rescale.
    #[must_use]
    pub fn rescale(&self) -> f64 {
        self.rescale
    }

    /// The scale at a timestep. It is 1 outside the interval, times γ if the condition is annealed.
    #[must_use]
    pub fn scale_at(&self, timestep: Timestep) -> f64 {
        let t = timestep.t();
        let scale = if self.interval.contains(&t) { self.scale } else { 1.0 };
        match self.annealing.as_ref().map(|interval| (*interval.start(), *interval.end())) {
            Some((first, _)) if t <= first => scale,
            Some((_, last)) if t >= last => 0.0,
            Some((first, last)) => scale * (1.0 - (t - first) / (last - first)),
            None => scale,
        }
    }
}

fn refused(name: &'static str, interval: &RangeInclusive<f64>, expected: String) -> Error {
    Error::out_of_range(name, format!("{}-{}", interval.start(), interval.end()), expected)
}

/// One of the two evaluations of a network with guidance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// With the condition, a class for example.
    Conditional,
    /// Without it.
    Unconditional,
}

impl Guidance {
    /// Combines the two predictions of a network (Ho & Salimans 2022, eq. 6):
    ///
    /// ```text
    /// prediction = unconditional + scale · (conditional − unconditional)
    /// ```
    ///
    /// The formula holds for ε, x₀ and v, because they are affine functions of each other. A learned variance, the second
    /// half of an output that is wider than `x_t` in dimension 1, is taken from the conditional prediction.
    ///
    /// # Errors
    ///
    /// If the shapes differ, or the interval is reversed.
    pub fn combine(
        &self,
        x_t: &Tensor,
        timestep: Timestep,
        conditional: &Tensor,
        unconditional: &Tensor,
    ) -> Result<Tensor> {
        self.check_order()?;
        let scale = self.scale_at(timestep);
        let guide = |with: &Tensor, without: &Tensor| {
            let guided = weighted_sum(&[(1.0 - scale, without), (scale, with)])?;
            if self.rescale == 0.0 { Ok(guided) } else { rescaled(&guided, with, self.rescale) }
        };
        match (x_t.dims(), conditional.dims()) {
            (&[_, width, ..], &[_, found, ..]) if found == 2 * width => {
                let half = |output: &Tensor| output.narrow(1, 0, width);
                let prediction = guide(&half(conditional)?, &half(unconditional)?)?;
                Ok(Tensor::cat(&[prediction, conditional.narrow(1, width, width)?], 1)?)
            }
            _ => guide(conditional, unconditional),
        }
    }

    /// A network with guidance, from a network whose last argument says which pass to compute. Outside the interval, and with
    /// scale 1, the unconditional pass is not evaluated. The errors of the network are passed on.
    pub fn network<E: Into<BoxError>, N>(
        &self,
        mut network: N,
    ) -> impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, BoxError> + use<E, N>
    where
        N: FnMut(&Tensor, Timestep, Pass) -> std::result::Result<Tensor, E>,
    {
        let guidance = self.clone();
        move |x_t, timestep| {
            guidance.check_order()?;
            let conditional = network(x_t, timestep, Pass::Conditional).map_err(Into::into)?;
            if guidance.scale_at(timestep) == 1.0 {
                return Ok(conditional);
            }
            let unconditional = network(x_t, timestep, Pass::Unconditional).map_err(Into::into)?;
            Ok(guidance.combine(x_t, timestep, &conditional, &unconditional)?)
        }
    }

    /// A network with guidance whose two passes are one batch. `network(x, timestep, 2)` gets x of [2B, …]: xₜ for the
    /// conditional pass, then the same xₜ for the unconditional pass. Outside the interval, and with scale 1, it is
    /// `network(x, timestep, 1)` with x of [B, …], for the conditional pass.
    pub fn network_in_one_batch<E: Into<BoxError>, N>(
        &self,
        mut network: N,
    ) -> impl FnMut(&Tensor, Timestep) -> std::result::Result<Tensor, BoxError> + use<E, N>
    where
        N: FnMut(&Tensor, Timestep, usize) -> std::result::Result<Tensor, E>,
    {
        let guidance = self.clone();
        move |x_t, timestep| {
            guidance.check_order()?;
            if guidance.scale_at(timestep) == 1.0 {
                return network(x_t, timestep, 1).map_err(Into::into);
            }
            let output = network(&Tensor::cat(&[x_t, x_t], 0)?, timestep, 2).map_err(Into::into)?;
            let halves = output.chunk(2, 0)?;
            let [conditional, unconditional] = &halves[..] else {
                let (name, found) = ("the shape of the network's output", format!("{:?}", output.dims()));
                return Err(Error::out_of_range(name, found, "twice the batch").into());
            };
            Ok(guidance.combine(x_t, timestep, conditional, unconditional)?)
        }
    }
}

/// Guidance rescale (Lin et al. 2023, arXiv 2305.08891, section 3.4): `guided` with the standard deviation of
/// `conditional` for each image, mixed with `guided` itself.
fn rescaled(guided: &Tensor, conditional: &Tensor, rescale: f64) -> Result<Tensor> {
    let deviation = |x: &Tensor| -> candle_core::Result<Tensor> {
        let flat = at_least_f32(&x.flatten_from(1)?)?;
        // With n, not n − 1 as in PyTorch's `std`; the ratio is the same.
        flat.broadcast_sub(&flat.mean_keepdim(1)?)?.sqr()?.mean(1)?.sqrt()
    };
    let (wanted, found) = (deviation(conditional)?, deviation(guided)?);
    let ratio = (wanted / &found)?;
    // A prediction that is the same everywhere cannot be scaled to another deviation.
    let ratio = found.eq(0.0)?.where_cond(&ratio.ones_like()?, &ratio)?;
    let factor = ((ratio * rescale)? + (1.0 - rescale))?.to_dtype(guided.dtype())?;
    Ok(guided.broadcast_mul(&per_image(&factor, guided)?)?)
}
