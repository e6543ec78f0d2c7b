//! The errors of this crate.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid device, model, argument or file, or a failure of a library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name of a device is not known.
    #[error("unknown device `{found}`, expected cpu, cuda, cuda:N or metal")]
    UnknownDevice {
        /// The name given.
        found: String,
    },
    /// The program was built without support for a device.
    #[error("device `{device}` needs a build with `--features {feature}`; this build lacks it")]
    MissingFeature {
        /// The device's name.
        device: String,
        /// The missing cargo feature.
        feature: &'static str,
    },
    /// The device cannot be opened.
    #[error("device `{device}` cannot be opened")]
    OpenDevice {
        /// The device's name.
        device: String,
        /// The tensor library's error.
        source: candle_core::Error,
    },
    /// An option of the configuration is outside its range, or a weight does not fit the configuration.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// The option or weight, such as "denoiser option `rows`".
        name: Cow<'static, str>,
        /// The value or shape found.
        found: String,
        /// The valid values or shape.
        expected: Cow<'static, str>,
    },
    /// A class is out of range.
    #[error("class {found}, but the model has classes 0 to {last}")]
    Class {
        /// The class given.
        found: u32,
        /// The model's last class.
        last: usize,
    },
    /// The number of classes differs from the number of images.
    #[error("{found} classes for a batch of {batch} images")]
    ClassCount {
        /// The number of classes given.
        found: usize,
        /// The size of the batch.
        batch: usize,
    },
    /// The number of timesteps differs from the number of images.
    #[error("{found} timesteps for a batch of {batch} images")]
    TimestepCount {
        /// The number of timesteps given.
        found: usize,
        /// The size of the batch.
        batch: usize,
    },
    /// The images have another number of pixels than the model's images.
    #[error("images of {found} pixels, but the model expects {expected} pixels")]
    Pixels {
        /// The pixels of an image given.
        found: usize,
        /// The pixels of an image of the model.
        expected: usize,
    },
    /// The guidance scale is not finite.
    #[error("the guidance scale is {found}, expected a finite number")]
    GuidanceScale {
        /// The guidance scale given.
        found: f64,
    },
    /// A guidance scale other than 1 was given for an unconditional model.
    #[error("guidance {found} needs a class-conditional model, but this model has no classes")]
    Guidance {
        /// The guidance scale given.
        found: f64,
    },
    /// A scale of guidance by a guide other than 1 was given for a model without a guide.
    #[error("guidance {found} by a guide needs a model with a guide, and this model has none")]
    NoGuide {
        /// The guidance scale given.
        found: f64,
    },
    /// A weight is missing from a file.
    #[error("{}: no tensor `{name}`, expected one of shape {expected:?}", path.display())]
    MissingTensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape in the configuration.
        expected: Vec<usize>,
    },
    /// A weights file has a tensor that is not in the configuration.
    #[error("{}: unexpected tensor `{name}`; the file belongs to another configuration", path.display())]
    UnexpectedTensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor's type or shape differs from the configuration.
    #[error("{}: tensor `{name}` is {found}, expected {expected}", path.display())]
    TensorMismatch {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Type and shape found.
        found: String,
        /// The type and shape expected.
        expected: String,
    },
    /// A weight is NaN or infinite, or too large for the stored type.
    #[error("{}: tensor `{name}` is {found} at position {position}, expected {expected}", path.display())]
    WeightValue {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The weight's index in the flattened tensor (row-major, from 0).
        position: usize,
        /// Its value.
        found: f32,
        /// The valid values.
        expected: &'static str,
    },
    /// A prediction or a sample is NaN or infinite.
    #[error(
        "the {quantity} of image {image} at timestep {timestep} is NaN or infinite, expected finite numbers"
    )]
    NotFinite {
        /// `prediction` or `sample`.
        quantity: &'static str,
        /// The image's index.
        image: u64,
        /// The timestep at which the network was evaluated, or for a sample the last timestep.
        timestep: f64,
    },
    /// An option belongs to another sampler than the chosen one.
    #[error("{option} is an option of the sampler {expected}")]
    OptionOfOtherSampler {
        /// The option.
        option: &'static str,
        /// The sampler that has the option.
        expected: &'static str,
    },
    /// A file of a model folder cannot be read.
    #[error("{}: cannot read; a model folder holds model_index.json, scheduler/ and denoiser/", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file of a plan cannot be read.
    #[error("{}: cannot read the plan", path.display())]
    ReadPlan {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A plan was fitted to another model.
    #[error(
        "the plan was fitted to the model with SHA-256 {expected}, but this model, with its guide if it has one, has \
         {found}"
    )]
    PlanOfOtherModel {
        /// The digest of the model given, [`Denoiser::sha256`](crate::Denoiser::sha256).
        found: String,
        /// The digest in the plan.
        expected: String,
    },
    /// A file is not valid JSON, or has missing, unknown or invalid keys.
    #[error("{}: invalid JSON content", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The folder holds a model of another kind.
    #[error(
        "{}: `{key}` is `{found}`, expected `{expected}`; this architecture is not one of `ddpm-model`, which reads its own \
         models only",
        path.display()
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The value found.
        found: String,
        /// The value expected.
        expected: &'static str,
    },
    /// A weights file is not a valid safetensors file.
    #[error("{}: invalid safetensors file: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The parser's error. It is not the source of this error, because its text repeats that of its own source.
        reason: safetensors::SafeTensorError,
    },
    /// The denoiser's configuration is not valid.
    #[error("{}: invalid denoiser configuration", path.display())]
    Denoiser {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<Error>,
    },
    /// The scheduler's configuration is not valid.
    #[error("{}: invalid scheduler configuration", path.display())]
    Scheduler {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: ddpm_core::Error,
    },
    /// A file or folder cannot be written.
    #[error(transparent)]
    Files(#[from] ddpm_files::Error),
    /// `ddpm-core` returned an error, for example for an invalid schedule or list of timesteps.
    #[error(transparent)]
    Core(#[from] ddpm_core::Error),
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

    /// Adds the file to an error of the JSON library.
    pub fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { path: path.to_owned(), source }
    }

    /// Adds the file to an error of the safetensors library.
    pub fn safetensors(path: &Path) -> impl FnOnce(safetensors::SafeTensorError) -> Self {
        move |reason| Self::Safetensors { path: path.to_owned(), reason }
    }
}
