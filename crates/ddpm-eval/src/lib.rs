//! Figures of merit for generated images.
//!
//! The ruler here is the simplest one that needs no training: an image belongs to the class of the most
//! similar training image. On MNIST that agrees with the true class for 97 % of real test images, which is
//! the figure to compare with.
//!
//! ```no_run
//! use candle_core::Device;
//! use ddpm_data::Corpus;
//! use ddpm_eval::{ClassAccuracy, nearest_classes};
//!
//! let corpus = Corpus::mnist()?;
//! let (train, test) = corpus.into_splits();
//! let test = test.ok_or("no test set")?;
//! let truth = test.labels().ok_or("no labels")?;
//! let found = nearest_classes(&train, test.images(), &Device::Cpu)?;
//! println!("{}", ClassAccuracy::new(truth, &found, 10)?.overall);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accuracy;
mod diffusion_classifier;
mod error;
mod features;
mod metrics;
mod report;

pub use accuracy::{ClassAccuracy, nearest_classes};
pub use diffusion_classifier::{ClassErrors, DiffusionClassifier, ErrorWeight};
pub use error::{Error, Result};
pub use features::{
    Convolution, Description, FeatureConfig, FeatureNet, FeatureProgress, FeatureTraining, Task,
    train_features,
};
pub use metrics::{
    ClosePair, DensityCoverage, Diversity, FrechetLimit, FrechetPoint, FrechetSubsets, KernelDistance,
    KernelSubsets, Manifold, Memorisation, Moments, NearestImage, PrecisionRecall, density_coverage,
    frechet_distance, frechet_limit, kernel_distance, kernel_mmd2, nearest_images, precision_recall,
};
pub use report::{
    Evaluation, Frechet, GeneratedImages, ManifoldFigures, Measured, Metric, Nearest, Report, View,
};
