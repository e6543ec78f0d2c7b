//! The IDX format of the MNIST files: reader and encoder.
//!
//! ```text
//! images   u32 0x00000803 | u32 count | u32 rows | u32 cols | count·rows·cols bytes
//! labels   u32 0x00000801 | u32 count | count bytes
//! ```
//!
//! Labels of 16 or 32 bits, and in two dimensions as in QMNIST, are read as well.
//!
//! All integers are big-endian. A file may be compressed with gzip. The reader
//! detects gzip by the first two bytes of the file, not by its name.

mod read;

use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use read::read_numbers;
pub use read::{MAX_BYTES, parse_images, parse_labels, read_images, read_labels};
#[cfg(feature = "mnist")]
pub(crate) use read::{images_from, labels_from};

use crate::error::{Error, Result};

/// The content of an IDX file: images or labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdxKind {
    /// `u8` in three dimensions, magic number 0x00000803.
    Images,
    /// Integers in one dimension, or in two with the label as first number of each row. Usually
    /// `u8` in one dimension, magic number 0x00000801, which is the type that is written.
    Labels,
}

impl IdxKind {
    /// The usual first four bytes of the file, as a big-endian number.
    #[must_use]
    pub fn magic(self) -> u32 {
        match self {
            Self::Images => 0x0000_0803,
            Self::Labels => 0x0000_0801,
        }
    }

    fn header_len(self) -> u64 {
        match self {
            Self::Images => 16,
            Self::Labels => 8,
        }
    }
}

impl fmt::Display for IdxKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Images => "images (unsigned bytes in 3 dimensions, magic number",
            Self::Labels => "labels (integers in 1 or 2 dimensions, usual magic number",
        };
        write!(f, "{name} {:#010x})", self.magic())
    }
}

/// Grey-level images of one size, with the path of their file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    file: PathBuf,
    rows: usize,
    cols: usize,
    pixels: Vec<u8>,
}

impl Images {
    /// Images from N × `rows` × `cols` grey levels, in row-major order. Error
    /// messages name `file`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if `pixels` is not a whole number of images, or
    /// `rows` or `cols` is 0.
    pub fn new(file: impl Into<PathBuf>, rows: usize, cols: usize, pixels: Vec<u8>) -> Result<Self> {
        image_count(rows, cols, &pixels)?;
        Ok(Self { file: file.into(), rows, cols, pixels })
    }

    /// The path of the file that the images were read from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Height in pixels.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Width in pixels.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of images.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pixels.len().div_euclid(self.rows * self.cols)
    }

    /// All pixels, N × rows × cols.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The images with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        let (rows, cols) = (self.rows, self.cols);
        let images = self.pixels.chunks_exact(rows * cols);
        let pixels =
            images.flat_map(|image| (0..cols).flat_map(move |col| image[col..].iter().step_by(cols)));
        Self { pixels: pixels.copied().collect(), rows: cols, cols: rows, file: self.file }
    }

    /// The images for which `keep` has the value `true`.
    pub(crate) fn filtered(mut self, keep: &[bool]) -> Self {
        let size = self.rows * self.cols;
        let kept = self.pixels.chunks_exact(size).zip(keep).filter(|(_, keep)| **keep);
        self.pixels = kept.flat_map(|(image, _)| image).copied().collect();
        self
    }
}

/// Class labels, with the path of their file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The path of the file that the labels were read from.
    pub file: PathBuf,
    /// The class of each image.
    pub values: Vec<u8>,
}

impl Labels {
    /// Labels from numbers, which must be 0 to 255, with their indices in the file.
    pub(crate) fn new(file: &Path, numbers: impl IntoIterator<Item = (usize, i64)>) -> Result<Self> {
        let value = |(index, label)| {
            let (file, max) = (file.to_owned(), usize::from(u8::MAX));
            u8::try_from(label).map_err(|_| Error::LabelOutOfRange { file, index, label, max })
        };
        let values = numbers.into_iter().map(value).collect::<Result<_>>()?;
        Ok(Self { file: file.to_owned(), values })
    }
}

