//! A training run in a folder.
//!
//! ```text
//! DIR/metrics.jsonl                          the log
//! DIR/checkpoints/step-N/                    the last two checkpoints
//! DIR/model/, DIR/previews/, DIR/loss.svg    written by the caller
//! ```

use std::{path::Path, time::Instant};

use candle_core::{DType, Device, Tensor};
use ddpm_data::Splits;
use ddpm_model::Denoiser;
use serde::Serialize;

use crate::{
    Error, Record, Result, TrainConfig, Trainer,
    checkpoint::{self, Progress},
    evaluate_loss,
    folder::RunFolder,
    metrics::Log,
};

/// The treatment of a run that already exists in the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Start a new run; a folder that holds checkpoints is an error.
    #[default]
    Fresh,
    /// Start a new run. Its first checkpoint replaces the checkpoints and the log of an older run.
    Overwrite,
    /// Resume from the newest checkpoint that matches its manifest, or start again if the run ended before its first
    /// checkpoint.
    Resume,
}

/// An event that [`run`] passes to its observer. An error returned by the observer ends the run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run was resumed from a checkpoint.
    Resumed {
        /// Steps so far.
        step: u64,
        /// The number of newer checkpoints that were skipped because they do not match their manifest.
        damaged: usize,
    },
    /// A step was taken.
    Step {
        /// Steps so far.
        step: u64,
        /// Steps of the whole run.
        total: u64,
        /// The mean loss in the last line of the log; `None` before the first line.
        loss: Option<f64>,
    },
    /// An epoch ended.
    Epoch {
        /// The line in the log.
        record: &'a Record,
        /// The network with averaged weights.
        denoiser: &'a Denoiser,
    },
}

/// The result of a run.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The network with averaged weights.
    #[serde(skip)]
    pub denoiser: Denoiser,
    /// The number of epochs.
    pub epochs: u64,
    /// Steps taken.
    pub steps: u64,
    /// The number of images of a step.
    pub batch_size: usize,
    /// The number of training images, counting repetitions.
    pub images: u64,
    /// Seconds of training, over all parts of a resumed run.
    pub seconds: f64,
    /// Training images per second.
    pub images_per_second: f64,
    /// The mean loss over the last epoch; `None` if the log has no line about an epoch.
    pub train_loss: Option<f64>,
    /// The loss on test images after the last epoch; `None` if the data has no test images, or only one of the two sets
    /// has labels.
    pub test_loss: Option<f64>,
}

/// Steps between lines of the log.
const LOG_STEPS: u64 = 50;
/// The largest number of test images for the loss after each epoch: 100 for each of 20 timesteps.
const TEST_IMAGES: usize = 2000;

