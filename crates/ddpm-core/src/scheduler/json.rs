//! Reading and writing the `scheduler_config.json` of diffusers.
//!
//! One description of each class serves both directions, so reading and writing handle the same options.

use serde_json::{Map, Value, json};

use super::codec::Codec;
use super::{DiffusersConfig, FinalSigma};
use crate::{
    Error, NoiseScheduleConfig, Result, ReverseVariance, Sampler, TimestepSpacing,
    sampler::{Churn, DpmSolver, UniPc},
};

/// Options of other classes that occur in files.
const OTHER_CLASSES: [&str; 3] = ["skip_prk_steps", "set_alpha_to_one", "sample_max_value"];

impl DiffusersConfig {
    /// Reads the `scheduler_config.json` of one of the diffusers classes `DDPMScheduler`, `DDIMScheduler`,
    /// `DPMSolverMultistepScheduler`, `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler`,
    /// `HeunDiscreteScheduler` and `UniPCMultistepScheduler`. A missing option has the default of its
    /// class.
    ///
    /// ```
    /// # use ddpm_core::DiffusersConfig;
    /// let json = r#"{ "_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": true }"#;
    /// let error = DiffusersConfig::from_diffusers_json(json).unwrap_err();
    /// assert!(error.to_string().contains("`use_beta_sigmas` of EulerDiscreteScheduler is true"));
    /// ```
    ///
    /// # Errors
    ///
    /// If the text is not a JSON object of one of these classes, or has an option or a value that this crate does not
    /// implement. The error names the option.
    pub fn from_diffusers_json(json: &str) -> Result<Self> {
        let map: Map<String, Value> = serde_json::from_str(&quote_bare_words(json))?;
        let found = map.get("_class_name").cloned().unwrap_or_default();
        let is_found = |sampler: &Sampler| found == sampler.diffusers_class();
        let Some(sampler) = samplers().into_iter().find(is_found) else {
            let classes = samplers().map(|sampler| format!("{:?}", sampler.diffusers_class()));
            let expected = classes.join(", ");
            return Err(Error::scheduler_option("a scheduler", "_class_name", found.to_string(), expected));
        };
        let mut config = defaults(sampler);
        let mut codec = Codec { class: config.sampler.diffusers_class(), reading: true, map };
        codec.map.remove("_class_name");
        // `lambda_min_clipped` is −∞ by default. No other option may be infinite.
        let infinite = |(option, found): &(&String, &Value)| {
            *option != "lambda_min_clipped" && BARE_WORDS.iter().any(|word| *found == word)
        };
        if let Some((option, found)) = codec.map.iter().find(infinite) {
            return Err(codec.error(option, found, "a finite number"));
        }
        describe(&mut codec, &mut config)?;
        match codec.map.iter().next() {
            Some((option, found)) => Err(codec.error(option, found, "no such option")),
            None => Ok(config),
        }
    }

    /// Writes the `scheduler_config.json` of the equivalent scheduler of diffusers. The text ends with a newline. It does
    /// not contain `compat`, nor η of DDIM, which is an argument of `step` in diffusers.
    ///
    /// # Errors
    ///
    /// If the class of diffusers has no option for a setting: DDPM with a variance other than the schedule's
    /// `variance_type`, churn, clipping for most samplers.
    pub fn to_diffusers_json(&self) -> Result<String> {
        let class = self.sampler.diffusers_class();
        let refuse = |option: &str, found: String, expected: &str| {
            Err(Error::scheduler_option(class, option, found, expected))
        };
        match &self.sampler {
            Sampler::Ddpm(variance) if *variance != self.schedule.variance_type => {
                return refuse("reverse variance", format!("{variance:?}"), "the schedule's variance_type");
            }
            Sampler::DdimInverse(_) | Sampler::RePaint { .. } => {
                return refuse("_class_name", class.to_owned(), "a sampler whose file is supported");
            }
            Sampler::Euler(churn) | Sampler::Heun(churn) if *churn != Churn::NONE => {
                return refuse("churn", format!("{churn:?}"), "none");
            }
            _ => {}
        }
        let mut codec = Codec { class, reading: false, map: Map::new() };
        codec.map.insert("_class_name".to_owned(), class.into());
        describe(&mut codec, &mut self.clone())?;
        // Settings for which the class has no option.
        let NoiseScheduleConfig {
            clip_sample, thresholding, rescale_betas_zero_snr, ref variance_type, ..
        } = self.schedule;
        let written = |option: &str, value: Value| codec.map.get(option) == Some(&value);
        for (option, is_set) in [
            ("clip_sample", clip_sample),
            ("thresholding", thresholding),
            ("rescale_betas_zero_snr", rescale_betas_zero_snr),
            ("use_karras_sigmas", self.use_karras_sigmas),
        ] {
            if is_set && !written(option, true.into()) {
                return refuse(option, "true".to_owned(), "false");
            }
        }
        if *variance_type == ReverseVariance::LearnedRange
            && !written("variance_type", "learned_range".into())
        {
            return refuse("variance_type", "learned_range".to_owned(), "a fixed variance");
        }
        let is_ddim = matches!(self.sampler, Sampler::Ddim(_));
        let ends = is_ddim || written("final_sigmas_type", "sigma_min".into());
        if self.final_sigma == FinalSigma::SigmaMin && !ends {
            return refuse("final_sigmas_type", "sigma_min".to_owned(), "zero");
        }
        Ok(serde_json::to_string_pretty(&codec.map)? + "\n")
    }
}

