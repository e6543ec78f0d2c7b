//! Flow matching (Lipman et al. 2023, arXiv 2210.02747) with Euler's method, `FlowMatchEulerDiscreteScheduler`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::codec::{Codec, FileOptions};
use super::json;
use crate::{Compat, Error, Plan, PredictionType, Register, Result, Timestep, timesteps::karras_sigmas};

/// A scheduler of flow matching. The forward process is xₛ = (1−σ) x₀ + σ ε for σ from 0 to 1, and the network predicts
/// the velocity ε − x₀ at the timestep σT, which is fractional. Names are the same as in diffusers.
///
/// ```
/// # use ddpm_core::FlowMatchEuler;
/// let json = r#"{ "_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0 }"#;
/// let scheduler = FlowMatchEuler::from_diffusers_json(json)?;
/// let plan = scheduler.plan(&scheduler.sigmas(28, None)?)?;
/// assert_eq!((plan.steps(), plan.evaluations()), (28, 28));
/// # Ok::<(), ddpm_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FlowMatchEuler {
    /// T, the factor of σ in the timestep.
    pub num_train_timesteps: usize,
    /// The factor of the odds σ/(1−σ) of each noise level, above 0 (Esser et al. 2024, arXiv 2403.03206, eq. 23). A model
    /// of larger images needs more noise.
    pub shift: f64,
    /// Whether μ, an argument of [`FlowMatchEuler::sigmas`], replaces `shift`.
    pub use_dynamic_shifting: bool,
    /// How μ shifts the odds.
    pub time_shift_type: TimeShift,
    /// The last noise level above 0 to which the list is stretched, below 1.
    pub shift_terminal: Option<f64>,
    /// Whether the noise levels are spaced as in Karras et al. 2022, between the first and the last of the shifted list.
    pub use_karras_sigmas: bool,
    /// Whether the logarithms of the noise levels are evenly spaced between the same two.
    pub use_exponential_sigmas: bool,
    /// Whether σ counts from noise to data: xₛ = σ x₀ + (1−σ) ε, and the network predicts x₀ − ε.
    pub invert_sigmas: bool,
    /// Whether each step predicts x₀ and noises it again, instead of following the flow. This is for distilled models; the
    /// samples of others are much less varied than the data.
    pub stochastic_sampling: bool,
    /// Whether noise levels are shifted as in diffusers, which shifts the smallest one twice.
    pub compat: Compat,
    file: FileOptions,
}

/// How μ of dynamic shifting changes the odds σ/(1−σ).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeShift {
    /// Multiplied by e^μ.
    Exponential,
    /// Multiplied by μ.
    Linear,
}

const CLASS: &str = "FlowMatchEulerDiscreteScheduler";

impl FlowMatchEuler {
    /// The scheduler with this shift, and the defaults of diffusers.
    #[must_use]
    pub fn new(shift: f64) -> Self {
        Self {
            num_train_timesteps: 1000,
            shift,
            use_dynamic_shifting: false,
            time_shift_type: TimeShift::Exponential,
            shift_terminal: None,
            use_karras_sigmas: false,
            use_exponential_sigmas: false,
            invert_sigmas: false,
            stochastic_sampling: false,
            compat: Compat::Exact,
            file: FileOptions::default(),
        }
    }

    /// Reads the `scheduler_config.json` of `FlowMatchEulerDiscreteScheduler`. A missing option has its default.
    ///
    /// # Errors
    ///
    /// As [`DiffusersConfig::from_diffusers_json`](crate::DiffusersConfig::from_diffusers_json).
    pub fn from_diffusers_json(text: &str) -> Result<Self> {
        let mut map: Map<String, Value> = json::parse(text)?;
        let class = map.remove("_class_name").unwrap_or_default();
        if class != CLASS {
            return Err(Error::scheduler_option("a scheduler", "_class_name", class.to_string(), CLASS));
        }
        let mut codec = Codec::reading(CLASS, map);
        codec.check_numbers()?;
        let mut config = Self::new(1.0);
        config.describe(&mut codec)?;
        config.file = codec.into_file()?;
        Ok(config)
    }

