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

use candle_core::{DType, Device, Tensor};
use ddpm_data::DataSet;
use serde::Serialize;

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
    /// The tensor library failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// How often images are of the class that they should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassAccuracy {
    /// The part of all images, 0 to 1.
    pub overall: f64,
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
        Ok(Self {
            overall: part(None).unwrap_or_default(),
            by_class: (0..classes).map(|class| part(Some(class))).collect(),
        })
    }
}

/// Images of the reference set at a time: bounds the table of distances.
const REFERENCE_CHUNK: usize = 4096;
/// Queries at a time.
const QUERY_CHUNK: usize = 1024;

/// The class of the most similar image of `reference` (by Euclidean distance of grey levels) for each of
/// the images in `pixels`, which lie one after another.
///
/// # Errors
///
/// If the reference set has no labels, the images are of another size, or the tensor library fails.
pub fn nearest_classes(reference: &DataSet, pixels: &[u8], device: &Device) -> Result<Vec<u8>> {
    let data = || reference.name().to_owned();
    let labels = reference.labels().ok_or_else(|| Error::Unlabelled { data: data() })?;
    let size = reference.image_size();
    if !pixels.len().is_multiple_of(size) {
        return Err(Error::ImageSize { found: pixels.len(), pixels: size, data: data() });
    }
    let tensor = |pixels: &[u8]| -> candle_core::Result<Tensor> {
        let rows = pixels.len().checked_div(size).unwrap_or(0);
        Tensor::from_slice(pixels, (rows, size), device)?.to_dtype(DType::F32)
    };
    let mut classes = Vec::new();
    for queries in pixels.chunks(size * QUERY_CHUNK) {
        let queries = tensor(queries)?;
        let mut best = vec![(f32::INFINITY, 0); queries.dim(0)?];
        let references = reference.images().chunks(size * REFERENCE_CHUNK);
        for (references, labels) in std::iter::zip(references, labels.chunks(REFERENCE_CHUNK)) {
            let references = tensor(references)?;
            // |q − r|² without |q|², which does not change which r is nearest.
            let squares = references.sqr()?.sum(1)?.unsqueeze(0)?;
            let distances = squares.broadcast_sub(&(queries.matmul(&references.t()?)? * 2.0)?)?;
            let (least, at) = (distances.min(1)?.to_vec1::<f32>()?, distances.argmin(1)?.to_vec1::<u32>()?);
            for (best, (distance, at)) in best.iter_mut().zip(least.into_iter().zip(at)) {
                if distance < best.0 {
                    *best = (distance, labels[at as usize]);
                }
            }
        }
        classes.extend(best.into_iter().map(|(_, class)| class));
    }
    Ok(classes)
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
        assert_eq!(accuracy.overall, 0.75);
        assert_eq!(accuracy.by_class, [Some(0.5), Some(1.0), None]);
        assert!(matches!(ClassAccuracy::new(&[0], &[], 3), Err(Error::Counts { found: 0, expected: 1 })));
    }
}
