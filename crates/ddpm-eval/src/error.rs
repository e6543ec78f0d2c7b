//! What can go wrong.

use std::path::PathBuf;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The reference set has no labels.
    #[error("{data} has no labels, so there is no class to compare with")]
    Unlabelled {
        /// The data set's name.
        data: String,
    },
    /// The images are not whole images of the reference set's size.
    #[error("{found} pixels are not whole images of {pixels} pixels, as those of {data} are")]
    ImageSize {
        /// The number of pixels given.
        found: usize,
        /// The pixels of an image.
        pixels: usize,
        /// The data set's name.
        data: String,
    },
    /// There is not one found class for each expected one.
    #[error("{found} classes found for {expected} images, expected one for each")]
    Counts {
        /// The number of classes found.
        found: usize,
        /// The number of images.
        expected: usize,
    },
    /// Features are no matrix of one row for each image.
    #[error("features of shape {found:?}, expected [images, features]")]
    FeatureShape {
        /// The shape found.
        found: Vec<usize>,
    },
    /// Two sets have different numbers of features.
    #[error("{found} features, expected {expected} as the set to compare with has")]
    FeatureWidths {
        /// The features of one set.
        found: usize,
        /// The features of the other.
        expected: usize,
    },
    /// There are too few images for a figure.
    #[error("{found} images, expected at least {least}")]
    TooFewRows {
        /// The images found.
        found: usize,
        /// The images needed.
        least: usize,
    },
    /// A feature is infinite or not a number.
    #[error("the features of image {row} are not all finite")]
    NotFinite {
        /// The number of the first such image.
        row: usize,
    },
    /// There is no k-th neighbour.
    #[error("k is {found}, expected 1 to {largest} neighbours")]
    Neighbours {
        /// The k asked for.
        found: usize,
        /// The largest that there is.
        largest: usize,
    },
    /// There are too few subsets for a mean or a line.
    #[error("{found} subsets, expected at least 2")]
    SubsetCount {
        /// The number asked for.
        found: usize,
    },
    /// A subset cannot be drawn.
    #[error("subsets of {found} images, expected 2 to {largest}")]
    SubsetSize {
        /// The size asked for.
        found: usize,
        /// The largest that can be drawn.
        largest: usize,
    },
    /// A label is none of the classes.
    #[error("label {found}, expected less than {classes}")]
    Label {
        /// The label found.
        found: u8,
        /// The number of classes.
        classes: usize,
    },
    /// The data set has images of another size than the feature net.
    #[error(
        "{data} has images of {}×{} pixels, expected {}×{} as the feature net",
        found[0], found[1], expected[0], expected[1]
    )]
    FeatureSize {
        /// The data set's name.
        data: String,
        /// Rows and columns of its images.
        found: [usize; 2],
        /// Rows and columns of the feature net.
        expected: [usize; 2],
    },
    /// The data set has another number of classes than the feature net.
    #[error("{data} has {found} classes, expected {expected} as the feature net")]
    FeatureClasses {
        /// The data set's name.
        data: String,
        /// Its number of classes.
        found: usize,
        /// The number of classes of the feature net.
        expected: usize,
    },
    /// Classes were asked of a feature net that knows none.
    #[error("the feature net {digest} was trained without labels, so it knows no classes")]
    NoClassifier {
        /// The net's digest.
        digest: String,
    },
    /// A file of a feature net cannot be read.
    #[error("{}: cannot read; a feature net holds config.json and features.safetensors", path.display())]
    ReadFeatures {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A number in the description of a feature net, or of the data for one, is outside its range.
    #[error("{}: {option} is {found}, expected {expected}", path.display())]
    FeatureOption {
        /// The file.
        path: PathBuf,
        /// The number's name.
        option: &'static str,
        /// The number found.
        found: usize,
        /// The range that works.
        expected: &'static str,
    },
    /// The weights are not those that belong to the folder.
    #[error("{}: SHA-256 {found}, expected {expected}", path.display())]
    FeatureDigest {
        /// The file.
        path: PathBuf,
        /// The digest of the file.
        found: String,
        /// The digest in config.json.
        expected: String,
    },
    /// The data has no test images.
    #[error("{data} has no test images")]
    NoTestImages {
        /// The data set's name.
        data: String,
    },
    /// The data has images of another size or other classes than the model.
    #[error(
        "the model is for {}×{} images of {} classes, but {data} has {}×{} images of {} classes",
        model[0], model[1], model[2], found[0], found[1], found[2]
    )]
    ModelData {
        /// The data set's name.
        data: String,
        /// Rows, columns and classes of the model.
        model: [usize; 3],
        /// Rows, columns and classes of the data.
        found: [usize; 3],
    },
    /// A model has no classes to choose from.
    #[error("a model of {found} classes, expected 2 to 256 to choose from")]
    ModelClasses {
        /// Its number of classes.
        found: usize,
    },
    /// An answer was asked of no draws, or of more than there are.
    #[error("{found} draws, expected {}", largest.map_or("at least 1".to_owned(), |n| format!("1 to {n}")))]
    Draws {
        /// The number asked for.
        found: usize,
        /// The number that were made, if they were.
        largest: Option<usize>,
    },
    /// A model's prediction is infinite or not a number.
    #[error("the model's predictions at t = {t} are not all finite")]
    Prediction {
        /// The timestep.
        t: usize,
    },
    /// A model's file is not what it should be, or cannot be written.
    #[error(transparent)]
    Model(#[from] ddpm_model::Error),
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    Files(#[from] ddpm_files::Error),
    /// The data failed.
    #[error(transparent)]
    Data(#[from] ddpm_data::Error),
    /// The random numbers failed.
    #[error(transparent)]
    Core(#[from] ddpm_core::Error),
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
