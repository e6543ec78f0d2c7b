//! Images in files of other programs: PNG, NumPy and safetensors files, and single IDX files.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | [`Dataset::from_path`], and the format of a file by its content |
//! | `folder.rs` | PNG images, folders of them or of IDX files |
//! | `png.rs` | one PNG image |
//! | `arrays.rs` | the images and the labels among the arrays of a file |
//! | `scale.rs` | grey levels from floats |
//! | `npz.rs`, `npy.rs` | NumPy arrays in a ZIP archive, and one array |
//! | `tensors.rs` | safetensors files |

mod arrays;
mod folder;
mod npy;
mod npz;
mod png;
mod scale;
mod tensors;

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use crate::content::{START, describe};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::idx::MAX_BYTES;

impl Dataset {
    /// Reads grey images that any program wrote. With a `size` (rows, columns) they must have it; with `None` they have the
    /// size of the first one. `path` is one of
    ///
    /// | path | images | labels |
    /// | --- | --- | --- |
    /// | a PNG image | this one | none |
    /// | a folder of PNG images | in the order of their names | none |
    /// | a folder of folders of PNG images | class by class, in each class in the order of their names | the name of the folder, 0 to 255 |
    /// | an IDX file, or a folder with one, such as `a-images-idx3-ubyte` or `a-images-idx3-ubyte.gz` | of the file | of `a-labels-idx1-ubyte`, if it is in the same folder |
    /// | an `.npz` or `.safetensors` file | the array `images`, or the only one besides the labels | the array `labels`, `label` or `y`: integers of shape \[N\] |
    /// | an `.npy` file | its array | none |
    ///
    /// The content of a file decides on its format, not its name. An array of images has the shape \[N, rows, cols\],
    /// \[N, 1, rows, cols\], \[N, rows, cols, 1\] or \[N, rows · cols\], which needs a `size`. Its numbers are grey levels (`uint8`) or floats of
    /// 32 or 64 bits on one of two scales. The smallest and the largest value decide on the scale, and
    /// [`notes`](Self::notes) says so:
    ///
    /// | smallest value | largest value | grey level of x |
    /// | --- | --- | --- |
    /// | 0 or more | 1 or less | 255 x, rounded |
    /// | −1 to −0.5 | 1 or less | 127.5 (x + 1), rounded |
    ///
    /// Rounding errors of half a grey level beyond these ranges are allowed, any other range is an error. A PNG image
    /// has up to 8 bits; one that is stored with colours or transparency must be grey and opaque in each pixel.
    ///
    /// # Errors
    /// Each error names the file. [`Error::NotImages`] if the file has another format, [`Error::NoImages`],
    /// [`Error::MixedFolder`] or [`Error::ClassFolder`] if the folder has another content, [`Error::Ambiguous`] or
    /// [`Error::SeveralFiles`] if it has several IDX files, [`Error::PictureSize`], [`Error::Size`] or
    /// [`Error::Array`] if the images have another size or type, [`Error::SeveralArrays`], [`Error::Png`],
    /// [`Error::NotGrey`], [`Error::Npz`], [`Error::Safetensors`], [`Error::TooLarge`], [`Error::Read`], the errors of
    /// [`idx::read_images`](crate::idx::read_images) and of [`Dataset::new`].
    pub fn from_path(path: &Path, size: impl Into<Option<[usize; 2]>>) -> Result<Self> {
        let size = size.into();
        if path.is_dir() {
            return folder::read(path, size);
        }
        let error = |source| Error::Read { file: path.to_owned(), source };
        let mut file = File::open(path).map_err(error)?;
        let len = file.metadata().map_err(error)?.len();
        let mut start = Vec::new();
        file.by_ref().take(START as u64).read_to_end(&mut start).map_err(error)?;
        file.rewind().map_err(error)?;
        let mut input = BufReader::new(file);
        match Format::of(&start) {
            Some(Format::Idx) => folder::read_idx(path, size),
            Some(Format::Png) => folder::read_png(path, size),
            Some(Format::Npz) => npz::read(path, input, size),
            Some(Format::Npy) => npy::read(path, &mut input, size),
            Some(Format::Safetensors) => {
                check_len(path, len)?;
                let mut bytes = Vec::new();
                input.take(len).read_to_end(&mut bytes).map_err(error)?;
                tensors::read(path, &bytes, size)
            }
            None => Err(Error::NotImages { file: path.to_owned(), found: describe(&start) }),
        }
    }
}

/// Reads an `.npz`, `.npy` or `.safetensors` file from memory. Error messages name `file`.
///
/// # Errors
/// As [`Dataset::from_path`].
pub fn parse(file: &Path, bytes: &[u8], size: impl Into<Option<[usize; 2]>>) -> Result<Dataset> {
    let size = size.into();
    match Format::of(bytes) {
        Some(Format::Npz) => npz::read(file, Cursor::new(bytes), size),
        Some(Format::Npy) => npy::read(file, &mut &*bytes, size),
        Some(Format::Safetensors) => tensors::read(file, bytes, size),
        Some(Format::Idx | Format::Png) | None => {
            let found = describe(&bytes[..bytes.len().min(START)]);
            Err(Error::NotImages { file: file.to_owned(), found })
        }
    }
}

/// The format of a file.
enum Format {
    Idx,
    Png,
    Npz,
    Npy,
    Safetensors,
}

impl Format {
    /// The format of a file that starts with `bytes`.
    fn of(bytes: &[u8]) -> Option<Self> {
        let is = |signature: &[u8]| bytes.starts_with(signature);
        if tensors::is_start(bytes) {
            Some(Self::Safetensors)
        } else if is(npy::MAGIC) {
            Some(Self::Npy)
        } else if is(b"PK\x03\x04") || is(b"PK\x05\x06") {
            Some(Self::Npz)
        } else if is(png::MAGIC) {
            Some(Self::Png)
        } else if is(&[0, 0]) || is(&[0x1f, 0x8b]) {
            // The reader of IDX files says what else such a file may be.
            Some(Self::Idx)
        } else {
            None
        }
    }
}

/// Checks the number of bytes that are read into memory.
fn check_len(file: &Path, len: u64) -> Result<()> {
    if len <= MAX_BYTES {
        return Ok(());
    }
    Err(Error::TooLarge { file: file.to_owned(), claimed: len.into(), limit: MAX_BYTES })
}

/// The error about an array.
fn array_error(
    file: &Path,
    array: &str,
    found: impl Into<Box<str>>,
    expected: impl Into<std::borrow::Cow<'static, str>>,
) -> Error {
    Error::Array {
        file: file.to_owned(),
        array: array.into(),
        found: found.into(),
        expected: expected.into(),
    }
}
