//! A ZIP archive of NumPy arrays, as `numpy.savez` and `numpy.savez_compressed` write it.

use std::io::{self, Read, Seek};
use std::path::Path;

use flate2::CrcReader;
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::arrays::{self, Array, Arrays, Header};
use super::npy;
use crate::dataset::Dataset;
use crate::error::{Cause, Error, Result};

/// Reads the images of an `.npz` file, and their labels if it has them.
pub(super) fn read(file: &Path, input: impl Read + Seek, size: Option<[usize; 2]>) -> Result<Dataset> {
    let archive = ZipArchive::new(input).map_err(|error| npz_error(file, error.to_string()))?;
    if archive.has_duplicate_names() {
        return Err(npz_error(file, "two of its files have the same name"));
    }
    arrays::dataset(file, &mut Npz { file, archive }, size)
}

struct Npz<'a, R> {
    file: &'a Path,
    archive: ZipArchive<R>,
}

impl<R: Read + Seek> Arrays for Npz<'_, R> {
    /// The names of the files that end in `.npy`, without the ending.
    fn names(&self) -> Vec<String> {
        let names = self.archive.file_names_raw().filter_map(|name| std::str::from_utf8(name).ok());
        names.filter_map(|name| name.strip_suffix(".npy")).map(str::to_owned).collect()
    }

    fn read(&mut self, name: &str, check: &dyn Fn(&Header) -> Result<()>) -> Result<Array<'_>> {
        let file = self.file;
        let error = |source: String| npz_error(file, source);
        let index = self.archive.index_for_name_raw(format!("{name}.npy").as_bytes());
        let index = index.ok_or_else(|| error(format!("it has no file {name}.npy")))?;
        // The bytes as they are stored: unpacking them here needs no feature of the library.
        let entry = self.archive.by_index_raw(index).map_err(|source| error(source.to_string()))?;
        if entry.encrypted() {
            return Err(error(format!("{name}.npy is encrypted")));
        }
        let (method, crc) = (entry.compression(), entry.crc32());
        let input: Box<dyn Read + '_> = match method {
            CompressionMethod::Stored => Box::new(entry),
            CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(entry)),
            other => return Err(error(format!("{name}.npy is compressed with {other}, expected deflate"))),
        };
        let mut input = CrcReader::new(input);
        let io_error = |source: io::Error| error(format!("{name}.npy: {source}"));
        let array = npy::read_array(file, name, &mut input, check, io_error)?;
        // The array is all that the entry has, so the checksum is complete.
        if input.crc().sum() != crc {
            return Err(error(format!("the checksum of {name}.npy is wrong")));
        }
        Ok(array)
    }
}

fn npz_error(file: &Path, source: impl Into<Cause>) -> Error {
    Error::Npz { file: file.to_owned(), source: source.into() }
}
