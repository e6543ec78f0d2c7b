//! How a run starts, saves and stops.

use std::{sync::atomic::AtomicBool, time::Duration};

use ddpm_model::Denoiser;

use crate::ProcessGroup;

/// The treatment of a run that already exists in the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Start a new run; a folder that holds checkpoints is an error.
    #[default]
    Fresh,
    /// Start a new run. Its first checkpoint replaces the checkpoints, the snapshots and the log of an older run.
    Overwrite,
    /// Resume from the newest checkpoint that matches its manifest, or start again if the run ended before its first
    /// checkpoint.
    Resume,
}

/// When a run writes a checkpoint. It always writes one after its first epoch or before its first snapshot of averages, at
/// its end, and when it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointEvery {
    /// After the step at which this time has passed since the last checkpoint.
    Time(Duration),
    /// After each epoch.
    Epoch,
}

/// How a run starts, saves and stops.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions<'a> {
    /// The treatment of an existing run.
    pub start: Start,
    /// When a checkpoint is written; by default after a minute.
    pub checkpoint_every: CheckpointEvery,
    /// The number of newest checkpoints that are kept, 1 or more; by default 2.
    pub keep: usize,
    /// The smallest number of steps between two evaluations; by default 200. The averaged weights are evaluated after an
    /// epoch in which a multiple of this number of steps, or of a twentieth of the run if that is more, was passed, and after
    /// the last one. So evaluations take little time on a small data set and in a long run.
    pub evaluate_every: u64,
    /// The network from whose weights a new run starts, instead of random ones; with its name, for the log. Pass it again to
    /// resume the run.
    pub initial: Option<(&'a str, &'a Denoiser)>,
    /// If it becomes true, the run ends after its step, with a checkpoint and [`Error::Stopped`](crate::Error::Stopped). With
    /// [`TrainConfig::sync_every`](crate::TrainConfig::sync_every) it ends after the next synchronisation.
    pub stop: &'a AtomicBool,
    /// The processes that train together; `None` for one process.
    pub group: Option<&'a dyn ProcessGroup>,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self {
            start: Start::Fresh,
            checkpoint_every: CheckpointEvery::Time(Duration::from_mins(1)),
            keep: 2,
            evaluate_every: 200,
            initial: None,
            stop: &NEVER,
            group: None,
        }
    }
}
