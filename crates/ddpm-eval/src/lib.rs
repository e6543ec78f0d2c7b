//! Figures of merit for generated images.
//!
//! The ruler is a [`FeatureNet`], and every figure stands beside its floor: the same figure of real images that
//! were not trained on. Both depend on the net, so figures of two nets cannot be compared.
//!
//! ```no_run
//! use candle_core::Device;
//! use ddpm_data::Splits;
//! use ddpm_eval::{Evaluation, FeatureNet, GeneratedImages, Metric};
//!
//! # let (pixels, labels) = (vec![0; 1000 * 784], vec![0; 1000]);
//! let splits = Splits::mnist()?;
//! let evaluation = Evaluation {
//!     net: &FeatureNet::builtin(&Device::Cpu)?,
//!     train: splits.train(),
//!     test: splits.test(),
//!     classes: None,
//!     metrics: &Metric::ALL,
//!     seed: 1,
//!     device: &Device::Cpu,
//! };
//! let generated = GeneratedImages { pixels: &pixels, labels: Some(&labels) };
//! let report = evaluation.measure(&generated, |part| println!("{part} …"))?;
//! if let Some(frechet) = report.frechet {
//!     println!("{} times the distance of real images", frechet.ratio.unwrap_or(f64::NAN));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accuracy;
mod diffusion_classifier;
mod error;
mod features;
mod likelihood;
mod metrics;
mod report;

pub use accuracy::ClassAccuracy;
pub use diffusion_classifier::{
    ClassErrors, Classification, ClassifyConfig, DiffusionClassifier, ErrorWeight, classify,
};
pub use error::{Error, Result};
pub use features::{
    Convolution, Description, FeatureConfig, FeatureNet, FeatureProgress, FeatureTraining, Task,
    train_features,
};
pub use likelihood::{BestTimesteps, BoundByVariance, LikelihoodConfig, LikelihoodReport, likelihood};
pub use metrics::{
    ClosePair, DensityCoverage, Diversity, FrechetLimit, FrechetPoint, FrechetSubsets, GaussianFit,
    KernelDistance, KernelSubsets, Manifold, Memorisation, NearestImage, PrecisionRecall, density_coverage,
    frechet_distance, frechet_limit, kernel_distance, kernel_mmd2, nearest_images, precision_recall,
};
pub use report::{
    Evaluation, Frechet, GeneratedImages, ManifoldMetrics, Measured, Metric, Nearest, Report, View,
};

use ddpm_data::Dataset;
use ddpm_model::Denoiser;

/// Checks that `data` has the image size and the classes of the model. A model without classes takes any.
///
/// # Errors
///
/// If it does not.
pub fn ensure_fits(denoiser: &Denoiser, data: &Dataset) -> Result<()> {
    let config = denoiser.config();
    let model = [config.rows, config.cols, config.num_classes];
    let found = [data.rows(), data.cols(), data.classes().unwrap_or(0)];
    if model[..2] == found[..2] && (model[2] == 0 || model[2] == found[2]) {
        return Ok(());
    }
    Err(Error::ModelData { data: data.name().to_owned(), model, found })
}
