//! `ddpm-cli train`: trains a model and writes its folder.

use anyhow::{Context, Result};
use ddpm_data::{HubConfig, Splits};
use ddpm_files::check_keys;
use ddpm_model::{Denoiser, DenoiserConfig, SampleConfig, check_writable, write_model};
use ddpm_train::{Error, Event, Outcome, Record, Start, TrainConfig};
use indicatif::ProgressBar;

use super::{job::Job, previews::Previews};
use crate::{
    args::{Common, NetworkName, Train},
    loss_plot, output, picture,
};

pub(crate) fn run(options: &Train, common: &Common) -> Result<()> {
    let device = common.device.open()?;
    let splits = options.data.load(&HubConfig::from_env())?;
    let config = configure(options, common, &splits)?;
    output::verbose(common, &format!("{config:#?}"));
    let start = match (options.resume, options.overwrite) {
        (true, _) => Start::Resume,
        (_, true) => Start::Overwrite,
        _ => Start::Fresh,
    };
    let folder = options.out_dir.join("model");
    // Fails before training rather than after it.
    check_writable(&folder)?;
    let mut previews = Previews::new(&options.out_dir, start, config.epochs)?;
    let title = format!("Training on {}", splits.name());
    let images_per_step = config.batch_size as u64;
    let template = "{wide_bar} {human_pos}/{human_len} images  {per_sec}  {eta} left  {msg}";
    let bar = output::progress(common, 0, template)?;
    let mut seen_first_step = false;
    let outcome = ddpm_train::run(&config, &splits, &options.out_dir, start, &device, |event| {
        match event {
            Event::Resumed { step, damaged } => {
                output::verbose(common, &format!("resumed after step {step}"));
                if damaged > 0 {
                    output::warning(&format!("{damaged} newer checkpoints are damaged and were skipped"));
                }
            }
            Event::Step { step, total, loss } => {
                if !seen_first_step {
                    // The speed of a resumed run is counted from its first step, not from image 0.
                    bar.set_length(total * images_per_step);
                    bar.set_position((step - 1) * images_per_step);
                    bar.reset_eta();
                    seen_first_step = true;
                }
                bar.set_position(step * images_per_step);
                if let Some(loss) = loss {
                    bar.set_message(format!("loss {loss:.4}"));
                }
            }
            Event::Epoch { record, denoiser } => {
                report(common, &bar, record);
                // The run goes on without its pictures.
                if let &Record::Epoch { epoch, .. } = record {
                    let written = preview(denoiser, common.seed).and_then(|png| previews.write(epoch, &png));
                    warn_about(written.context("cannot write the preview"));
                }
                warn_about(loss_plot::write(&options.out_dir, &title).context("cannot write the plot"));
            }
        }
        Ok(())
    })
    .map_err(with_advice)?;
    bar.finish_and_clear();
    // Needed if a finished run was resumed: it has no epoch left, so no event wrote the plot.
    warn_about(loss_plot::write(&options.out_dir, &title).context("cannot write the plot"));
    write_model(&folder, &outcome.denoiser, options.dtype, &card(&splits, &config, &outcome))?;
    let mut json = serde_json::to_value(&outcome)?;
    json["model"] = folder.display().to_string().into();
    json["preset"] = output::name(&options.preset).into();
    json["seed"] = config.seed.into();
    json["parameters"] = config.denoiser.parameter_count().into();
    let text = format!(
        "{}: {} epochs in {:.0} s ({:.0} images/s)",
        folder.display(),
        outcome.epochs,
        outcome.seconds,
        outcome.images_per_second
    );
    output::result(common, &json, &text)
}

fn warn_about(result: Result<()>) {
    if let Err(error) = result {
        output::warning(&format!("{error:#}"));
    }
}

/// Adds the command-line options that resolve the error.
fn with_advice(error: Error) -> anyhow::Error {
    let advice = match error {
        Error::Occupied { .. } => {
            "pass another --out-dir, --resume to continue the run, or --overwrite to replace it from the first \
             checkpoint of the new one on"
        }
        Error::NoCheckpoint { .. } => "run without --resume, or with --overwrite if the folder holds a run",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}; {advice}")
}

