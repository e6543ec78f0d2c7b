//! The error type of this crate.

use std::{borrow::Cow, path::PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid argument or file, or a failure of a library below this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value, a count, a shape or a digest is not as expected.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// The name of the value; for a value in a file, the path and the name.
        name: Cow<'static, str>,
        /// The value.
        found: String,
        /// The values that are allowed.
        expected: Cow<'static, str>,
    },
    /// A data set without test images.
    #[error("{data} has no test images")]
    NoTestImages {
        /// The name of the data set.
        data: String,
    },
    /// A model without classes cannot classify images.
    #[error("the model has no classes, so it cannot classify images")]
    NoClasses,
    /// A data set with another image size or another number of classes than the model.
    #[error(
        "the model is for {}×{} images of {} classes, but {data} has {}×{} images of {} classes",
        model[0], model[1], model[2], found[0], found[1], found[2]
    )]
    ModelData {
        /// The name of the data set.
        data: String,
        /// Rows, columns and number of classes of the model.
        model: [usize; 3],
        /// Rows, columns and number of classes of the data set.
        found: [usize; 3],
    },
    /// A feature of an image is infinite or NaN.
    #[error("the features of image {row} are not all finite")]
    NotFinite {
        /// The index of the first such image.
        row: usize,
    },
    /// A prediction of the denoiser is infinite or NaN.
    #[error("the model's predictions at t = {t} are not all finite")]
    Prediction {
        /// The timestep.
        t: usize,
    },
    /// A feature net that was trained without labels cannot predict classes.
    #[error("the feature net {digest} was trained without labels, so it cannot predict classes")]
    NoClassifier {
        /// The digest of the net.
        digest: String,
    },
    /// A file of a feature net cannot be read.
    #[error("{}: cannot read; a feature net holds config.json and features.safetensors", path.display())]
    ReadFeatures {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The denoiser failed, or a file of weights or JSON is invalid.
    #[error(transparent)]
    Model(#[from] ddpm_model::Error),
    /// A file or folder cannot be written.
    #[error(transparent)]
    Files(#[from] ddpm_files::Error),
    /// A data set failed, for example because it has no labels.
    #[error(transparent)]
    Data(#[from] ddpm_data::Error),
    /// A schedule, a likelihood or a random number generator failed.
    #[error(transparent)]
    Core(#[from] ddpm_core::Error),
    /// The tensor library failed.
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

    /// A list of labels or predictions that does not have one entry for each image.
    pub(crate) fn label_count(found: usize, images: usize) -> Self {
        Self::out_of_range("number of labels", found, format!("{images}, one for each image"))
    }

    /// Fewer images than a metric needs.
    pub(crate) fn too_few_images(found: usize, least: usize) -> Self {
        Self::out_of_range("number of images", found, format!("at least {least}"))
    }

    /// Two sets with different numbers of features.
    pub(crate) fn feature_count(found: usize, expected: usize) -> Self {
        Self::out_of_range("number of features", found, format!("{expected}, as in the other set"))
    }

    /// A pixel buffer that does not hold complete images.
    pub(crate) fn pixel_count(found: usize, image_size: usize, owner: &str) -> Self {
        let expected = format!("a multiple of {image_size}, the image size of {owner}");
        Self::out_of_range("number of pixels", found, expected)
    }
}