/// The numbers that Python writes but JSON does not have.
const BARE_WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Puts quotation marks around each of [`BARE_WORDS`] that is not inside a string.
fn quote_bare_words(json: &str) -> String {
    let mut quoted = String::with_capacity(json.len());
    let (mut rest, mut in_string, mut escaped) = (json, false, false);
    while let Some(c) = rest.chars().next() {
        let word = BARE_WORDS.into_iter().find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = word {
            quoted.extend(["\"", word, "\""]);
        } else {
            quoted.push(c);
            in_string ^= c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
        }
        rest = &rest[word.map_or(c.len_utf8(), str::len)..];
    }
    quoted
}

/// One sampler of each class, with the defaults of the class.
fn samplers() -> [Sampler; 7] {
    [
        Sampler::Ddpm(ReverseVariance::FixedSmall),
        Sampler::Ddim(0.0),
        Sampler::DpmSolverMultistep(DpmSolver::plus_plus_2m()),
        Sampler::Euler(Churn::NONE),
        Sampler::EulerAncestral,
        Sampler::Heun(Churn::NONE),
        Sampler::UniPc(UniPc::order_2()),
    ]
}

/// The default configuration of the class of a sampler from [`samplers`].
fn defaults(sampler: Sampler) -> DiffusersConfig {
    let mut schedule =
        NoiseScheduleConfig { timestep_spacing: TimestepSpacing::Linspace, ..NoiseScheduleConfig::ho2020() };
    match sampler {
        Sampler::Ddpm(_) | Sampler::Ddim(_) => schedule.timestep_spacing = TimestepSpacing::Leading,
        Sampler::Heun(_) => (schedule.beta_start, schedule.beta_end) = (0.00085, 0.012),
        _ => {}
    }
    schedule.clip_sample = matches!(sampler, Sampler::Ddpm(_) | Sampler::Ddim(_));
    DiffusersConfig::new(schedule, sampler)
}

