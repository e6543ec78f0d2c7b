//! `ddpm-cli fit-plan`: fits a plan of few sampling steps to a long run of the same model.

use std::fmt::Write;

use anyhow::Result;
use ddpm_files::AtomicFile;
use ddpm_model::{PlanFit, PlanFitConfig};
use serde_json::json;

use crate::{
    args::{Common, FitPlan},
    interrupt, model, output,
};

/// Half the range of grey levels: images lie in [−1, 1].
const GREY_LEVELS: f64 = 127.5;

pub(crate) fn run(options: &FitPlan, common: &Common) -> Result<()> {
    let FitPlan { model, steps, timesteps, num_images, out, guiding } = options;
    let denoiser = model::load_guided(model, guiding.guide.as_deref(), &common.device.open()?)?;
    // Until here, while a model may be downloaded, a signal ends the program at once.
    interrupt::listen()?;
    let guidance = guiding.options().guidance(&denoiser)?;
    let mut file = AtomicFile::create(out)?;
    let config = PlanFitConfig { seed: common.seed, num_images: *num_images, guidance };
    let fit = PlanFit::new(&denoiser, &config, timesteps.as_deref().unwrap_or_default())?;
    interrupt::check()?;
    let timesteps = match (timesteps, steps) {
        (Some(list), _) => list.clone(),
        (None, steps) => {
            let found = fit.search(steps.unwrap_or(1), |list, error| {
                let line = format!("{}: {:.2} grey levels", output::list(list), error * GREY_LEVELS);
                output::verbose(common, &line);
                Ok(interrupt::check()?)
            });
            // The interruption itself, without the layers through which it came.
            interrupt::check()?;
            found?
        }
    };
    let (method, errors) = fit.fit(&timesteps)?;
    let errors: Vec<f64> = errors.into_iter().map(|error| error * GREY_LEVELS).collect();
    file.append(&fit.plan(method)?.encode(out)?)?;
    file.commit()?;
    let json = json!({
        "file": out.display().to_string(), "model": model, "seed": common.seed, "images": num_images,
        "timesteps": timesteps, "errors": errors,
    });
    let mut text = format!(
        "{}: {} steps, fitted to a long run on {num_images} images\n\n\
         | from timestep | difference from the long run after the step, root mean square in grey levels |\n\
         | --- | --- |\n",
        out.display(),
        timesteps.len(),
    );
    for (t, error) in std::iter::zip(&timesteps, &errors) {
        writeln!(text, "| {t} | {error:.2} |")?;
    }
    output::result(common, &json, &text)
}