fn configure(options: &Train, common: &Common, splits: &Splits) -> Result<TrainConfig> {
    let data = splits.train();
    let mut config = TrainConfig { seed: common.seed, ..TrainConfig::preset(options.preset, data) };
    config.epochs = options.epochs.unwrap_or(config.epochs);
    config.batch_size = options.batch_size.unwrap_or(config.batch_size);
    config.learning_rate = options.learning_rate.unwrap_or(config.learning_rate);
    let classes = data.classes().unwrap_or(0);
    let (rows, cols) = (data.rows(), data.cols());
    let architecture = options.network.map(|network| match network {
        NetworkName::PatchMlp => DenoiserConfig::patch_mlp(rows, cols, classes),
        NetworkName::Mlp => DenoiserConfig::mlp(rows, cols, classes),
        NetworkName::Plain => DenoiserConfig::plain(rows, cols, classes),
    });
    // --network keeps the parameterization and the loss of the preset.
    if let Some(DenoiserConfig { network, .. }) = architecture {
        config.denoiser.network = network;
    }
    config.loss = options.loss.unwrap_or(config.loss);
    config.denoiser.parameterization = options.parameterization.unwrap_or(config.denoiser.parameterization);
    options.set.iter().try_fold(config, |config, assignment| set(&config, assignment))
}

/// The configuration with one field changed by `NAME=VALUE`.
fn set(config: &TrainConfig, assignment: &str) -> Result<TrainConfig> {
    let (name, value) =
        assignment.split_once('=').with_context(|| format!("--set {assignment}, expected NAME=VALUE"))?;
    let mut json = serde_json::to_value(config)?;
    let place = json.pointer_mut(&format!("/{}", name.replace('.', "/"))).with_context(|| {
        format!(
            "--set {assignment}: there is no option `{name}`, expected a field of the training configuration"
        )
    })?;
    check_keys(value.as_bytes()).with_context(|| format!("--set {assignment}"))?;
    // A value that is not JSON is a string, such as the name of a loss.
    *place = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    serde_json::from_value(json).with_context(|| format!("--set {assignment}"))
}

/// A PNG of five generated images of each class. Every epoch uses the same noise, so that previews are comparable.
fn preview(denoiser: &Denoiser, seed: u64) -> Result<Vec<u8>> {
    let classes: Vec<u32> = (0..).take(denoiser.config().num_classes).collect();
    let job = Job::per_class(SampleConfig::ancestral(seed, denoiser), &classes, 5)?;
    let pixels = job.pixels(denoiser, &ProgressBar::hidden())?;
    picture::encode_png(&job.picture(denoiser, &pixels, picture::PNG_TILE_SIDE)?)
}

fn report(common: &Common, bar: &ProgressBar, record: &Record) {
    let &Record::Epoch { epoch, train_loss, test_loss, seconds, .. } = record else { return };
    let test = test_loss.map_or(String::new(), |loss| format!(", test loss {loss:.5}"));
    let line = format!("epoch {epoch}: loss {train_loss:.5}{test} after {seconds:.0} s");
    if !common.quiet && !bar.is_hidden() {
        bar.println(line);
    } else {
        output::verbose(common, &line);
    }
}

fn card(splits: &Splits, config: &TrainConfig, outcome: &Outcome) -> String {
    let loss = |loss: Option<f64>| loss.map_or("not measured".to_owned(), |loss| format!("{loss:.5}"));
    format!(
        "# Denoising diffusion model of {name}\n\n\
         {kind} ({parameters} parameters, {rows}×{cols} pixels) of linear layers and SiLU, trained as a DDPM (Ho et al. 2020) with {steps} timesteps.\n\n\
         | | |\n| --- | --- |\n\
         | training images | {images} of {name} |\n\
         | seed | {seed} |\n\
         | epochs, batch size, learning rate | {epochs}, {batch}, {rate} |\n\
         | loss | {space:?} |\n\
         | training loss, test loss | {train}, {test} |\n\n\
         The weights are the exponential moving average over training. Sample with `ddpm-cli sample --model DIR`.\n",
        name = splits.name(),
        parameters = config.denoiser.parameter_count(),
        rows = config.denoiser.rows,
        cols = config.denoiser.cols,
        kind = match config.denoiser.num_classes {
            0 => "An unconditional model".to_owned(),
            classes => format!("A class-conditional model of {classes} classes"),
        },
        steps = config.schedule.num_train_timesteps,
        images = splits.train().len(),
        seed = config.seed,
        epochs = config.epochs,
        batch = config.batch_size,
        rate = config.learning_rate,
        space = config.loss,
        train = loss(outcome.train_loss),
        test = loss(outcome.test_loss),
    )
}
