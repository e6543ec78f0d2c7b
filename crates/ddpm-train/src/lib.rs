//! Training of small denoising networks: loss, optimizer, moving average, checkpoints, log.
//!
//! [`Trainer`] holds the training state and takes single steps. [`run`] is a whole training run in a folder, with a log,
//! checkpoints and resumption. All random numbers are addressed by seed and step, so a run that was stopped and resumed
//! ends with the same weights, bit for bit, as an uninterrupted run. [`average_snapshots`] chooses the length of the
//! weights' average after the training. A [`ProcessGroup`], such as `Mpi` with the feature `mpi`, trains one network on
//! several machines.
//!
//! [`AdamW`] and [`seeded_var_builder`] are for networks of any kind: an optimizer whose state can be saved and resumed
//! exactly, and initial weights from a seed. `examples/foreign_network.rs` trains a network with them.
//!
//! ```no_run
//! use candle_core::Device;
//! use ddpm_data::Splits;
//! use ddpm_train::{Preset, RunOptions, TrainConfig, run};
//!
//! let splits = Splits::mnist()?;
//! let config = TrainConfig::preset(Preset::Quick, splits.train());
//! let outcome = run(&config, &splits, "runs/mine".as_ref(), RunOptions::default(), &Device::Cpu, |_| Ok(()))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod augment;
mod checkpoint;
mod config;
mod engine;
mod error;
mod folder;
mod group;
mod local_sgd;
mod metrics;
#[cfg(feature = "mpi")]
mod mpi;
mod noise;
mod optimizer;
mod part;
mod post_hoc_ema;
mod run;
mod seeded;
mod state_folder;
mod trainer;

pub use config::{Preset, TrainConfig};
pub use error::{Error, Result};
pub use folder::logged_epochs;
pub use group::{GroupError, ProcessGroup};
pub use metrics::Record;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use optimizer::{AdamW, AdamWConfig};
pub use post_hoc_ema::{SnapshotAverage, average_snapshots};
pub use run::{CheckpointEvery, Event, Outcome, RunOptions, Start, run};
pub use seeded::seeded_var_builder;
pub use trainer::{Trainer, evaluate_loss};
