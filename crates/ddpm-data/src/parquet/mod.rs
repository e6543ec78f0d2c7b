//! Reads and writes parquet files with one image and at most one label per row.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | the rows of the files of a split |
//! | `columns.rs` | the choice of the columns with images and labels |
//! | `checked.rs` | checks of what a file claims, before memory is allocated for it |
//! | `pages.rs` | checks of the values of a page |
//! | `decoder.rs` | PNG and JPEG images |
//! | `writer.rs` | files as the Hub has them |

mod checked;
mod columns;
mod decoder;
mod pages;
mod writer;

pub use writer::Writer;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::reader::{get_column_reader, get_typed_column_reader};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::SchemaDescriptor;

use self::checked::Checked;
use self::columns::{Column, Columns};
use self::decoder::Decoder;
use self::pages::CheckedPages;
use crate::content::{START, describe};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::idx::Images;

const MAGIC: &[u8] = b"PAR1";

/// The number of rows that are read at once.
const ROWS_PER_READ: usize = 1024;

/// Reads the rows of one or more files as a data set.
pub(crate) fn read(name: String, files: &[PathBuf]) -> Result<Dataset> {
    let mut rows = Rows::new(files.first().cloned().unwrap_or_default());
    for file in files {
        rows.add(file, &Reader::open(file)?)?;
    }
    rows.finish(name)
}

/// Reads a parquet file from memory. Error messages name `file`.
///
/// # Errors
/// Each error names the file: [`Error::NotParquet`], [`Error::Parquet`], [`Error::NoColumn`], [`Error::Column`],
/// [`Error::SeveralLabels`], [`Error::Null`], [`Error::Image`], [`Error::ImageSize`], [`Error::LabelOutOfRange`],
/// [`Error::OutOfRange`], [`Error::TooLarge`], [`Error::Empty`].
pub fn parse(file: &Path, bytes: Vec<u8>) -> Result<Dataset> {
    let bytes = Bytes::from(bytes);
    let mut rows = Rows::new(file.to_owned());
    rows.add(file, &Reader::new(file, bytes.clone(), &bytes[..bytes.len().min(START)])?)?;
    rows.finish(file.display().to_string())
}

/// The value of a key in the metadata of a file; `None` if the file has no such key.
///
/// # Errors
/// [`Error::Read`], [`Error::NotParquet`], [`Error::Parquet`].
pub fn metadata_value(file: &Path, key: &str) -> Result<Option<String>> {
    let reader = Reader::open(file)?;
    let pairs = reader.metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let found = pairs.into_iter().find(|pair| pair.key == key);
    Ok(found.and_then(|pair| pair.value.clone()))
}

/// Decodes a PNG or a JPEG, as the image of row 0 of `file`, which error messages name.
///
/// # Errors
/// [`Error::Image`].
pub fn parse_image(file: &Path, bytes: &[u8]) -> Result<Images> {
    let mut images = Decoder::new(file);
    images.push(0, bytes)?;
    images.finish()
}

/// The rows of the files so far.
struct Rows {
    first: PathBuf,
    images: Decoder,
    labels: Vec<Option<i64>>,
    columns: Option<Columns>,
}

impl Rows {
    fn new(first: PathBuf) -> Self {
        Self { images: Decoder::new(&first), first, labels: Vec::new(), columns: None }
    }

    fn add<R: ChunkReader + 'static>(&mut self, file: &Path, reader: &Reader<R>) -> Result<()> {
        let columns = Columns::find(file, reader.schema(), self.columns.as_ref())?;
        let (images, labels) = (&mut self.images, &mut self.labels);
        images.start(file);
        read_column::<ByteArrayType, R>(file, reader, &columns.image, |row, image| {
            let null = || Error::Null { file: file.to_owned(), column: columns.image.name.clone(), row };
            images.push(row, image.ok_or_else(null)?.data())
        })?;
        if let Some(label) = &columns.label {
            let mut push = |index, label: Option<i64>| {
                // -1 stands for no label.
                if let Some(label) = label.filter(|label| !(-1..=255).contains(label)) {
                    let (file, max) = (file.to_owned(), usize::from(u8::MAX));
                    return Err(Error::LabelOutOfRange { file, index, label, max });
                }
                labels.push(label);
                Ok(())
            };
            match label.physical_type {
                Type::INT32 => read_column::<Int32Type, R>(file, reader, label, |row, label| {
                    push(row, label.map(|&label| label.into()))
                })?,
                _ => {
                    read_column::<Int64Type, R>(file, reader, label, |row, label| push(row, label.copied()))?;
                }
            }
        }
        self.columns.get_or_insert(columns);
        Ok(())
    }

    fn finish(self, name: String) -> Result<Dataset> {
        let images = self.images.finish()?;
        let note = self.columns.as_ref().and_then(|columns| columns.note(&name));
        let set = match self.columns.and_then(|columns| columns.label) {
            Some(_) => Dataset::of_numbers(name, images, (self.first, self.labels))?,
            None => Dataset::new(name, images, None)?,
        };
        Ok(note.into_iter().fold(set, Dataset::with_note))
    }
}

