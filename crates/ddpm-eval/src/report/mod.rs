//! All figures of a set of generated images, each beside the same figure of real ones.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | what is measured, and what comes out |
//! | `measure.rs` | the figures that are taken of features |
//! | `select.rs` | which real images they are compared with |
//! | `view.rs` | features in two dimensions, to be looked at |

mod measure;
mod select;
mod view;

use candle_core::Device;
use ddpm_core::likelihood::MeanAndError;
use ddpm_data::Dataset;
use serde::Serialize;

use crate::{
    ClassAccuracy, ClosePair, Diversity, Error, FeatureNet, FrechetLimit, KernelDistance, Memorisation,
    Result, nearest_images,
};
use select::RealImages;
pub use view::View;

/// Fewer images than this have no figures.
const LEAST: usize = 10;
/// Training images of which moments are taken, at most: features are kept in memory.
const TRAINING: usize = 100_000;
/// Images of a set, at most, where time grows with the square of their number.
const PAIRWISE: usize = 10_000;
/// Neighbours of precision and recall (Kynkäänniemi et al. 2019).
const PRECISION_K: usize = 3;
/// Neighbours of density and coverage (Naeem et al. 2020).
const DENSITY_K: usize = 5;
/// Pairs of a generated image and the training image that it resembles most.
const CLOSEST: usize = 10;

/// What can be measured of a set of generated images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Metric {
    /// The Fréchet distance, with its limit for infinitely many images.
    Frechet,
    /// The kernel distance.
    Kernel,
    /// Precision and recall, density and coverage.
    Manifold,
    /// How often the feature net finds the class that was asked for.
    Accuracy,
    /// How much images of a class differ.
    Diversity,
    /// How near they come to training images.
    Memorisation,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Frechet, Self::Kernel, Self::Manifold, Self::Accuracy, Self::Diversity, Self::Memorisation];
}

/// What generated images are measured with and by.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    /// The ruler.
    pub net: &'a FeatureNet,
    /// The images to compare with.
    pub train: &'a Dataset,
    /// The images whose figures are the floor: what a perfect model would reach.
    pub test: Option<&'a Dataset>,
    /// Real images of other classes are left out; none leaves out no image.
    pub classes: Option<&'a [u8]>,
    /// What to measure.
    pub metrics: &'a [Metric],
    /// The seed of random subsets.
    pub seed: u64,
    /// Where pixels are compared.
    pub device: &'a Device,
}

/// Generated images.
#[derive(Clone, Copy, Debug)]
pub struct GeneratedImages<'a> {
    /// The grey levels, one image after another.
    pub pixels: &'a [u8],
    /// The class that was asked for, of each; none if the model has no classes. Where there are more than 10,000
    /// images, some figures take the first ones, so classes should take turns.
    pub labels: Option<&'a [u8]>,
}

/// The figures. What was not asked for is none, and so is what the data or the feature net cannot give.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The number of generated images.
    pub samples: usize,
    /// The number of training images: of those of the classes measured, 100,000 at most.
    pub train_images: usize,
    /// The number of training images, drawn out of those, for the figures other than Fréchet distance and
    /// memorisation: 10,000 at most.
    pub subset_images: usize,
    /// The number of test images of the floor: as many as are generated, for some figures depend on it, or all there
    /// are of the classes measured.
    pub test_images: Option<usize>,
    /// Distance to all training images.
    pub frechet: Option<Measured<Frechet>>,
    /// Distance to the subset.
    pub kernel: Option<Measured<KernelDistance>>,
    /// Comparison with the subset.
    pub manifold: Option<Measured<ManifoldMetrics>>,
    /// By the feature net.
    pub accuracy: Option<Measured<ClassAccuracy>>,
    /// In units of that of the subset; without classes, of all images together.
    pub diversity: Option<Measured<Diversity>>,
    /// Distance to the nearest of all training images.
    pub memorisation: Option<Measured<Nearest>>,
    /// The features to be looked at; there if features of training images were needed.
    #[serde(skip)]
    pub view: Option<View>,
}

/// A figure and its floor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured<T> {
    /// Of the generated images.
    #[serde(flatten)]
    pub generated: T,
    /// How many times the floor it is, for figures where that says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Of real test images; none if there are none.
    pub floor: Option<T>,
}

