//! The built-in MNIST: the four files of `assets/mnist`, part of the compiled crate.

use std::path::Path;

use crate::dataset::Dataset;
use crate::error::Result;
use crate::idx;
use crate::known_digests::{KnownDigests, MNIST_TEST, MNIST_TRAIN};
use crate::splits::Splits;

macro_rules! asset {
    ($name:literal) => {
        (
            concat!("assets/mnist/", $name),
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/mnist/", $name)).as_slice(),
        )
    };
}

type Asset = (&'static str, &'static [u8]);

static TRAIN_IMAGES: Asset = asset!("train-images-idx3-ubyte.gz");
static TRAIN_LABELS: Asset = asset!("train-labels-idx1-ubyte.gz");
static TEST_IMAGES: Asset = asset!("t10k-images-idx3-ubyte.gz");
static TEST_LABELS: Asset = asset!("t10k-labels-idx1-ubyte.gz");

/// The number of classes: the digits 0 to 9.
const CLASSES: usize = 10;

impl Splits {
    /// The built-in MNIST: 60,000 training and 10,000 test images of 28×28 pixels,
    /// ten classes.
    ///
    /// # Errors
    /// [`Error::Checksum`](crate::Error::Checksum) or an error of the IDX reader if
    /// the compiled files are not MNIST.
    pub fn mnist() -> Result<Self> {
        Self::new("MNIST", Dataset::mnist_train()?, Some(Dataset::mnist_test()?))
    }
}

impl Dataset {
    /// The 60,000 training images of the built-in MNIST. The test images are not
    /// decompressed.
    ///
    /// # Errors
    /// The same as [`Splits::mnist`].
    pub fn mnist_train() -> Result<Self> {
        load("MNIST/train", TRAIN_IMAGES, TRAIN_LABELS, &MNIST_TRAIN)
    }

    /// The 10,000 test images of the built-in MNIST. The training images are not
    /// decompressed.
    ///
    /// # Errors
    /// The same as [`Splits::mnist`].
    pub fn mnist_test() -> Result<Self> {
        load("MNIST/test", TEST_IMAGES, TEST_LABELS, &MNIST_TEST)
    }
}

fn load(name: &str, images: Asset, labels: Asset, digests: &KnownDigests) -> Result<Dataset> {
    let images = idx::parse_images(Path::new(images.0), images.1)?;
    let labels = idx::parse_labels(Path::new(labels.0), labels.1)?;
    let set = Dataset::new(name, images, Some(labels))?.with_classes(CLASSES)?;
    // The data set keeps the digests, so later calls do not compute them again.
    digests.verify(&set)?;
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn files_other_than_mnist_are_refused_and_the_error_names_them() {
        let error = load("swapped", TEST_IMAGES, TEST_LABELS, &MNIST_TRAIN).unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }));
        assert!(error.to_string().starts_with("assets/mnist/t10k-images-idx3-ubyte.gz: SHA-256"), "{error}");
    }

    #[test]
    fn labels_other_than_the_mnist_labels_are_refused_and_the_error_names_them() {
        let labels = idx::encode_labels(&[3; 10_000]).unwrap().leak();
        let error = load("relabelled", TEST_IMAGES, ("labels", labels), &MNIST_TEST).unwrap_err();
        assert!(matches!(&error, Error::Checksum { file, .. } if file == Path::new("labels")), "{error}");
    }
}
