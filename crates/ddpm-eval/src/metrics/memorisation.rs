//! Memorisation: are generated images copies of training images?

use candle_core::Device;
use ddpm_data::Dataset;
use serde::Serialize;

use super::{nearest::nearest, points::Points};
use crate::{Error, Result};

/// The most similar image in a data set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NearestImage {
    /// Its index in the data set.
    pub index: usize,
    /// The root mean square difference of the pixels in grey levels, 0 (an exact copy) to 255.
    pub distance: f64,
}

/// For each image, the most similar image of `reference` by Euclidean distance of grey levels; the first one if several
/// are equally similar. `pixels` holds the grey levels of consecutive images. The search is exact for images of up to
/// 1024 pixels.
///
/// # Errors
///
/// If `pixels` does not hold complete images of the size of `reference`, `reference` is empty, or the tensor library
/// fails.
pub fn nearest_images(reference: &Dataset, pixels: &[u8], device: &Device) -> Result<Vec<NearestImage>> {
    let size = reference.image_size();
    if !pixels.len().is_multiple_of(size) {
        return Err(Error::pixel_count(pixels.len(), size, reference.name()));
    }
    let references = Points::images(reference.images(), size, device);
    let found = nearest(&Points::images(pixels, size, device), &references)?;
    let image =
        |(index, squared): (usize, f64)| NearestImage { index, distance: (squared / size as f64).sqrt() };
    Ok(found.into_iter().map(image).collect())
}

/// The distance from images to their nearest training images. It is near 0 for copies, and for images that are not
/// copies about as large as for test images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NearestTraining {
    /// The mean distance to the nearest training image, in grey levels.
    pub distance: f64,
    /// The images nearest to a training image, in rounds: first the nearest of each class, then the second nearest of
    /// each class, and so on. Each round is sorted by distance. Without rounds, a class whose images are all similar
    /// would fill the list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closest: Vec<ClosePair>,
}

/// A generated image and the most similar training image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClosePair {
    /// The index of the generated image.
    pub generated: usize,
    /// The index of the training image.
    pub train: usize,
    /// The root mean square difference of their pixels, in grey levels.
    pub distance: f64,
}

impl NearestTraining {
    /// Summarises the nearest training images of generated images, from [`nearest_images`]. `classes[i]` is the class of
    /// image i; `None` without classes. The result has at most `num_closest` closest pairs.
    ///
    /// # Errors
    ///
    /// If there are no images, or `classes` does not have one entry for each image.
    pub fn new(images: &[NearestImage], classes: Option<&[u8]>, num_closest: usize) -> Result<Self> {
        if let Some(classes) = classes.filter(|classes| classes.len() != images.len()) {
            return Err(Error::label_count(classes.len(), images.len()));
        }
        if images.is_empty() {
            return Err(Error::too_few_images(0, 1));
        }
        let distance = images.iter().map(|image| image.distance).sum::<f64>() / images.len() as f64;
        let pair = |(generated, image): (usize, &NearestImage)| ClosePair {
            generated,
            train: image.index,
            distance: image.distance,
        };
        let mut pairs: Vec<ClosePair> = images.iter().enumerate().map(pair).collect();
        pairs.sort_by(|a, b| a.distance.total_cmp(&b.distance));
        // The number of pairs so far, by class.
        let mut counts = [0_usize; 256];
        let round_of = |pair: &ClosePair| {
            let round = &mut counts[usize::from(classes.map_or(0, |classes| classes[pair.generated]))];
            *round += 1;
            *round
        };
        let rounds: Vec<usize> = pairs.iter().map(round_of).collect();
        let mut closest: Vec<_> = std::iter::zip(rounds, pairs).collect();
        closest.sort_by_key(|&(round, _)| round);
        Ok(Self { distance, closest: closest.into_iter().take(num_closest).map(|(_, pair)| pair).collect() })
    }
}

#[cfg(test)]
mod tests {
    use ddpm_data::{Images, Splits};

    use super::*;

    fn reference() -> Dataset {
        let pixels = vec![0, 0, 255, 0, 0, 255, 255, 0];
        Dataset::new("test", Images::new("test", 1, 2, pixels).unwrap(), None).unwrap()
    }

    #[test]
    fn a_copy_has_distance_0_and_ties_go_to_the_first() {
        let found = nearest_images(&reference(), &[255, 0, 6, 8, 0, 250], &Device::Cpu).unwrap();
        let near = |index, distance| NearestImage { index, distance };
        assert_eq!(found, [near(1, 0.0), near(0, 50.0_f64.sqrt()), near(2, 12.5_f64.sqrt())]);
        let error = nearest_images(&reference(), &[255, 0, 6], &Device::Cpu).unwrap_err().to_string();
        assert_eq!(error, "number of pixels is 3, expected a multiple of 2, the image size of test");
    }

    /// scikit-learn's `KNeighborsClassifier(1)`, fitted to all 60,000 training images, classifies 296 of the first 300
    /// test images correctly (`fixtures/generate/nearest.py`).
    #[test]
    fn the_nearest_digits_agree_with_scikit_learn() {
        let (train, test) = Splits::mnist().unwrap().into_splits();
        let test = test.unwrap();
        let found = nearest_images(&train, &test.images()[..300 * 784], &Device::Cpu).unwrap();
        let correct = |(found, label): &(NearestImage, &u8)| train.labels().unwrap()[found.index] == **label;
        assert_eq!(std::iter::zip(found, test.labels().unwrap()).filter(correct).count(), 296);
    }

    #[test]
    fn closest_pairs_are_sorted_in_rounds_of_classes() {
        let near = |index, distance| NearestImage { index, distance };
        let generated = [near(8, 30.0), near(5, 10.0), near(9, 20.0)];
        let found = NearestTraining::new(&generated, None, 2).unwrap();
        assert_eq!(found.distance, 20.0);
        let pair = |generated, train, distance| ClosePair { generated, train, distance };
        assert_eq!(found.closest, [pair(1, 5, 10.0), pair(2, 9, 20.0)]);
        // The image of class 7 comes second, although both images of class 3 are nearer.
        let by_class = NearestTraining::new(&generated, Some(&[7, 3, 3]), 3).unwrap();
        assert_eq!(by_class.closest, [pair(1, 5, 10.0), pair(0, 8, 30.0), pair(2, 9, 20.0)]);
        let error = NearestTraining::new(&generated, Some(&[7]), 3).unwrap_err().to_string();
        assert_eq!(error, "number of labels is 1, expected 3, one for each image");
        let error = NearestTraining::new(&[], None, 1).unwrap_err().to_string();
        assert_eq!(error, "number of images is 0, expected at least 1");
    }
}
