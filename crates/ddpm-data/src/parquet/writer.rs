//! Writes parquet files as the Hub has data sets of images.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use crate::error::{Error, Result};

/// The columns `image`, a struct of the bytes of a PNG and of a path, which is null, and `label`.
const IMAGE: &str = "optional group image { optional binary bytes; optional binary path (UTF8); }";
const LABEL: &str = "optional int64 label;";

/// The key under which the library `datasets` finds the types of the columns.
const FEATURES_KEY: &str = "huggingface";

/// Writes a parquet file in pieces: each image is a PNG in the column `image.bytes`, and its class is in the column `label`.
/// The metadata says so in the form of the library `datasets`, so `load_dataset` gives images and class labels.
pub struct Writer<W: Write + Send> {
    file: PathBuf,
    writer: SerializedFileWriter<W>,
    size: [usize; 2],
    has_labels: bool,
}

impl<W: Write + Send> Writer<W> {
    /// Starts a file of images with this number of rows and columns. `classes` is the number of classes, `None` without
    /// labels. `metadata` are further keys and values of the file. Errors name `file`.
    ///
    /// # Errors
    /// [`Error::ParquetWrite`].
    pub fn new(
        file: &Path,
        to: W,
        size: [usize; 2],
        classes: Option<usize>,
        metadata: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let mut features = json!({ "image": { "_type": "Image" } });
        if let Some(classes) = classes {
            let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
            features["label"] = json!({ "names": names, "_type": "ClassLabel" });
        }
        let features = json!({ "info": { "features": features } }).to_string();
        let keys = [(FEATURES_KEY.to_owned(), features)].into_iter().chain(metadata);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            // A PNG is neither repeated nor compared.
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_key_value_metadata(Some(keys.map(|(key, value)| KeyValue::new(key, value)).collect()))
            .build();
        let label = if classes.is_some() { LABEL } else { "" };
        let start = || {
            let schema = parse_message_type(&format!("message schema {{ {IMAGE} {label} }}"))?;
            SerializedFileWriter::new(to, Arc::new(schema), Arc::new(properties))
        };
        let (file, has_labels) = (file.to_owned(), classes.is_some());
        match start() {
            Ok(writer) => Ok(Self { file, writer, size, has_labels }),
            Err(source) => Err(write_error(&file)(source)),
        }
    }

    /// Appends images, N × rows × columns grey levels, with N labels, as one row group. A reader holds a row group at once;
    /// a thousand images are a usual number. Without classes the labels are ignored.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if there are not as many labels as images, [`Error::ParquetWrite`].
    pub fn append(&mut self, pixels: &[u8], labels: &[u8]) -> Result<()> {
        let [rows, cols] = self.size;
        let images = pixels.chunks_exact(rows * cols);
        if self.has_labels && labels.len() != images.len() {
            return Err(Error::out_of_range("number of labels", labels.len(), images.len().to_string()));
        }
        let error =
            |_| Error::out_of_range("rows and columns", rows.max(cols), format!("at most {}", u32::MAX));
        let (width, height) = (u32::try_from(cols).map_err(error)?, u32::try_from(rows).map_err(error)?);
        let mut pngs = Vec::with_capacity(images.len());
        for image in images {
            let mut png = Vec::new();
            PngEncoder::new(&mut png)
                .write_image(image, width, height, ExtendedColorType::L8)
                .map_err(|source| Error::ParquetWrite { file: self.file.clone(), source: source.into() })?;
            pngs.push(ByteArray::from(png));
        }
        let classes: Vec<i64> = labels.iter().map(|&label| label.into()).collect();
        let mut write = || {
            let mut group = self.writer.next_row_group()?;
            column::<ByteArrayType, W>(&mut group, &pngs, pngs.len())?;
            column::<ByteArrayType, W>(&mut group, &[], pngs.len())?;
            if self.has_labels {
                column::<Int64Type, W>(&mut group, &classes, pngs.len())?;
            }
            group.close().map(drop)
        };
        write().map_err(write_error(&self.file))
    }

    /// Writes the end of the file.
    ///
    /// # Errors
    /// [`Error::ParquetWrite`].
    pub fn finish(self) -> Result<()> {
        self.writer.close().map(drop).map_err(write_error(&self.file))
    }
}

/// Writes the next column of a row group with this number of rows: all values, or nulls in the innermost field if there are
/// none.
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    rows: usize,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.ok_or_else(|| ParquetError::EOF("no further column".to_owned()))?;
    let writer = column.typed::<T>();
    let level = writer.get_descriptor().max_def_level() - i16::from(values.is_empty());
    writer.write_batch(values, Some(&vec![level; rows]), None)?;
    column.close()
}

fn write_error(file: &Path) -> impl FnOnce(ParquetError) -> Error {
    let file = file.to_owned();
    move |source| {
        // The text of an external error repeats the text of its source.
        let source = match source {
            ParquetError::External(source) => source,
            error => error.into(),
        };
        Error::ParquetWrite { file, source }
    }
}
