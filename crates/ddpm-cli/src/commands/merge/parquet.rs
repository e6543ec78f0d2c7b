//! A parquet file as the Hub has data sets of images.

use std::path::Path;

use anyhow::Result;
use ddpm_data::parquet::Writer;
use ddpm_files::AtomicFile;

use super::{parts::Parts, write::copy};
use crate::{commands::arrays::Appending, progress::Progress, recipe};

/// Writes the images as PNG, with their labels, and the recipe in the metadata.
pub(super) fn file(parts: &Parts, size: [usize; 2], out: &Path, progress: &Progress) -> Result<AtomicFile> {
    let mut file = AtomicFile::create(out)?;
    let metadata = [(recipe::KEY.to_owned(), parts.recipe.encode()?)];
    // The names of the classes up to the last one that the job has.
    let classes = parts.recipe.classes.iter().max().map(|&class| class as usize + 1);
    let mut writer = Writer::new(out, Appending(&mut file), size, classes, metadata)?;
    copy(parts, size, |pixels, labels| {
        writer.append(pixels, labels)?;
        progress.add(pixels.len().div_euclid(size[0] * size[1]));
        Ok(())
    })?;
    writer.finish()?;
    Ok(file)
}
