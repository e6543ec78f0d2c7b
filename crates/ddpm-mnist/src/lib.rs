#![no_std]
#![doc = include_str!("../README.md")]

/// The 60,000 training images, 28×28 grey levels: an IDX file of 47,040,016 bytes, compressed with Zstandard.
pub static TRAIN_IMAGES: &[u8] = include_bytes!("../data/train-images-idx3-ubyte.zst");

/// The 60,000 labels of the training images, 0 to 9: an IDX file of 60,008 bytes, compressed with Zstandard.
pub static TRAIN_LABELS: &[u8] = include_bytes!("../data/train-labels-idx1-ubyte.zst");

/// The 10,000 test images, 28×28 grey levels: an IDX file of 7,840,016 bytes, compressed with Zstandard.
pub static TEST_IMAGES: &[u8] = include_bytes!("../data/t10k-images-idx3-ubyte.zst");

/// The 10,000 labels of the test images, 0 to 9: an IDX file of 10,008 bytes, compressed with Zstandard.
pub static TEST_LABELS: &[u8] = include_bytes!("../data/t10k-labels-idx1-ubyte.zst");

/// The SHA-256 of the four unpacked files, a line each: the digest in hexadecimal, two spaces, the name of the file.
pub static SHA256SUMS: &str = include_str!("../data/SHA256SUMS");
