//! Arrays of all images: IDX and safetensors.

use std::{collections::HashMap, path::Path};

use anyhow::Result;
use ddpm_data::idx::{header_of_images, header_of_labels};
use ddpm_files::AtomicFile;
use ddpm_model::Denoiser;

use crate::{
    args::Common,
    commands::{
        arrays::{IDX_IMAGES, IDX_LABELS, tensors_header, with_suffix},
        job::Job,
    },
    progress::Progress,
    recipe,
};

/// Writes three files: images, labels and the recipe. Each part of the images is written as soon as it is sampled.
pub(super) fn idx(
    job: &Job,
    denoiser: &Denoiser,
    common: &Common,
    out: &Path,
    recipe: &str,
) -> Result<Vec<AtomicFile>> {
    let config = denoiser.config();
    let mut images = AtomicFile::create(with_suffix(out, IDX_IMAGES))?;
    images.append(&header_of_images(job.len(), config.rows, config.cols)?)?;
    let labels = if config.num_classes > 0 {
        let mut labels = AtomicFile::create(with_suffix(out, IDX_LABELS))?;
        labels.append(&header_of_labels(job.len())?)?;
        write_labels(&mut labels, job.byte_labels()?)?;
        Some(labels)
    } else {
        None
    };
    let mut sidecar = AtomicFile::create(with_suffix(out, recipe::SUFFIX))?;
    sidecar.append(recipe.as_bytes())?;
    job.sample(denoiser, &Progress::new(common, "images")?, |pixels| Ok(images.append(pixels)?))?;
    Ok([images].into_iter().chain(labels).chain([sidecar]).collect())
}

/// Writes one file with the tensors `images` and, of a model with classes, `labels`.
pub(super) fn safetensors(
    job: &Job,
    denoiser: &Denoiser,
    common: &Common,
    out: &Path,
    recipe: String,
) -> Result<AtomicFile> {
    let config = denoiser.config();
    let labels = if config.num_classes > 0 { Some(job.byte_labels()?) } else { None };
    let mut file = AtomicFile::create(out)?;
    let metadata = HashMap::from([(recipe::KEY.to_owned(), recipe)]);
    let shape = [job.len(), config.rows, config.cols];
    file.append(&tensors_header(out, shape, labels.is_some(), Some(metadata))?)?;
    job.sample(denoiser, &Progress::new(common, "images")?, |pixels| Ok(file.append(pixels)?))?;
    if let Some(labels) = labels {
        write_labels(&mut file, labels)?;
    }
    Ok(file)
}

fn write_labels(file: &mut AtomicFile, labels: impl Iterator<Item = u8>) -> Result<()> {
    for label in labels {
        file.append(&[label])?;
    }
    Ok(())
}
