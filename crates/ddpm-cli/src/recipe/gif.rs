//! The comment of a GIF.

use std::io::{self, BufRead, Read};

use super::KEY;

const END: u8 = 0x3b;
const EXTENSION: u8 = 0x21;
const COMMENT: u8 = 0xfe;
const IMAGE: u8 = 0x2c;

/// Adds a comment, which begins with the name of a recipe, at the end of a GIF.
pub(crate) fn with_comment(mut gif: Vec<u8>, text: &str) -> Vec<u8> {
    if gif.last() == Some(&END) {
        gif.pop();
    }
    gif.extend([EXTENSION, COMMENT]);
    for block in format!("{KEY} {text}").as_bytes().chunks(255) {
        gif.push(u8::try_from(block.len()).unwrap_or(u8::MAX));
        gif.extend(block);
    }
    gif.extend([0, END]);
    gif
}

/// The text of the comment that begins with the name of a recipe; `None` without one.
pub(super) fn comment(mut file: impl BufRead) -> io::Result<Option<String>> {
    let [_, _, _, _, _, _, _, _, _, _, flags, _, _] = bytes(&mut file)?;
    skip_palette(&mut file, flags)?;
    loop {
        match bytes(&mut file)? {
            [EXTENSION] => {
                let [label] = bytes(&mut file)?;
                let data = blocks(&mut file)?;
                let text = String::from_utf8_lossy(&data);
                if let (COMMENT, Some(recipe)) = (label, text.strip_prefix(KEY)) {
                    return Ok(Some(recipe.trim_start().to_owned()));
                }
            }
            [IMAGE] => {
                let [_, _, _, _, _, _, _, _, flags] = bytes(&mut file)?;
                skip_palette(&mut file, flags)?;
                let [_code_size] = bytes(&mut file)?;
                blocks(&mut file)?;
            }
            [END] => return Ok(None),
            [other] => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a block of type {other:#04x}, which GIF does not have"),
                ));
            }
        }
    }
}

fn bytes<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Skips the palette that these flags announce.
fn skip_palette(file: &mut impl BufRead, flags: u8) -> io::Result<()> {
    let colours = if flags & 0x80 == 0 { 0 } else { 2_u64 << (flags & 7) };
    io::copy(&mut file.take(3 * colours), &mut io::sink()).map(|_| ())
}

/// The content of blocks up to the empty one, of which the first mebibyte is kept.
fn blocks(file: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let [length] = bytes(file)?;
        if length == 0 {
            return Ok(data);
        }
        let mut block = vec![0; length.into()];
        file.read_exact(&mut block)?;
        if data.len() < 1 << 20 {
            data.extend(block);
        }
    }
}
