//! The errors of this crate.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid configuration, folder or checkpoint, or a failure of a library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of the training configuration is outside its range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// The option, such as "training option `epochs`".
        name: Cow<'static, str>,
        /// The value found.
        found: String,
        /// The valid values.
        expected: Cow<'static, str>,
    },
    /// The images have another size than the network's images.
    #[error(
        "the images of {data} have {}×{} pixels, but the network expects {}×{}",
        found[0], found[1], expected[0], expected[1]
    )]
    ImageSize {
        /// The data set's name.
        data: String,
        /// Rows and columns of an image of the data.
        found: [usize; 2],
        /// Rows and columns of the network.
        expected: [usize; 2],
    },
    /// The data has another number of classes than the network.
    #[error("{data} has {found} classes, but the network expects {expected}")]
    Classes {
        /// The data set's name.
        data: String,
        /// The number of classes of the data, 0 if it has no labels.
        found: usize,
        /// The number of classes of the network.
        expected: usize,
    },
    /// The loss is NaN or infinite.
    #[error("the loss is {loss} at step {step}; a smaller learning rate may help")]
    Diverged {
        /// The number of steps taken.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A weight or a number of the optimizer is NaN or infinite.
    #[error("`{name}` has the value {value} after step {step}; a smaller learning rate may help")]
    NotFinite {
        /// The tensor of the training state.
        name: String,
        /// Its value.
        value: f32,
        /// The number of steps taken.
        step: u64,
    },
    /// The run was stopped from outside, after it had saved a checkpoint.
    #[error("the training run was stopped after step {step} of {total}")]
    Stopped {
        /// The number of steps taken.
        step: u64,
        /// Steps of the whole run.
        total: u64,
    },
    /// Another training run uses the same folder.
    #[error("{}: another training run is using this folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The run would replace a file or folder that no training run has written.
    #[error(
        "{}: exists, and this program did not write it; choose another folder for the run, or move it away",
        path.display()
    )]
    Foreign {
        /// The file or folder.
        path: PathBuf,
    },
    /// The folder already holds checkpoints or snapshots.
    #[error(
        "{}: already holds the checkpoints or snapshots of a training run; resume it, or choose another folder",
        path.display()
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has no checkpoint that matches its manifest.
    #[error("{}: no complete checkpoint to resume from ({damaged} damaged)", path.display())]
    NoCheckpoint {
        /// The folder of checkpoints.
        path: PathBuf,
        /// The number of checkpoints that do not match their manifest.
        damaged: usize,
    },
    /// A checkpoint or a snapshot belongs to another configuration or other data.
    #[error("{}: was written with another `{key}`: {saved}, now {now}", path.display())]
    OtherConfig {
        /// The checkpoint or snapshot.
        path: PathBuf,
        /// The option or data that differs.
        key: String,
        /// The value in it.
        saved: String,
        /// The value now, or in the newest snapshot.
        now: String,
    },
    /// A checkpoint lacks a tensor, or the tensor has another shape or type.
    #[error("{}: no tensor `{name}` of shape {expected:?}", path.display())]
    CheckpointTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape expected.
        expected: Vec<usize>,
    },
    /// A state for an optimizer lacks a tensor, or the tensor has another shape or type.
    #[error("the state has no tensor `{name}` of shape {shape:?} and type {dtype}")]
    StateTensor {
        /// The tensor's name.
        name: String,
        /// The shape expected.
        shape: Vec<usize>,
        /// The type expected.
        dtype: &'static str,
    },
    /// A checkpoint was written by another number of processes, which add gradients in another order.
    #[error(
        "{}: was written by {saved} processes, now {now}; gradients are added in the order of the processes, so the run goes \
         on with {saved} only; a run with `sync_every` goes on with any number",
        path.display()
    )]
    OtherWorldSize {
        /// The checkpoint.
        path: PathBuf,
        /// The number of processes that wrote it.
        saved: usize,
        /// The number of processes now.
        now: usize,
    },
    /// A process that trains together with others has another configuration or other data than the process of rank 0.
    #[error(
        "the process of rank {rank} has another `{key}` than the process of rank 0: {found}, expected {expected}"
    )]
    OtherProcess {
        /// The rank of the process.
        rank: usize,
        /// The option or data that differs.
        key: String,
        /// The value of this process.
        found: String,
        /// The value of the process of rank 0.
        expected: String,
    },
    /// The processes that train together could not exchange data.
    #[error("the exchange with other processes failed")]
    Group(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A run has no snapshots of averaged weights.
    #[error(
        "{}: no snapshots of averaged weights; the training option `ema_snapshots` is the number of snapshots that a run \
         writes",
        path.display()
    )]
    NoSnapshot {
        /// The folder of the snapshots.
        path: PathBuf,
    },
    /// A snapshot does not match its manifest.
    #[error("{}: this snapshot is damaged; without its folder, the others can be averaged", path.display())]
    DamagedSnapshot {
        /// The snapshot.
        path: PathBuf,
    },
    /// A file or folder cannot be opened, read, written or removed.
    #[error("{}: cannot read or write", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The caller's observer returned an error, which ends the run.
    #[error(transparent)]
    Observer(Box<dyn std::error::Error + Send + Sync>),
    /// `ddpm-data` returned an error, for example for a batch size above the number of images.
    #[error(transparent)]
    Data(#[from] ddpm_data::Error),
    /// `ddpm-core` returned an error, for example for an invalid schedule.
    #[error(transparent)]
    Core(#[from] ddpm_core::Error),
    /// `ddpm-model` returned an error, for example for an invalid network, or a file of JSON or tensors is not valid.
    #[error(transparent)]
    Model(#[from] ddpm_model::Error),
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    Files(#[from] ddpm_files::Error),
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// [`Error::OutOfRange`] from text and numbers of any kind.
    pub(crate) fn out_of_range(
        name: impl Into<Cow<'static, str>>,
        found: impl ToString,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::OutOfRange { name: name.into(), found: found.to_string(), expected: expected.into() }
    }

    /// Adds the file or folder to a system error.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
