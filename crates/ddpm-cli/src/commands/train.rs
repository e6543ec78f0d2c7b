//! `ddpm-cli train`: trains a model and writes its folder.

use anyhow::{Context, Result};
use candle_core::Device;
use ddpm_data::{Dataset, Source, Splits};
use ddpm_files::write_atomic;
use ddpm_model::{Denoiser, SampleOptions, check_writable, initial_weights, write_model};
use ddpm_train::{CheckpointEvery, Error, Event, ProcessGroup, Record, RunOptions, Start, TrainConfig};

use super::{
    card,
    config_file::{ConfigFile, to_toml},
    events::Events,
    job::Job,
    previews::Previews,
    processes::Processes,
    train_config::{configure, preset_as_file},
};
use crate::{
    args::{Common, Train},
    data, interrupt, loss_plot, model, output, picture,
    progress::Progress,
};

pub(crate) fn run(options: &Train, common: &Common) -> Result<()> {
    if let Some(preset) = options.print_config {
        return output::text(&preset_as_file(preset)?);
    }
    let processes = Processes::start(options.mpi)?;
    let result = train(options, common, processes.group());
    processes.end(result)
}

fn train(options: &Train, common: &Common, group: Option<&dyn ProcessGroup>) -> Result<()> {
    let is_first = group.is_none_or(|group| group.rank() == 0);
    let device = common.device.open()?;
    let file = options.config.as_deref().map(ConfigFile::read).transpose()?;
    let source = options.data.clone().or_else(|| file.as_ref()?.data.clone()).unwrap_or(Source::Mnist);
    let splits = data::load(&source)?;
    if is_first {
        warn_about_labels(&splits);
    }
    let initial = match options.from.as_deref() {
        Some(from) => Some((from, model::load(from, &device)?)),
        None => None,
    };
    let (preset, config) =
        configure(options, common, file.as_ref(), &splits, initial.as_ref().map(|(_, denoiser)| denoiser))?;
    let start = match (options.resume, options.overwrite) {
        (true, _) => Start::Resume,
        (_, true) => Start::Overwrite,
        _ => Start::Fresh,
    };
    let run_options = RunOptions {
        start,
        checkpoint_every: CheckpointEvery::Time(options.checkpoint_every),
        keep: options.keep,
        initial: initial.as_ref().map(|(name, denoiser)| (*name, denoiser)),
        stop: interrupt::received(),
        group,
        ..RunOptions::default()
    };
    if !is_first {
        interrupt::listen()?;
        let outcome = ddpm_train::run(&config, &splits, &options.out_dir, run_options, &device, |_| Ok(()));
        return outcome.map(drop).map_err(with_advice);
    }
    output::verbose(common, &format!("{config:#?}"));
    let guide = match &options.guide {
        Some(name) => Some(guide(name, &config, &device)?),
        None => None,
    };
    // Until here, while data may be downloaded, a signal ends the program at once.
    interrupt::listen()?;
    let folder = options.out_dir.join("model");
    // Fails before training rather than after it.
    check_writable(&folder)?;
    let mut previews = Previews::new(&options.out_dir, start, config.epochs)?;
    let mut events = Events::new(&options.out_dir);
    let title = format!("Training on {}", splits.name());
    let images_per_step = config.batch_size as u64;
    let progress = Progress::new(common, "images")?;
    let mut seen_first_step = false;
    let mut config_file = Some(to_toml(&config, &source)?);
    let outcome = ddpm_train::run(&config, &splits, &options.out_dir, run_options, &device, |event| {
        match event {
            Event::Resumed { step, damaged } => {
                output::verbose(common, &format!("resumed after step {step}"));
                events.resumed(step);
                if damaged > 0 {
                    output::warning(&format!("{damaged} newer checkpoints are damaged and were skipped"));
                }
            }
            Event::Step { step, total, loss } => {
                if !seen_first_step {
                    // The speed of a resumed run is counted from its first step, not from image 0.
                    progress.start((step - 1) * images_per_step, total * images_per_step);
                    seen_first_step = true;
                }
                progress.set(step * images_per_step, loss.map(|loss| format!("loss {loss:.4}")));
            }
            Event::Saved { step } => {
                output::verbose(common, &format!("saved step {step}"));
                // An older run's file stays until the first checkpoint of this one.
                if let Some(text) = config_file.take() {
                    let written = write_atomic(&options.out_dir.join("config.toml"), text.as_bytes());
                    warn_about(written.context("cannot write the configuration"));
                }
                warn_about(previews.remove_replaced());
                warn_about(events.update(&previews));
            }
            Event::Epoch { record, denoiser: Some(denoiser) } => {
                // The run goes on without its pictures.
                if let &Record::Epoch { epoch, train_loss, test_loss, seconds, .. } = record {
                    let test = test_loss.map_or(String::new(), |loss| format!(", test loss {loss:.5}"));
                    let text = format!("epoch {epoch}: loss {train_loss:.5}{test} after {seconds:.0} s");
                    progress.event("epoch", serde_json::to_value(record)?, &text);
                    if interrupt::check().is_ok() {
                        let written =
                            preview(denoiser, common.seed).and_then(|png| previews.write(epoch, &png));
                        warn_about(written.context("cannot write the preview"));
                    }
                }
                warn_about(loss_plot::write(&options.out_dir, &title).context("cannot write the plot"));
                warn_about(events.update(&previews));
            }
            Event::Epoch { denoiser: None, .. } => {}
        }
        Ok(())
    })
    .map_err(with_advice)?;
    drop(progress);
    // Needed if a finished run was resumed: it has no epoch left, so no event wrote the files.
    warn_about(loss_plot::write(&options.out_dir, &title).context("cannot write the plot"));
    warn_about(events.update(&previews));
    let card = card::trained(&splits, &config, options, &outcome);
    let mut json = serde_json::to_value(&outcome)?;
    json["model"] = folder.display().to_string().into();
    json["preset"] = output::name(&preset).into();
    json["seed"] = config.seed.into();
    json["parameters"] = config.denoiser.parameter_count().into();
    let text = format!(
        "{}: {} epochs in {:.0} s ({:.0} images/s)",
        folder.display(),
        outcome.epochs,
        outcome.seconds,
        outcome.images_per_second
    );
    let denoiser = match guide {
        Some(guide) => outcome.denoiser.guided_by(guide)?,
        None => outcome.denoiser,
    };
    write_model(&folder, &denoiser, options.dtype, &card)?;
    output::result(common, &json, &text)
}

