//! The images and the labels among the arrays of a file.

use std::borrow::Cow;
use std::path::Path;

use super::scale::Scale;
use super::{array_error, check_len};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::idx::{Images, MAX_BYTES};

/// The names of an array of labels.
const LABELS: [&str; 3] = ["labels", "label", "y"];
/// The largest number of arrays that an error names.
const SHOWN: usize = 12;

/// The kind of the numbers of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unsigned,
    Signed,
    Float,
    /// Not a number of the other kinds.
    Other,
}

/// The type of the numbers of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) kind: Kind,
    /// Bytes of a number, at least 1.
    pub(super) width: usize,
    pub(super) is_big_endian: bool,
    /// The name of the type, for errors: `float32`.
    pub(super) name: String,
}

/// What a file says about an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
}

/// An array of a file.
pub(super) struct Array<'a> {
    pub(super) header: Header,
    /// The bytes of [`Header::bytes`], in row-major order.
    pub(super) data: Cow<'a, [u8]>,
}

/// A file with named arrays.
pub(super) trait Arrays {
    /// The names of all arrays, in an order that depends on the file only.
    fn names(&self) -> Vec<String>;

    /// Reads an array. The data is read only if `check` allows the header.
    fn read(&mut self, name: &str, check: &dyn Fn(&Header) -> Result<()>) -> Result<Array<'_>>;
}

/// Reads images, of `size` if it is given, and their labels if the file has them.
pub(super) fn dataset(file: &Path, arrays: &mut dyn Arrays, size: Option<[usize; 2]>) -> Result<Dataset> {
    let (labels, images): (Vec<_>, Vec<_>) =
        arrays.names().into_iter().partition(|name| LABELS.contains(&name.as_str()));
    let [image, label] = [("images", &images), ("labels", &labels)].map(|(content, names)| {
        let exact = names.iter().find(|name| *name == content);
        match (exact, names.as_slice()) {
            (Some(name), _) | (None, [name]) => Ok(Some(name.clone())),
            (None, []) => Ok(None),
            (None, several) => {
                let mut arrays: Vec<_> = several.iter().take(SHOWN).cloned().collect();
                if several.len() > SHOWN {
                    arrays.push("…".to_owned());
                }
                Err(Error::SeveralArrays { file: file.to_owned(), content, arrays })
            }
        }
    });
    let Some(name) = image? else {
        return Err(Error::NotImages {
            file: file.to_owned(),
            found: "a file without an array of images".into(),
        });
    };
    let label = label?;
    let array = arrays.read(&name, &|header| size_of_images(file, &name, header, size).map(drop))?;
    let [rows, cols] = size_of_images(file, &name, &array.header, size)?;
    let (pixels, note) = grey_levels(file, &name, &array)?;
    drop(array);
    let found = Images::new(file, rows, cols, pixels)?;
    let set = match &label {
        None => Dataset::new(file.display().to_string(), found, None)?,
        Some(label) => {
            let array = arrays.read(label, &|header| check_labels(file, label, header))?;
            let numbers = integers(&array).map(Some).collect();
            Dataset::of_numbers(file.display().to_string(), found, (file.to_owned(), numbers))?
        }
    };
    let is_read = |other: &&String| **other == name || Some(*other) == label.as_ref();
    let others: Vec<_> = images.iter().chain(&labels).filter(|other| !is_read(other)).take(SHOWN).collect();
    let others = others.into_iter().map(|other| format!("{}: the array {other} is not read", file.display()));
    Ok(note.into_iter().chain(others).fold(set, Dataset::with_note))
}

impl Header {
    /// The number of bytes of the array, at most [`MAX_BYTES`].
    pub(super) fn bytes(&self, file: &Path) -> Result<usize> {
        let sizes = self.shape.iter().chain([&self.element.width]);
        // A size of 0 makes the product 0, whatever the others are.
        let product = if self.shape.contains(&0) {
            Some(0)
        } else {
            sizes.map(|&size| size as u128).try_fold(1_u128, u128::checked_mul)
        };
        let claimed = product.unwrap_or(u128::MAX);
        let too_large = || Error::TooLarge { file: file.to_owned(), claimed, limit: MAX_BYTES };
        let bytes = u64::try_from(claimed).map_err(|_| too_large())?;
        check_len(file, bytes)?;
        usize::try_from(bytes).map_err(|_| too_large())
    }
}

