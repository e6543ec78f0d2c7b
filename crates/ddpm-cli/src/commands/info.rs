//! `ddpm-cli info`: describes a model and this build.

use anyhow::Result;
use serde_json::json;

use crate::{
    args::{Common, Info},
    model, output,
};

/// The optional features, and whether this build has them.
const FEATURES: [(&str, bool); 6] = [
    ("hub", cfg!(feature = "hub")),
    ("cuda", cfg!(feature = "cuda")),
    ("cudnn", cfg!(feature = "cudnn")),
    ("metal", cfg!(feature = "metal")),
    ("mkl", cfg!(feature = "mkl")),
    ("accelerate", cfg!(feature = "accelerate")),
];

pub(crate) fn run(options: &Info, common: &Common) -> Result<()> {
    let device = common.device.open()?;
    let denoiser = model::load(&options.model, &device)?;
    let (config, schedule) = (denoiser.config(), denoiser.schedule());
    let features: Vec<&str> = FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let parameters = config.parameter_count();
    let json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "features": features,
        "device": common.device.to_string(),
        "model": options.model,
        "parameters": parameters,
        "denoiser": config,
        "schedule": denoiser.schedule_config(),
    });
    let beta = schedule.betas();
    let text = format!(
        "ddpm-cli {version}, features: {features}, device: {device}\n\
         model         {name}\n\
         parameters    {parameters}\n\
         images        {rows}×{cols}, {classes} classes\n\
         network       {network:?}, parameterization {output:?}\n\
         schedule      {steps} steps, β {first} to {last}, prediction {prediction:?}",
        version = env!("CARGO_PKG_VERSION"),
        features = if features.is_empty() { "none".to_owned() } else { features.join(", ") },
        device = common.device,
        name = options.model,
        rows = config.rows,
        cols = config.cols,
        classes = config.num_classes,
        network = config.network,
        output = config.parameterization,
        steps = beta.len(),
        first = beta[0],
        last = beta[beta.len() - 1],
        prediction = denoiser.schedule_config().prediction_type,
    );
    output::result(common, &json, &text)
}
