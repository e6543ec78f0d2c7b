//! A whole training run in a folder.
//!
//! ```text
//! DIR/metrics.jsonl                          the log
//! DIR/checkpoints/step-N/                    the last two checkpoints
//! DIR/model/, DIR/previews/, DIR/loss.svg    for the caller to write; removed with the others by
//!                                            [`Start::Overwrite`]
//! ```

use std::{fs, path::Path, time::Instant};

use candle_core::{DType, Device, Tensor};
use ddpm_data::Splits;
use ddpm_files::{create_dir_all, remove_temporary};
use ddpm_model::Denoiser;
use serde::Serialize;

use crate::{
    Error, Record, Result, TrainConfig, Trainer,
    checkpoint::{self, Progress},
    evaluate_loss,
    metrics::Log,
};

/// What to do with a folder that may hold a run already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Begin; a folder that holds a run is an error.
    #[default]
    Fresh,
    /// Begin, and remove a run that is there.
    Overwrite,
    /// Go on from the newest checkpoint.
    Resume,
}

/// What an observer is told. An error that it returns ends the run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run goes on from a checkpoint.
    Resumed {
        /// Steps so far.
        step: u64,
        /// How many newer checkpoints were passed over, because they do not match their manifest.
        damaged: usize,
    },
    /// A step was taken.
    Step {
        /// Steps so far.
        step: u64,
        /// Steps of the whole run.
        total: u64,
        /// The mean loss of the last line of the log.
        loss: Option<f64>,
    },
    /// An epoch ended.
    Epoch {
        /// The line for the log.
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
    /// ShuffledBatches trained.
    pub epochs: u64,
    /// Steps taken.
    pub steps: u64,
    /// Images in a step.
    pub batch_size: usize,
    /// Images seen, counting each time.
    pub images: u64,
    /// Seconds of training, over all parts of a resumed run.
    pub seconds: f64,
    /// Images seen per second.
    pub images_per_second: f64,
    /// The mean loss over the last epoch.
    pub train_loss: Option<f64>,
    /// The loss on held-out images.
    pub test_loss: Option<f64>,
}

/// Steps between lines of the log.
const LOG_STEPS: u64 = 50;
/// Held-out images that are looked at after each epoch, a hundred for each of twenty timesteps.
const HELD_OUT: usize = 2000;

/// Trains in `folder`, logging as it goes, with a checkpoint after each epoch.
///
/// # Errors
///
/// If the configuration does not fit the data, the folder is in use or not as `start` expects, a file
/// cannot be written, the loss is no number, or the observer says so.
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
    if let Some(test) = splits.test() {
        // Rather now than after the first epoch.
        config.validate(test)?;
    }
    let _lock = prepare(folder, start)?;
    let checkpoints = folder.join("checkpoints");
    let mut progress = Progress {
        step: 0,
        seconds: 0.0,
        images_sha256: data.images_sha256().to_owned(),
        labels_sha256: data.labels_sha256().map(str::to_owned),
        config: config.clone(),
    };
    if start == Start::Resume {
        let (found, damaged) = checkpoint::restore(&checkpoints, &mut trainer, &progress)?;
        observe(Event::Resumed { step: found.step, damaged }).map_err(Error::Observer)?;
        progress = found;
    }
    let mut log = Log::open(&folder.join("metrics.jsonl"), progress.step)?;
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
                splits.test().map(|test| evaluate_loss(&denoiser, config, test, HELD_OUT)).transpose()?;
            if let Some(loss) = test_loss.filter(|loss| !loss.is_finite()) {
                return Err(Error::Diverged { step, loss });
            }
            let train_loss = of_epoch.take()?;
            let epoch = step.checked_div(per_epoch).unwrap_or(0);
            let seconds = before + started.elapsed().as_secs_f64();
            let record = Record::Epoch { epoch, step, train_loss, test_loss, seconds };
            log.write(&record)?;
            progress = Progress { step, seconds, ..progress };
            checkpoint::save(&checkpoints, &log, &trainer, &progress)?;
            observe(Event::Epoch { record: &record, denoiser: &denoiser }).map_err(Error::Observer)?;
            // What is done between epochs is no slowness of the steps that follow.
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

/// A mean whose sum stays on the device until it is asked for.
#[derive(Default)]
struct Mean {
    sum: Option<Tensor>,
    count: f64,
}

impl Mean {
    /// Counts a scalar `times` times.
    fn add_many(&mut self, value: &Tensor, times: f64) -> Result<()> {
        let value = (value * times)?;
        self.sum = Some(match self.sum.take() {
            Some(sum) => (sum + value)?,
            None => value,
        });
        self.count += times;
        Ok(())
    }

    /// The mean so far, from where it starts anew.
    fn take(&mut self) -> Result<f64> {
        let Self { sum, count } = std::mem::take(self);
        let Some(sum) = sum else { return Ok(f64::NAN) };
        // Converted after it has left the device: not every device knows f64.
        Ok(sum.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()? / count)
    }
}

/// Creates the folder, locks it for as long as the file lives, and clears it if that is asked for.
fn prepare(folder: &Path, start: Start) -> Result<fs::File> {
    let checkpoints = folder.join("checkpoints");
    if start == Start::Resume && !folder.exists() {
        return Err(Error::NoCheckpoint { path: checkpoints, damaged: 0 });
    }
    create_dir_all(folder)?;
    let path = folder.join(".lock");
    let lock = fs::File::create(&path).map_err(Error::io(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked { path: folder.to_owned() }),
        Err(fs::TryLockError::Error(source)) => return Err(Error::Io { path, source }),
    }
    let log = folder.join("metrics.jsonl");
    match start {
        // A folder that is no run keeps whatever it has by these names.
        Start::Overwrite if !log.exists() && !checkpoints.exists() => {}
        Start::Fresh if log.exists() || checkpoints.exists() => {
            return Err(Error::Occupied { path: folder.to_owned() });
        }
        Start::Overwrite => {
            for name in ["checkpoints", "previews", "model"] {
                checkpoint::remove(&folder.join(name))?;
            }
            for file in [log, folder.join("loss.svg")] {
                if file.exists() {
                    fs::remove_file(&file).map_err(Error::io(&file))?;
                }
            }
        }
        Start::Resume if checkpoints.exists() => remove_temporary(&checkpoints)?,
        Start::Fresh | Start::Resume => {}
    }
    Ok(lock)
}
