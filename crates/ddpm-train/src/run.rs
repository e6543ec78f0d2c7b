//! A training run in a folder.
//!
//! ```text
//! DIR/metrics.jsonl                          the log
//! DIR/checkpoints/step-N/                    the newest checkpoints
//! DIR/snapshots/step-N/                      averages of the weights, with `ema_snapshots`
//! DIR/model/, DIR/previews/, DIR/loss.svg,   written by the caller
//! DIR/tensorboard/
//! ```

mod mean;
mod options;
mod together;

use std::{path::Path, sync::atomic::Ordering, time::Instant};

use candle_core::Device;
use ddpm_data::Splits;
use ddpm_model::Denoiser;
use serde::Serialize;

use crate::{
    Error, Record, Result, TrainConfig, Trainer,
    checkpoint::{self, Checkpoint},
    evaluate_loss,
    folder::RunFolder,
    group::{any, is_first, world_size},
    metrics::Log,
    post_hoc_ema::snapshots,
    state_folder::{Progress, list},
};
use mean::Mean;
pub(crate) use mean::Sum;
pub use options::{CheckpointEvery, RunOptions, Start};

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
    /// A checkpoint was written.
    Saved {
        /// Steps so far.
        step: u64,
    },
    /// An epoch ended.
    Epoch {
        /// The line in the log.
        record: &'a Record,
        /// The network with averaged weights, if it was evaluated after this epoch; see [`RunOptions::evaluate_every`].
        denoiser: Option<&'a Denoiser>,
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
    /// The number of images of a step, over all processes.
    pub batch_size: usize,
    /// The number of processes that trained together; 1 without a group.
    pub world_size: usize,
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

/// Steps between lines of the log with the norm of the gradient.
const LOG_STEPS: u64 = 50;
/// The largest number of evaluations of a run, give or take one.
const EVALUATIONS: u64 = 20;
/// The largest number of test images for the loss after each epoch: 100 for each of 20 timesteps.
const TEST_IMAGES: usize = 2000;

/// Trains a network in `folder`. Writes a log and checkpoints.
///
/// With [`RunOptions::group`], each process of the group calls it with the same arguments. Process 0 opens the folder, writes
/// the files and has an observer; the others need no folder and only take steps. Their result has no losses. The training
/// loss in the log of a run with [`TrainConfig::sync_every`] is of the images of process 0. If it fails in one process, the
/// others wait for it: end them then, as `Mpi::abort` does.
///
/// # Errors
///
/// If the configuration does not fit the data, the folder is in use, `start` does not fit the folder's content, a file
/// cannot be read or written, the loss or a weight is NaN or infinite, the observer returns an error, or the run was stopped.
pub fn run(
    config: &TrainConfig,
    splits: &Splits,
    folder: &Path,
    options: RunOptions<'_>,
    device: &Device,
    mut observe: impl FnMut(Event<'_>) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Result<Outcome> {
    let RunOptions { start, keep, initial, stop, group, .. } = options;
    if keep == 0 {
        return Err(Error::out_of_range("the number of checkpoints to keep", keep, "1 or more"));
    }
    let data = splits.train();
    let mut trainer = Trainer::in_group(config, data, device, group)?;
    let initial_sha256 = initial.map(|(_, denoiser)| trainer.start_from(denoiser)).transpose()?;
    // Without the labels that the training set has, there is no test loss.
    let test = splits.test().filter(|test| test.labels().is_some() == data.labels().is_some());
    if let Some(test) = test {
        // Checks the test set now, since its first use is after the first epoch.
        config.validate(test)?;
    }
    let mut progress = Progress {
        step: 0,
        seconds: 0.0,
        world_size: world_size(group),
        images_sha256: data.images_sha256().to_owned(),
        labels_sha256: data.labels_sha256().map(str::to_owned),
        initial_sha256,
        config: config.clone(),
        since_log: Sum::default(),
        since_epoch: Sum::default(),
    };
    together::check_equal(group, &progress)?;
    if !is_first(group) {
        return together::follow(trainer, folder, progress, stop, group);
    }
    let folder = RunFolder::open(folder, start)?;
    let older = list(&folder.checkpoints)?;
    let (mut found, mut damaged) = (None, 0);
    if start == Start::Resume && !older.is_empty() {
        let (checkpoint, newer) = Checkpoint::newest(&folder.checkpoints, &progress)?;
        (found, damaged) = (Some(checkpoint), newer);
    }
    if let Some(checkpoint) = together::share_checkpoint(group, found, &folder.checkpoints)? {
        checkpoint.restore(&mut trainer)?;
        let step = checkpoint.progress.step;
        observe(Event::Resumed { step, damaged }).map_err(Error::Observer)?;
        progress = Progress { world_size: world_size(group), ..checkpoint.progress };
    }
    if start == Start::Resume {
        snapshots::resume(&folder.snapshots, &trainer, &progress)?;
    }
    let (mut log, mut replaced) = match start {
        Start::Overwrite => (Log::replacing(&folder.log)?, [older, list(&folder.snapshots)?].concat()),
        Start::Fresh | Start::Resume => (Log::open(&folder.log, progress.step)?, Vec::new()),
    };
    if let (0, Some((name, _)), Some(sha256)) = (progress.step, initial, &progress.initial_sha256) {
        log.write(&Record::Start { initial: name.to_owned(), sha256: sha256.clone() })?;
    }
    let (started, before) = (Instant::now(), progress.seconds);
    let (total, per_epoch) = (trainer.total_steps(), trainer.steps_per_epoch());
    let mut recent = Mean::from_sum(progress.since_log, device)?;
    let (mut last_loss, mut last_seconds) = (None, log.last_seconds().unwrap_or(before));
    let (mut saved_at, mut has_saved) = (Instant::now(), progress.step > 0);

    while trainer.step() < total {
        if trainer.is_synchronised() && any(group, stop.load(Ordering::Relaxed))? {
            let step = trainer.step();
            if step > progress.step {
                progress.since_log = recent.sum(step)?;
                progress = Progress { step, seconds: before + started.elapsed().as_secs_f64(), ..progress };
                checkpoint::save(&folder.checkpoints, &mut log, &trainer, &progress, keep, &replaced)?;
            }
            return Err(Error::Stopped { step, total });
        }
        let step = trainer.step() + 1;
        let epoch_ends = step.is_multiple_of(per_epoch);
        let is_logged = step.is_multiple_of(LOG_STEPS) || epoch_ends;
        // The end of an epoch has no norm: an epoch of few steps would spend much of its time on norms. A run of few steps
        // would have none at all.
        let has_norm = step.is_multiple_of(LOG_STEPS) || is_logged && total < LOG_STEPS;
        let (loss, norm) =
            if has_norm { trainer.train_step_with_norm()? } else { (trainer.train_step()?, None) };
        recent.add(&loss)?;
        let mut seconds = before + started.elapsed().as_secs_f64();
        if is_logged {
            let Sum { sum, count: steps } = std::mem::take(&mut recent).sum(step)?;
            let loss = sum / steps;
            progress.since_epoch.sum += loss * steps;
            progress.since_epoch.count += steps;
            last_loss = Some(loss);
            let batch = config.batch_size as u64;
            log.write(&Record::Train {
                step,
                epoch: step as f64 / per_epoch as f64,
                images: step * batch,
                loss,
                learning_rate: config.learning_rate_at(step - 1, total),
                grad_norm: norm.map(|norm| norm.to_scalar::<f32>()).transpose()?.map(f64::from),
                images_per_second: steps * batch as f64 / (seconds - last_seconds),
                seconds,
            })?;
            last_seconds = seconds;
        }
        observe(Event::Step { step, total, loss: last_loss }).map_err(Error::Observer)?;
        let mut evaluated = None;
        if epoch_ends {
            let every = options.evaluate_every.max(total.div_euclid(EVALUATIONS)).max(1);
            if step == total || step.div_euclid(every) > (step - per_epoch).div_euclid(every) {
                evaluated = Some(trainer.ema_denoiser()?);
            }
            let loss =
                |test| evaluated.as_ref().map(|denoiser| evaluate_loss(denoiser, config, test, TEST_IMAGES));
            let test_loss = test.and_then(loss).transpose()?;
            if let Some(loss) = test_loss.filter(|loss| !loss.is_finite()) {
                return Err(Error::Diverged { step, loss });
            }
            let Sum { sum, count } = std::mem::take(&mut progress.since_epoch);
            let epoch = step.checked_div(per_epoch).unwrap_or(0);
            seconds = before + started.elapsed().as_secs_f64();
            log.write(&Record::Epoch { epoch, step, train_loss: sum / count, test_loss, seconds })?;
        }
        let is_due = match options.checkpoint_every {
            CheckpointEvery::Time(time) => saved_at.elapsed() >= time && trainer.is_synchronised(),
            CheckpointEvery::Epoch => epoch_ends,
        };
        let has_snapshot = trainer.timetable().has_snapshot(step);
        // The first checkpoint removes the snapshots of an older run, so it comes before the first snapshot.
        if is_due || step == total || (epoch_ends || has_snapshot) && !has_saved {
            progress.since_log = recent.sum(step)?;
            progress = Progress { step, seconds, ..progress };
            checkpoint::save(&folder.checkpoints, &mut log, &trainer, &progress, keep, &replaced)?;
            replaced.clear();
            (saved_at, has_saved) = (Instant::now(), true);
            observe(Event::Saved { step }).map_err(Error::Observer)?;
        }
        if has_snapshot {
            snapshots::save(&folder.snapshots, &trainer, &progress)?;
        }
        if let Some(record) = log.last_epoch().filter(|_| epoch_ends) {
            observe(Event::Epoch { record, denoiser: evaluated.as_ref() }).map_err(Error::Observer)?;
            // The time between two epochs does not count in the speed of the next steps.
            last_seconds = before + started.elapsed().as_secs_f64();
        }
    }
    let (train_loss, test_loss) = match log.last_epoch() {
        Some(&Record::Epoch { train_loss, test_loss, .. }) => (Some(train_loss), test_loss),
        _ => (None, None),
    };
    Ok(Outcome { train_loss, test_loss, ..Outcome::of(&trainer, progress.seconds, world_size(group))? })
}

impl Outcome {
    /// The result of a trainer at the end of its run, without losses.
    fn of(trainer: &Trainer<'_>, seconds: f64, world_size: usize) -> Result<Self> {
        let config = trainer.config();
        let images = trainer.total_steps() * config.batch_size as u64;
        Ok(Self {
            denoiser: trainer.ema_denoiser()?,
            epochs: config.epochs,
            steps: trainer.total_steps(),
            batch_size: config.batch_size,
            world_size,
            images,
            seconds,
            images_per_second: images as f64 / seconds,
            train_loss: None,
            test_loss: None,
        })
    }
}
