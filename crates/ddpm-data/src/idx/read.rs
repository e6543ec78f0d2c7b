//! The reader. It does not trust a header: it compares the size that the header
//! gives with [`MAX_BYTES`] and with the size of the file before it allocates
//! memory. It decompresses a gzip file at most one byte past that size.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::{IdxKind, Images, Labels};
use crate::content::{START, describe};
use crate::error::{Error, Result};

/// The largest uncompressed IDX file that can be read, in bytes: 2 GiB.
pub const MAX_BYTES: u64 = 1 << 31;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads a file of images, uncompressed or gzip.
///
/// # Errors
/// Each error names the file: [`Error::Read`], [`Error::Gzip`], [`Error::NotIdx`],
/// [`Error::WrongKind`], [`Error::ShortHeader`], [`Error::ZeroSize`],
/// [`Error::TooLarge`], [`Error::Short`], [`Error::TrailingBytes`].
pub fn read_images(file: &Path) -> Result<Images> {
    open(file, IdxKind::Images).map(|body| body.into_images(file))
}

/// Reads a file of labels, uncompressed or gzip. A label is an integer of 8, 16 or 32
/// bits from 0 to 255. In two dimensions, as in QMNIST, it is the first number of each
/// row.
///
/// # Errors
/// The same as [`read_images`], and [`Error::LabelOutOfRange`].
pub fn read_labels(file: &Path) -> Result<Labels> {
    Labels::new(file, read_numbers(file)?.into_iter().enumerate())
}

