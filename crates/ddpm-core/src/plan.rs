//! Plans: samplers as tables of factors.
//!
//! A [`Plan`] lists what a run does: evaluate the network at a timestep, or set the image to a weighted sum. All factors
//! are worked out in f64 when the plan is made, so a plan serves any tensor library. With the feature `candle`,
//! [`Plan::sample`] and [`Run`](crate::Run) carry it out. For another library, this loop does the same; `X` is its
//! tensor:
//!
//! ```text
//! for operation in plan.operations() {
//!     match operation {
//!         Evaluate { timestep, .. }      => keep x̂₀ = clip(sum(x_start)) and ε̂ = sum(eps) of network(x_t, timestep)
//!         Update(terms)                  => x_t = sum(terms)
//!         Keep                           => kept = x_t
//!         EndStep { .. }                 => one step is done
//!     }
//! }
//! ```
//!
//! [`Plan::depths`] says how many x̂₀ and ε̂ to keep. The example `07_plan_without_candle` is this loop for `Vec<f32>`,
//! and `08_ndarray` for the arrays of ndarray.

mod check;
mod epsilon_scale;

use std::sync::Arc;

use crate::{NoiseSchedule, PredictionType, ReverseVariance, Timestep, timesteps::Transition};

/// A tensor that a [`Plan`] reads.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Register {
    /// xₜ, the image.
    X,
    /// A copy of xₜ from the last [`Operation::Keep`].
    Kept,
    /// x̂₀, clipped, of the network evaluation this many evaluations ago. 0 is the latest.
    XStart(usize),
    /// ε̂, not clipped, of the network evaluation this many evaluations ago.
    Eps(usize),
    /// The network's output, without the half for a learned variance. It occurs only in the sums of
    /// [`Operation::Evaluate`].
    Output,
    /// Standard normal noise with this noise index, which is distinct for each noise of a run.
    Noise(usize),
    /// Standard normal noise with a learned standard deviation for each value: √exp((1−f) ln `low` + f ln `high`) with
    /// f = (v+1)/2, where v in [−1, 1] is the second half of the latest output (Nichol & Dhariwal 2021,
    /// arXiv 2102.09672, eq. 15).
    LearnedNoise {
        /// The noise index.
        index: usize,
        /// The variance at v = −1.
        low: f64,
        /// The variance at v = 1.
        high: f64,
    },
}

/// A factor, and the tensor that it multiplies.
pub type Term = (f64, Register);

/// One entry of a [`Plan`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// Evaluates the network at xₜ. The two predictions become [`Register::XStart`]`(0)` and [`Register::Eps`]`(0)`.
    Evaluate {
        /// The timestep for the network.
        timestep: Timestep,
        /// x̂₀ before clipping, as a sum over xₜ and the output.
        x_start: Vec<Term>,
        /// ε̂, as a sum over xₜ and the output.
        eps: Vec<Term>,
    },
    /// Sets xₜ to the sum of one or more terms. At most one of them is noise.
    Update(Vec<Term>),
    /// Copies xₜ to [`Register::Kept`].
    Keep,
    /// Ends a step of the sampler. Between two steps a run may be paused, and xₜ edited.
    EndStep {
        /// The index of the step, from 0.
        index: usize,
        /// The timestep at which the step started.
        timestep: Timestep,
        /// The factor of x₀ in xₜ after the step, √ᾱ.
        signal: f64,
        /// The factor of the noise in xₜ after the step, √(1−ᾱ).
        noise: f64,
    },
}

/// How a predicted x₀ is clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Clip {
    /// Not at all.
    None,
    /// To this magnitude.
    Range(f64),
    /// Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487, section 2.3): each image is clipped to ±s and divided
    /// by s, where s is the `ratio`-quantile of its magnitudes, clamped to [1, `max`].
    Dynamic {
        /// The quantile, 0 to 1.
        ratio: f64,
        /// The largest divisor, at least 1.
        max: f64,
    },
}

/// A sampler for one schedule and one list of timesteps, as a table of factors.
///
/// [`Sampler::plan`](crate::Sampler::plan) makes the plan of a known sampler. A sampler of your own is a plan that you
/// put together:
///
/// ```
/// # use ddpm_core::{NoiseSchedule, NoiseScheduleConfig, Plan, Register, Timesteps};
/// // DDIM with η = 0, with the factors of Song et al. 2021, eq. 12.
/// let schedule = NoiseSchedule::new(&NoiseScheduleConfig::mnist20())?;
/// let mut plan = Plan::new(&schedule);
/// let timesteps = Timesteps::all(&schedule);
/// let levels = timesteps.as_slice();
/// for (i, &from) in levels.iter().enumerate() {
///     let to = levels.get(i + 1).map_or(1.0, |next| next.alpha_cumprod());
///     let ratio = ((1.0 - to) / (1.0 - from.alpha_cumprod())).sqrt();
///     plan.evaluate(from);
///     plan.update([(ratio, Register::X), (to.sqrt() - ratio * from.alpha_cumprod().sqrt(), Register::XStart(0))]);
///     plan.end_step(from, to);
/// }
/// assert_eq!((plan.steps(), plan.evaluations()), (20, 20));
/// # Ok::<(), ddpm_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    operations: Arc<Vec<Operation>>,
    prediction_type: PredictionType,
    clip: Clip,
    learned_variance: bool,
    steps: usize,
    depths: [usize; 2],
}

