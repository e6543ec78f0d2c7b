//! Writes parquet files with the schema of the Hub: a struct of PNG bytes and path,
//! and a label.

use std::io::Cursor;
use std::sync::Arc;

use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat, codecs, codecs::png};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

pub(crate) const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional int64 label;
}";

/// The PNG and the label of a row. `None` is a null.
pub(crate) type Row = (Option<Vec<u8>>, Option<i64>);

/// A file with the schema [`SCHEMA`].
pub(crate) fn file(rows: &[Row]) -> Vec<u8> {
    let (images, labels) = rows.iter().cloned().unzip();
    // The paths are null, as in ylecun/mnist.
    let columns = [Cells::Bytes(images), Cells::Bytes(vec![None; rows.len()]), Cells::Int64(labels)];
    file_of(SCHEMA, Compression::SNAPPY, &columns)
}

/// The cells of a column. `None` is a null.
pub(crate) enum Cells {
    Bytes(Vec<Option<Vec<u8>>>),
    Int32(Vec<Option<i32>>),
    Int64(Vec<Option<i64>>),
}

/// A file of two row groups, which tests that row numbers count over both.
pub(crate) fn file_of(schema: &str, compression: Compression, columns: &[Cells]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let rows = match &columns[0] {
        Cells::Bytes(cells) => cells.len(),
        Cells::Int32(cells) => cells.len(),
        Cells::Int64(cells) => cells.len(),
    };
    let middle = rows.div_euclid(2);
    for range in [0..middle, middle..rows] {
        let mut group = writer.next_row_group().unwrap();
        for cells in columns {
            match cells {
                Cells::Bytes(cells) => {
                    let cells: Vec<_> =
                        cells[range.clone()].iter().cloned().map(|cell| cell.map(ByteArray::from)).collect();
                    write::<ByteArrayType>(&mut group, &cells);
                }
                Cells::Int32(cells) => write::<Int32Type>(&mut group, &cells[range.clone()]),
                Cells::Int64(cells) => write::<Int64Type>(&mut group, &cells[range.clone()]),
            }
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn write<T: DataType>(group: &mut SerializedRowGroupWriter<'_, Vec<u8>>, cells: &[Option<T::T>]) {
    let mut column = group.next_column().unwrap().unwrap();
    let column_writer = column.typed::<T>();
    let max = column_writer.get_descriptor().max_def_level();
    let levels: Vec<i16> = cells.iter().map(|cell| if cell.is_some() { max } else { 0 }).collect();
    let values: Vec<T::T> = cells.iter().flatten().cloned().collect();
    column_writer.write_batch(&values, Some(&levels), None).unwrap();
    column.close().unwrap();
}

/// A file without rows and with the given schema.
pub(crate) fn empty_file(schema: &str) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap().into_inner().unwrap()
}

/// A PNG with one grey channel.
pub(crate) fn grey(rows: u32, cols: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder =
        png::PngEncoder::new_with_quality(&mut bytes, png::CompressionType::Fast, png::FilterType::NoFilter);
    encoder.write_image(pixels, cols, rows, ExtendedColorType::L8).unwrap();
    bytes
}

/// The same image with three colour channels.
pub(crate) fn grey_as_rgb(rows: u32, cols: u32, pixels: &[u8]) -> Vec<u8> {
    let image = image::GrayImage::from_raw(cols, rows, pixels.to_vec()).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(DynamicImage::ImageLuma8(image).into_rgb8())
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// The same image as a JPEG of the best quality.
pub(crate) fn jpeg(rows: u32, cols: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
    encoder.write_image(pixels, cols, rows, ExtendedColorType::L8).unwrap();
    bytes
}
