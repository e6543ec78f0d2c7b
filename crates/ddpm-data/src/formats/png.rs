//! One PNG image.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, Limits};

use crate::content::{START, describe};
use crate::error::{Cause, Error, Result};

/// The first bytes of a PNG file.
pub(super) const MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The largest amount of memory for the chunks of a file beside the pixels, in bytes.
const MAX_ALLOCATION: u64 = 1 << 25;
/// The largest number of pixels of an image whose size is not given.
const MAX_PIXELS: u64 = 1 << 24;

/// Adds the grey levels of an image of `size` (rows, columns) to `pixels`. Without a size, the image gives it.
pub(super) fn read(file: &Path, size: &mut Option<[usize; 2]>, pixels: &mut Vec<u8>) -> Result<()> {
    let read_error = |source| Error::Read { file: file.to_owned(), source };
    let mut input = File::open(file).map_err(read_error)?;
    let mut start = Vec::new();
    input.by_ref().take(START as u64).read_to_end(&mut start).map_err(read_error)?;
    if !start.starts_with(MAGIC) {
        let source = format!("it is {}", describe(&start)).into();
        return Err(Error::Png { file: file.to_owned(), source });
    }
    // Most files are shorter than what was read of them.
    if start.len() < START {
        return decode(file, Cursor::new(start), size, pixels);
    }
    input.rewind().map_err(read_error)?;
    decode(file, BufReader::new(input), size, pixels)
}

fn decode(
    file: &Path,
    input: impl BufRead + Seek,
    size: &mut Option<[usize; 2]>,
    pixels: &mut Vec<u8>,
) -> Result<()> {
    // As text only: an error of `image` repeats the text of its source.
    let error = |source: image::ImageError| {
        let source: Cause = source.to_string().into();
        Error::Png { file: file.to_owned(), source }
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOCATION);
    let decoder = PngDecoder::with_limits(input, limits).map_err(error)?;
    let (width, height) = decoder.dimensions();
    // The casts from u32 to usize only widen.
    let found @ [rows, cols] = [height as usize, width as usize];
    let claimed = u128::from(height) * u128::from(width);
    if size.is_none() && claimed > MAX_PIXELS.into() {
        return Err(Error::TooLarge { file: file.to_owned(), claimed, limit: MAX_PIXELS });
    }
    let expected = *size.get_or_insert(found);
    if found != expected {
        return Err(Error::PictureSize { file: file.to_owned(), found, expected });
    }
    let not_grey = |found: String| Error::NotGrey { file: file.to_owned(), found };
    let (channels, has_alpha) = match decoder.color_type() {
        ColorType::L8 => (1, false),
        ColorType::La8 => (2, true),
        ColorType::Rgb8 => (3, false),
        ColorType::Rgba8 => (4, true),
        _ => return Err(not_grey("more than 8 bits for each grey level or colour".to_owned())),
    };
    let mut samples = vec![0; rows * cols * channels];
    decoder.read_image(&mut samples).map_err(error)?;
    for (place, samples) in samples.chunks_exact(channels).enumerate() {
        let (colours, alpha) = samples.split_at(channels - usize::from(has_alpha));
        let at = || format!("row {}, column {}", place.div_euclid(cols), place.rem_euclid(cols));
        if colours.iter().any(|colour| *colour != colours[0]) {
            return Err(not_grey(format!("the colour {colours:?} in {}", at())));
        }
        if let Some(alpha) = alpha.first().filter(|alpha| **alpha < u8::MAX) {
            return Err(not_grey(format!("the opacity {alpha} of 255 in {}", at())));
        }
        pixels.push(colours[0]);
    }
    Ok(())
}