/// Trains a network in `folder`. Writes a log, and a checkpoint after each epoch.
///
/// # Errors
///
/// If the configuration does not fit the data, the folder is in use, `start` does not fit the folder's content, a file
/// cannot be read or written, the loss is NaN or infinite, or the observer returns an error.
pub fn run(
    config: &TrainConfig,
    splits: &Splits,
    folder: &Path,
    start: Start,
    device: &Device,
    mut observe: impl FnMut(Event<'_>) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Result<Outcome> {
    let data = splits.train();
    let mut trainer = Trainer::new(config, data, device)?;
    // Without the labels that the training set has, there is no test loss.
    let test = splits.test().filter(|test| test.labels().is_some() == data.labels().is_some());
    if let Some(test) = test {
        // Checks the test set now, since its first use is after the first epoch.
        config.validate(test)?;
    }
    let folder = RunFolder::open(folder, start)?;
    let mut progress = Progress {
        step: 0,
        seconds: 0.0,
        images_sha256: data.images_sha256().to_owned(),
        labels_sha256: data.labels_sha256().map(str::to_owned),
        config: config.clone(),
    };
    let older = checkpoint::list(&folder.checkpoints)?;
    if start == Start::Resume && !older.is_empty() {
        let (found, damaged) = checkpoint::restore(&folder.checkpoints, &mut trainer, &progress)?;
        observe(Event::Resumed { step: found.step, damaged }).map_err(Error::Observer)?;
        progress = found;
    }
    let (mut log, mut replaced) = match start {
        Start::Overwrite => (Log::replacing(&folder.log)?, older),
        Start::Fresh | Start::Resume => (Log::open(&folder.log, progress.step)?, Vec::new()),
    };
    let (started, before) = (Instant::now(), progress.seconds);
    let (total, per_epoch) = (trainer.total_steps(), trainer.steps_per_epoch());
    let (mut recent, mut of_epoch) = (Mean::default(), Mean::default());
    let (mut last_loss, mut last_seconds) = (None, before);

    while trainer.step() < total {
        recent.add_many(&trainer.train_step()?, 1.0)?;
        let step = trainer.step();
        let seconds = before + started.elapsed().as_secs_f64();
        let epoch_ends = step.is_multiple_of(per_epoch);
        if step.is_multiple_of(LOG_STEPS) || epoch_ends {
            let (steps, loss) = (recent.count, recent.take()?);
            if !loss.is_finite() {
                return Err(Error::Diverged { step, loss });
            }
            of_epoch.add_many(&Tensor::new(loss, &Device::Cpu)?, steps)?;
            last_loss = Some(loss);
            let batch = config.batch_size as u64;
            log.write(&Record::Train {
                step,
                epoch: step as f64 / per_epoch as f64,
                images: step * batch,
                loss,
                learning_rate: config.learning_rate_at(step - 1, total),
                images_per_second: steps * batch as f64 / (seconds - last_seconds),
                seconds,
            })?;
            last_seconds = seconds;
        }
        observe(Event::Step { step, total, loss: last_loss }).map_err(Error::Observer)?;
        if epoch_ends {
            let denoiser = trainer.ema_denoiser()?;
            let test_loss =
                test.map(|test| evaluate_loss(&denoiser, config, test, TEST_IMAGES)).transpose()?;
            if let Some(loss) = test_loss.filter(|loss| !loss.is_finite()) {
                return Err(Error::Diverged { step, loss });
            }
            let train_loss = of_epoch.take()?;
            let epoch = step.checked_div(per_epoch).unwrap_or(0);
            let seconds = before + started.elapsed().as_secs_f64();
            let record = Record::Epoch { epoch, step, train_loss, test_loss, seconds };
            log.write(&record)?;
            progress = Progress { step, seconds, ..progress };
            checkpoint::save(&folder.checkpoints, &mut log, &trainer, &progress, &replaced)?;
            replaced.clear();
            observe(Event::Epoch { record: &record, denoiser: &denoiser }).map_err(Error::Observer)?;
            // The time between two epochs does not count in the speed of the next steps.
            last_seconds = before + started.elapsed().as_secs_f64();
        }
    }
    let images = total * config.batch_size as u64;
    let seconds = progress.seconds;
    let (train_loss, test_loss) = match log.last_epoch() {
        Some(&Record::Epoch { train_loss, test_loss, .. }) => (Some(train_loss), test_loss),
        _ => (None, None),
    };
    Ok(Outcome {
        denoiser: trainer.ema_denoiser()?,
        epochs: config.epochs,
        steps: total,
        batch_size: config.batch_size,
        images,
        seconds,
        images_per_second: images as f64 / seconds,
        train_loss,
        test_loss,
    })
}

/// A running mean, whose sum stays on the device until it is read.
#[derive(Default)]
struct Mean {
    sum: Option<Tensor>,
    count: f64,
}

impl Mean {
    /// Adds a scalar `times` times.
    fn add_many(&mut self, value: &Tensor, times: f64) -> Result<()> {
        let value = (value * times)?;
        self.sum = Some(match self.sum.take() {
            Some(sum) => (sum + value)?,
            None => value,
        });
        self.count += times;
        Ok(())
    }

    /// Returns the mean, NaN if nothing was added, and resets it.
    fn take(&mut self) -> Result<f64> {
        let Self { sum, count } = std::mem::take(self);
        let Some(sum) = sum else { return Ok(f64::NAN) };
        // Converts on the CPU, since not every device supports f64.
        Ok(sum.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()? / count)
    }
}
