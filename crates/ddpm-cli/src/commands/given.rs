//! The options --from and --mask of `sample`.

use std::path::Path;

use anyhow::{Result, ensure};
use ddpm_data::{Dataset, to_model_scale};
use ddpm_model::{DenoiserConfig, GivenImage};

use crate::args::Given;

/// The darkest grey level that counts as white in a mask.
const WHITE: u8 = 128;

impl Given {
    /// The image of --from and the mask of --mask for a model; `None` without --from.
    ///
    /// # Errors
    /// A file is not one grey image of the model's size.
    pub(crate) fn read(&self, config: &DenoiserConfig) -> Result<Option<GivenImage>> {
        let Some(from) = &self.from else { return Ok(None) };
        let image = one_image(from, config)?;
        let mask = self.mask.as_ref().map(|path| one_image(path, config)).transpose()?;
        Ok(Some(given_image(&image, mask.as_deref())))
    }
}

/// An image of these grey levels, and a mask that is white where pixels are painted.
pub(super) fn given_image(image: &[u8], mask: Option<&[u8]>) -> GivenImage {
    let known = |&level: &u8| if level < WHITE { 1.0 } else { 0.0 };
    GivenImage {
        image: image.iter().map(|&level| to_model_scale(level)).collect(),
        mask: mask.map(|mask| mask.iter().map(known).collect()),
    }
}

/// The grey levels of a file with one image.
fn one_image(path: &Path, config: &DenoiserConfig) -> Result<Vec<u8>> {
    let name = path.display();
    ensure!(!path.is_dir(), "{name} is a folder, expected a file of one image");
    let images = Dataset::from_path(path, [config.rows, config.cols])?;
    let count = images.len();
    ensure!(count == 1, "{name} has {count} images, expected one");
    Ok(images.images().to_vec())
}
