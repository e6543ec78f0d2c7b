//! All metrics of a set of generated images, each with the same metric of real test images.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | the configuration of an evaluation, and its report |
//! | `measure.rs` | the metrics computed from features |
//! | `missing.rs` | why a metric has no value |
//! | `select.rs` | the choice of real images to compare with |
//! | `sets.rs` | the sets that are measured, and the number of images that a metric needs |
//! | `projection.rs` | features in two dimensions, for a plot |

mod measure;
mod missing;
mod projection;
mod select;
mod sets;

use std::collections::HashSet;

use candle_core::Device;
use ddpm_core::likelihood::MeanAndError;
use ddpm_data::Dataset;
use serde::Serialize;

use crate::{
    ClassAccuracy, Diversity, Error, FeatureNet, FrechetLimit, KernelDistance, NearestTraining, Result,
    nearest_images,
};
pub use missing::{ImageSet, Missing};
pub use projection::PcaProjection;
use select::RealImages;

/// The smallest number of training images with metrics.
const MIN_TRAIN_IMAGES: usize = 10;
/// The largest number of training images for the Fréchet distance. Their features are kept in memory.
const MAX_TRAIN_IMAGES: usize = 100_000;
/// The largest number of images for metrics whose time grows with the square of it.
const MAX_PAIRWISE_IMAGES: usize = 10_000;
/// k of precision and recall (Kynkäänniemi et al. 2019).
const PRECISION_K: usize = 3;
/// k of density and coverage (Naeem et al. 2020).
const DENSITY_K: usize = 5;
/// The largest number of pairs in [`NearestTraining::closest`].
const NUM_CLOSEST: usize = 10;

/// A metric of generated images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Metric {
    /// The Fréchet distance, and its extrapolation to infinitely many images.
    Frechet,
    /// The kernel distance.
    Kernel,
    /// Precision and recall, density and coverage.
    Manifold,
    /// The fraction of images for which the feature net predicts the class that the generator was given.
    Accuracy,
    /// The mean distance between images of a class.
    Diversity,
    /// The distance to the nearest training images.
    Memorisation,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 6] =
        [Self::Frechet, Self::Kernel, Self::Manifold, Self::Accuracy, Self::Diversity, Self::Memorisation];
}

/// An evaluation: the metrics to compute, the feature net, and the real images to compare with.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    /// The feature net.
    pub net: &'a FeatureNet,
    /// The training images, the reference of all metrics.
    pub train: &'a Dataset,
    /// The test images, whose metrics are the floor; `None` gives no floor.
    pub test: Option<&'a Dataset>,
    /// Compare only with real images of these classes; `None` for all.
    pub classes: Option<&'a [u8]>,
    /// The metrics to compute.
    pub metrics: &'a [Metric],
    /// The seed of random subsets.
    pub seed: u64,
    /// The device that compares pixels, for [`Metric::Memorisation`].
    pub device: &'a Device,
}

/// Generated images.
#[derive(Clone, Copy, Debug)]
pub struct GeneratedImages<'a> {
    /// The grey levels of consecutive images.
    pub pixels: &'a [u8],
    /// The class that each image was generated for; `None` if there are none. Some metrics use only a random subset of
    /// 10,000 images.
    pub labels: Option<&'a [u8]>,
}

/// The results. A metric is `None` if it was not requested, or for a reason in [`Report::missing`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The number of generated images.
    pub samples: usize,
    /// The number of different images among them.
    pub distinct_samples: usize,
    /// The number of training images of the requested classes, at most 100,000.
    pub train_images: usize,
    /// The size of a random subset of these training images, at most 10,000. All metrics except the Fréchet distance
    /// and memorisation use the subset.
    pub subset_images: usize,
    /// The number of test images of the floor; `None` without test images of the requested classes. It equals `samples`
    /// if there are enough of them, because some metrics depend on the number of images.
    pub test_images: Option<usize>,
    /// The Fréchet distance from the training images.
    pub frechet: Option<MetricResult<FrechetDistance>>,
    /// The kernel distance from the subset.
    pub kernel: Option<MetricResult<KernelDistance>>,
    /// Precision, recall, density and coverage, compared with the subset.
    pub manifold: Option<MetricResult<ManifoldMetrics>>,
    /// The accuracy of the classes that the feature net predicts.
    pub accuracy: Option<MetricResult<ClassAccuracy>>,
    /// The diversity, divided by the diversity of the subset. Without classes, all images count as one class, and
    /// `by_class` is empty.
    pub diversity: Option<MetricResult<Diversity>>,
    /// The distance to the nearest of all images of [`Evaluation::train`]. It has up to 10 closest pairs; the floor has
    /// none.
    pub memorisation: Option<MetricResult<NearestTraining>>,
    /// The features in two dimensions; `None` if no metric needed the features of training images.
    #[serde(skip)]
    pub projection: Option<PcaProjection>,
    /// Why requested metrics have no value.
    pub missing: Vec<Missing>,
}