/// A file, or its content in memory, and its metadata, both checked.
struct Reader<R> {
    pages: Arc<Checked<R>>,
    metadata: ParquetMetaData,
}

impl Reader<File> {
    fn open(file: &Path) -> Result<Self> {
        let read_error = |source| Error::Read { file: file.to_owned(), source };
        let content = File::open(file).map_err(read_error)?;
        let mut start = Vec::new();
        (&content).take(START as u64).read_to_end(&mut start).map_err(read_error)?;
        Self::new(file, content, &start)
    }
}

impl<R: ChunkReader> Reader<R> {
    /// `start` is the start of the content.
    fn new(file: &Path, content: R, start: &[u8]) -> Result<Self> {
        if !start.starts_with(MAGIC) {
            return Err(Error::NotParquet { file: file.to_owned(), found: describe(start) });
        }
        let parquet_error = |source| parquet_error(file, source);
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&content).map_err(parquet_error)?;
        checked::check_metadata(&metadata, content.len()).map_err(parquet_error)?;
        Ok(Self { pages: Arc::new(Checked::new(content)), metadata })
    }

    fn schema(&self) -> &SchemaDescriptor {
        self.metadata.file_metadata().schema_descr()
    }
}

/// Calls `visit` with the row number and the value of each row, in order. A null is `None`.
fn read_column<T: DataType, R: ChunkReader + 'static>(
    file: &Path,
    reader: &Reader<R>,
    column: &Column,
    mut visit: impl FnMut(usize, Option<&T::T>) -> Result<()>,
) -> Result<()> {
    let parquet_error = |source| parquet_error(file, source);
    let descriptor = reader.schema().column(column.index);
    // A value that is not null has this definition level.
    let max_level = descriptor.max_def_level();
    let mut row = 0;
    for group in reader.metadata.row_groups() {
        let (chunk, rows) =
            (group.column(column.index), usize::try_from(group.num_rows()).unwrap_or_default());
        let pages =
            SerializedPageReader::new(Arc::clone(&reader.pages), chunk, rows, None).map_err(parquet_error)?;
        let pages = CheckedPages::new(pages, column.physical_type);
        let mut values =
            get_typed_column_reader::<T>(get_column_reader(Arc::clone(&descriptor), Box::new(pages)));
        loop {
            let (mut levels, mut batch) = (Vec::new(), Vec::new());
            let (rows, _, _) = values
                .read_records(ROWS_PER_READ, Some(&mut levels), None, &mut batch)
                .map_err(parquet_error)?;
            if rows == 0 {
                break;
            }
            // A column that has no nulls has no levels.
            levels.resize(rows, max_level);
            let mut batch = batch.iter();
            for level in levels {
                visit(row, if level == max_level { batch.next() } else { None })?;
                row += 1;
            }
        }
    }
    let expected = reader.metadata.file_metadata().num_rows();
    if i64::try_from(row) == Ok(expected) {
        return Ok(());
    }
    let name = format!("{}: number of rows of column {}", file.display(), column.name);
    Err(Error::out_of_range(name, row, format!("{expected} according to the file's metadata")))
}

fn parquet_error(file: &Path, error: ParquetError) -> Error {
    // The text of an external error repeats the text of its source.
    let source = match error {
        ParquetError::External(source) => source,
        error => error.into(),
    };
    Error::Parquet { file: file.to_owned(), source }
}
