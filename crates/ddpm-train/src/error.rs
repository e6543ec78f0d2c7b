//! What can go wrong in this crate.

use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A configuration, a folder or a checkpoint that is not as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number in the training configuration is outside its range.
    #[error("training option `{option}` is {found}, expected {expected}")]
    Config {
        /// The option's name.
        option: &'static str,
        /// The value found.
        found: f64,
        /// The range that works.
        expected: &'static str,
    },
    /// The images have another size than the network.
    #[error("the images of {data} are {rows}×{cols}, but the network is for {expected_rows}×{expected_cols}")]
    ImageSize {
        /// The data set's name.
        data: String,
        /// Rows found.
        rows: usize,
        /// Columns found.
        cols: usize,
        /// Rows of the network.
        expected_rows: usize,
        /// Columns of the network.
        expected_cols: usize,
    },
    /// The data has classes that the network does not know.
    #[error("{data} has {found} classes, but the network is for {expected}")]
    Classes {
        /// The data set's name.
        data: String,
        /// The number of classes in the data, 0 for none.
        found: usize,
        /// The number of classes of the network.
        expected: usize,
    },
    /// The loss is no longer a number.
    #[error("the loss is {loss} at step {step}; a smaller learning rate may help")]
    Diverged {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// Another process trains in the same folder.
    #[error("{}: another training run is at work in this folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has a training run already.
    #[error("{}: holds a training run already; resume it, overwrite it, or train elsewhere", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// There is no checkpoint that verifies.
    #[error("{}: no complete checkpoint to resume from ({damaged} damaged)", path.display())]
    NoCheckpoint {
        /// The folder of checkpoints.
        path: PathBuf,
        /// The number of checkpoints that do not match their manifest.
        damaged: usize,
    },
    /// A checkpoint was made with another configuration.
    #[error("{}: was made with another `{key}` ({saved}, now {now})", path.display())]
    OtherConfig {
        /// The checkpoint.
        path: PathBuf,
        /// The part of the configuration that differs.
        key: String,
        /// The value in the checkpoint.
        saved: String,
        /// The value now.
        now: String,
    },
    /// A checkpoint lacks a tensor or has one of another shape.
    #[error("{}: no tensor `{name}` of shape {expected:?}", path.display())]
    CheckpointTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape expected.
        expected: Vec<usize>,
    },
    /// A file cannot be read or written.
    #[error("{}: cannot read or write", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not the JSON that was expected.
    #[error("{}: not the expected JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A checkpoint is not in the safetensors format.
    #[error("{}: not the expected safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: safetensors::SafeTensorError,
    },
    /// The caller's observer stopped the run.
    #[error(transparent)]
    Observer(Box<dyn std::error::Error + Send + Sync>),
    /// The data set refused its arguments.
    #[error(transparent)]
    Data(#[from] ddpm_data::Error),
    /// The diffusion mathematics refused its arguments.
    #[error(transparent)]
    Core(#[from] ddpm_core::Error),
    /// The model cannot be built or written.
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
    /// Names the file or folder of a system error.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
