//! The built-in MNIST: the four files of the crate `ddpm-mnist`.

use std::io::{self, Read};
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::idx;
use crate::known_digests::{KnownDigests, MNIST_TEST, MNIST_TRAIN};
use crate::splits::Splits;

/// A file of the crate, with its name for errors.
type Asset = (&'static str, &'static [u8]);

static TRAIN_IMAGES: Asset = ("ddpm-mnist/data/train-images-idx3-ubyte.zst", ddpm_mnist::TRAIN_IMAGES);
static TRAIN_LABELS: Asset = ("ddpm-mnist/data/train-labels-idx1-ubyte.zst", ddpm_mnist::TRAIN_LABELS);
static TEST_IMAGES: Asset = ("ddpm-mnist/data/t10k-images-idx3-ubyte.zst", ddpm_mnist::TEST_IMAGES);
static TEST_LABELS: Asset = ("ddpm-mnist/data/t10k-labels-idx1-ubyte.zst", ddpm_mnist::TEST_LABELS);

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
    let images = idx::images_from(Path::new(images.0), &mut unpacked(images)?)?;
    let labels = idx::labels_from(Path::new(labels.0), &mut unpacked(labels)?)?;
    let set = Dataset::new(name, images, Some(labels))?.with_classes(CLASSES)?;
    // The data set keeps the digests, so later calls do not compute them again.
    digests.verify(&set)?;
    Ok(set)
}

/// The uncompressed content of a file.
fn unpacked((file, bytes): Asset) -> Result<impl Read> {
    let error = |error| Error::Read { file: file.into(), source: io::Error::other(error) };
    StreamingDecoder::new(bytes).map_err(error)
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    #[test]
    fn files_other_than_mnist_are_refused_and_the_error_names_them() {
        let error = load("swapped", TEST_IMAGES, TEST_LABELS, &MNIST_TRAIN).unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }));
        assert!(
            error.to_string().starts_with("ddpm-mnist/data/t10k-images-idx3-ubyte.zst: SHA-256"),
            "{error}"
        );
    }

    #[test]
    fn labels_other_than_the_mnist_labels_are_refused_and_the_error_names_them() {
        let labels = idx::encode_labels(&[3; 10_000]).unwrap();
        let labels = compress_to_vec(labels.as_slice(), CompressionLevel::Fastest).leak();
        let error = load("relabelled", TEST_IMAGES, ("labels", labels), &MNIST_TEST).unwrap_err();
        assert!(matches!(&error, Error::Checksum { file, .. } if file == Path::new("labels")), "{error}");
    }

    #[test]
    fn damaged_files_are_refused_and_the_error_names_them() {
        for bytes in [&b"no Zstandard"[..], &TEST_LABELS.1[..2000]] {
            let error = load("damaged", TEST_IMAGES, ("labels", bytes), &MNIST_TEST).unwrap_err();
            assert!(matches!(&error, Error::Read { file, .. } if file == Path::new("labels")), "{error:?}");
        }
    }
}
