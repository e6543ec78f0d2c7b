//! The check that a data set fits a model.

use ddpm_data::Dataset;
use ddpm_model::Denoiser;

use crate::{Error, Result};

/// Checks that a data set has the image size and the number of classes of the model. An unconditional model fits
/// any number of classes.
///
/// # Errors
///
/// If they differ.
pub fn ensure_fits(denoiser: &Denoiser, data: &Dataset) -> Result<()> {
    let config = denoiser.config();
    let model = [config.rows, config.cols, config.num_classes];
    let found = [data.rows(), data.cols(), data.classes().unwrap_or(0)];
    if model[..2] == found[..2] && (model[2] == 0 || model[2] == found[2]) {
        return Ok(());
    }
    Err(Error::ModelData { data: data.name().to_owned(), model, found })
}
