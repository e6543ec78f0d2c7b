//! The error type of this crate.

use std::borrow::Cow;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Any error of the caller.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An invalid configuration or argument, or a failure of the tensor library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value is not accepted, such as a number outside its range or a tensor of the wrong shape.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// The option, argument or table entry, such as `beta_end` or `trained_betas[3]`.
        name: Cow<'static, str>,
        /// Its value.
        found: String,
        /// The accepted values.
        expected: Cow<'static, str>,
    },
    /// The schedule ends in pure noise, where x₀ cannot be computed from ε.
    #[error(
        "rescale_betas_zero_snr with prediction_type epsilon, expected sample or v_prediction: the last \
             timestep is pure noise, where ε does not determine the image"
    )]
    ZeroSnrEpsilon,
    /// A sampler needs a learned variance, but the network of this schedule does not predict one.
    #[error("reverse variance learned_range, expected a schedule with variance_type learned_range")]
    NoLearnedVariance,
    /// A list of timesteps is empty.
    #[error("the list of timesteps is empty, expected at least one")]
    NoTimesteps,
    /// Two tensors that must have the same shape differ.
    #[error("tensors of shapes {first:?} and {second:?}, expected the same shape")]
    Shapes {
        /// The shape of the first tensor.
        first: Vec<usize>,
        /// The shape of the second tensor.
        second: Vec<usize>,
    },
    /// The length of a buffer is not a multiple of the number of images.
    #[error("a buffer of {found} values for {indices} images, expected a multiple of the number of images")]
    BufferLength {
        /// The length of the buffer.
        found: usize,
        /// The number of images.
        indices: usize,
    },
    /// A scheduler file is not a JSON object.
    #[error("scheduler configuration: not a JSON object")]
    SchedulerJson {
        /// The error of the JSON parser.
        #[from]
        source: serde_json::Error,
    },
    /// A scheduler file has an option or a value that this crate does not implement.
    #[error("scheduler option `{option}` of {class} is {found}, supported: {expected}")]
    SchedulerOption {
        /// The scheduler's class.
        class: &'static str,
        /// The option's key.
        option: Box<str>,
        /// The value found, as JSON.
        found: Box<str>,
        /// The supported values.
        expected: Box<str>,
    },
    /// A reverse step has variance 0, which makes the bound on the likelihood infinite.
    #[error("the variance of step {position} is 0, expected above 0: the bound is infinite at 0")]
    NoVariance {
        /// The position of its timestep in the list.
        position: usize,
    },
    /// A list of timesteps ends before x₀, so it does not give the likelihood of x₀.
    #[error("the timesteps end at alphas_cumprod {alpha_cumprod}, expected 1, an image without noise")]
    EndsBeforeXStart {
        /// ᾱ after the last step.
        alpha_cumprod: f64,
    },
    /// A pixel value is not one of the 256 levels of an 8-bit image.
    #[error("a pixel value is {found}, expected one of the 256 levels 2g/255 - 1")]
    Level {
        /// The value found.
        found: f64,
    },
    /// An estimator was finished before any image was added.
    #[error("no images were added, expected at least one")]
    NoImages,
    /// A table does not have one value for each timestep.
    #[error("{found} values of {table}, expected {expected}, one for each timestep")]
    TableLength {
        /// The name of the table.
        table: &'static str,
        /// Its length.
        found: usize,
        /// The number of timesteps.
        expected: usize,
    },
    /// The network failed, with the caller's own error.
    #[error("the network failed")]
    Network(#[source] BoxError),
    /// A noise source failed, with the caller's own error.
    #[error("the noise source failed")]
    Noise(#[source] BoxError),
    /// A callback failed, with the caller's own error.
    #[error("the callback failed")]
    Callback(#[source] BoxError),
    /// A run was answered, or a prediction replaced, before the run asked.
    #[error("the run has asked for no output, expected a call of ask before each answer")]
    NothingAsked,
    /// candle failed, for example because shapes do not fit.
    #[cfg(feature = "candle")]
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// So `?` works on this crate's results in a closure that returns candle's.
#[cfg(feature = "candle")]
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Tensor(error) => error,
            other => Self::wrap(other),
        }
    }
}

impl Error {
    /// Makes an [`Error::OutOfRange`] from text or numbers.
    pub fn out_of_range(
        name: impl Into<Cow<'static, str>>,
        found: impl ToString,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::OutOfRange { name: name.into(), found: found.to_string(), expected: expected.into() }
    }

    /// Makes an [`Error::SchedulerOption`] from text.
    pub fn scheduler_option(
        class: &'static str,
        option: impl Into<Box<str>>,
        found: impl Into<Box<str>>,
        expected: impl Into<Box<str>>,
    ) -> Self {
        Self::SchedulerOption { class, option: option.into(), found: found.into(), expected: expected.into() }
    }
}
