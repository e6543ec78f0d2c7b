//! Whether generated images are copies of training images.

use candle_core::Device;
use ddpm_data::Dataset;
use serde::Serialize;

use super::{nearest::nearest, points::Points};
use crate::{Error, Result};

/// The most similar image of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NearestImage {
    /// Its number in the data set.
    pub index: usize,
    /// The root of the mean squared difference of the pixels, in grey levels, 0 to 255: 0 for an exact copy.
    pub distance: f64,
}

/// The most similar image of `reference`, by Euclidean distance of grey levels, for each of the images in `pixels`,
/// which lie one after another; the first one of several as similar. For images of up to 1024 pixels the search is
/// exact.
///
/// # Errors
///
/// If the images are of another size, the reference set is empty, or the tensor library fails.
pub fn nearest_images(reference: &Dataset, pixels: &[u8], device: &Device) -> Result<Vec<NearestImage>> {
    let size = reference.image_size();
    if !pixels.len().is_multiple_of(size) {
        let data = reference.name().to_owned();
        return Err(Error::ImageSize { found: pixels.len(), pixels: size, data });
    }
    let references = Points::images(reference.images(), size, device);
    let found = nearest(&Points::images(pixels, size, device), &references)?;
    let image =
        |(index, squared): (usize, f64)| NearestImage { index, distance: (squared / size as f64).sqrt() };
    Ok(found.into_iter().map(|found| image((found.index, found.squared))).collect())
}

/// How near generated images come to training images, beside what new images of the same kind do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memorisation {
    /// The mean distance of a generated image to the nearest training image, in grey levels.
    pub generated: f64,
    /// The same of images held out from training.
    pub held_out: f64,
    /// `generated` / `held_out`: about 1 or more where the model does not copy, and near 0 where it does; none if
    /// all held-out images are in the training set.
    pub ratio: Option<f64>,
    /// The generated images that are nearest to a training image: the nearest of each class, then the second of
    /// each, and so on, since in some classes all images are alike. Each round begins with the nearest.
    pub closest: Vec<ClosePair>,
}

/// A generated image and the training image that it resembles most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClosePair {
    /// The number of the generated image.
    pub generated: usize,
    /// The number of the training image.
    pub train: usize,
    /// The root of the mean squared difference of their pixels, in grey levels.
    pub distance: f64,
}

impl Memorisation {
    /// Compares what [`nearest_images`] finds among the training images for generated images and for held-out
    /// ones, and keeps `closest` pairs; `classes` are those of the generated images, if they have any. A mean does
    /// not depend on the number of images, but both should be of the same classes.
    ///
    /// # Errors
    ///
    /// If either list of images is empty, or there is not one class for each generated image.
    pub fn new(
        generated: &[NearestImage],
        classes: Option<&[u8]>,
        held_out: &[NearestImage],
        closest: usize,
    ) -> Result<Self> {
        if let Some(classes) = classes.filter(|classes| classes.len() != generated.len()) {
            return Err(Error::Counts { found: classes.len(), expected: generated.len() });
        }
        let mean = |images: &[NearestImage]| match images.len() {
            0 => Err(Error::TooFewRows { found: 0, least: 1 }),
            n => Ok(images.iter().map(|image| image.distance).sum::<f64>() / n as f64),
        };
        let (mean_generated, mean_held_out) = (mean(generated)?, mean(held_out)?);
        let pair = |(number, image): (usize, &NearestImage)| ClosePair {
            generated: number,
            train: image.index,
            distance: image.distance,
        };
        let mut pairs: Vec<ClosePair> = generated.iter().enumerate().map(pair).collect();
        pairs.sort_by(|a, b| a.distance.total_cmp(&b.distance));
        // How many of a class have come before.
        let mut before = [0_usize; 256];
        let rounds = pairs.into_iter().map(|pair| {
            let before = &mut before[usize::from(classes.map_or(0, |classes| classes[pair.generated]))];
            *before += 1;
            (*before, pair)
        });
        let mut rounds: Vec<(usize, ClosePair)> = rounds.collect();
        rounds.sort_by_key(|&(round, _)| round);
        Ok(Self {
            generated: mean_generated,
            held_out: mean_held_out,
            ratio: (mean_held_out > 0.0).then(|| mean_generated / mean_held_out),
            closest: rounds.into_iter().take(closest).map(|(_, pair)| pair).collect(),
        })
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
    fn a_copy_is_found_and_the_first_of_equals() {
        let found = nearest_images(&reference(), &[255, 0, 6, 8, 0, 250], &Device::Cpu).unwrap();
        let near = |index, distance| NearestImage { index, distance };
        assert_eq!(found, [near(1, 0.0), near(0, 50.0_f64.sqrt()), near(2, 12.5_f64.sqrt())]);
        let failed = nearest_images(&reference(), &[255, 0, 6], &Device::Cpu);
        assert!(matches!(failed, Err(Error::ImageSize { found: 3, pixels: 2, .. })));
    }

    /// scikit-learn's `KNeighborsClassifier(1)`, fitted to all 60,000 images, is right for these many of
    /// the first 300 test images (`fixtures/generate/nearest.py`).
    #[test]
    fn the_nearest_digits_are_those_of_scikit_learn() {
        let (train, test) = Splits::mnist().unwrap().into_splits();
        let test = test.unwrap();
        let found = nearest_images(&train, &test.images()[..300 * 784], &Device::Cpu).unwrap();
        let of_class = |(found, label): &(NearestImage, &u8)| train.labels().unwrap()[found.index] == **label;
        assert_eq!(std::iter::zip(found, test.labels().unwrap()).filter(of_class).count(), 296);
    }

    #[test]
    fn the_summary_names_the_closest_pairs() {
        let near = |index, distance| NearestImage { index, distance };
        let generated = [near(8, 30.0), near(5, 10.0), near(9, 20.0)];
        let found = Memorisation::new(&generated, None, &[near(0, 40.0), near(0, 10.0)], 2).unwrap();
        assert_eq!((found.generated, found.held_out, found.ratio), (20.0, 25.0, Some(0.8)));
        let pair = |generated, train, distance| ClosePair { generated, train, distance };
        assert_eq!(found.closest, [pair(1, 5, 10.0), pair(2, 9, 20.0)]);
        // The nearest of class 7 is farther than both of class 3.
        let by_class = Memorisation::new(&generated, Some(&[7, 3, 3]), &[near(0, 10.0)], 3).unwrap();
        assert_eq!(by_class.closest, [pair(1, 5, 10.0), pair(0, 8, 30.0), pair(2, 9, 20.0)]);
        let few = Memorisation::new(&generated, Some(&[7]), &[near(0, 10.0)], 3);
        assert!(matches!(few, Err(Error::Counts { found: 1, expected: 3 })));
        assert_eq!(Memorisation::new(&generated, None, &[near(0, 0.0)], 0).unwrap().ratio, None);
        let failed = Memorisation::new(&generated, None, &[], 1);
        assert!(matches!(failed, Err(Error::TooFewRows { found: 0, least: 1 })));
    }
}
