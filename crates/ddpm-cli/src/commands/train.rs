//! `ddpm-cli train`.

use std::path::Path;

use anyhow::{Context, Result};
use ddpm_data::{HubConfig, Splits};
use ddpm_files::write_atomic;
use ddpm_model::{Denoiser, DenoiserConfig, SampleConfig, check_writable, write_model};
use ddpm_train::{Error, Event, Outcome, Record, Start, TrainConfig};
use indicatif::ProgressBar;

use super::job::Job;
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
    let (previews, folder) = (options.out_dir.join("previews"), options.out_dir.join("model"));
    if start != Start::Overwrite {
        // Rather now than after hours of training.
        check_writable(&folder)?;
    }
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
                    output::warning(&format!("{damaged} newer checkpoints are damaged and were passed over"));
                }
            }
            Event::Step { step, total, loss } => {
                if !seen_first_step {
                    // A resumed run starts its clock here, not at zero images.
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
                if let &Record::Epoch { epoch, .. } = record {
                    let path = previews.join(format!("epoch-{epoch:03}.png"));
                    write_atomic(&path, &preview(denoiser, common.seed)?)?;
                }
                loss_plot::write(&options.out_dir, &title)?;
            }
        }
        Ok(())
    })
    .map_err(with_advice)?;
    bar.finish_and_clear();
    // Also for a finished run that was resumed and had no epoch left.
    loss_plot::write(&options.out_dir, &title)?;
    write_model(&folder, &outcome.denoiser, options.dtype, &card(&splits, &config, &outcome))?;
    finish(options, common, &config, &outcome, &folder)
}

/// Names the flags that help.
fn with_advice(error: Error) -> anyhow::Error {
    let advice = match error {
        Error::Occupied { .. } => "give --resume to go on, --overwrite to begin again, or another --out-dir",
        Error::NoCheckpoint { .. } => "begin without --resume, with --overwrite if there is a run",
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
    // The parameterization and the loss stay the preset's.
    if let Some(DenoiserConfig { network, .. }) = architecture {
        config.denoiser.network = network;
    }
    config.loss = options.loss.unwrap_or(config.loss);
    config.denoiser.parameterization = options.parameterization.unwrap_or(config.denoiser.parameterization);
    options.set.iter().try_fold(config, |config, assignment| set(&config, assignment))
}

/// The configuration with one number or name in it changed, as `NAME=VALUE` says.
fn set(config: &TrainConfig, assignment: &str) -> Result<TrainConfig> {
    let (name, value) =
        assignment.split_once('=').with_context(|| format!("--set {assignment}, expected NAME=VALUE"))?;
    let mut json = serde_json::to_value(config)?;
    let place = json.pointer_mut(&format!("/{}", name.replace('.', "/"))).with_context(|| {
        format!("--set {assignment}: there is no option `{name}`, expected one of the configuration's")
    })?;
    // What is not JSON is a name.
    *place = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    serde_json::from_value(json).with_context(|| format!("--set {assignment}"))
}

/// Five images of each class, the same noise after each epoch.
fn preview(denoiser: &Denoiser, seed: u64) -> Result<Vec<u8>> {
    let classes: Vec<u32> = (0..).take(denoiser.config().num_classes).collect();
    let job = Job::per_class(SampleConfig::ancestral(seed, denoiser), denoiser, &classes, 5)?;
    let pixels = job.pixels(denoiser, &ProgressBar::hidden())?;
    picture::encode_png(&job.picture(denoiser, &pixels, picture::PNG_TILE_SIDE)?)
}

fn report(common: &Common, bar: &ProgressBar, record: &Record) {
    let &Record::Epoch { epoch, train_loss, test_loss, seconds, .. } = record else { return };
    let held_out = test_loss.map_or(String::new(), |loss| format!(", held-out {loss:.5}"));
    let line = format!("epoch {epoch}: loss {train_loss:.5}{held_out} after {seconds:.0} s");
    if !common.quiet && !bar.is_hidden() {
        bar.println(line);
    } else {
        output::verbose(common, &line);
    }
}

fn card(splits: &Splits, config: &TrainConfig, outcome: &Outcome) -> String {
    let loss = |loss: Option<f64>| loss.map_or("none".to_owned(), |loss| format!("{loss:.5}"));
    format!(
        "# Denoising diffusion model of {name}\n\n\
         {kind} ({parameters} parameters, {rows}×{cols} pixels) of linear layers and SiLU, trained by DDPM (Ho et al. 2020) with {steps} steps.\n\n\
         | | |\n| --- | --- |\n\
         | training images | {images} of {name} |\n\
         | seed | {seed} |\n\
         | epochs, batch size, learning rate | {epochs}, {batch}, {rate} |\n\
         | loss space | {space:?} |\n\
         | training loss, held-out loss | {train}, {test} |\n\n\
         Weights are the moving average of training. Sample with `ddpm-cli sample --model DIR`.\n",
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

fn finish(
    options: &Train,
    common: &Common,
    config: &TrainConfig,
    outcome: &Outcome,
    folder: &Path,
) -> Result<()> {
    let mut json = serde_json::to_value(outcome)?;
    json["model"] = folder.display().to_string().into();
    json["preset"] = format!("{:?}", options.preset).to_lowercase().into();
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
