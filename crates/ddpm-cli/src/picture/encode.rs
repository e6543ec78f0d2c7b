//! Encoding of pictures as PNG, animated PNG and GIF.

use anyhow::{Context, Result, bail, ensure};
use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, GrayImage, RgbaImage};
use png::{BitDepth, ColorType, Compression, Encoder, Filter};

use crate::recipe;

/// Number of grey levels in a GIF: few, because frames of noise hardly compress.
const GIF_LEVELS: u16 = 16;

/// Encodes a picture as a grey PNG, with a recipe if there is one.
///
/// # Errors
/// The encoder fails.
pub(crate) fn encode_png(image: &GrayImage, recipe: Option<&str>) -> Result<Vec<u8>> {
    encode_apng(std::slice::from_ref(image), &[0], recipe)
}

/// Encodes pictures of one size as a grey animated PNG that loops forever, or one picture as a PNG.
///
/// `delays_ms` is the time that each frame is shown, in milliseconds, at most 65535.
///
/// # Errors
/// As [`encode_gif`].
pub(crate) fn encode_apng(frames: &[GrayImage], delays_ms: &[u32], recipe: Option<&str>) -> Result<Vec<u8>> {
    let (width, height) = size_of(frames, delays_ms)?;
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    // Tiles repeat each pixel and each line, which compresses best without a line filter.
    encoder.set_compression(Compression::High);
    encoder.set_filter(Filter::NoFilter);
    let encode = || {
        if let Some(recipe) = recipe {
            encoder.add_text_chunk(recipe::KEY.to_owned(), recipe.to_owned())?;
        }
        if frames.len() > 1 {
            encoder.set_animated(u32::try_from(frames.len()).unwrap_or(u32::MAX), 0)?;
        }
        let mut writer = encoder.write_header()?;
        for (frame, &delay) in frames.iter().zip(delays_ms) {
            if frames.len() > 1 {
                writer.set_frame_delay(u16::try_from(delay).unwrap_or(u16::MAX), 1000)?;
            }
            writer.write_image_data(frame.as_raw())?;
        }
        writer.finish()
    };
    encode().context("cannot encode the picture as PNG")?;
    Ok(bytes)
}

/// The size of the frames of an animation.
///
/// # Errors
/// There are no frames, their sizes differ, or the number of delays is not the number of frames.
fn size_of(frames: &[GrayImage], delays_ms: &[u32]) -> Result<(u32, u32)> {
    let size = frames.first().context("an animation needs at least one frame")?.dimensions();
    let (found, expected) = (delays_ms.len(), frames.len());
    ensure!(found == expected, "found {found} delays for {expected} frames, expected one for each");
    match frames.iter().enumerate().find(|(_, frame)| frame.dimensions() != size) {
        Some((index, frame)) => {
            bail!("frame {index} has {:?} pixels, the first one {size:?}", frame.dimensions())
        }
        None => Ok(size),
    }
}

/// Encodes pictures of one size as a GIF with 16 grey levels that loops forever.
///
/// `delays_ms` is the time that each frame is shown, in milliseconds. GIF rounds it down to hundredths of a second.
///
/// # Errors
/// There are no frames, their sizes differ, the number of delays is not the number of frames, or the encoder fails.
pub(crate) fn encode_gif(frames: &[GrayImage], delays_ms: &[u32]) -> Result<Vec<u8>> {
    let size = size_of(frames, delays_ms)?;
    let mut bytes = Vec::new();
    // The speed belongs to a colour search, which the encoder skips for pictures of at most 256 colours.
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    encoder.set_repeat(Repeat::Infinite).context("cannot start the GIF")?;
    for (index, (frame, &delay)) in frames.iter().zip(delays_ms).enumerate() {
        let pixels = RgbaImage::from_fn(size.0, size.1, |x, y| {
            let level = gif_level(frame.get_pixel(x, y).0[0]);
            image::Rgba([level, level, level, u8::MAX])
        });
        let delay = Delay::from_numer_denom_ms(delay, 1);
        encoder
            .encode_frame(Frame::from_parts(pixels, 0, 0, delay))
            .with_context(|| format!("cannot encode frame {index} of the GIF"))?;
    }
    drop(encoder);
    Ok(bytes)
}

/// The nearest of the [`GIF_LEVELS`] grey levels. Black and white do not change.
pub(super) fn gif_level(level: u8) -> u8 {
    let steps = GIF_LEVELS - 1;
    let nearest = (u16::from(level) * steps + 127).div_euclid(255);
    u8::try_from((nearest * 255).div_euclid(steps)).unwrap_or(u8::MAX)
}
