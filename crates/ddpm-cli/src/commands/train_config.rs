//! The configuration of a training run, from the options of `train`.

use anyhow::{Context, Result};
use ddpm_core::{BetaSchedule, TimestepSpacing};
use ddpm_data::{Dataset, Source, Splits, idx::Images};
use ddpm_files::check_keys;
use ddpm_model::{Denoiser, DenoiserConfig};
use ddpm_train::{Preset, TrainConfig};

use super::config_file::{ConfigFile, all_keys, nearest, to_toml};
use crate::{
    args::{Common, NetworkName, Train},
    output,
};

/// The preset, and the configuration from it, --config and the options. With the network of --from, its architecture and its
/// schedule are used.
pub(super) fn configure(
    options: &Train,
    common: &Common,
    file: Option<&ConfigFile<'_>>,
    splits: &Splits,
    from: Option<&Denoiser>,
) -> Result<(Preset, TrainConfig)> {
    let data = splits.train();
    let preset = options.preset.or_else(|| file?.preset).unwrap_or(Preset::Standard);
    let mut config = TrainConfig { seed: common.seed, ..TrainConfig::preset(preset, data) };
    if let Some(file) = file {
        config = file.applied_to(&config)?;
    }
    if common.seed_is_given {
        config.seed = common.seed;
    }
    config.epochs = options.epochs.unwrap_or(config.epochs);
    config.batch_size = options.batch_size.unwrap_or(config.batch_size);
    config.learning_rate = options.learning_rate.unwrap_or(config.learning_rate);
    let classes = data.classes().unwrap_or(0);
    let (rows, cols) = (data.rows(), data.cols());
    config.sync_every = options.sync_every.or(config.sync_every);
    let architecture = options.network.map(|network| match network {
        NetworkName::PatchMlp => DenoiserConfig::patch_mlp(rows, cols, classes),
        NetworkName::Mlp => DenoiserConfig::mlp(rows, cols, classes),
        NetworkName::Plain => DenoiserConfig::plain(rows, cols, classes),
    });
    // --network keeps the parameterization and the loss of the preset.
    if let Some(DenoiserConfig { network, .. }) = architecture {
        config.denoiser.network = network;
    }
    if let Some(denoiser) = from {
        (config.denoiser, config.schedule) = (denoiser.config().clone(), denoiser.schedule_config());
    }
    config.loss = options.loss.unwrap_or(config.loss);
    config.denoiser.parameterization = options.parameterization.unwrap_or(config.denoiser.parameterization);
    let config = options.set.iter().try_fold(config, |config, assignment| set(&config, assignment))?;
    warn_of_fields_without_effect(options, &config);
    Ok((preset, config))
}

/// A preset as text of a file. Without data, its images are of one pixel and its batch is that of a large data set.
pub(super) fn preset_as_file(preset: Preset) -> Result<String> {
    let data = Dataset::new("none", Images::new("none", 1, 1, vec![0; 1000])?, None)?;
    to_toml(&TrainConfig::preset(preset, &data), &Source::Mnist)
}

/// Warns of a field that has no effect with the others.
fn warn_of_fields_without_effect(options: &Train, config: &TrainConfig) {
    let schedule = &config.schedule;
    let is_table = schedule.trained_betas.is_some();
    for assignment in &options.set {
        let name = assignment.split_once('=').map_or(assignment.as_str(), |(name, _)| name);
        let reason = match name {
            "schedule.beta_schedule" | "schedule.beta_start" | "schedule.beta_end" if is_table => {
                "schedule.trained_betas gives every β"
            }
            "schedule.beta_start" | "schedule.beta_end"
                if schedule.beta_schedule == BetaSchedule::SquaredcosCapV2 =>
            {
                "schedule.beta_schedule=squaredcos_cap_v2 has no ends to choose"
            }
            "schedule.clip_sample" | "schedule.clip_sample_range" if schedule.thresholding => {
                "schedule.thresholding is true"
            }
            "schedule.clip_sample_range" if !schedule.clip_sample => "schedule.clip_sample is false",
            "schedule.dynamic_thresholding_ratio" | "schedule.sample_max_value" if !schedule.thresholding => {
                "schedule.thresholding is false"
            }
            "schedule.steps_offset" if schedule.timestep_spacing != TimestepSpacing::Leading => {
                "schedule.timestep_spacing is not leading"
            }
            "outer_learning_rate" | "outer_momentum" if config.sync_every.is_none() => {
                "sync_every is not set"
            }
            "cond_drop_prob" if config.denoiser.num_classes == 0 => "the model has no classes",
            _ => continue,
        };
        output::warning(&format!("--set {assignment} has no effect: {reason}"));
    }
}

/// The configuration with one field changed by `NAME=VALUE`.
fn set(config: &TrainConfig, assignment: &str) -> Result<TrainConfig> {
    let (name, value) =
        assignment.split_once('=').with_context(|| format!("--set {assignment}, expected NAME=VALUE"))?;
    let mut json = serde_json::to_value(config)?;
    let known = all_keys(&json);
    let place = json.pointer_mut(&format!("/{}", name.replace('.', "/"))).with_context(|| {
        let nearest = nearest(name, known.iter().map(String::as_str));
        format!("--set {assignment}: there is no option `{name}`; did you mean `{nearest}`?")
    })?;
    check_keys(value.as_bytes()).with_context(|| format!("--set {assignment}"))?;
    // A value that is not JSON is a string, such as the name of a loss.
    *place = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    serde_json::from_value(json).with_context(|| format!("--set {assignment}"))
}
