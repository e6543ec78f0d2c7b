//! Arrays of all images: IDX and safetensors.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::Result;
use ddpm_data::idx::{header_of_images, header_of_labels};
use ddpm_files::AtomicFile;
use ddpm_model::{Denoiser, safetensors_header};
use safetensors::{Dtype, tensor::TensorInfo};

use crate::{args::Common, commands::job::Job, progress::Progress, recipe};

/// Writes three files: images, labels and the recipe. Each part of the images is written as soon as it is sampled.
pub(super) fn idx(
    job: &Job,
    denoiser: &Denoiser,
    common: &Common,
    out: &Path,
    recipe: &str,
) -> Result<Vec<AtomicFile>> {
    let config = denoiser.config();
    let mut images = AtomicFile::create(with_suffix(out, "-images-idx3-ubyte"))?;
    images.append(&header_of_images(job.len(), config.rows, config.cols)?)?;
    let labels = if config.num_classes > 0 {
        let mut labels = AtomicFile::create(with_suffix(out, "-labels-idx1-ubyte"))?;
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

/// Writes one file with the tensors `images`, u8 of shape \[N, rows, cols\], and `labels`, u8 of shape \[N\]. The
/// safetensors library needs all tensors in memory, so it is used only for the header.
pub(super) fn safetensors(
    job: &Job,
    denoiser: &Denoiser,
    common: &Common,
    out: &Path,
    recipe: String,
) -> Result<AtomicFile> {
    let (count, config) = (job.len(), denoiser.config());
    let end = count * config.pixels();
    let info = |shape, data_offsets| TensorInfo { dtype: Dtype::U8, shape, data_offsets };
    let mut tensors = vec![("images".to_owned(), info(vec![count, config.rows, config.cols], (0, end)))];
    let labels = if config.num_classes > 0 {
        tensors.push(("labels".to_owned(), info(vec![count], (end, end + count))));
        Some(job.byte_labels()?)
    } else {
        None
    };
    let mut file = AtomicFile::create(out)?;
    let metadata = HashMap::from([(recipe::KEY.to_owned(), recipe)]);
    file.append(&safetensors_header(out, Some(metadata), tensors)?)?;
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

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