impl Plan {
    /// An empty plan for networks of a schedule's `prediction_type` and `variance_type`, clipped as the schedule says.
    #[must_use]
    pub fn new(schedule: &NoiseSchedule) -> Self {
        let config = schedule.config();
        let learned_variance = config.variance_type == ReverseVariance::LearnedRange;
        Self { clip: config.clip(), learned_variance, ..Self::without_schedule(config.prediction_type) }
    }

    /// An empty plan for a network that was trained without a [`NoiseSchedule`], with flow matching for example. Nothing is
    /// clipped, and the network predicts no variance. `prediction_type` applies to [`Plan::evaluate`].
    #[must_use]
    pub fn without_schedule(prediction_type: PredictionType) -> Self {
        let (clip, learned_variance) = (Clip::None, false);
        // A run keeps the latest x̂₀ even if no update reads it.
        Self { operations: Arc::default(), prediction_type, clip, learned_variance, steps: 0, depths: [1, 0] }
    }

    /// Replaces how each x̂₀ is clipped.
    #[must_use]
    pub fn clipped(self, clip: Clip) -> Self {
        Self { clip, ..self }
    }

    /// Adds an evaluation of the network. x̂₀ and ε̂ follow from the prediction at the noise level of the timestep.
    pub fn evaluate(&mut self, timestep: Timestep) {
        let [x_start, eps] = [PredictionType::Sample, PredictionType::Epsilon]
            .map(|to| self.converted(to, timestep.alpha_cumprod()));
        self.evaluate_as(timestep, x_start, eps);
    }

    /// The conversion of the network's output to another quantity, as a sum.
    pub(crate) fn converted(&self, to: PredictionType, alpha_cumprod: f64) -> Vec<Term> {
        let (x_t, output) = self.prediction_type.conversion(to, alpha_cumprod);
        let x_t = (self.prediction_type != to).then_some((x_t, Register::X));
        x_t.into_iter().chain([(output, Register::Output)]).collect()
    }

    /// Adds an evaluation of a network whose predictions are other sums over xₜ and the output, as in flow matching.
    pub fn evaluate_as(&mut self, timestep: Timestep, x_start: Vec<Term>, eps: Vec<Term>) {
        self.push(Operation::Evaluate { timestep, x_start, eps });
    }

    /// Adds an update of xₜ.
    pub fn update(&mut self, terms: impl IntoIterator<Item = Term>) {
        let terms: Vec<Term> = terms.into_iter().collect();
        let [x_starts, eps] = &mut self.depths;
        for (_, register) in &terms {
            match *register {
                Register::XStart(age) => *x_starts = (*x_starts).max(age + 1),
                Register::Eps(age) => *eps = (*eps).max(age + 1),
                _ => {}
            }
        }
        self.push(Operation::Update(terms));
    }

    /// Adds a copy of xₜ to [`Register::Kept`].
    pub fn keep(&mut self) {
        self.push(Operation::Keep);
    }

    /// Ends a step that started at `timestep` and leads to the noise level ᾱ.
    pub fn end_step(&mut self, timestep: Timestep, alpha_cumprod: f64) {
        self.end_step_at(timestep, alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt());
    }

    /// Ends a step that started at `timestep` and leads to xₜ = `signal` x₀ + `noise` ε.
    pub fn end_step_at(&mut self, timestep: Timestep, signal: f64, noise: f64) {
        self.push(Operation::EndStep { index: self.steps, timestep, signal, noise });
        self.steps += 1;
    }

    /// Adds a step with one evaluation, at its start, and one update.
    pub(crate) fn step(&mut self, step: Transition, terms: impl IntoIterator<Item = Term>) {
        self.evaluate(step.from);
        self.update(terms);
        self.end_step(step.from, step.to);
    }

    fn push(&mut self, operation: Operation) {
        Arc::make_mut(&mut self.operations).push(operation);
    }

    /// The table: all operations in order.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How each x̂₀ is clipped.
    #[must_use]
    pub fn clip(&self) -> Clip {
        self.clip
    }

    /// Whether the network's output is twice as wide as the image in dimension 1, for a learned variance.
    #[must_use]
    pub fn learned_variance(&self) -> bool {
        self.learned_variance
    }

    /// The number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The number of network evaluations.
    #[must_use]
    pub fn evaluations(&self) -> usize {
        self.operations.iter().filter(|operation| matches!(operation, Operation::Evaluate { .. })).count()
    }

    /// The number of x̂₀ and of ε̂ that a run has to keep.
    #[must_use]
    pub fn depths(&self) -> [usize; 2] {
        self.depths
    }
}
