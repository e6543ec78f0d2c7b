//! SHA-256 digests that verify a copy of MNIST.

use std::path::Path;

use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// The SHA-256 of the uncompressed IDX files of a split, in hexadecimal.
pub(crate) struct KnownDigests {
    images: &'static str,
    labels: &'static str,
}

/// The digests of `train-*` in `ddpm_mnist::SHA256SUMS`.
pub(crate) const MNIST_TRAIN: KnownDigests = KnownDigests {
    images: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    labels: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
};

/// The digests of `t10k-*` in `ddpm_mnist::SHA256SUMS`.
pub(crate) const MNIST_TEST: KnownDigests = KnownDigests {
    images: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    labels: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
};

impl KnownDigests {
    /// Checks that `set` has exactly the known images and labels, in the known
    /// order. It compares digests of the IDX encoding, so the format that the set
    /// was read from (gzip, parquet of PNGs) does not matter.
    pub(crate) fn verify(&self, set: &Dataset) -> Result<()> {
        check(set.images_file(), set.images_sha256(), self.images)?;
        let no_labels = || Error::NoLabels { name: set.name().to_owned() };
        let (file, found) = set.labels_file().zip(set.labels_sha256()).ok_or_else(no_labels)?;
        check(file, found, self.labels)
    }
}

/// Compares the SHA-256 of a file with the expected one.
pub(crate) fn check(file: &Path, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Checksum { file: file.to_owned(), found: found.to_owned(), expected: expected.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "mnist")]
    #[test]
    fn table_is_the_checksum_file_of_the_assets() {
        let sums = ddpm_mnist::SHA256SUMS;
        for (digest, file) in [
            (MNIST_TRAIN.images, "train-images-idx3-ubyte"),
            (MNIST_TRAIN.labels, "train-labels-idx1-ubyte"),
            (MNIST_TEST.images, "t10k-images-idx3-ubyte"),
            (MNIST_TEST.labels, "t10k-labels-idx1-ubyte"),
        ] {
            assert!(sums.lines().any(|line| line == format!("{digest}  {file}")), "{file}");
        }
    }
}
