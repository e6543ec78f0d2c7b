//! SHA-256 in hexadecimal, and the digests of MNIST.

use std::fmt::Write;
#[cfg(feature = "hub")]
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::dataset::DataSet;
use crate::error::{Error, Result};

/// SHA-256 of the concatenated `parts`, in lower-case hexadecimal.
pub(crate) fn sha256_hex(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    to_hex(hasher)
}

/// SHA-256 of a file, in lower-case hexadecimal.
#[cfg(feature = "hub")]
pub(crate) fn sha256_of_file(file: &Path) -> io::Result<String> {
    let mut input = BufReader::with_capacity(1 << 16, std::fs::File::open(file)?);
    let mut hasher = Sha256::new();
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(to_hex(hasher));
        }
        hasher.update(chunk);
        let len = chunk.len();
        input.consume(len);
    }
}

fn to_hex(hasher: Sha256) -> String {
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// The digests of a split's uncompressed IDX files.
pub(crate) struct Known {
    images: &'static str,
    labels: &'static str,
}

/// `train-*` of `assets/mnist/SHA256SUMS`.
pub(crate) const MNIST_TRAIN: Known = Known {
    images: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    labels: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
};

/// `t10k-*` of `assets/mnist/SHA256SUMS`.
pub(crate) const MNIST_TEST: Known = Known {
    images: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    labels: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
};

impl Known {
    /// Checks that `set` has exactly the known images and labels, in the known
    /// order. It compares the IDX encoding, so the container that the set came
    /// in (gzip, parquet of PNGs) does not matter.
    pub(crate) fn verify(&self, set: &DataSet) -> Result<()> {
        check(set.images_file(), set.images_sha256(), self.images)?;
        let no_labels = || Error::NoLabels { name: set.name().to_owned() };
        let (file, found) = set.labels_file().zip(set.labels_sha256()).ok_or_else(no_labels)?;
        check(file, found, self.labels)
    }
}

pub(crate) fn check(file: &Path, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Checksum { file: file.to_owned(), found: found.to_owned(), expected: expected.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_parts_is_the_digest_of_the_whole() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(&[b"abc"]), abc);
        assert_eq!(sha256_hex(&[b"a", b"", b"bc"]), abc);
    }

    #[test]
    fn table_is_the_checksum_file_of_the_assets() {
        let sums = include_str!("../../../assets/mnist/SHA256SUMS");
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
