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
        let image = one_image(from, config)?.into_iter().map(to_model_scale).collect();
        let known = |level: u8| if level < WHITE { 1.0 } else { 0.0 };
        let mask = match &self.mask {
            Some(path) => Some(one_image(path, config)?.into_iter().map(known).collect()),
            None => None,
        };
        Ok(Some(GivenImage { image, mask }))
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
