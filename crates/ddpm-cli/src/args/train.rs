//! The arguments of `train`.

use std::{path::PathBuf, time::Duration};

use clap::Args as ClapArgs;
use ddpm_core::{LossWeighting, PredictionType};
use ddpm_data::Source;
use ddpm_model::WeightType;
use ddpm_train::Preset;

use super::{
    paths,
    values::{NetworkName, count, seconds},
};

#[derive(Debug, ClapArgs)]
pub(crate) struct Train {
    /// The data set: mnist, a folder of IDX files (or FOLDER/PREFIX of one of several data sets), or
    /// hf://datasets/OWNER/NAME[/CONFIG] [default: that of --config, or mnist]
    #[arg(long, value_name = "SOURCE")]
    pub(crate) data: Option<Source>,
    /// A named set of training options; --config and the options below override it [default: standard]
    #[arg(long, value_enum)]
    pub(crate) preset: Option<Preset>,
    /// A TOML file with training options, as --print-config prints them and as each run saves its own (config.toml). Its key
    /// `preset` names the preset on which it builds, and its key `data` the data set; the options override it
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub(crate) config: Option<PathBuf>,
    /// Print a preset as a TOML file for --config, with a comment for each option, and do nothing else
    #[arg(long, value_name = "PRESET", value_enum)]
    pub(crate) print_config: Option<Preset>,
    /// The run folder, for the model, the log, the loss curve (loss.svg), the configuration (config.toml), checkpoints,
    /// previews, the same log and previews for TensorBoard, and snapshots for `average`
    #[arg(short, long, value_name = "DIR", default_value = "runs/train", value_parser = paths::out())]
    pub(crate) out_dir: PathBuf,
    /// Continue from the newest checkpoint in the run folder, or from the start if the run ended before its first one
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) resume: bool,
    /// Start a new run in a folder that holds one. Its first checkpoint replaces the checkpoints, the logs, the previews
    /// and the snapshots of the older run, and its model replaces the older model at the end; other files stay
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// The time in seconds after which a checkpoint is written: at most this much work is lost if the program is killed.
    /// A run that is interrupted with Ctrl-C or SIGTERM saves first
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) checkpoint_every: Duration,
    /// The number of newest checkpoints to keep
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = count(1..=1_000_000))]
    pub(crate) keep: usize,
    /// Start from the weights of a model instead of random ones, for example to train a finished run for more epochs.
    /// It also gives the architecture and the schedule
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", conflicts_with_all = ["network", "parameterization"])]
    pub(crate) from: Option<String>,
    /// A weaker model of the same data, such as one of --preset guide, which becomes a part of the model: `sample` is then
    /// guided by it (autoguidance). It has no influence on the training
    #[arg(long, value_name = "DIR|hf://OWNER/NAME")]
    pub(crate) guide: Option<String>,
    /// The number type in which the model folder stores weights
    #[arg(long, value_enum, default_value_t = WeightType::F32)]
    pub(crate) dtype: WeightType,
    /// Train together with the other processes that `mpirun` or `srun` has started, each with the same command; needs a build
    /// with --features mpi. The process of rank 0 writes the run folder. --batch-size is the number of images over all
    /// processes
    #[arg(long)]
    pub(crate) mpi: bool,
    /// Synchronise the processes only every H steps (local SGD), for slow links or unequal machines, instead of adding the
    /// gradients in each step
    #[arg(long, value_name = "H")]
    pub(crate) sync_every: Option<u64>,
    /// The number of passes over the training images
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u64>,
    /// The number of images in a training step
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
    /// The peak of the learning-rate schedule
    #[arg(long, value_name = "X")]
    pub(crate) learning_rate: Option<f64>,
    /// The architecture. patch-mlp: a residual MLP with shared layers for each patch (the built-in model); mlp: a
    /// residual MLP on the whole image; plain: the MLP without residual connections of the original recipe
    #[arg(long, value_enum)]
    pub(crate) network: Option<NetworkName>,
    /// The loss: the squared error of ε, of x₀, of v, or of x₀ weighted by the signal-to-noise ratio
    #[arg(long, value_enum)]
    pub(crate) loss: Option<LossWeighting>,
    /// The quantity that the network emits: x₀ (sample), ε (epsilon) or v (v_prediction)
    #[arg(long, value_enum)]
    pub(crate) parameterization: Option<PredictionType>,
    /// Set any field of the training configuration, for example ema_decay=0.9999, denoiser.network.blocks=3 or
    /// ema_snapshots=32 (with which `average` can choose another average later); -v prints all fields; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}
