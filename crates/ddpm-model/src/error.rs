//! What can go wrong in this crate.

use std::path::PathBuf;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A device, a model or a file that is not as it should be.
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
    #[error("device `{device}` needs a build with `--features {feature}`, which this one is not")]
    MissingFeature {
        /// The device asked for.
        device: String,
        /// The cargo feature to add.
        feature: &'static str,
    },
    /// The device cannot be opened.
    #[error("device `{device}` cannot be opened")]
    OpenDevice {
        /// The device asked for.
        device: String,
        /// What the tensor library says.
        source: candle_core::Error,
    },
    /// A number in the network's configuration is outside its range.
    #[error("denoiser option `{option}` is {found}, expected {expected}")]
    Config {
        /// The option's name.
        option: &'static str,
        /// The value found.
        found: usize,
        /// The range that works.
        expected: &'static str,
    },
    /// A class is not one of the model's.
    #[error("class {found}, but the model has classes 0 to {last}")]
    Class {
        /// The class asked for.
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
    /// Images have another size than the network.
    #[error("images of {found} pixels, but the model is for {expected}")]
    Pixels {
        /// The number of pixels found.
        found: usize,
        /// The number of the model.
        expected: usize,
    },
    /// The weights given are not those of the configuration.
    #[error("weight `{name}` is {found}, expected {expected}")]
    Weight {
        /// The weight's name.
        name: String,
        /// Its shape, or that it is missing.
        found: String,
        /// The shape that the configuration asks for, or none.
        expected: String,
    },
    /// The guidance scale is not finite.
    #[error("guidance is {found}, expected a finite number")]
    GuidanceScale {
        /// The guidance scale given.
        found: f64,
    },
    /// Guidance was asked of a model that has no classes.
    #[error("guidance {found} needs a class-conditional model, and this one has no classes")]
    Guidance {
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
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A file has a weight that the configuration does not know.
    #[error("{}: unexpected tensor `{name}`; the file belongs to another configuration", path.display())]
    UnexpectedTensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A weight has another shape or type than the configuration says.
    #[error("{}: tensor `{name}` is {found}, expected {expected}", path.display())]
    TensorMismatch {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Type and shape found.
        found: String,
        /// What the configuration asks for.
        expected: String,
    },
    /// A weight is NaN or infinite, or too large for the type in which it is to be stored.
    #[error("{}: tensor `{name}` is {found} at position {position}, expected {expected}", path.display())]
    WeightValue {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The weight's position in the tensor, row by row.
        position: usize,
        /// Its value.
        found: f32,
        /// The values that work.
        expected: &'static str,
    },
    /// Sampling made a number that is NaN or infinite.
    #[error(
        "the {quantity} of image {image} at timestep {timestep} is NaN or infinite, expected finite numbers"
    )]
    NotFinite {
        /// `prediction` or `sample`.
        quantity: &'static str,
        /// The image's index.
        image: u64,
        /// The timestep at which the network was called, or from which the last step was taken.
        timestep: f64,
    },
    /// An option belongs to another sampler than the one that was chosen.
    #[error("{option} is an option of the sampler {expected}")]
    OptionOfOtherSampler {
        /// The option.
        option: &'static str,
        /// Its sampler.
        expected: &'static str,
    },
    /// A file of a model folder cannot be read.
    #[error("{}: cannot read; a model folder holds model_index.json, scheduler/ and denoiser/", path.display())]
    Read {
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
    /// A model folder is of another kind.
    #[error("{}: `{key}` is `{found}`, expected `{expected}`", path.display())]
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
    /// A weights file is not in the safetensors format.
    #[error("{}: not the expected safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: safetensors::SafeTensorError,
    },
    /// The denoiser's configuration is not valid.
    #[error("{}: invalid configuration of the denoiser", path.display())]
    Denoiser {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The scheduler's configuration is not valid.
    #[error("{}: invalid configuration of the scheduler", path.display())]
    Scheduler {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ddpm_core::Error,
    },
    /// A file or folder cannot be written.
    #[error(transparent)]
    Files(#[from] ddpm_files::Error),
    /// The diffusion mathematics refused its arguments.
    #[error(transparent)]
    Core(#[from] ddpm_core::Error),
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
