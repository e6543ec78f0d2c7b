//! `ddpm-cli info`: describes a model and this build, or how a file of `sample` was made.

use std::path::Path;

use anyhow::Result;
use ddpm_model::{DenoiserConfig, Network};
use serde_json::{Value, json};

use crate::{
    args::{Common, Info},
    model, output,
    recipe::Recipe,
};

/// The optional features, and whether this build has them.
const FEATURES: [(&str, bool); 6] = [
    ("mpi", cfg!(feature = "mpi")),
    ("serve", cfg!(feature = "serve")),
    ("hub", cfg!(feature = "hub")),
    ("cuda", cfg!(feature = "cuda")),
    ("cudnn", cfg!(feature = "cudnn")),
    ("metal", cfg!(feature = "metal")),
];

pub(crate) fn run(options: &Info, common: &Common) -> Result<()> {
    if let Some(path) = &options.file {
        return of_file(path, common);
    }
    let device = common.device.open()?;
    let denoiser = model::load(&options.model, &device)?;
    let (config, schedule) = (denoiser.config(), denoiser.schedule_config());
    let guide = denoiser.guide().map(|guide| guide.config());
    let sha256 = denoiser.sha256()?;
    let json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "features": feature_names(),
        "device": common.device.to_string(),
        "model": options.model,
        "model_sha256": sha256,
        "parameters": config.parameter_count(),
        "denoiser": config,
        "guide": guide,
        "schedule": schedule,
    });
    let beta = denoiser.schedule().betas();
    let (rows, cols, classes) = (config.rows, config.cols, config.num_classes);
    let lines = [
        (
            "program",
            format!(
                "ddpm-cli {}, features: {}, device: {}",
                env!("CARGO_PKG_VERSION"),
                features(),
                common.device
            ),
        ),
        ("model", options.model.clone()),
        ("SHA-256", sha256),
        (
            "images",
            format!(
                "{rows}×{cols} pixels, {}",
                if classes == 0 { "no classes".to_owned() } else { format!("{classes} classes") }
            ),
        ),
        ("network", network(config)),
        ("guide", guide.map_or("none".to_owned(), network)),
        (
            "schedule",
            format!(
                "{} timesteps, β from {} to {}, prediction_type {}",
                beta.len(),
                beta[0],
                beta[beta.len() - 1],
                word(&schedule.prediction_type)?
            ),
        ),
    ];
    output::result(common, &json, &table(&lines))
}

fn feature_names() -> Vec<&'static str> {
    FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect()
}

/// The optional features of this build.
pub(super) fn features() -> String {
    let names = feature_names();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn of_file(path: &Path, common: &Common) -> Result<()> {
    let recipe = Recipe::read(path)?;
    let command = recipe.command();
    let mut json = serde_json::to_value(&recipe)?;
    json["file"] = path.display().to_string().into();
    json["command"] = command.clone().into();
    let [first, last] = recipe.images;
    let classes = output::list(&recipe.classes);
    let lines = [
        ("file", path.display().to_string()),
        ("program", format!("ddpm-cli {}", recipe.version)),
        ("model", format!("SHA-256 {}", recipe.model_sha256)),
        ("images", format!("{first} to {last} of the seed")),
        ("classes", if classes.is_empty() { "none".to_owned() } else { classes }),
        ("steps", recipe.steps.to_string()),
        ("command", command),
    ];
    output::result(common, &json, &table(&lines))
}

/// A network in words.
fn network(config: &DenoiserConfig) -> String {
    let layers = match &config.network {
        Network::Mlp { width, hidden, blocks, .. } => {
            format!("mlp: {blocks} residual blocks of width {width}, {hidden} inside")
        }
        Network::PatchMlp { patch, local, code, width, hidden, blocks, .. } => format!(
            "patch-mlp: patches of {patch}×{patch} pixels, layers of {local} for each, codes of {code}, and between them \
             {blocks} residual blocks of width {width}, {hidden} inside"
        ),
        Network::Plain { width, layers, .. } => format!("plain: {layers} layers of width {width}"),
    };
    let emits = word(&config.parameterization).unwrap_or_default();
    format!("{layers}; {} parameters; parameterization {emits}", config.parameter_count())
}

/// A value as its configuration file has it.
fn word(value: &impl serde::Serialize) -> Result<String> {
    Ok(match serde_json::to_value(value)? {
        Value::String(word) => word,
        other => other.to_string(),
    })
}

fn table(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    lines.iter().map(|(name, value)| format!("{name:width$}{value}\n")).collect()
}
