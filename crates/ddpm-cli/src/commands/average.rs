//! `ddpm-cli average`: makes a model from the snapshots of a training run.

use anyhow::Result;
use ddpm_model::{check_writable, write_model};
use ddpm_train::average_snapshots;
use serde_json::json;

use super::card;
use crate::{
    args::{Average, Common},
    output,
};

pub(crate) fn run(options: &Average, common: &Common) -> Result<()> {
    let folder = &options.out_dir;
    check_writable(folder)?;
    let average = average_snapshots(&options.run, options.sigma_rel, options.step)?;
    write_model(folder, &average.denoiser, options.dtype, &card::averaged(&average, options.sigma_rel))?;
    let json = json!({
        "model": folder.display().to_string(),
        "sigma_rel": options.sigma_rel,
        "step": average.step,
        "snapshots": average.snapshots,
        "error": average.error,
        "parameters": average.config.denoiser.parameter_count(),
    });
    let text = format!(
        "{}: the average of relative length {} up to step {}, from {} snapshots (error {:.1} %)",
        folder.display(),
        options.sigma_rel,
        average.step,
        average.snapshots,
        100.0 * average.error
    );
    output::result(common, &json, &text)
}
