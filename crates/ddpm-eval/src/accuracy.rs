//! Whether images are of the class that they should be.

use candle_core::Device;
use ddpm_data::DataSet;
use serde::Serialize;

use crate::{Error, Result, nearest_images};

/// How often images are of the class that they should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassAccuracy {
    /// The part of all images, 0 to 1.
    pub overall: f64,
    /// The standard error of that part, √(p(1 − p)/(n − 1)) for n images; infinite for a single one.
    pub standard_error: f64,
    /// The part of the images of each class; none where a class has no image.
    pub by_class: Vec<Option<f64>>,
}

impl ClassAccuracy {
    /// Compares the classes that images should be of with those found for them.
    ///
    /// # Errors
    ///
    /// If the lists differ in length, or are empty.
    pub fn new(expected: &[u8], found: &[u8], classes: usize) -> Result<Self> {
        if expected.len() != found.len() || found.is_empty() {
            return Err(Error::Counts { found: found.len(), expected: expected.len() });
        }
        let part = |class: Option<usize>| {
            let of_class = std::iter::zip(expected, found)
                .filter(|(expected, _)| class.is_none_or(|class| usize::from(**expected) == class));
            let (right, all) = of_class.fold((0.0, 0.0), |(right, all), (expected, found)| {
                (right + f64::from(u8::from(expected == found)), all + 1.0)
            });
            (all > 0.0).then_some(right / all)
        };
        let overall = part(None).unwrap_or_default();
        let others = found.len() as f64 - 1.0;
        Ok(Self {
            overall,
            standard_error: if others > 0.0 {
                (overall * (1.0 - overall) / others).sqrt()
            } else {
                f64::INFINITY
            },
            by_class: (0..classes).map(|class| part(Some(class))).collect(),
        })
    }
}

/// The class of the most similar image of `reference` (by Euclidean distance of grey levels) for each of
/// the images in `pixels`, which lie one after another.
///
/// # Errors
///
/// If the reference set has no labels, the images are of another size, or the tensor library fails.
pub fn nearest_classes(reference: &DataSet, pixels: &[u8], device: &Device) -> Result<Vec<u8>> {
    let labels = reference.labels().ok_or_else(|| Error::Unlabelled { data: reference.name().to_owned() })?;
    let nearest = nearest_images(reference, pixels, device)?;
    Ok(nearest.into_iter().map(|nearest| labels[nearest.index]).collect())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ddpm_data::{Corpus, Images, Labels};

    use super::*;

    fn reference(labels: Option<Vec<u8>>) -> DataSet {
        let images = Images::new("test", 1, 2, vec![0, 0, 255, 0, 0, 255, 250, 250]).unwrap();
        let labels = labels.map(|values| Labels { file: PathBuf::from("labels"), values });
        DataSet::new("test", images, labels).unwrap()
    }

    #[test]
    fn the_nearest_image_gives_the_class() {
        let found = nearest_classes(
            &reference(Some(vec![7, 3, 5, 1])),
            &[10, 20, 200, 40, 90, 200, 240, 255],
            &Device::Cpu,
        );
        assert_eq!(found.unwrap(), [7, 3, 5, 1]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let failed = nearest_classes(&reference(None), &[0, 0], &Device::Cpu);
        assert!(matches!(failed, Err(Error::Unlabelled { .. })));
        let failed = nearest_classes(&reference(Some(vec![0, 1, 2, 3])), &[0, 0, 0], &Device::Cpu);
        assert!(matches!(failed, Err(Error::ImageSize { found: 3, pixels: 2, .. })));
    }

    /// scikit-learn's `KNeighborsClassifier(1)`, fitted to all 60,000 images, is right for these many of
    /// the first 300 test images (`fixtures/generate/nearest.py`).
    #[test]
    fn accuracy_on_real_digits_is_that_of_scikit_learn() {
        let (train, test) = Corpus::mnist().unwrap().into_splits();
        let test = test.unwrap();
        let found = nearest_classes(&train, &test.images()[..300 * 784], &Device::Cpu).unwrap();
        let accuracy = ClassAccuracy::new(&test.labels().unwrap()[..300], &found, 10).unwrap();
        assert_eq!((accuracy.overall * 300.0).round(), 296.0);
    }

    #[test]
    fn accuracy_counts_each_class() {
        let accuracy = ClassAccuracy::new(&[0, 0, 1, 1], &[0, 1, 1, 1], 3).unwrap();
        assert_eq!((accuracy.overall, accuracy.standard_error), (0.75, 0.25));
        assert_eq!(accuracy.by_class, [Some(0.5), Some(1.0), None]);
        assert!(matches!(ClassAccuracy::new(&[0], &[], 3), Err(Error::Counts { found: 0, expected: 1 })));
    }
}