    /// Writes the `scheduler_config.json`. The text ends with a newline.
    ///
    /// # Errors
    ///
    /// If an option is not a finite number.
    pub fn to_diffusers_json(&self) -> Result<String> {
        let mut codec = Codec::writing(CLASS, &self.file);
        self.clone().describe(&mut codec)?;
        let mut map = codec.into_written(&self.file.other);
        map.insert("_class_name".to_owned(), CLASS.into());
        Ok(serde_json::to_string_pretty(&map)? + "\n")
    }

    fn describe(&mut self, codec: &mut Codec) -> Result<()> {
        codec.field("num_train_timesteps", &mut self.num_train_timesteps)?;
        codec.field("shift", &mut self.shift)?;
        codec.flag("use_dynamic_shifting", &mut self.use_dynamic_shifting)?;
        codec.field("time_shift_type", &mut self.time_shift_type)?;
        codec.field("shift_terminal", &mut self.shift_terminal)?;
        codec.flag("use_karras_sigmas", &mut self.use_karras_sigmas)?;
        codec.flag("use_exponential_sigmas", &mut self.use_exponential_sigmas)?;
        codec.only("use_beta_sigmas", &[false.into(), Value::Null])?;
        codec.flag("invert_sigmas", &mut self.invert_sigmas)?;
        codec.flag("stochastic_sampling", &mut self.stochastic_sampling)?;
        // Pipelines compute μ from these four; the scheduler does not use them.
        for option in ["base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"] {
            codec.unused(option);
        }
        Ok(())
    }

    /// The noise levels of a run of `num_inference_steps` steps, from 1 down to above 0: evenly spaced from 1 to 1/T, and
    /// shifted. `mu` is the argument of dynamic shifting.
    ///
    /// # Errors
    ///
    /// If the number of steps is 0 or above T, an option is out of range, or `mu` is missing.
    pub fn sigmas(&self, num_inference_steps: usize, mu: Option<f64>) -> Result<Vec<f64>> {
        let (n, total) = (num_inference_steps, self.num_train_timesteps);
        if !(1..=total).contains(&n) {
            return Err(Error::out_of_range("num_inference_steps", n, format!("1 to {total}")));
        }
        let mut smallest = 1.0 / total as f64;
        if self.compat == Compat::Diffusers && !self.use_dynamic_shifting {
            smallest = self.shifted(smallest, None)?;
        }
        let last = n.saturating_sub(1).max(1) as f64;
        let even: Vec<f64> = (0..n).map(|i| 1.0 + (smallest - 1.0) * i as f64 / last).collect();
        self.shift(&even, mu)
    }

    /// Shifts noise levels of one's own, each above 0 and at most 1, in descending order.
    ///
    /// # Errors
    ///
    /// As [`FlowMatchEuler::sigmas`].
    pub fn shift(&self, sigmas: &[f64], mu: Option<f64>) -> Result<Vec<f64>> {
        let sigmas = sigmas.iter().map(|&sigma| self.shifted(sigma, mu)).collect::<Result<Vec<f64>>>()?;
        let (Some(&first), Some(&last)) = (sigmas.first(), sigmas.last()) else {
            return Err(Error::NoTimesteps);
        };
        let stretch = match self.shift_terminal.filter(|&terminal| terminal != 0.0) {
            Some(found) if !(0.0..1.0).contains(&found) || last == 1.0 => {
                return Err(Error::out_of_range(
                    "shift_terminal",
                    found,
                    "0 to 1, and a list that ends below 1",
                ));
            }
            Some(terminal) => (1.0 - terminal) / (1.0 - last),
            None => 1.0,
        };
        let stretched = |sigma: f64| if stretch == 1.0 { sigma } else { 1.0 - (1.0 - sigma) * stretch };
        let (first, last, n) = (stretched(first), stretched(last), sigmas.len());
        let part = |i: usize| i as f64 / n.saturating_sub(1).max(1) as f64;
        Ok(match (self.use_karras_sigmas, self.use_exponential_sigmas) {
            (true, true) => {
                return Err(Error::out_of_range(
                    "use_exponential_sigmas",
                    true,
                    "false with use_karras_sigmas",
                ));
            }
            (true, _) => karras_sigmas(first, last, n),
            (_, true) => (0..n).map(|i| (first.ln() + part(i) * (last.ln() - first.ln())).exp()).collect(),
            _ => sigmas.into_iter().map(stretched).collect(),
        })
    }