/// Reads a file of labels as [`read_labels`], of any value.
pub(crate) fn read_numbers(file: &Path) -> Result<Vec<i64>> {
    open(file, IdxKind::Labels).map(|body| body.into_numbers())
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
/// The same as [`read_labels`].
pub fn parse_labels(file: &Path, bytes: &[u8]) -> Result<Labels> {
    let body = read(file, bytes, Some(bytes.len() as u64), IdxKind::Labels)?;
    Labels::new(file, body.into_numbers().into_iter().enumerate())
}

/// Reads images from uncompressed IDX data of unknown length. Error messages name `file`.
#[cfg(feature = "mnist")]
pub(crate) fn images_from(file: &Path, input: &mut dyn Read) -> Result<Images> {
    stream(file, input, IdxKind::Images).map(|body| body.into_images(file))
}

/// Reads labels from uncompressed IDX data of unknown length. Error messages name `file`.
#[cfg(feature = "mnist")]
pub(crate) fn labels_from(file: &Path, input: &mut dyn Read) -> Result<Labels> {
    let body = stream(file, input, IdxKind::Labels)?;
    Labels::new(file, body.into_numbers().into_iter().enumerate())
}

#[cfg(feature = "mnist")]
fn stream(file: &Path, input: &mut dyn Read, kind: IdxKind) -> Result<Body> {
    read_idx(file, input, None, kind, |source| Error::Read { file: file.to_owned(), source })
}

/// The type of the numbers in an IDX file, from the third byte of its magic number.
#[derive(Clone, Copy)]
struct Element {
    code: u8,
    name: &'static str,
    /// Bytes of a number.
    width: u8,
}

const UNSIGNED_BYTES: Element = Element { code: 0x08, name: "unsigned bytes", width: 1 };
/// The types of images and labels come first, as far as they are read.
const ELEMENTS: [Element; 6] = [
    UNSIGNED_BYTES,
    Element { code: 0x09, name: "signed bytes", width: 1 },
    Element { code: 0x0b, name: "16-bit integers", width: 2 },
    Element { code: 0x0c, name: "32-bit integers", width: 4 },
    Element { code: 0x0d, name: "32-bit floats", width: 4 },
    Element { code: 0x0e, name: "64-bit floats", width: 8 },
];
const INTEGERS: usize = 4;

/// The type and the sizes that a header gives, and the bytes after it.
struct Body {
    element: Element,
    sizes: Vec<u32>,
    data: Vec<u8>,
}

impl Body {
    fn into_images(self, file: &Path) -> Images {
        // `read_idx` has checked that there are three sizes. The casts from u32 to usize only widen.
        let [rows, cols] = [1, 2].map(|axis| self.sizes[axis] as usize);
        Images { file: file.to_owned(), rows, cols, pixels: self.data }
    }

    /// The first number of each row.
    fn into_numbers(self) -> Vec<i64> {
        let row = self.sizes.get(1).map_or(1, |&columns| columns as usize);
        let width = usize::from(self.element.width);
        let rows = self.data.chunks_exact(row * width);
        rows.map(|row| {
            let unsigned = row[..width].iter().fold(0, |number, &byte| number << 8 | i64::from(byte));
            let signed = self.element.code != UNSIGNED_BYTES.code && row[0] >= 0x80;
            if signed { unsigned - (1 << (8 * width)) } else { unsigned }
        })
        .collect()
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
        read_idx(file, &mut MultiGzDecoder::new(input), None, kind, gzip_error).map_err(|error| match error {
            Error::NotIdx { file, found, expected } => {
                Error::NotIdx { file, found: format!("a gzip file whose content is {found}"), expected }
            }
            error => error,
        })
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
    let mut magic = Vec::with_capacity(4);
    input.take(4).read_to_end(&mut magic).map_err(&io_error)?;
    let &[first, second, code, dimensions] = magic.as_slice() else {
        let (found, expected) = (magic.len() as u64, kind.header_len());
        return Err(Error::ShortHeader { file: file.to_owned(), found, expected });
    };
    let element = ELEMENTS.into_iter().find(|element| [first, second, code] == [0, 0, element.code]);
    let Some(element) = element.filter(|_| dimensions > 0) else {
        // The error is the same if the rest cannot be read.
        let _ = input.take(START as u64).read_to_end(&mut magic);
        return Err(Error::NotIdx { file: file.to_owned(), found: describe(&magic), expected: kind });
    };
    let header_len = 4 + 4 * u64::from(dimensions);
    let mut sizes = Vec::with_capacity(4 * usize::from(dimensions));
    input.take(header_len - 4).read_to_end(&mut sizes).map_err(&io_error)?;
    let found = 4 + sizes.len() as u64;
    let sizes: Vec<u32> =
        sizes.chunks_exact(4).map(|size| size.iter().fold(0, |n, &byte| n << 8 | u32::from(byte))).collect();
    check_kind(file, element, dimensions, &sizes, kind)?;
    if found < header_len {
        return Err(Error::ShortHeader { file: file.to_owned(), found, expected: header_len });
    }
    if let (IdxKind::Images, &[_, rows, cols]) = (kind, sizes.as_slice())
        && (rows == 0 || cols == 0)
    {
        return Err(Error::ZeroSize { file: file.to_owned(), rows, cols });
    }
    // The product of at most three 32-bit numbers and a width of 4 fits in 128 bits.
    let numbers: u128 = sizes.iter().map(|&size| u128::from(size)).product();
    let claimed = u128::from(header_len) + numbers * u128::from(element.width);
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
    Ok(Body { element, sizes, data })
}

/// Checks that the numbers of a file are images, or labels.
fn check_kind(file: &Path, element: Element, dimensions: u8, sizes: &[u32], kind: IdxKind) -> Result<()> {
    let is_integer = ELEMENTS[..INTEGERS].iter().any(|integer| integer.code == element.code);
    let found = match dimensions {
        3 if element.code == UNSIGNED_BYTES.code => Some(IdxKind::Images),
        1 if is_integer => Some(IdxKind::Labels),
        2 if is_integer && sizes.get(1) != Some(&0) => Some(IdxKind::Labels),
        _ => None,
    };
    let (file, expected) = (file.to_owned(), kind);
    match found {
        Some(found) if found == kind => Ok(()),
        Some(found) => Err(Error::WrongKind { file, found, expected }),
        None => {
            let sizes: Vec<_> = sizes.iter().map(u32::to_string).collect();
            let sizes = if sizes.is_empty() { String::new() } else { format!(" ({})", sizes.join("×")) };
            let found = format!("IDX data of {} in {dimensions} dimensions{sizes}", element.name);
            Err(Error::NotIdx { file, found, expected })
        }
    }
}

fn check_len(file: &Path, found: u64, expected: u64) -> Result<()> {
    let file = || file.to_owned();
    match found.cmp(&expected) {
        Ordering::Less => Err(Error::Short { file: file(), found, expected }),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(Error::TrailingBytes { file: file(), found, expected }),
    }
}
