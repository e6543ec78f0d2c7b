//! Arrays of all images: IDX and safetensors.

use std::{collections::HashMap, iter};

use anyhow::Result;
use ddpm_data::idx::{header_of_images, header_of_labels};
use ddpm_files::AtomicFile;
use ddpm_model::Denoiser;

use crate::{
    args::{Common, Format},
    commands::{
        arrays::{Digested, tensors_header},
        job::Job,
        part::ArrayFiles,
    },
    progress::Progress,
    recipe::{self, Recipe},
};

/// Samples into the files of an array format, each part of the images as soon as it is sampled. The returned files are to be
/// committed together.
///
/// IDX is images, labels and the recipe. Safetensors is one file with the tensors `images` and, of a model with classes,
/// `labels`. A part of a job (`--shard`) has a recipe beside it in any case, with the digests of the other files. It is the
/// first of the returned files, without which the others mean nothing.
pub(super) fn write(
    job: &Job,
    denoiser: &Denoiser,
    common: &Common,
    files: &ArrayFiles,
    mut recipe: Recipe,
) -> Result<Vec<AtomicFile>> {
    let config = denoiser.config();
    let (is_idx, is_part) = (files.format == Format::Idx, recipe.shard()?.is_some());
    // A pipe or a device has nothing beside it.
    let is_stream = files.out.exists() && !files.out.is_file() && !is_idx;
    let text = recipe.encode()?;
    let byte_labels = if files.has_labels { Some(job.byte_labels()?) } else { None };
    // Each file is opened before sampling starts.
    let mut images = Digested::create(files.images())?;
    let mut labels = files.labels().map(Digested::create).transpose()?;
    let beside =
        (is_idx || (is_part && !is_stream)).then(|| AtomicFile::create(files.recipe())).transpose()?;
    images.append(&if is_idx {
        header_of_images(job.len(), config.rows, config.cols)?
    } else {
        let metadata = HashMap::from([(recipe::KEY.to_owned(), text)]);
        tensors_header(&files.out, [job.len(), config.rows, config.cols], files.has_labels, Some(metadata))?
    })?;
    if let Some(labels) = &mut labels {
        labels.append(&header_of_labels(job.len())?)?;
    }
    job.sample(denoiser, &Progress::new(common, "images")?, |pixels| images.append(pixels))?;
    // The labels of IDX have a file of their own; in safetensors they follow the images.
    let to = labels.as_mut().unwrap_or(&mut images);
    byte_labels.into_iter().flatten().try_for_each(|label| to.append(&[label]))?;
    let mut written = Vec::new();
    for (file, (name, _)) in iter::zip([images].into_iter().chain(labels), files.arrays()) {
        let (file, sha256) = file.finish();
        if is_part {
            recipe.written.insert(name, sha256);
        }
        written.push(file);
    }
    if let Some(mut beside) = beside {
        beside.append(recipe.encode()?.as_bytes())?;
        written.insert(if is_part { 0 } else { written.len() }, beside);
    }
    Ok(written)
}
