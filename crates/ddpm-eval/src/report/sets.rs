//! The sets of images that are measured, and the number of images that a metric needs.

use candle_core::Tensor;

use super::{ImageSet, MAX_PAIRWISE_IMAGES, MetricResult, Missing, select::random_subset};
use crate::{FeatureOutput, Result};

/// The number of images of a set that a metric needs.
pub(super) struct Need {
    pub(super) metric: &'static str,
    pub(super) least: usize,
    pub(super) reason: &'static str,
}

impl Need {
    /// Whether a set has so many images. If not, adds the reason to `missing`.
    pub(super) fn is_met(&self, set: ImageSet, found: usize, missing: &mut Vec<Missing>) -> bool {
        let &Self { metric, least, reason } = self;
        if found < least {
            missing.push(Missing::TooFewImages { metric, set, found, least, reason });
        }
        found >= least
    }
}

/// Images after the forward pass of the feature net.
pub(super) struct EvaluatedImages {
    pub(super) output: FeatureOutput,
    pub(super) labels: Option<Vec<u8>>,
    /// The images for metrics whose time grows with the square of their number: all, or a random subset of
    /// [`MAX_PAIRWISE_IMAGES`].
    pairwise: Vec<u32>,
}

impl EvaluatedImages {
    pub(super) fn new(output: FeatureOutput, labels: Option<Vec<u8>>, seed: u64) -> Result<Self> {
        let pairwise = random_subset(output.features.dim(0)?, MAX_PAIRWISE_IMAGES, seed)?;
        Ok(Self { output, labels, pairwise })
    }

    pub(super) fn len(&self) -> usize {
        self.output.features.dims()[0]
    }

    pub(super) fn pairwise_features(&self) -> Result<Tensor> {
        let features = &self.output.features;
        if self.pairwise.len() == self.len() {
            return Ok(features.clone());
        }
        Ok(features.index_select(&Tensor::new(self.pairwise.as_slice(), features.device())?, 0)?)
    }

    pub(super) fn pairwise_labels(&self) -> Option<Vec<u8>> {
        let labels = self.labels.as_ref()?;
        Some(self.pairwise.iter().map(|&image| labels[image as usize]).collect())
    }
}

/// The generated images, and the test images of the floor.
#[derive(Clone, Copy)]
pub(super) struct ImageSets<'a> {
    pub(super) generated: &'a EvaluatedImages,
    pub(super) test: Option<&'a EvaluatedImages>,
}

impl<'a> ImageSets<'a> {
    /// The sets that have enough images; `None` if the generated images are not enough. Adds the reasons to `missing`.
    pub(super) fn with(&self, need: &Need, missing: &mut Vec<Missing>) -> Option<ImageSets<'a>> {
        let is_enough = need.is_met(ImageSet::Generated, self.generated.len(), missing);
        is_enough.then(|| {
            let test = self.test.filter(|test| need.is_met(ImageSet::Test, test.len(), missing));
            ImageSets { test, ..*self }
        })
    }

    /// Computes a metric of both sets. The result is `None` if the metric of the generated images is.
    pub(super) fn measure<T>(
        &self,
        metric: impl Fn(&EvaluatedImages) -> Result<Option<T>>,
    ) -> Result<Option<MetricResult<T>>> {
        let Some(generated) = metric(self.generated)? else { return Ok(None) };
        let floor = self.test.map(metric).transpose()?.flatten();
        Ok(Some(MetricResult { generated, ratio: None, floor }))
    }
}

impl<T> MetricResult<T> {
    /// The values of the metric, with their sets.
    pub(super) fn both(&self) -> impl Iterator<Item = (ImageSet, &T)> {
        let floor = self.floor.as_ref().map(|floor| (ImageSet::Test, floor));
        [(ImageSet::Generated, &self.generated)].into_iter().chain(floor)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// The first 10,000 images of a set that is sorted by class are of the first classes only.
    #[test]
    fn many_images_are_replaced_by_a_random_subset() {
        let count = 2 * MAX_PAIRWISE_IMAGES;
        let features = Tensor::arange(0_u32, u32::try_from(count).unwrap(), &Device::Cpu).unwrap();
        let features = features.reshape((count, 1)).unwrap().to_dtype(DType::F32).unwrap();
        let labels = (0..count).map(|image| u8::from(image >= MAX_PAIRWISE_IMAGES)).collect();
        let set = |seed| {
            let output = FeatureOutput { features: features.clone(), logits: None };
            EvaluatedImages::new(output, Some(Vec::clone(&labels)), seed).unwrap()
        };
        let (found, labels) = (set(1).pairwise_features().unwrap(), set(1).pairwise_labels().unwrap());
        let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!((found.len(), labels.len()), (MAX_PAIRWISE_IMAGES, MAX_PAIRWISE_IMAGES));
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "each image once");
        let of_second =
            |(feature, label): (&f32, &u8)| (*feature >= MAX_PAIRWISE_IMAGES as f32) == (*label == 1);
        assert!(std::iter::zip(&found, &labels).all(of_second));
        let second = labels.iter().filter(|label| **label == 1).count();
        // Half of them, with a standard deviation of 35.
        assert!(second.abs_diff(MAX_PAIRWISE_IMAGES.div_euclid(2)) < 200, "{second}");
        assert_ne!(
            set(2).pairwise_features().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            found
        );
    }
}
