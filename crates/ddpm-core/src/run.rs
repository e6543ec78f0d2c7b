//! The run: carries out a plan, and asks for each evaluation of the network.

mod driver;
mod state;

use std::collections::VecDeque;

use candle_core::{DType, Tensor};

use crate::{
    Error, Plan, Result, Timestep,
    decode::{decode, learned_log_variance},
    error::BoxError,
    plan::{Operation, Register, Term},
    weighted_sum::weighted_sum,
};

/// A plan being carried out on a batch of images.
///
/// It asks for the network's output instead of calling the network, so it fits any program: a loop, a thread of a user
/// interface, async code, or a server that answers many runs in one batch.
///
/// ```
/// # use candle_core::{DType, Device};
/// # use ddpm_core::{CounterRng, NoiseSchedule, NoiseScheduleConfig, Sampler, Steps};
/// # let schedule = NoiseSchedule::new(&NoiseScheduleConfig::ho2020())?;
/// let plan = Sampler::ddpm().plan(&schedule, Steps::Spaced(10))?;
/// let images = CounterRng::new(1).images(0..4);
/// let mut noise = images.noise();
/// let mut run = plan.start(images.start(&[784], &Device::Cpu)?, &mut noise)?;
/// while let Some(ask) = run.ask()? {
///     let output = (&ask.x_t * (1.0 - ask.timestep.alpha_cumprod()).sqrt())?; // the network
///     run.answer(&output, &mut noise)?;
///     if let Some(step) = run.step() {
///         assert!(step.index < step.total); // a preview, a pause, an edit
///     }
/// }
/// assert_eq!(run.into_x_t()?.dims(), &[4, 784]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `noise(x_t, noise_index)` returns standard normal noise of the shape of `x_t`. It is called once for each noise that the
/// plan adds, with distinct indices, so a counter-based source such as [`ImageNoise`](crate::ImageNoise) makes a run
/// reproducible.
///
/// The images are kept in f32, or in f64 if they start in f64; the network gets them in the type in which they started.
#[derive(Clone, Debug)]
pub struct Run {
    plan: Plan,
    /// The next operation.
    position: usize,
    x_t: Tensor,
    kept: Option<Tensor>,
    /// The latest first.
    x_starts: VecDeque<Tensor>,
    eps: VecDeque<Tensor>,
    variance: Option<Tensor>,
    /// Noise that was made for the updates before the next evaluation.
    pending: VecDeque<Tensor>,
    /// The type of the start images.
    dtype: DType,
    /// Whether the network's output at `x_t` has been asked for.
    asked: bool,
}

/// A request for the network's output.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The images, [B, …].
    pub x_t: Tensor,
    /// The timestep, the same for all images of the run.
    pub timestep: Timestep,
}

/// A step that a run has finished.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StepInfo<'a> {
    /// The index of the step, from 0.
    pub index: usize,
    /// The number of steps of the run.
    pub total: usize,
    /// The timestep at which the step started.
    pub timestep: Timestep,
    /// The factor of x₀ in xₜ after the step: √ᾱ, or 1 − σ with flow matching.
    pub signal: f64,
    /// The factor of the noise in xₜ after the step: √(1−ᾱ), or σ with flow matching.
    pub noise: f64,
    /// The images after the step, [B, …].
    pub x_t: &'a Tensor,
    /// The latest predicted x₀, clipped as the plan says.
    pub x_start: &'a Tensor,
}

impl Run {
    /// The next request for the network's output; `None` at the end of the run. Without an answer in between, the request
    /// stays the same.
    ///
    /// # Errors
    ///
    /// If candle fails.
    pub fn ask(&mut self) -> Result<Option<Ask>> {
        self.advance()?;
        let Some(&Operation::Evaluate { timestep, .. }) = self.plan.operations().get(self.position) else {
            return Ok(None);
        };
        self.asked = true;
        Ok(Some(Ask { x_t: self.x_t.to_dtype(self.dtype)?, timestep }))
    }

    /// Answers the request with the network's output, and carries on to the end of the step or to the next request.
    ///
    /// # Errors
    ///
    /// If [`Run::ask`] was not called before, or not since the images were replaced; if the noise source fails, or the
    /// shapes do not fit. The run then waits for another answer.
    pub fn answer<E: Into<BoxError>>(
        &mut self,
        output: &Tensor,
        mut noise: impl FnMut(&Tensor, usize) -> std::result::Result<Tensor, E>,
    ) -> Result<()> {
        let plan = self.plan.clone();
        let evaluation = plan.operations().get(self.position).filter(|_| self.asked);
        let prediction = decode(&plan, evaluation.ok_or(Error::NothingAsked)?, &self.x_t, output)?;
        self.draw(self.position + 1, &mut noise)?;
        (self.asked, self.position) = (false, self.position + 1);
        let [x_starts, eps] = plan.depths();
        self.x_starts.push_front(prediction.x_start);
        self.x_starts.truncate(x_starts);
        prediction.eps.into_iter().for_each(|latest| self.eps.push_front(latest));
        self.eps.truncate(eps);
        self.variance = prediction.variance;
        self.advance()
    }

