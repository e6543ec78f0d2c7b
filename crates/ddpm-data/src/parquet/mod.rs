//! Reads parquet files with one image and at most one label per row.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | the rows of the files of a split |
//! | `columns.rs` | the choice of the columns with images and labels |
//! | `checked.rs` | checks of what a file claims, before memory is allocated for it |
//! | `pages.rs` | checks of the values of a page |
//! | `decoder.rs` | PNG and JPEG images |

mod checked;
mod columns;
mod decoder;
mod pages;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::{get_column_reader, get_typed_column_reader};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::Length;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::SchemaDescriptor;

use self::checked::CheckedFile;
use self::columns::{Column, Columns};
use self::decoder::Decoder;
use self::pages::CheckedPages;
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// The number of rows that are read at once.
const ROWS_PER_READ: usize = 1024;

/// Reads the rows of one or more files as a data set.
pub(crate) fn read(name: String, files: &[PathBuf]) -> Result<Dataset> {
    let first = files.first().cloned().unwrap_or_default();
    let (mut images, mut labels) = (Decoder::new(&first), Vec::new());
    let mut found: Option<Columns> = None;
    for file in files {
        let reader = Reader::open(file)?;
        let columns = Columns::find(file, reader.schema(), found.as_ref())?;
        images.start(file);
        read_column::<ByteArrayType>(file, &reader, &columns.image, |row, image| {
            let null = || Error::Null { file: file.clone(), column: columns.image.name.clone(), row };
            images.push(row, image.ok_or_else(null)?.data())
        })?;
        if let Some(label) = &columns.label {
            let mut push = |index, label: Option<i64>| {
                // -1 stands for no label.
                if let Some(label) = label.filter(|label| !(-1..=255).contains(label)) {
                    let (file, max) = (file.clone(), usize::from(u8::MAX));
                    return Err(Error::LabelOutOfRange { file, index, label, max });
                }
                labels.push(label);
                Ok(())
            };
            match label.physical_type {
                Type::INT32 => read_column::<Int32Type>(file, &reader, label, |row, label| {
                    push(row, label.map(|&label| label.into()))
                })?,
                _ => read_column::<Int64Type>(file, &reader, label, |row, label| push(row, label.copied()))?,
            }
        }
        found.get_or_insert(columns);
    }
    let images = images.finish()?;
    let note = found.as_ref().and_then(|columns| columns.note(&name));
    let set = match found.and_then(|columns| columns.label) {
        Some(_) => Dataset::of_numbers(name, images, (first, labels))?,
        None => Dataset::new(name, images, None)?,
    };
    Ok(note.into_iter().fold(set, Dataset::with_note))
}

/// A file and its metadata, both checked.
struct Reader {
    pages: Arc<CheckedFile>,
    metadata: ParquetMetaData,
}

impl Reader {
    fn open(file: &Path) -> Result<Self> {
        let read_error = |source| Error::Read { file: file.to_owned(), source };
        let parquet_error = |source| parquet_error(file, source);
        let pages = CheckedFile::new(File::open(file).map_err(read_error)?).map_err(read_error)?;
        if let Some(found) = pages.other_kind().map_err(read_error)? {
            return Err(Error::NotParquet { file: file.to_owned(), found });
        }
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&pages.file).map_err(parquet_error)?;
        checked::check_metadata(&metadata, pages.len()).map_err(parquet_error)?;
        Ok(Self { pages: Arc::new(pages), metadata })
    }

    fn schema(&self) -> &SchemaDescriptor {
        self.metadata.file_metadata().schema_descr()
    }
}

/// Calls `visit` with the row number and the value of each row, in order. A null is `None`.
fn read_column<T: DataType>(
    file: &Path,
    reader: &Reader,
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