/// A metric of generated images and its floor, the same metric of real test images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricResult<T> {
    /// The metric of the generated images.
    #[serde(flatten)]
    pub generated: T,
    /// The metric divided by its floor, for Fréchet distance and memorisation. It is `None` for other metrics, without
    /// a floor, and if the floor is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The metric of real test images; `None` without test images, or for a reason in [`Report::missing`].
    pub floor: Option<T>,
}

/// A Fréchet distance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrechetDistance {
    /// The number of images.
    pub images: usize,
    /// The distance.
    pub distance: f64,
    /// The extrapolation to infinitely many images; `None` if the number of images is below four times the number of
    /// features.
    pub limit: Option<FrechetLimit>,
}

/// Precision, recall, density and coverage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ManifoldMetrics {
    /// See [`PrecisionRecall::precision`](crate::PrecisionRecall::precision).
    pub precision: MeanAndError,
    /// See [`PrecisionRecall::recall`](crate::PrecisionRecall::recall).
    pub recall: MeanAndError,
    /// See [`DensityCoverage::density`](crate::DensityCoverage::density).
    pub density: MeanAndError,
    /// See [`DensityCoverage::coverage`](crate::DensityCoverage::coverage).
    pub coverage: MeanAndError,
}

impl<T> MetricResult<T> {
    /// A metric and its floor, with the ratio of their distances if it is finite.
    fn of_distances(generated: T, floor: Option<T>, distance: impl Fn(&T) -> f64) -> Self {
        let ratio = floor.as_ref().map(|floor| distance(&generated) / distance(floor));
        Self { ratio: ratio.filter(|ratio| ratio.is_finite()), generated, floor }
    }
}

impl Evaluation<'_> {
    /// Computes the requested metrics. `started` receives the name of each stage before it begins.
    ///
    /// # Errors
    ///
    /// If there are no generated images or fewer than 10 training images, they do not fit the feature net, `labels` does
    /// not have one entry below the number of classes for each generated image, or the tensor library fails. Too few
    /// generated or test images for one metric are no error, see [`Report::missing`].
    pub fn measure(
        &self,
        generated: &GeneratedImages<'_>,
        mut started: impl FnMut(&'static str),
    ) -> Result<Report> {
        let samples = self.count(generated)?;
        if samples == 0 {
            return Err(Error::too_few_images(0, 1));
        }
        let train = self.train_images()?;
        let select = |test| RealImages::select(test, self.classes, samples, self.seed);
        let test = self.test.map(select).transpose()?.filter(|test| test.len() > 0);
        let mut report = Report {
            samples,
            distinct_samples: generated.pixels.chunks(self.train.image_size()).collect::<HashSet<_>>().len(),
            train_images: train.len(),
            subset_images: train.len().min(MAX_PAIRWISE_IMAGES),
            test_images: test.as_ref().map(RealImages::len),
            ..Report::default()
        };
        if self.metrics.iter().any(|metric| *metric != Metric::Memorisation) {
            measure::feature_metrics(self, generated, (&train, test.as_ref()), &mut started, &mut report)?;
        }
        if self.metrics.contains(&Metric::Memorisation) {
            started("memorisation");
            report.memorisation = Some(self.memorisation(generated, test.as_ref())?);
        }
        Ok(report)
    }

    /// Checks what can be known before images are generated: that the real images fit the feature net, and that
    /// there are at least 10 training images of the classes.
    ///
    /// # Errors
    ///
    /// If they do not, or there are fewer.
    pub fn ensure_measurable(&self) -> Result<()> {
        self.train_images().map(|_| ())
    }

    fn train_images(&self) -> Result<RealImages<'_>> {
        for data in [self.train].into_iter().chain(self.test) {
            self.net.ensure_fits(data)?;
        }
        let train = RealImages::select(self.train, self.classes, MAX_TRAIN_IMAGES, self.seed)?;
        if train.len() < MIN_TRAIN_IMAGES {
            let name = format!("number of images of {} to compare with", self.train.name());
            return Err(Error::out_of_range(name, train.len(), format!("at least {MIN_TRAIN_IMAGES}")));
        }
        Ok(train)
    }

    /// The number of generated images.
    fn count(&self, generated: &GeneratedImages<'_>) -> Result<usize> {
        let (found, size) = (generated.pixels.len(), self.train.image_size());
        if !found.is_multiple_of(size) {
            return Err(Error::pixel_count(found, size, self.train.name()));
        }
        let count = found.checked_div(size).unwrap_or(0);
        match generated.labels {
            Some(labels) if labels.len() != count => Err(Error::label_count(labels.len(), count)),
            _ => Ok(count),
        }
    }

    fn memorisation(
        &self,
        generated: &GeneratedImages<'_>,
        test: Option<&RealImages<'_>>,
    ) -> Result<MetricResult<NearestTraining>> {
        let nearest = |pixels: &[u8], classes, num_closest| {
            NearestTraining::new(&nearest_images(self.train, pixels, self.device)?, classes, num_closest)
        };
        let generated = nearest(generated.pixels, generated.labels, NUM_CLOSEST)?;
        let floor = test.map(|test| nearest(&test.pixels(), None, 0)).transpose()?;
        Ok(MetricResult::of_distances(generated, floor, |found| found.distance))
    }
}

#[cfg(test)]
mod tests;