/// Reads or writes all options of the class.
fn describe(codec: &mut Codec, config: &mut DiffusersConfig) -> Result<()> {
    let DiffusersConfig { schedule, sampler, use_karras_sigmas, final_sigma, other } = config;
    codec.keep("_diffusers_version", other);
    codec.field("num_train_timesteps", &mut schedule.num_train_timesteps)?;
    codec.field("beta_schedule", &mut schedule.beta_schedule)?;
    codec.field("beta_start", &mut schedule.beta_start)?;
    codec.field("beta_end", &mut schedule.beta_end)?;
    codec.field("trained_betas", &mut schedule.trained_betas)?;
    codec.field("prediction_type", &mut schedule.prediction_type)?;
    codec.field("timestep_spacing", &mut schedule.timestep_spacing)?;
    codec.field("steps_offset", &mut schedule.steps_offset)?;
    if !matches!(sampler, Sampler::Heun(_)) {
        codec.field("rescale_betas_zero_snr", &mut schedule.rescale_betas_zero_snr)?;
    }
    match sampler {
        Sampler::Ddpm(variance) => {
            codec.clipping(schedule)?;
            codec.thresholding(schedule)?;
            codec.variance_type(schedule, other)?;
            *variance = schedule.variance_type.clone();
        }
        Sampler::Ddim(_) => {
            codec.clipping(schedule)?;
            codec.thresholding(schedule)?;
            let mut set_alpha_to_one = *final_sigma == FinalSigma::Zero;
            codec.field("set_alpha_to_one", &mut set_alpha_to_one)?;
            *final_sigma = if set_alpha_to_one { FinalSigma::Zero } else { FinalSigma::SigmaMin };
        }
        Sampler::DpmSolverMultistep(options) => {
            codec.thresholding(schedule)?;
            codec.order(&mut options.solver_order)?;
            let mut algorithm = if options.sde { "sde-dpmsolver++" } else { "dpmsolver++" }.to_owned();
            codec.field("algorithm_type", &mut algorithm)?;
            options.sde = algorithm == "sde-dpmsolver++";
            if !options.sde && algorithm != "dpmsolver++" {
                let supported = "\"dpmsolver++\", \"sde-dpmsolver++\"";
                return Err(codec.error("algorithm_type", &algorithm.into(), supported));
            }
            codec.field("solver_type", &mut options.solver_type)?;
            codec.field("lower_order_final", &mut options.lower_order_final)?;
            codec.field("euler_at_final", &mut options.euler_at_final)?;
            // This class uses `variance_type` only for a learned variance. Otherwise it is null, or a value that another
            // class has left in the file.
            let learned = match codec.map.get("variance_type") {
                Some(found) => *found == "learned_range" || *found == "learned",
                None => schedule.variance_type == ReverseVariance::LearnedRange,
            };
            if learned {
                codec.field("variance_type", &mut schedule.variance_type)?;
            } else if codec.map.get("variance_type") == Some(&Value::Null) {
                codec.map.remove("variance_type");
            } else {
                if !codec.reading {
                    codec.map.insert("variance_type".to_owned(), Value::Null);
                }
                codec.keep("variance_type", other);
            }
            codec.no_clipping_of_lambda()?;
            codec.only("use_lu_lambdas", &[false.into()])?;
            codec.flow()?;
        }
        Sampler::Euler(_) => {
            codec.only("interpolation_type", &["linear".into()])?;
            codec.only("timestep_type", &["discrete".into()])?;
        }
        Sampler::EulerAncestral | Sampler::DdimInverse(_) | Sampler::RePaint { .. } => {}
        Sampler::Heun(_) => codec.clipping(schedule)?,
        Sampler::UniPc(options) => {
            codec.thresholding(schedule)?;
            codec.order(&mut options.solver_order)?;
            codec.field("solver_type", &mut options.solver_type)?;
            codec.field("lower_order_final", &mut options.lower_order_final)?;
            codec.only("predict_x0", &[true.into()])?;
            codec.only("disable_corrector", &[json!([])])?;
            codec.only("solver_p", &[Value::Null])?;
            codec.only("shift_terminal", &[Value::Null])?;
            codec.flow()?;
        }
    }
    match sampler {
        Sampler::Ddpm(_) | Sampler::Ddim(_) | Sampler::EulerAncestral => {}
        _ => {
            codec.field("use_karras_sigmas", use_karras_sigmas)?;
            codec.only("use_exponential_sigmas", &[false.into()])?;
            codec.only("use_beta_sigmas", &[false.into()])?;
        }
    }
    if matches!(sampler, Sampler::DpmSolverMultistep(_) | Sampler::Euler(_) | Sampler::UniPc(_)) {
        codec.field("final_sigmas_type", final_sigma)?;
    }
    if matches!(sampler, Sampler::Euler(_) | Sampler::UniPc(_)) {
        codec.only("sigma_min", &[Value::Null])?;
        codec.only("sigma_max", &[Value::Null])?;
    }
    for option in OTHER_CLASSES {
        codec.keep(option, other);
    }
    if !codec.reading || codec.map.get("clip_sample") == Some(&false.into()) {
        codec.keep("clip_sample", other);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BetaSchedule;

    /// Regression: a word inside a string was quoted as if it were a number.
    #[test]
    fn words_of_python_are_quoted_outside_strings_only() {
        let text = r#"{ "a-Infinity": -Infinity, "b": ["\"NaN", NaN, Infinity, "\\"], "c": "é Infinity" }"#;
        let expected = json!({
            "a-Infinity": "-Infinity", "b": ["\"NaN", "NaN", "Infinity", "\\"], "c": "é Infinity",
        });
        assert_eq!(serde_json::from_str::<Value>(&quote_bare_words(text)).unwrap(), expected);
        let version = r#"{ "_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "1-Infinity",
            "lambda_min_clipped": -Infinity }"#;
        let config = DiffusersConfig::from_diffusers_json(version).unwrap();
        assert_eq!(config.other["_diffusers_version"], "1-Infinity");
    }

    #[test]
    fn an_infinite_option_is_refused_by_its_name() {
        for (option, word) in
            [("beta_end", "Infinity"), ("skip_prk_steps", "NaN"), ("beta_start", "-Infinity")]
        {
            let text = format!(r#"{{ "_class_name": "DDIMScheduler", "{option}": {word} }}"#);
            let error = DiffusersConfig::from_diffusers_json(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{option}` of DDIMScheduler is \"{word}\"")), "{error}");
            assert!(error.contains("a finite number"), "{error}");
        }
    }

    /// Checks the name in diffusers of every β schedule. Add new β schedules to this list.
    #[test]
    fn names_of_beta_schedules_are_those_of_diffusers() {
        for (name, value) in [
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::SquaredcosCapV2),
            ("sigmoid", BetaSchedule::Sigmoid),
        ] {
            assert_eq!(serde_json::to_value(value).unwrap(), Value::from(name));
        }
    }
}