    /// Makes the noise of all updates from a position to the next evaluation, so that [`Run::ask`] needs none.
    fn draw<E: Into<BoxError>>(
        &mut self,
        position: usize,
        noise: &mut impl FnMut(&Tensor, usize) -> std::result::Result<Tensor, E>,
    ) -> Result<()> {
        let operations = self.plan.operations()[position..].iter();
        let updates = operations.take_while(|operation| !matches!(operation, Operation::Evaluate { .. }));
        let mut drawn = VecDeque::new();
        for index in updates.filter_map(noise_index) {
            let noise = noise(&self.x_t, index).map_err(|source| Error::Noise(source.into()))?;
            drawn.push_back(like(&noise, &self.x_t)?);
        }
        self.pending = drawn;
        Ok(())
    }

    /// Carries out operations up to the next evaluation, or just behind the end of a step.
    fn advance(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        while let Some(operation) = plan.operations().get(self.position) {
            match operation {
                Operation::Evaluate { .. } => return Ok(()),
                Operation::Update(terms) => self.x_t = self.sum(terms)?,
                Operation::Keep => self.kept = Some(self.x_t.clone()),
                Operation::EndStep { .. } => {}
            }
            self.position += 1;
            if matches!(operation, Operation::EndStep { .. }) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn sum(&mut self, terms: &[Term]) -> Result<Tensor> {
        let missing = |register| {
            Error::out_of_range("a term of an update", format!("{register:?}"), "a register that is set")
        };
        let mut tensors = Vec::with_capacity(terms.len());
        let is_noise = |term: &&Term| matches!(term.1, Register::Noise(_) | Register::LearnedNoise { .. });
        let noise = match terms.iter().find(is_noise) {
            None => None,
            Some((_, register)) => {
                let noise = self.pending.pop_front().ok_or_else(|| missing(*register))?;
                Some(match (register, &self.variance) {
                    (Register::LearnedNoise { low, high, .. }, Some(v)) => {
                        (noise * (learned_log_variance(v, *low, *high)? * 0.5)?.exp()?)?
                    }
                    _ => noise,
                })
            }
        };
        for &(factor, register) in terms {
            let tensor = match register {
                Register::X => Some(&self.x_t),
                Register::Kept => self.kept.as_ref(),
                Register::XStart(age) => self.x_starts.get(age),
                Register::Eps(age) => self.eps.get(age),
                Register::Output => None,
                Register::Noise(_) | Register::LearnedNoise { .. } => noise.as_ref(),
            };
            tensors.push((factor, tensor.ok_or_else(|| missing(register))?));
        }
        match tensors[..] {
            [(1.0, same)] => Ok(same.clone()),
            _ => weighted_sum(&tensors),
        }
    }

    /// The step that the run has just finished; `None` before the first step and within a step.
    #[must_use]
    pub fn step(&self) -> Option<StepInfo<'_>> {
        let before = self.position.checked_sub(1)?;
        let Operation::EndStep { index, timestep, signal, noise } = *self.plan.operations().get(before)?
        else {
            return None;
        };
        let (total, x_start) = (self.plan.steps(), self.x_starts.front()?);
        Some(StepInfo { index, total, timestep, signal, noise, x_t: &self.x_t, x_start })
    }

    /// The images, [B, …] in f32 or f64.
    #[must_use]
    pub fn x_t(&self) -> &Tensor {
        &self.x_t
    }

    /// The latest predicted x₀, clipped as the plan says; `None` before the first answer.
    #[must_use]
    pub fn x_start(&self) -> Option<&Tensor> {
        self.x_starts.front()
    }

    /// Replaces the images. Between two steps, the next step starts from them. A request that is open must be made again.
    ///
    /// # Errors
    ///
    /// If the shape is another one.
    pub fn set_x_t(&mut self, x_t: &Tensor) -> Result<()> {
        (self.x_t, self.asked) = (like(x_t, &self.x_t)?, false);
        Ok(())
    }

    /// Replaces the latest predicted x₀, which a sampler with history uses in the next step.
    ///
    /// # Errors
    ///
    /// If the shape is another one, or there is no prediction yet.
    pub fn set_x_start(&mut self, x_start: &Tensor) -> Result<()> {
        let latest = self.x_starts.front_mut().ok_or(Error::NothingAsked)?;
        *latest = like(x_start, latest)?;
        Ok(())
    }

    /// Ends the run, at its end or before, and returns the images in the type in which they started.
    ///
    /// # Errors
    ///
    /// If candle fails.
    pub fn into_x_t(self) -> Result<Tensor> {
        Ok(self.x_t.to_dtype(self.dtype)?)
    }
}

/// The index of the noise that an update adds.
pub(crate) fn noise_index(operation: &Operation) -> Option<usize> {
    let Operation::Update(terms) = operation else { return None };
    terms.iter().find_map(|(_, register)| match *register {
        Register::Noise(index) | Register::LearnedNoise { index, .. } => Some(index),
        _ => None,
    })
}

/// `new` in the type and on the device of `old`, whose shape it must have.
pub(crate) fn like(new: &Tensor, old: &Tensor) -> Result<Tensor> {
    if new.dims() != old.dims() {
        return Err(Error::Shapes { first: old.dims().to_vec(), second: new.dims().to_vec() });
    }
    Ok(new.to_dtype(old.dtype())?.to_device(old.device())?)
}
