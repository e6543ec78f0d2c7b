//! Loads a data set by its name on the command line.

use anyhow::Result;
use ddpm_data::{HubConfig, Source, Splits};
use ddpm_model::Denoiser;

use crate::output;

/// Loads a data set. Warns about what was read in another way than one may expect.
pub(crate) fn load(source: &Source) -> Result<Splits> {
    let splits = source.load(&HubConfig::from_env())?;
    splits.notes().iter().for_each(|note| output::warning(note));
    Ok(splits)
}

/// Loads a data set with the labels of its files, also if no image has one of the smaller labels.
pub(crate) fn load_with_labels_of_files(source: &Source) -> Result<Splits> {
    let mut splits = source.load(&HubConfig::from_env())?;
    if splits.class_labels().is_some() {
        splits = splits.with_classes(1 + usize::from(u8::MAX))?;
    }
    splits.notes().iter().for_each(|note| output::warning(note));
    Ok(splits)
}

/// Loads a data set to compare with a model. If the model has more classes than the data set has labels, its classes
/// are the labels.
pub(crate) fn load_for(source: &Source, denoiser: &Denoiser) -> Result<Splits> {
    let mut splits = source.load(&HubConfig::from_env())?;
    let classes = denoiser.config().num_classes;
    let largest = splits.class_labels().and_then(<[u8]>::last).copied();
    if splits.train().classes().is_some_and(|found| found < classes)
        && largest.is_some_and(|label| usize::from(label) < classes)
    {
        splits = splits.with_classes(classes)?;
    }
    splits.notes().iter().for_each(|note| output::warning(note));
    Ok(splits)
}