/// Encodes N × `rows` × `cols` grey levels as an uncompressed IDX file of images.
///
/// # Errors
/// [`Error::OutOfRange`] if `pixels` is not a whole number of images, `rows` or
/// `cols` is 0, or a dimension does not fit in 32 bits.
pub fn encode_images(rows: usize, cols: usize, pixels: &[u8]) -> Result<Vec<u8>> {
    let header = header_of_images(image_count(rows, cols, pixels)?, rows, cols)?;
    Ok([&header[..], pixels].concat())
}

/// Encodes labels as an uncompressed IDX file.
///
/// # Errors
/// [`Error::OutOfRange`] if the number of labels does not fit in 32 bits.
pub fn encode_labels(labels: &[u8]) -> Result<Vec<u8>> {
    Ok([&header_of_labels(labels.len())?[..], labels].concat())
}

/// The header of an IDX file of images. In the file, `count` × `rows` × `cols`
/// pixels follow it. Use it to write a file in pieces.
///
/// # Errors
/// [`Error::OutOfRange`] if a dimension does not fit in 32 bits.
pub fn header_of_images(count: usize, rows: usize, cols: usize) -> Result<Vec<u8>> {
    let sizes = [("number of images", count), ("number of rows", rows), ("number of columns", cols)];
    header(IdxKind::Images, &sizes)
}

/// The header of an IDX file of labels. In the file, `count` bytes follow it.
///
/// # Errors
/// [`Error::OutOfRange`] if the number of labels does not fit in 32 bits.
pub fn header_of_labels(count: usize) -> Result<Vec<u8>> {
    header(IdxKind::Labels, &[("number of labels", count)])
}

/// The magic number, then the sizes, which errors name.
fn header(kind: IdxKind, sizes: &[(&'static str, usize)]) -> Result<Vec<u8>> {
    let mut header = kind.magic().to_be_bytes().to_vec();
    for &(name, size) in sizes {
        let error = |_| Error::out_of_range(name, size, format!("at most {}", u32::MAX));
        header.extend(u32::try_from(size).map_err(error)?.to_be_bytes());
    }
    Ok(header)
}

/// The number of images of `rows` × `cols` in `pixels`.
fn image_count(rows: usize, cols: usize, pixels: &[u8]) -> Result<usize> {
    let error = || {
        let expected = format!("a multiple of {rows}x{cols}, neither of them 0");
        Error::out_of_range("number of pixels", pixels.len(), expected)
    };
    let size = rows.checked_mul(cols).filter(|&size| size > 0).ok_or_else(error)?;
    let count = pixels.len().div_euclid(size);
    if count * size == pixels.len() { Ok(count) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use super::{Error, encode_images, encode_labels, header_of_images, header_of_labels};

    #[test]
    fn header_and_pixels_in_pieces_make_the_encoded_file() {
        let pixels = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let pieces = [&header_of_images(2, 3, 2).unwrap()[..], &pixels[..6], &pixels[6..]].concat();
        assert_eq!(pieces, encode_images(3, 2, &pixels).unwrap());
        assert_eq!([&header_of_labels(2).unwrap()[..], &[7, 9]].concat(), encode_labels(&[7, 9]).unwrap());
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn dimensions_above_32_bits_are_refused() {
        let (last, over) = (u32::MAX as usize, 1 << 32);
        assert_eq!(header_of_images(last, 1, 1).unwrap()[4..8], [255; 4]);
        for ([count, rows, cols], name) in
            [([over, 1, 1], "images"), ([1, over, 1], "rows"), ([1, 1, over], "columns")]
        {
            let error = header_of_images(count, rows, cols).unwrap_err();
            assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
            let expected = format!("number of {name} is 4294967296, expected at most 4294967295");
            assert_eq!(error.to_string(), expected);
        }
        assert!(header_of_labels(last).is_ok() && header_of_labels(over).is_err());
    }
}
