//! Writes parquet files with the schema of the Hub: a struct of PNG bytes and path,
//! and a label.

use std::io::Cursor;
use std::sync::Arc;

use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat, codecs::png};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

pub(crate) const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional int64 label;
}";

/// The PNG and the label of a row. `None` is a null.
pub(crate) type Row = (Option<Vec<u8>>, Option<i64>);

/// A file of two row groups, which tests that row numbers count over both.
pub(crate) fn file(rows: &[Row]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let middle = rows.len().div_euclid(2);
    for rows in [&rows[..middle], &rows[middle..]] {
        let mut group = writer.next_row_group().unwrap();
        let images: Vec<_> = rows.iter().filter_map(|row| row.0.clone()).map(ByteArray::from).collect();
        let levels: Vec<_> = rows.iter().map(|row| if row.0.is_some() { 2 } else { 0 }).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&images, Some(&levels), None).unwrap();
        column.close().unwrap();

        // The paths are null, as in ylecun/mnist.
        let mut column = group.next_column().unwrap().unwrap();
        let levels: Vec<_> = rows.iter().map(|row| i16::from(row.0.is_some())).collect();
        column.typed::<ByteArrayType>().write_batch(&[], Some(&levels), None).unwrap();
        column.close().unwrap();

        let labels: Vec<_> = rows.iter().filter_map(|row| row.1).collect();
        let levels: Vec<_> = rows.iter().map(|row| i16::from(row.1.is_some())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
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
