//! What can go wrong in this crate.

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid configuration or argument, or a failure of the tensor library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The number of training timesteps is outside the supported range.
    #[error("num_train_timesteps is {found}, expected 2 to 10000")]
    TimestepCount {
        /// The value found.
        found: usize,
    },
    /// A beta is not strictly between 0 and 1.
    #[error("{name} is {found}, expected a number strictly between 0 and 1")]
    Beta {
        /// Which option.
        name: &'static str,
        /// The value found.
        found: f64,
    },
    /// The betas fall instead of rise.
    #[error("beta_end {beta_end} is below beta_start {beta_start}, expected rising noise")]
    FallingBetas {
        /// The first beta.
        beta_start: f64,
        /// The last beta.
        beta_end: f64,
    },
    /// The list of betas is not one for each timestep.
    #[error("{found} trained_betas, expected {expected}, one for each of num_train_timesteps")]
    BetaCount {
        /// The length of the list.
        found: usize,
        /// T.
        expected: usize,
    },
    /// A beta of a list is not strictly between 0 and 1.
    #[error("trained_betas[{t}] is {found}, expected a number strictly between 0 and 1")]
    TrainedBeta {
        /// Its place.
        t: usize,
        /// The value found.
        found: f64,
    },
    /// The schedule ends in pure noise, where ε says nothing about the image.
    #[error(
        "rescale_betas_zero_snr with a network for epsilon, expected sample or v_prediction: nothing of \
             the image is left at the last timestep, so ε does not tell what it was"
    )]
    ZeroSnrEpsilon,
    /// The quantile of dynamic thresholding is none.
    #[error("dynamic_thresholding_ratio is {found}, expected 0 to 1")]
    ThresholdingRatio {
        /// The value found.
        found: f64,
    },
    /// The upper limit of dynamic thresholding is too small.
    #[error("sample_max_value is {found}, expected at least 1")]
    SampleMaxValue {
        /// The value found.
        found: f64,
    },
    /// A noise level of a list is not below the one before it, or beyond what f64 has an ᾱ for.
    #[error("sigma {found} at position {position}, expected strictly falling values between 1e-7 and 1e7")]
    Sigma {
        /// The value found.
        found: f64,
        /// Its position in the list.
        position: usize,
    },
    /// The strength of image-to-image is outside its range.
    #[error("strength is {found}, expected above 0 and at most 1")]
    Strength {
        /// The value found.
        found: f64,
    },
    /// An option of a sampler is outside its range.
    #[error("{option} is {found}, expected {expected}")]
    SamplerOption {
        /// Which option.
        option: &'static str,
        /// The value found.
        found: f64,
        /// The values that work.
        expected: &'static str,
    },
    /// A learned variance with a schedule whose network has none.
    #[error("noise mode learned_range, expected a schedule with variance_type learned_range")]
    NoLearnedVariance,
    /// A list of variances is not one for each step.
    #[error("{found} variances for {expected} timesteps, expected one for each")]
    VarianceCount {
        /// The length of the list.
        found: usize,
        /// The number of timesteps.
        expected: usize,
    },
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
    /// The range to which x₀ is clipped is not positive.
    #[error("clip_sample_range is {found}, expected a positive number")]
    ClipRange {
        /// The value found.
        found: f64,
    },
    /// More sampling steps were asked for than the schedule has.
    #[error("{found} inference steps, expected 1 to {num_train_timesteps}")]
    InferenceSteps {
        /// The number asked for.
        found: usize,
        /// The number the schedule has.
        num_train_timesteps: usize,
    },
    /// An explicit list of timesteps is not strictly descending within the schedule.
    #[error(
        "timestep {found} at position {position}, expected strictly descending values below {num_train_timesteps}"
    )]
    TimestepOrder {
        /// The offending timestep.
        found: usize,
        /// Its position in the list.
        position: usize,
        /// The number of steps of the schedule.
        num_train_timesteps: usize,
    },
    /// A list of timesteps is empty.
    #[error("the list of timesteps is empty, expected at least one")]
    NoTimesteps,
    /// A timestep lies outside the schedule.
    #[error("timestep {found}, expected 0 to {last}")]
    TimestepRange {
        /// The timestep found.
        found: usize,
        /// The last valid one.
        last: usize,
    },
    /// The number of timesteps fits neither one nor the batch.
    #[error("{found} timesteps for a batch of {batch}, expected one for each image or a single one")]
    TimestepBatch {
        /// The number of timesteps given.
        found: usize,
        /// The size of the batch.
        batch: usize,
    },
    /// Two tensors that belong together have different shapes.
    #[error("tensors of shapes {first:?} and {second:?}, expected the same shape")]
    Shapes {
        /// The shape of the first tensor.
        first: Vec<usize>,
        /// The shape of the second tensor.
        second: Vec<usize>,
    },
    /// A table of the schedule leaves the range of f64: a noise level is not strictly between 0 and 1.
    #[error("alphas_cumprod is {found} at t = {t}, expected a number strictly between 0 and 1")]
    NoiseLevel {
        /// The timestep.
        t: usize,
        /// The value of ᾱ found.
        found: f64,
    },
    /// A step does not lead to a cleaner image.
    #[error("a step from timestep {t} to {prev}, expected a smaller one")]
    StepDirection {
        /// Where the step starts.
        t: usize,
        /// Where it leads.
        prev: usize,
    },
    /// A buffer cannot be divided equally.
    #[error("{found} numbers for {indices} images, expected a multiple")]
    BufferLength {
        /// The length of the buffer.
        found: usize,
        /// The number of images.
        indices: usize,
    },
    /// The number of image indices differs from the batch.
    #[error("{found} image indices for a batch of {batch}")]
    ImageIndices {
        /// The number of indices given.
        found: usize,
        /// The size of the batch.
        batch: usize,
    },
    /// A scheduler file is not the JSON that was expected.
    #[error("scheduler configuration: {source}")]
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
    /// A value of a table is outside its range.
    #[error("{table} is {found} at position {index}, expected {expected}")]
    TableValue {
        /// The table.
        table: &'static str,
        /// The place in it.
        index: usize,
        /// The value found.
        found: f64,
        /// The values that work.
        expected: &'static str,
    },
    /// A bound is not over each timestep of the schedule.
    #[error("a bound over {found} timesteps, expected all {expected} of the schedule")]
    NotAllTimesteps {
        /// The number of its timesteps.
        found: usize,
        /// T.
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