/// A Fréchet distance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Frechet {
    /// Of this number of images.
    pub images: usize,
    /// The distance.
    pub distance: f64,
    /// Its limit for infinitely many images; none if there are too few for a line: four times the number of features.
    pub limit: Option<FrechetLimit>,
}

/// How two sets lie in each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ManifoldMetrics {
    /// The part near a real image.
    pub precision: MeanAndError,
    /// The part of real images near one of these.
    pub recall: MeanAndError,
    /// How many real images one of these is near to.
    pub density: MeanAndError,
    /// The part of real images with one of these nearby.
    pub coverage: MeanAndError,
}

/// How near images come to training images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nearest {
    /// The mean distance to the nearest training image, in grey levels.
    pub distance: f64,
    /// The images of each class that are nearest to a training image, see [`Memorisation`]; none of the floor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closest: Vec<ClosePair>,
}

impl Evaluation<'_> {
    /// Takes all figures. `started` hears what is being done, before each part of it.
    ///
    /// # Errors
    ///
    /// If the generated images or the training images are fewer than 10 or do not fit the feature net, there is not
    /// one label below the number of classes for each generated image, or the tensor library fails.
    pub fn measure(
        &self,
        generated: &GeneratedImages<'_>,
        mut started: impl FnMut(&'static str),
    ) -> Result<Report> {
        for data in [self.train].into_iter().chain(self.test) {
            self.net.ensure_fits(data)?;
        }
        let samples = self.count(generated)?;
        let train = RealImages::of(self.train, self.classes, TRAINING, self.seed)?;
        for found in [samples, train.len()] {
            if found < LEAST {
                return Err(Error::TooFewRows { found, least: LEAST });
            }
        }
        let test =
            self.test.map(|test| RealImages::of(test, self.classes, samples, self.seed)).transpose()?;
        let test = test.filter(|test| test.len() >= LEAST);
        let mut report = Report {
            samples,
            train_images: train.len(),
            subset_images: train.len().min(PAIRWISE),
            test_images: test.as_ref().map(RealImages::len),
            frechet: None,
            kernel: None,
            manifold: None,
            accuracy: None,
            diversity: None,
            memorisation: None,
            view: None,
        };
        if self.metrics.iter().any(|metric| *metric != Metric::Memorisation) {
            measure::by_features(self, generated, (&train, test.as_ref()), &mut started, &mut report)?;
        }
        if self.metrics.contains(&Metric::Memorisation) {
            started("memorisation");
            report.memorisation = Some(self.memorisation(generated, test.as_ref())?);
        }
        Ok(report)
    }

    fn count(&self, generated: &GeneratedImages<'_>) -> Result<usize> {
        let (found, size) = (generated.pixels.len(), self.train.image_size());
        if !found.is_multiple_of(size) {
            let data = self.train.name().to_owned();
            return Err(Error::ImageSize { found, pixels: size, data });
        }
        let count = found.checked_div(size).unwrap_or(0);
        match generated.labels {
            Some(labels) if labels.len() != count => {
                Err(Error::Counts { found: labels.len(), expected: count })
            }
            _ => Ok(count),
        }
    }

    fn memorisation(
        &self,
        generated: &GeneratedImages<'_>,
        test: Option<&RealImages<'_>>,
    ) -> Result<Measured<Nearest>> {
        let nearest = |pixels: &[u8]| nearest_images(self.train, pixels, self.device);
        let (generated, classes) = (nearest(generated.pixels)?, generated.labels);
        let held_out = test.map(|test| nearest(&test.pixels())).transpose()?;
        // Without held-out images only what concerns the generated ones is used.
        let held_out = held_out.as_deref().unwrap_or(&generated);
        let found = Memorisation::new(&generated, classes, held_out, CLOSEST)?;
        let floor = test.map(|_| Nearest { distance: found.held_out, closest: Vec::new() });
        let ratio = floor.as_ref().and(found.ratio);
        Ok(Measured {
            generated: Nearest { distance: found.generated, closest: found.closest },
            ratio,
            floor,
        })
    }
}

#[cfg(test)]
mod tests;
