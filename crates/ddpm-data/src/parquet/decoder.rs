//! Decodes PNG and JPEG images of one size.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, ImageReader, Limits};

use crate::content::describe;
use crate::error::{Cause, Error, Result};
use crate::idx::{Images, MAX_BYTES};

/// The largest height and width of an image, in pixels.
const MAX_SIDE: u32 = 4096;
/// The largest decoded image, in bytes, before its conversion to grey.
const MAX_DECODED: u64 = 1 << 25;

/// The grey levels of images that are added one after the other.
pub(super) struct Decoder {
    /// The file of the first image.
    first: PathBuf,
    /// The file of the next image.
    file: PathBuf,
    /// Rows and columns of the first image.
    size: Option<[usize; 2]>,
    pixels: Vec<u8>,
}

impl Decoder {
    pub(super) fn new(first: &Path) -> Self {
        Self { first: first.to_owned(), file: first.to_owned(), size: None, pixels: Vec::new() }
    }

    /// The next images are of this file.
    pub(super) fn start(&mut self, file: &Path) {
        self.file = file.to_owned();
    }

    pub(super) fn push(&mut self, row: usize, bytes: &[u8]) -> Result<()> {
        let file = || self.file.clone();
        let error = |source: Cause| Error::Image { file: file(), row, source };
        let format = image::guess_format(bytes).ok();
        let Some(format @ (ImageFormat::Png | ImageFormat::Jpeg)) = format else {
            return Err(error(format!("it is {}", describe(bytes)).into()));
        };
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_DECODED);
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(limits);
        // As text only: an error of `image` repeats the text of its source.
        let image = reader.decode().map_err(|source| error(source.to_string().into()))?.into_luma8();
        // The casts from u32 to usize only widen.
        let found = [image.height() as usize, image.width() as usize];
        let expected = *self.size.get_or_insert(found);
        if found != expected {
            return Err(Error::ImageSize { file: file(), row, found, expected });
        }
        let claimed = self.pixels.len() as u64 + image.len() as u64;
        if claimed > MAX_BYTES {
            return Err(Error::TooLarge { file: file(), claimed: claimed.into(), limit: MAX_BYTES });
        }
        self.pixels.extend_from_slice(&image);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Images> {
        let Some([rows, cols]) = self.size else { return Err(Error::Empty { file: self.first }) };
        Images::new(self.first, rows, cols, self.pixels)
    }
}
