//! What can go wrong in this crate.

use std::borrow::Cow;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid configuration or argument, or a failure of the tensor library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number is outside its range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// The option, argument or table entry, such as `beta_end` or `trained_betas[3]`.
        name: Cow<'static, str>,
        /// Its value.
        found: String,
        /// The values that work.
        expected: Cow<'static, str>,
    },
    /// The schedule ends in pure noise, where ε says nothing about the image.
    #[error(
        "rescale_betas_zero_snr with a network for epsilon, expected sample or v_prediction: nothing of \
             the image is left at the last timestep, so ε does not tell what it was"
    )]
    ZeroSnrEpsilon,
    /// A learned variance with a schedule whose network has none.
    #[error("noise mode learned_range, expected a schedule with variance_type learned_range")]
    NoLearnedVariance,
    /// The network does not put out what the schedule's variance type asks for.
    #[error("a network output of shape {found:?} for images of shape {image:?}, expected {expected}")]
    NetworkOutput {
        /// The shape of the output.
        found: Vec<usize>,
        /// The shape of the images.
        image: Vec<usize>,
        /// The shape that was expected.
        expected: &'static str,
    },
    /// A list of timesteps is empty.
    #[error("the list of timesteps is empty, expected at least one")]
    NoTimesteps,
    /// Two tensors that belong together have different shapes.
    #[error("tensors of shapes {first:?} and {second:?}, expected the same shape")]
    Shapes {
        /// The shape of the first tensor.
        first: Vec<usize>,
        /// The shape of the second tensor.
        second: Vec<usize>,
    },
    /// A buffer cannot be divided equally.
    #[error("{found} numbers for {indices} images, expected a multiple")]
    BufferLength {
        /// The length of the buffer.
        found: usize,
        /// The number of images.
        indices: usize,
    },
    /// A scheduler file is not the JSON that was expected.
    #[error("scheduler configuration: not the expected JSON")]
    SchedulerJson {
        /// What the parser says.
        #[from]
        source: serde_json::Error,
    },
    /// A scheduler file asks for something that is not implemented.
    #[error("scheduler option `{option}` of {class} is {found}, supported: {expected}")]
    SchedulerOption {
        /// The scheduler's class.
        class: &'static str,
        /// The option's key.
        option: Box<str>,
        /// The value found, as JSON.
        found: Box<str>,
        /// The values that work.
        expected: Box<str>,
    },
    /// A reverse step of variance 0, whose bound on the likelihood is infinite.
    #[error("the variance of step {position} is 0, expected above 0: without it the bound is infinite")]
    NoVariance {
        /// The position of its timestep in the list.
        position: usize,
    },
    /// A list of timesteps ends before x₀, whose likelihood is asked for.
    #[error("the timesteps end at alphas_cumprod {alpha_cumprod}, expected 1, an image without noise")]
    EndsBeforeXStart {
        /// ᾱ after the last step.
        alpha_cumprod: f64,
    },
    /// A value of an image is not one of 256 levels.
    #[error("a value of {found} in an image, expected one of the 256 levels 2g/255 - 1")]
    Level {
        /// The value found.
        found: f64,
    },
    /// An estimate over no images.
    #[error("no images were added, expected at least one")]
    NoImages,
    /// A table does not have the right length.
    #[error("{found} values of {table}, expected {expected}, one for each timestep")]
    TableLength {
        /// The table.
        table: &'static str,
        /// Its length.
        found: usize,
        /// The number of timesteps.
        expected: usize,
    },
    /// A noise source or an observer failed for a reason of its own.
    #[error(transparent)]
    Callback(Box<dyn std::error::Error + Send + Sync>),
    /// The tensor library failed, for example because shapes do not fit.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// [`Error::OutOfRange`] from text and numbers of any kind.
    pub fn out_of_range(
        name: impl Into<Cow<'static, str>>,
        found: impl ToString,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::OutOfRange { name: name.into(), found: found.to_string(), expected: expected.into() }
    }

    /// [`Error::SchedulerOption`] from text of any kind.
    pub fn scheduler_option(
        class: &'static str,
        option: impl Into<Box<str>>,
        found: impl Into<Box<str>>,
        expected: impl Into<Box<str>>,
    ) -> Self {
        Self::SchedulerOption { class, option: option.into(), found: found.into(), expected: expected.into() }
    }
}
