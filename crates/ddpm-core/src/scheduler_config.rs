//! `scheduler_config.json` of diffusers, read and written for its `DDPMScheduler`.

use serde::{Deserialize, Serialize};

use crate::{BetaSchedule, Error, PredictionType, Result, ScheduleConfig, TimestepSpacing, VarianceType};

/// The file as diffusers has it, with its defaults. An option that is not listed is an error.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DdpmScheduler {
    #[serde(rename = "_class_name")]
    class_name: String,
    #[serde(rename = "_diffusers_version", skip_serializing_if = "Option::is_none")]
    diffusers_version: Option<String>,
    beta_end: f64,
    beta_schedule: String,
    beta_start: f64,
    clip_sample: bool,
    clip_sample_range: f64,
    dynamic_thresholding_ratio: f64,
    num_train_timesteps: usize,
    prediction_type: PredictionType,
    rescale_betas_zero_snr: bool,
    sample_max_value: f64,
    steps_offset: i64,
    thresholding: bool,
    timestep_spacing: TimestepSpacing,
    trained_betas: Option<Vec<f64>>,
    variance_type: String,
}

impl Default for DdpmScheduler {
    fn default() -> Self {
        Self {
            class_name: "DDPMScheduler".to_owned(),
            diffusers_version: None,
            beta_end: 0.02,
            beta_schedule: "linear".to_owned(),
            beta_start: 1e-4,
            clip_sample: true,
            clip_sample_range: 1.0,
            dynamic_thresholding_ratio: 0.995,
            num_train_timesteps: 1000,
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
            sample_max_value: 1.0,
            steps_offset: 0,
            thresholding: false,
            timestep_spacing: TimestepSpacing::Leading,
            trained_betas: None,
            variance_type: "fixed_small".to_owned(),
        }
    }
}

impl ScheduleConfig {
    /// Reads the `scheduler_config.json` of a diffusers `DDPMScheduler`. Options that are absent have
    /// diffusers' defaults.
    ///
    /// ```
    /// # use ddpm_core::ScheduleConfig;
    /// let json = r#"{ "_class_name": "DDPMScheduler", "num_train_timesteps": 20, "thresholding": true }"#;
    /// let error = ScheduleConfig::from_diffusers_json(json).unwrap_err();
    /// assert!(error.to_string().contains("`thresholding` is true"));
    /// ```
    ///
    /// # Errors
    ///
    /// If the text is not such a file, or has an option or a value that this crate does not implement;
    /// the error names it.
    pub fn from_diffusers_json(json: &str) -> Result<Self> {
        let file: DdpmScheduler = serde_json::from_str(json)?;
        let expect = |option, works: bool, found: serde_json::Value, expected| {
            let found = found.to_string();
            if works { Ok(()) } else { Err(Error::SchedulerOption { option, found, expected }) }
        };
        let class = file.class_name.as_str();
        expect("_class_name", class == "DDPMScheduler", class.into(), "\"DDPMScheduler\"")?;
        let betas = file.beta_schedule.as_str();
        expect("beta_schedule", betas == "linear", betas.into(), "\"linear\"")?;
        expect("trained_betas", file.trained_betas.is_none(), file.trained_betas.clone().into(), "null")?;
        expect("thresholding", !file.thresholding, file.thresholding.into(), "false")?;
        let zero_snr = file.rescale_betas_zero_snr;
        expect("rescale_betas_zero_snr", !zero_snr, zero_snr.into(), "false")?;
        expect("steps_offset", file.steps_offset == 0, file.steps_offset.into(), "0")?;
        let variance_type = match file.variance_type.as_str() {
            "fixed_small" => VarianceType::FixedSmall,
            "fixed_large" => VarianceType::FixedLarge,
            other => {
                return Err(Error::SchedulerOption {
                    option: "variance_type",
                    found: format!("{other:?}"),
                    expected: "\"fixed_small\", \"fixed_large\"",
                });
            }
        };
        Ok(Self {
            num_train_timesteps: file.num_train_timesteps,
            beta_schedule: BetaSchedule::Linear,
            beta_start: file.beta_start,
            beta_end: file.beta_end,
            prediction_type: file.prediction_type,
            variance_type,
            clip_sample: file.clip_sample,
            clip_sample_range: file.clip_sample_range,
            timestep_spacing: file.timestep_spacing,
        })
    }

    /// The `scheduler_config.json` with which a diffusers `DDPMScheduler` does the same; it ends with a
    /// new line.
    ///
    /// # Errors
    ///
    /// If a number cannot be written as JSON.
    pub fn to_diffusers_json(&self) -> Result<String> {
        let BetaSchedule::Linear = self.beta_schedule;
        let file = DdpmScheduler {
            beta_end: self.beta_end,
            beta_start: self.beta_start,
            clip_sample: self.clip_sample,
            clip_sample_range: self.clip_sample_range,
            num_train_timesteps: self.num_train_timesteps,
            prediction_type: self.prediction_type,
            timestep_spacing: self.timestep_spacing,
            variance_type: match self.variance_type {
                VarianceType::FixedSmall => "fixed_small",
                VarianceType::FixedLarge => "fixed_large",
            }
            .to_owned(),
            ..DdpmScheduler::default()
        };
        Ok(serde_json::to_string_pretty(&file)? + "\n")
    }
}
