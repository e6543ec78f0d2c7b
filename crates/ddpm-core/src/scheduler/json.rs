//! Reading and writing the `scheduler_config.json` of diffusers, and the conversion between its classes.
//!
//! One description of each class serves both directions, so reading and writing handle the same options.

use serde_json::{Map, Value};

use super::classes::{defaults, describe};
use super::codec::Codec;
use super::{DiffusersConfig, FinalSigma};
use crate::{Error, NoiseScheduleConfig, Result, ReverseVariance, Sampler, sampler::Churn};

impl DiffusersConfig {
    /// Reads the `scheduler_config.json` of one of the diffusers classes `DDPMScheduler`, `DDIMScheduler`,
    /// `DPMSolverMultistepScheduler`, `EulerDiscreteScheduler`, `EulerAncestralDiscreteScheduler`,
    /// `HeunDiscreteScheduler`, `UniPCMultistepScheduler`, `PNDMScheduler`, `LCMScheduler` and `TCDScheduler`. A missing
    /// option has the default of its class. [`FlowMatchEuler`](crate::FlowMatchEuler) reads the file of flow matching.
    ///
    /// A file may have options of any class of diffusers. diffusers ignores those that the file's class does not have, and
    /// so does this crate. They are written back as found.
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
    /// If the text is not a JSON object of one of these classes, has an option that diffusers does not know, or has a
    /// value with an effect that this crate does not implement. The error names the option.
    pub fn from_diffusers_json(json: &str) -> Result<Self> {
        Self::from_map(parse(json)?)
    }

    fn from_map(mut map: Map<String, Value>) -> Result<Self> {
        let mut config = defaults(&map.remove("_class_name").unwrap_or_default())?;
        let mut codec = Codec::reading(config.sampler.diffusers_class(), map);
        codec.check_numbers()?;
        describe(&mut codec, &mut config)?;
        config.file = codec.into_file()?;
        Ok(config)
    }

    /// Converts to another class of diffusers, as `from_config` of that class does. Options that both classes have keep
    /// their values. The other options of `class` have the value in the file, if another class has left one there, or the
    /// default of `class`. Options that `class` does not have are kept.
    ///
    /// An option that was missing in the file, and has not been changed since, has the default of `class`. The defaults
    /// differ from class to class.
    ///
    /// ```
    /// # use ddpm_core::DiffusersConfig;
    /// let json = r#"{ "_class_name": "DDPMScheduler", "beta_start": 0.00085, "clip_sample": false }"#;
    /// let solver = DiffusersConfig::from_diffusers_json(json)?.to_class("DPMSolverMultistepScheduler")?;
    /// assert_eq!(solver.schedule.beta_start, 0.00085);
    /// # Ok::<(), ddpm_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`DiffusersConfig::to_diffusers_json`], and as [`DiffusersConfig::from_diffusers_json`] of a file with these
    /// options and `class`.
    pub fn to_class(&self, class: &str) -> Result<Self> {
        let mut map = self.to_map()?;
        if let Some(found) = &self.file.own {
            let defaults = defaults(&self.sampler.diffusers_class().into())?.to_map()?;
            map.retain(|option, value| found.contains_key(option) || defaults.get(option) != Some(value));
        }
        map.insert("_class_name".to_owned(), class.into());
        let mut config = Self::from_map(map)?;
        config.schedule.compat = self.schedule.compat;
        Ok(config)
    }

    /// Writes the `scheduler_config.json` of the equivalent scheduler of diffusers. The text ends with a newline. It does
    /// not contain `compat`, nor η of DDIM, which is an argument of `step` in diffusers.
    ///
    /// # Errors
    ///
    /// If the class of diffusers has no option for a setting: DDPM with a variance other than the schedule's
    /// `variance_type`, churn, clipping for most samplers.
    pub fn to_diffusers_json(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(&self.to_map()?)?;
        // diffusers writes -Infinity as a bare word, and reads only that.
        Ok(json.replace(r#""lambda_min_clipped": "-Infinity""#, r#""lambda_min_clipped": -Infinity"#) + "\n")
    }

    fn to_map(&self) -> Result<Map<String, Value>> {
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
        let mut codec = Codec::writing(class, &self.file);
        describe(&mut codec, &mut self.clone())?;
        // Settings for which the class has no option.
        let NoiseScheduleConfig {
            clip_sample, thresholding, rescale_betas_zero_snr, ref variance_type, ..
        } = self.schedule;
        for (option, is_set) in [
            ("clip_sample", clip_sample),
            ("thresholding", thresholding),
            ("rescale_betas_zero_snr", rescale_betas_zero_snr),
            ("use_karras_sigmas", self.use_karras_sigmas),
        ] {
            if is_set && !codec.has(option) {
                return refuse(option, "true".to_owned(), "false");
            }
        }
        if *variance_type == ReverseVariance::LearnedRange && !codec.has("variance_type") {
            return refuse("variance_type", "learned_range".to_owned(), "a fixed variance");
        }
        let ends = codec.has("set_alpha_to_one") || codec.has("final_sigmas_type");
        if self.final_sigma == FinalSigma::SigmaMin && !ends {
            return refuse("final_sigmas_type", "sigma_min".to_owned(), "zero");
        }
        let mut map = codec.into_written(&self.file.other);
        map.insert("_class_name".to_owned(), class.into());
        Ok(map)
    }
}

/// The numbers that Python writes but JSON does not have.
pub(super) const BARE_WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses a JSON object as Python writes it.
pub(super) fn parse(json: &str) -> Result<Map<String, Value>> {
    Ok(serde_json::from_str(&quote_bare_words(json))?)
}

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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        assert_eq!(config.file.other["_diffusers_version"], "1-Infinity");
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
