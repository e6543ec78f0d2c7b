//! The reader. It does not trust a header: it compares the size that the header
//! gives with [`MAX_BYTES`] and with the size of the file before it allocates
//! memory. It decompresses a gzip file at most one byte past that size.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::{IdxKind, Images, Labels};
use crate::error::{Error, Result};

/// The largest uncompressed IDX file that can be read, in bytes: 2 GiB.
pub const MAX_BYTES: u64 = 1 << 31;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads a file of images, uncompressed or gzip.
///
/// # Errors
/// Each error names the file: [`Error::Read`], [`Error::Gzip`], [`Error::WrongMagic`],
/// [`Error::WrongKind`], [`Error::ShortHeader`], [`Error::ZeroSize`],
/// [`Error::TooLarge`], [`Error::Short`], [`Error::TrailingBytes`].
pub fn read_images(file: &Path) -> Result<Images> {
    open(file, IdxKind::Images).map(|body| body.into_images(file))
}

/// Reads a file of labels, uncompressed or gzip.
///
/// # Errors
/// The same as [`read_images`].
pub fn read_labels(file: &Path) -> Result<Labels> {
    open(file, IdxKind::Labels).map(|body| body.into_labels(file))
}

/// Reads images from memory. Error messages name `file`.
///
/// # Errors
/// The same as [`read_images`].
pub fn parse_images(file: &Path, bytes: &[u8]) -> Result<Images> {
    read(file, bytes, Some(bytes.len() as u64), IdxKind::Images).map(|body| body.into_images(file))
}

/// Reads labels from memory. Error messages name `file`.
///
/// # Errors
/// The same as [`read_images`].
pub fn parse_labels(file: &Path, bytes: &[u8]) -> Result<Labels> {
    read(file, bytes, Some(bytes.len() as u64), IdxKind::Labels).map(|body| body.into_labels(file))
}

/// The image size that a header gives (1 × 1 for labels), and the bytes after it.
struct Body {
    rows: u32,
    cols: u32,
    data: Vec<u8>,
}

impl Body {
    fn into_images(self, file: &Path) -> Images {
        // The casts from u32 to usize only widen.
        Images {
            file: file.to_owned(),
            rows: self.rows as usize,
            cols: self.cols as usize,
            pixels: self.data,
        }
    }

    fn into_labels(self, file: &Path) -> Labels {
        Labels { file: file.to_owned(), values: self.data }
    }
}

fn open(file: &Path, kind: IdxKind) -> Result<Body> {
    let error = |source| Error::Read { file: file.to_owned(), source };
    let input = File::open(file).map_err(error)?;
    let metadata = input.metadata().map_err(error)?;
    let len = metadata.is_file().then_some(metadata.len());
    read(file, BufReader::new(input), len, kind)
}

/// Detects gzip and reads the IDX data. `len` is the number of bytes in `input`,
/// `None` if unknown.
fn read(file: &Path, mut input: impl BufRead, len: Option<u64>, kind: IdxKind) -> Result<Body> {
    let mut start = Vec::with_capacity(GZIP_MAGIC.len());
    let read_error = |source| Error::Read { file: file.to_owned(), source };
    input.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut start).map_err(read_error)?;
    let mut input = start.as_slice().chain(input);
    if start == GZIP_MAGIC {
        // Reads every gzip member. Bytes after the last member are an error.
        let gzip_error = |source| Error::Gzip { file: file.to_owned(), source };
        read_idx(file, &mut MultiGzDecoder::new(input), None, kind, gzip_error)
    } else {
        read_idx(file, &mut input, len, kind, read_error)
    }
}

/// Reads uncompressed IDX data. `len` is the number of bytes in `input`, `None` if
/// unknown.
fn read_idx(
    file: &Path,
    input: &mut dyn Read,
    len: Option<u64>,
    kind: IdxKind,
    io_error: impl Fn(io::Error) -> Error,
) -> Result<Body> {
    let header_len = kind.header_len() as u64;
    let [magic] = read_numbers(file, input, 0, header_len, &io_error)?;
    if magic != kind.magic() {
        let (file, expected) = (file.to_owned(), kind);
        return Err(match IdxKind::of_magic(magic) {
            Some(found) => Error::WrongKind { file, found, expected },
            None => Error::WrongMagic { file, found: magic, expected },
        });
    }
    let [count, rows, cols] = match kind {
        IdxKind::Images => read_numbers(file, input, 4, header_len, &io_error)?,
        IdxKind::Labels => {
            let [count] = read_numbers(file, input, 4, header_len, &io_error)?;
            [count, 1, 1]
        }
    };
    if rows == 0 || cols == 0 {
        return Err(Error::ZeroSize { file: file.to_owned(), rows, cols });
    }
    // The product of three 32-bit numbers fits in 128 bits.
    let claimed = u128::from(header_len) + u128::from(count) * u128::from(rows) * u128::from(cols);
    let too_large = || Error::TooLarge { file: file.to_owned(), claimed, limit: MAX_BYTES };
    let expected = u64::try_from(claimed).ok().filter(|&bytes| bytes <= MAX_BYTES).ok_or_else(too_large)?;
    let mut data = Vec::new();
    if let Some(found) = len {
        check_len(file, found, expected)?;
        data.reserve_exact(usize::try_from(expected - header_len).map_err(|_| too_large())?);
    }
    let limit = expected - header_len + 1;
    input.take(limit).read_to_end(&mut data).map_err(io_error)?;
    check_len(file, header_len + data.len() as u64, expected)?;
    Ok(Body { rows, cols, data })
}

/// Reads the next `N` numbers of a header, after `before` bytes.
fn read_numbers<const N: usize>(
    file: &Path,
    input: &mut dyn Read,
    before: u64,
    header_len: u64,
    io_error: impl Fn(io::Error) -> Error,
) -> Result<[u32; N]> {
    let mut bytes = Vec::with_capacity(4 * N);
    input.take(4 * N as u64).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() < 4 * N {
        let found = before + bytes.len() as u64;
        return Err(Error::ShortHeader { file: file.to_owned(), found, expected: header_len });
    }
    Ok(std::array::from_fn(|i| bytes[4 * i..4 * i + 4].iter().fold(0, |n, &byte| n << 8 | u32::from(byte))))
}

fn check_len(file: &Path, found: u64, expected: u64) -> Result<()> {
    let file = || file.to_owned();
    match found.cmp(&expected) {
        Ordering::Less => Err(Error::Short { file: file(), found, expected }),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(Error::TrailingBytes { file: file(), found, expected }),
    }
}