/// The rows and columns of an array of images, which are `size` if it is given.
fn size_of_images(file: &Path, name: &str, header: &Header, size: Option<[usize; 2]>) -> Result<[usize; 2]> {
    let Header { element, shape } = header;
    let is_read = matches!((element.kind, element.width), (Kind::Unsigned, 1) | (Kind::Float, 4 | 8));
    if !is_read {
        return Err(array_error(
            file,
            name,
            format!("the type {}", element.name),
            "uint8, float32 or float64",
        ));
    }
    let expected = match (shape.get(1..), size) {
        (Some(&[r, c] | &[1, r, c] | &[r, c, 1]), size)
            if size.map_or(r > 0 && c > 0, |size| size == [r, c]) =>
        {
            return Ok([r, c]);
        }
        (Some(&[pixels]), Some(size @ [rows, cols])) if Some(pixels) == rows.checked_mul(cols) => {
            return Ok(size);
        }
        (_, Some([rows, cols])) => format!(
            "N grey images of {rows}x{cols}: [N, {rows}, {cols}], [N, 1, {rows}, {cols}], [N, {rows}, {cols}, 1] or \
             [N, {}]",
            rows.saturating_mul(cols)
        ),
        (_, None) => "N grey images: [N, rows, cols], [N, 1, rows, cols] or [N, rows, cols, 1], or [N, rows·cols] with \
                      the size of an image"
            .to_owned(),
    };
    Err(array_error(file, name, format!("the shape {shape:?}"), expected))
}

fn check_labels(file: &Path, name: &str, Header { element, shape }: &Header) -> Result<()> {
    if !matches!(element.kind, Kind::Unsigned | Kind::Signed) {
        return Err(array_error(file, name, format!("the type {}", element.name), "integers"));
    }
    match shape.len() {
        1 => Ok(()),
        _ => Err(array_error(file, name, format!("the shape {shape:?}"), "[N], the class of each image")),
    }
}

/// The grey levels of an array that [`size_of_images`] has checked, and a sentence on their scale.
fn grey_levels(file: &Path, name: &str, array: &Array<'_>) -> Result<(Vec<u8>, Option<String>)> {
    let error = |found: String, expected| array_error(file, name, found, expected);
    if array.header.element.kind == Kind::Unsigned {
        // Images of zeros and ones would silently be black.
        return match array.data.iter().max() {
            Some(1) => Err(error("no value above 1".to_owned(), "grey levels from 0, black, to 255, white")),
            _ => Ok((array.data.to_vec(), None)),
        };
    }
    let (mut smallest, mut largest) = (f64::INFINITY, f64::NEG_INFINITY);
    for (place, value) in floats(array).enumerate() {
        if !value.is_finite() {
            return Err(error(format!("the value {value} at position {place}"), "finite numbers"));
        }
        (smallest, largest) = (smallest.min(value), largest.max(value));
    }
    if array.data.is_empty() {
        return Ok((Vec::new(), None));
    }
    let Some(scale) = Scale::of(smallest, largest) else {
        let expected = "values from 0 to 1, or from -1 to 1 with a smallest value of -0.5 or less, or grey levels as uint8";
        return Err(error(format!("values from {smallest} to {largest}"), expected));
    };
    let [black, white] = scale.ends();
    let note = format!(
        "{}: the values are from {smallest} to {largest}, so {black} is black and {white} is white",
        file.display()
    );
    Ok((floats(array).map(|value| scale.grey_level(value)).collect(), Some(note)))
}

/// The numbers of an array, each in 8 little-endian bytes that begin with its own bytes, and the number of these.
fn numbers<'a>(array: &'a Array<'_>) -> impl Iterator<Item = ([u8; 8], usize)> + 'a {
    let Element { width, is_big_endian, .. } = array.header.element;
    array.data.chunks_exact(width).map(move |number| {
        let mut bytes = [0; 8];
        for (place, &byte) in number.iter().enumerate() {
            bytes[if is_big_endian { width - 1 - place } else { place }] = byte;
        }
        (bytes, width)
    })
}

/// The floats of 32 or 64 bits of an array.
fn floats<'a>(array: &'a Array<'_>) -> impl Iterator<Item = f64> + 'a {
    numbers(array).map(|(bytes, width)| match width {
        4 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into(),
        _ => f64::from_le_bytes(bytes),
    })
}

/// The integers of an array. One that is too large is the largest `i64`.
fn integers<'a>(array: &'a Array<'_>) -> impl Iterator<Item = i64> + 'a {
    let is_signed = array.header.element.kind == Kind::Signed;
    numbers(array).map(move |(bytes, width)| {
        let number = u64::from_le_bytes(bytes);
        let unused = 64 - 8 * width;
        if is_signed {
            // The sign is in the highest of the bits that are used.
            (number << unused).cast_signed() >> unused
        } else {
            i64::try_from(number).unwrap_or(i64::MAX)
        }
    })
}
