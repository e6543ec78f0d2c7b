//! Reads parquet files with one PNG image and one label per row.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use image::{ImageError, ImageFormat, ImageReader, Limits};
use parquet::basic::Type as PhysicalType;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use crate::error::{Error, Result};
use crate::idx::{Images, Labels, MAX_BYTES};

const IMAGE: &str = "image.bytes";
const LABEL: &str = "label";

/// The number of rows that are read at once.
const ROWS_PER_READ: usize = 1024;

/// The largest height and width of an image, in pixels.
const MAX_SIDE: u32 = 4096;

/// Reads the images and, if the file has a label column, the labels.
pub(super) fn read(file: &Path) -> Result<(Images, Option<Labels>)> {
    let input = File::open(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
    let reader = SerializedFileReader::new(input).map_err(|source| parquet_error(file, source))?;
    let schema = reader.metadata().file_metadata().schema_descr();

    let expected = "a byte array";
    let image_column = column(file, schema, IMAGE, PhysicalType::BYTE_ARRAY, expected)?.ok_or_else(|| {
        Error::Column { file: file.to_owned(), column: IMAGE, found: "missing".to_owned(), expected }
    })?;
    let label_column = column(file, schema, LABEL, PhysicalType::INT64, "a 64-bit integer")?;

    let mut images = Decoder { file, size: [0; 2], pixels: Vec::new(), count: 0 };
    read_column::<ByteArrayType>(file, &reader, image_column, IMAGE, |_, png| images.push(png.data()))?;
    let Some(label_column) = label_column else {
        return Ok((images.finish()?, None));
    };
    let mut values = Vec::new();
    read_column::<Int64Type>(file, &reader, label_column, LABEL, |index, &label| {
        let max = usize::from(u8::MAX);
        let error = |_| Error::LabelOutOfRange { file: file.to_owned(), index, label, max };
        values.push(u8::try_from(label).map_err(error)?);
        Ok(())
    })?;
    Ok((images.finish()?, Some(Labels { file: file.to_owned(), values })))
}

/// Finds a column and checks its type. Returns its index, or `None` if it is missing.
fn column(
    file: &Path,
    schema: &SchemaDescriptor,
    column: &'static str,
    physical_type: PhysicalType,
    expected: &'static str,
) -> Result<Option<usize>> {
    let Some(index) = schema.columns().iter().position(|candidate| candidate.path().string() == column)
    else {
        return Ok(None);
    };
    let found = schema.column(index);
    if found.physical_type() == physical_type && found.max_rep_level() == 0 {
        return Ok(Some(index));
    }
    let list = if found.max_rep_level() == 0 { "" } else { "a list of " };
    let found = format!("{list}{}", found.physical_type());
    Err(Error::Column { file: file.to_owned(), column, found, expected })
}

/// Calls `visit` with the row number and the value of each row, in order.
fn read_column<T: DataType>(
    file: &Path,
    reader: &SerializedFileReader<File>,
    index: usize,
    column: &'static str,
    mut visit: impl FnMut(usize, &T::T) -> Result<()>,
) -> Result<()> {
    // A value that is not null has this definition level.
    let max_level = reader.metadata().file_metadata().schema_descr().column(index).max_def_level();
    let mut row = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(|source| parquet_error(file, source))?;
        let values = group.get_column_reader(index).map_err(|source| parquet_error(file, source))?;
        let mut values = get_typed_column_reader::<T>(values);
        loop {
            let (mut levels, mut batch) = (Vec::new(), Vec::new());
            let (rows, _, _) = values
                .read_records(ROWS_PER_READ, Some(&mut levels), None, &mut batch)
                .map_err(|source| parquet_error(file, source))?;
            if rows == 0 {
                break;
            }
            if let Some(null) = levels.iter().position(|&level| level < max_level) {
                return Err(Error::Null { file: file.to_owned(), column, row: row + null });
            }
            for value in &batch {
                visit(row, value)?;
                row += 1;
            }
        }
    }
    let expected = reader.metadata().file_metadata().num_rows();
    if i64::try_from(row) == Ok(expected) {
        return Ok(());
    }
    let name = format!("{}: number of rows of column {column}", file.display());
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

/// Decodes PNG images of one size, row by row.
struct Decoder<'a> {
    file: &'a Path,
    /// Rows and columns of the first image.
    size: [usize; 2],
    pixels: Vec<u8>,
    count: usize,
}

impl Decoder<'_> {
    fn push(&mut self, png: &[u8]) -> Result<()> {
        let (file, row) = (|| self.file.to_owned(), self.count);
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        let mut reader = ImageReader::with_format(Cursor::new(png), ImageFormat::Png);
        reader.limits(limits);
        // As text only: an error of `image` repeats the text of its source.
        let png_error =
            |error: ImageError| Error::Png { file: file(), row, source: error.to_string().into() };
        let decoded = reader.decode().map_err(png_error)?;
        let image = decoded.into_luma8();
        // The casts from u32 to usize only widen.
        let found = [image.height() as usize, image.width() as usize];
        if row == 0 {
            self.size = found;
        }
        let expected = self.size;
        if found != expected {
            return Err(Error::ImageSize { file: file(), row, found, expected });
        }
        let claimed = self.pixels.len() as u64 + image.len() as u64;
        if claimed > MAX_BYTES {
            return Err(Error::TooLarge { file: file(), claimed: claimed.into(), limit: MAX_BYTES });
        }
        self.pixels.extend_from_slice(&image);
        self.count += 1;
        Ok(())
    }

    fn finish(self) -> Result<Images> {
        if self.count == 0 {
            return Err(Error::Empty { file: self.file.to_owned() });
        }
        Images::new(self.file, self.size[0], self.size[1], self.pixels)
    }
}