    fn shifted(&self, sigma: f64, mu: Option<f64>) -> Result<f64> {
        let factor = match (self.use_dynamic_shifting, mu, self.time_shift_type) {
            (false, _, _) => self.shift,
            (true, None, _) => {
                return Err(Error::out_of_range("mu", "missing", "a number, for use_dynamic_shifting"));
            }
            (true, Some(mu), TimeShift::Exponential) => mu.exp(),
            (true, Some(mu), TimeShift::Linear) => mu,
        };
        if !(factor > 0.0 && factor.is_finite()) {
            return Err(Error::out_of_range("the shift", factor, "above 0"));
        }
        Ok(factor * sigma / (1.0 + (factor - 1.0) * sigma))
    }

    /// The plan of a run through these noise levels, each above 0 and at most 1, strictly descending, and finally to x₀.
    /// Start it at standard normal noise. Its [`Timestep::sigma`] is the noise level relative to the image, σ/(1−σ).
    ///
    /// ```text
    /// x′ = x + (σ′−σ) v = σ′/σ x + (1 − σ′/σ) x̂₀,   x̂₀ = x − σ v
    /// ```
    ///
    /// # Errors
    ///
    /// If the list is empty or not strictly descending, or a value is out of range.
    pub fn plan(&self, sigmas: &[f64]) -> Result<Plan> {
        let mut bound = f64::INFINITY;
        for (position, &found) in sigmas.iter().enumerate() {
            if !(found > 0.0 && found <= 1.0 && found < bound) {
                let expected = "strictly descending values above 0 and at most 1";
                return Err(Error::out_of_range(format!("sigmas[{position}]"), found, expected));
            }
            bound = found;
        }
        if sigmas.is_empty() {
            return Err(Error::NoTimesteps);
        }
        let mut plan = Plan::without_schedule(PredictionType::VPrediction);
        for (index, &sigma) in sigmas.iter().enumerate() {
            let next = sigmas.get(index + 1).copied().unwrap_or(0.0);
            let from = self.timestep(sigma);
            let sign = if self.invert_sigmas { -1.0 } else { 1.0 };
            let prediction = |factor: f64| vec![(1.0, Register::X), (sign * factor, Register::Output)];
            plan.evaluate_as(from, prediction(-sigma), prediction(1.0 - sigma));
            if next == 0.0 {
                plan.update([(1.0, Register::XStart(0))]);
            } else if self.stochastic_sampling {
                plan.update([
                    (1.0 - next, Register::XStart(0)),
                    (next, Register::Noise(sigmas.len() - 1 - index)),
                ]);
            } else {
                plan.update([(next / sigma, Register::X), (1.0 - next / sigma, Register::XStart(0))]);
            }
            plan.end_step_at(from, 1.0 - next, next);
        }
        Ok(plan)
    }

    fn timestep(&self, sigma: f64) -> Timestep {
        let t = if self.invert_sigmas { 1.0 - sigma } else { sigma } * self.num_train_timesteps as f64;
        Timestep::with_signal_and_noise(t, 1.0 - sigma, sigma)
    }
}