/// The guide of --guide. Fails before training if it does not fit the model that will be trained.
fn guide(name: &str, config: &TrainConfig, device: &Device) -> Result<Denoiser> {
    let guide = model::load(name, device)?;
    let weights = initial_weights(&config.denoiser, config.seed, device)?;
    let denoiser = Denoiser::new(&config.denoiser, &config.schedule, weights)?;
    denoiser.check_guide(&guide).with_context(|| format!("--guide {name}"))?;
    Ok(guide)
}

fn warn_about(result: Result<()>) {
    if let Err(error) = result {
        output::warning(&format!("{error:#}"));
    }
}

/// Warns about missing labels, which change what is trained or measured.
fn warn_about_labels(splits: &Splits) {
    let (name, labels) = (splits.name(), |set: &Dataset| set.labels().is_some());
    let (train, test) = (labels(splits.train()), splits.test().map(labels));
    if !train {
        output::warning(&format!(
            "the training images of {name} have no labels, so the model has no classes"
        ));
    }
    if test.is_some_and(|test| test != train) {
        let which = if train { "test" } else { "training" };
        output::warning(&format!(
            "only the {which} images of {name} have no labels, so there is no test loss"
        ));
    }
}

/// Adds the command-line options that resolve the error.
fn with_advice(error: Error) -> anyhow::Error {
    let advice = match &error {
        Error::Core(ddpm_core::Error::OutOfRange { name, .. }) if name == "batch_size" => {
            "pass another --batch-size"
        }
        Error::Occupied { .. } => {
            "pass another --out-dir, --resume to continue the run, or --overwrite to replace it from the first \
             checkpoint of the new one on"
        }
        Error::Stopped { step, .. } => {
            let advice = match step {
                0 => "nothing was saved".to_owned(),
                _ => "its state is saved; add --resume to the command to continue".to_owned(),
            };
            return match interrupt::check() {
                Err(interrupted) => anyhow::Error::new(interrupted).context(format!("{error}; {advice}")),
                Ok(()) => error.into(),
            };
        }
        Error::NoCheckpoint { .. } => "run without --resume, or with --overwrite if the folder holds a run",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}; {advice}")
}

/// A PNG of five generated images of each class. Every epoch uses the same noise, so that previews are comparable.
fn preview(denoiser: &Denoiser, seed: u64) -> Result<Vec<u8>> {
    let classes: Vec<u32> = (0..).take(denoiser.config().num_classes).collect();
    let job = Job::per_class(SampleOptions::default().config(seed, denoiser)?, &classes, 5)?;
    let pixels = job.pixels(denoiser, &Progress::hidden())?;
    picture::encode_png(&job.sheet(denoiser, &pixels).draw(picture::PNG_TILE_SIDE)?, None)
}
