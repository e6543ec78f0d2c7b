//! The paths of output files and folders.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::builder::{PathBufValueParser, TypedValueParser};

use super::{Format, MergedFormat};
use crate::output;

/// Reads the path of an output file or folder.
pub(super) fn out() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if path.as_os_str() == "-" {
            return Err(
                "standard output is /dev/stdout here (with -q, to print nothing else); write ./- for this name"
            );
        }
        Ok(path)
    })
}

/// Extensions of formats that this program does not write.
const OTHERS: [&str; 15] = [
    "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "svg", "pdf", "mp4", "webm", "npy", "npz", "pt", "zip", "gz",
];

impl Format {
    /// The format of an output file: `given`, which must fit the extension of `out`, or the one of the extension. PNG
    /// without both.
    pub(crate) fn of(out: Option<&Path>, given: Option<Self>) -> Result<Self> {
        let extension = out.and_then(Path::extension).map(|text| text.to_string_lossy().to_ascii_lowercase());
        let Some(extension) = extension else { return Ok(given.unwrap_or(Self::Png)) };
        let by_extension = [Self::Png, Self::Gif, Self::Apng, Self::Safetensors]
            .into_iter()
            .find(|format| output::name(format) == extension);
        let path = out.unwrap_or(Path::new("")).display();
        match (by_extension, given) {
            (Some(format), None) => Ok(format),
            (None, None) => bail!(
                "{path}: the extension .{extension} names no format of this program, expected .png, .gif, \
                 .apng or .safetensors, or --format"
            ),
            (Some(found), Some(given)) if found != given => {
                bail!("{path}: the extension .{extension} does not fit --format {}", output::name(&given))
            }
            (None, Some(given)) if OTHERS.contains(&&*extension) => {
                bail!("{path}: the extension .{extension} does not fit --format {}", output::name(&given))
            }
            (_, Some(given)) => Ok(given),
        }
    }
}

impl MergedFormat {
    /// The format of an output file: `given`, which must fit the extension of `out`, or the one of the extension. `None`
    /// without both.
    pub(crate) fn of(out: &Path, given: Option<Self>) -> Result<Option<Self>> {
        let extension = out.extension().map(|text| text.to_string_lossy().to_ascii_lowercase());
        let Some(extension) = extension else { return Ok(given) };
        let by_extension =
            [Self::Safetensors, Self::Parquet].into_iter().find(|format| output::name(format) == extension);
        let is_other = ["png", "gif", "apng"].iter().chain(&OTHERS).any(|other| *other == extension);
        let path = out.display();
        match (by_extension, given) {
            (None, _) if is_other => bail!(
                "{path}: the extension .{extension} names no format of `merge`, expected .safetensors, .parquet or \
                 --format idx"
            ),
            (Some(found), Some(given)) if found != given => {
                bail!("{path}: the extension .{extension} does not fit --format {}", output::name(&given))
            }
            _ => Ok(given.or(by_extension)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_and_the_extension_agree() {
        use Format::{Gif, Idx, Png, Safetensors};
        for (out, given, expected) in [
            (None, None, Png),
            (None, Some(Gif), Gif),
            (Some("a"), None, Png),
            (Some("a.png"), None, Png),
            (Some("a.GIF"), None, Gif),
            (Some("a.safetensors"), None, Safetensors),
            (Some("a.gif"), Some(Gif), Gif),
            (Some("a.b/train"), Some(Idx), Idx),
            (Some("model-v1.2"), Some(Idx), Idx),
            (Some("a.tmp"), Some(Png), Png),
        ] {
            assert_eq!(Format::of(out.map(Path::new), given).unwrap(), expected, "{out:?} {given:?}");
        }
        for (out, given) in [
            ("a.jpg", None),
            ("a.v2", None),
            ("a.gif", Some(Png)),
            ("a.png", Some(Idx)),
            ("a.jpg", Some(Png)),
            ("a.JPEG", Some(Gif)),
            ("a.npz", Some(Safetensors)),
        ] {
            let error = Format::of(Some(Path::new(out)), given).unwrap_err().to_string();
            assert!(error.contains(out) && error.contains("--format"), "{error}");
        }
    }

    #[test]
    fn the_format_of_merged_images_and_the_extension_agree() {
        use MergedFormat::{Idx, Parquet, Safetensors};
        for (out, given, expected) in [
            ("a", None, None),
            ("a.b/train", Some(Idx), Some(Idx)),
            ("model-v1.2", None, None),
            ("a.safetensors", None, Some(Safetensors)),
            ("a.Parquet", None, Some(Parquet)),
            ("a.parquet", Some(Parquet), Some(Parquet)),
        ] {
            assert_eq!(MergedFormat::of(Path::new(out), given).unwrap(), expected, "{out} {given:?}");
        }
        for (out, given) in [
            ("a.png", None),
            ("a.npz", Some(Idx)),
            ("a.safetensors", Some(Idx)),
            ("a.parquet", Some(Safetensors)),
        ] {
            let error = MergedFormat::of(Path::new(out), given).unwrap_err().to_string();
            assert!(error.contains(out) && error.contains("--format"), "{error}");
        }
    }
}
