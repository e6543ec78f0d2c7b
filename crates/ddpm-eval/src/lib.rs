//! Evaluation of diffusion models: metrics of generated images, the likelihood of test images, and the model as a
//! classifier.
//!
//! The metrics compare features of generated images with features of training images; a [`FeatureNet`] computes
//! them. Each metric comes with its floor: the same metric of real test images. Metrics depend on the feature net,
//! so compare only values of the same net.
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
//! let report = evaluation.measure(&generated, |stage| println!("{stage} …"))?;
//! if let Some(frechet) = report.frechet {
//!     println!("{} times the distance of test images", frechet.ratio.unwrap_or(f64::NAN));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accuracy;
mod diffusion_classifier;
mod error;
mod error_weighting;
mod features;
mod fits;
mod likelihood;
mod metrics;
mod report;

pub use accuracy::ClassAccuracy;
pub use diffusion_classifier::{ClassErrors, Classification, ClassifyConfig, DiffusionClassifier, classify};
pub use error::{Error, Result};
pub use error_weighting::ErrorWeighting;
pub use features::{
    Convolution, FeatureConfig, FeatureNet, FeatureOutput, FeatureProgress, FeatureTraining, Task,
    train_features,
};
pub use fits::ensure_fits;
pub use likelihood::{BestTimesteps, BoundByVariance, LikelihoodConfig, LikelihoodReport, likelihood};
pub use metrics::{
    ClosePair, DensityCoverage, Diversity, FrechetLimit, FrechetPoint, FrechetSubsets, GaussianFit,
    KernelDistance, KernelSubsets, Manifold, NearestImage, NearestTraining, PrecisionRecall,
    density_coverage, frechet_distance, frechet_limit, kernel_distance, kernel_mmd2, nearest_images,
    precision_recall,
};
pub use report::{
    Evaluation, FrechetDistance, GeneratedImages, ImageSet, ManifoldMetrics, Metric, MetricResult, Missing,
    PcaProjection, Report,
};
