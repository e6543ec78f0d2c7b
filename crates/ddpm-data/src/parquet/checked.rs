//! Checks of what a parquet file claims, before the parquet library allocates memory for it or computes with it.

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};

/// The largest uncompressed page, in bytes. Writers make pages of about 1 MiB.
const MAX_PAGE: u64 = 1 << 26;

/// The bytes from which the header of a page is recognised.
const HEADER: u64 = 18;

/// A file, or its content in memory, whose page headers are checked when they are read.
pub(super) struct Checked<R> {
    content: R,
    len: u64,
}

impl<R: ChunkReader> Checked<R> {
    pub(super) fn new(content: R) -> Self {
        Self { len: content.len(), content }
    }
}

impl<R: ChunkReader> Length for Checked<R> {
    fn len(&self) -> u64 {
        self.len
    }
}

impl<R: ChunkReader> ChunkReader for Checked<R> {
    type T = R::T;

    /// The library reads the header of a page from `start`.
    fn get_read(&self, start: u64) -> Result<Self::T> {
        let length = usize::try_from(HEADER.min(self.len.saturating_sub(start))).unwrap_or_default();
        match uncompressed_size(&self.content.get_bytes(start, length)?) {
            Some(size) if size <= MAX_PAGE => self.content.get_read(start),
            Some(size) => Err(invalid(format!("a page of {size} bytes, expected at most {MAX_PAGE}"))),
            None => Err(invalid(format!("no header of a page at byte {start}"))),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // The library allocates the length before it reads.
        match start.checked_add(length as u64) {
            Some(end) if end <= self.len => self.content.get_bytes(start, length),
            _ => Err(invalid(format!(
                "{length} bytes at byte {start}, but the file ends at byte {}",
                self.len
            ))),
        }
    }
}

/// The uncompressed size in the header of a page. The header is a struct in Thrift's compact encoding, whose first two
/// fields are the type and this size, each an `i32` in zigzag encoding.
fn uncompressed_size(header: &[u8]) -> Option<u64> {
    /// A field of type `i32` whose number is one more than the previous field's.
    const NEXT_I32: u8 = 0x15;
    let mut bytes = header.iter().copied();
    let mut field = || {
        (bytes.next()? == NEXT_I32).then_some(())?;
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = bytes.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    };
    field()?;
    // An odd number stands for a negative one.
    field().filter(|size| size % 2 == 0).map(|size| size >> 1)
}

/// Checks that the chunks of all columns lie in the file.
pub(super) fn check_metadata(metadata: &ParquetMetaData, len: u64) -> Result<()> {
    for (group, row_group) in metadata.row_groups().iter().enumerate() {
        for column in row_group.columns() {
            let offsets = [Some(column.data_page_offset()), column.dictionary_page_offset()];
            let size = u64::try_from(column.compressed_size()).ok();
            let is_inside = |offset: i64| {
                let end =
                    u64::try_from(offset).ok().zip(size).and_then(|(offset, size)| offset.checked_add(size));
                end.is_some_and(|end| end <= len)
            };
            // The chunk begins at the smallest offset.
            let start = offsets.into_iter().flatten().min().unwrap_or_default();
            if !is_inside(start) || column.num_values() < 0 {
                return Err(invalid(format!(
                    "column {} of row group {group} has {} values in {} bytes at byte {start}, and the file has {len} bytes",
                    column.column_path().string(),
                    column.num_values(),
                    column.compressed_size(),
                )));
            }
        }
    }
    Ok(())
}

pub(super) fn invalid(found: String) -> ParquetError {
    ParquetError::General(format!("found {found}"))
}
