//! `ddpm-cli sample`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use ddpm_data::idx::{encode_images, encode_labels};
use ddpm_model::{Denoiser, write_atomic};
use safetensors::{Dtype, serialize, tensor::TensorView};
use serde_json::json;

use super::job::{Job, grey_levels};
use crate::{
    args::{Common, Format, Sample},
    model, output, picture,
};

/// Images beyond which no picture is tried; `idx` and `safetensors` take any number.
const PICTURE_LIMIT: usize = 10_000;

pub(crate) fn run(options: &Sample, common: &Common) -> Result<()> {
    let sampling = &options.sampling;
    let denoiser = model::load(&sampling.model, &common.device.open()?)?;
    let started = Instant::now();
    let job = job(options, common, &denoiser)?;
    let out = options.out.clone().unwrap_or_else(|| default_out(options.format));
    let count = job.images.len();
    output::verbose(common, &format!("{count} images, {:?}", job.config));
    let files = match options.format {
        Format::Gif => {
            ensure_picture(&job, &denoiser, picture::GIF_TILE_SIDE)?;
            vec![(out, animation(&job, &denoiser)?)]
        }
        Format::Png => {
            ensure_picture(&job, &denoiser, picture::PNG_TILE_SIDE)?;
            let pixels = job.run_with_progress(&denoiser, common)?;
            let picture = job.picture(&denoiser, &pixels, picture::PNG_TILE_SIDE)?;
            vec![(out, picture::encode_png(&picture)?)]
        }
        Format::Idx => {
            let pixels = job.run_with_progress(&denoiser, common)?;
            let config = denoiser.config();
            let mut files = vec![(
                with_suffix(&out, "-images-idx3-ubyte"),
                encode_images(config.rows, config.cols, &pixels)?,
            )];
            if config.num_classes > 0 {
                files.push((with_suffix(&out, "-labels-idx1-ubyte"), encode_labels(&job.byte_labels()?)?));
            }
            files
        }
        Format::Safetensors => {
            let pixels = job.run_with_progress(&denoiser, common)?;
            vec![(out, encode_safetensors(&job, &denoiser, &pixels)?)]
        }
    };
    write_all(&files)?;
    let seconds = started.elapsed().as_secs_f64();
    let names: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    let json = json!({
        "files": names, "images": count, "model": sampling.model, "seed": common.seed, "seconds": seconds,
    });
    let text = format!("{}: {count} images in {seconds:.2} s (seed {})", names.join(", "), common.seed);
    output::result(common, &json, &text)
}

/// Writes all files, or leaves none that was not there.
fn write_all(files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    let existed: Vec<bool> = files.iter().map(|(path, _)| path.exists()).collect();
    for (i, (path, bytes)) in files.iter().enumerate() {
        if let Err(error) = write_atomic(path, bytes) {
            for ((path, _), _) in std::iter::zip(files, &existed).take(i).filter(|(_, existed)| !**existed) {
                // The first error is the one to tell.
                drop(std::fs::remove_file(path));
            }
            return Err(error.into());
        }
    }
    Ok(())
}

fn job(options: &Sample, common: &Common, denoiser: &Denoiser) -> Result<Job> {
    let config = options.sampling.config(common.seed, denoiser)?;
    let classes = options.sampling.classes(denoiser)?;
    let mut job = match options.number {
        Some(number) => Job::in_turn(config, denoiser, &classes, number)?,
        None => Job::per_class(config, denoiser, &classes, options.per_class)?,
    };
    if let Some(shard) = options.shard {
        let range = shard.range(job.images.len());
        job.images = job.images[range.clone()].to_vec();
        job.labels = job.labels[range].to_vec();
    }
    ensure!(
        !job.images.is_empty(),
        "this part has no images: --shard asks for more parts than there are images"
    );
    Ok(job)
}

/// The grid as it starts, as pure noise, and after each step.
fn animation(job: &Job, denoiser: &Denoiser) -> Result<Vec<u8>> {
    const STEP_MS: u32 = 90;
    const LAST_MS: u32 = 2500;
    let mut states = vec![grey_levels(&denoiser.start(&job.config, &job.images)?)?];
    denoiser.sample(&job.config, &job.images, &job.labels, |step| {
        states.push(grey_levels(step.x_t)?);
        Ok(())
    })?;
    let frames = states
        .iter()
        .map(|pixels| job.picture(denoiser, pixels, picture::GIF_TILE_SIDE))
        .collect::<Result<Vec<_>>>()?;
    let mut delays = vec![STEP_MS; frames.len()];
    if let Some(last) = delays.last_mut() {
        *last = LAST_MS;
    }
    picture::encode_gif(&frames, &delays)
}

fn encode_safetensors(job: &Job, denoiser: &Denoiser, pixels: &[u8]) -> Result<Vec<u8>> {
    let (count, config) = (job.images.len(), denoiser.config());
    let mut tensors = HashMap::new();
    tensors.insert("images", TensorView::new(Dtype::U8, vec![count, config.rows, config.cols], pixels)?);
    let labels = job.byte_labels()?;
    if config.num_classes > 0 {
        tensors.insert("labels", TensorView::new(Dtype::U8, vec![count], &labels)?);
    }
    Ok(serialize(tensors, None)?)
}

/// Fails before anything is sampled if the picture would be too large: draws it with blank tiles.
fn ensure_picture(job: &Job, denoiser: &Denoiser, tile_side: usize) -> Result<()> {
    let count = job.images.len();
    let advice = || format!("{count} images do not fit in a picture; use --format idx or safetensors");
    ensure!(count <= PICTURE_LIMIT, advice());
    let blank = vec![0; count * denoiser.config().pixels()];
    job.picture(denoiser, &blank, tile_side).map(|_| ()).with_context(advice)
}

fn default_out(format: Format) -> PathBuf {
    match format {
        Format::Png => "samples.png",
        Format::Gif => "samples.gif",
        Format::Idx => "samples",
        Format::Safetensors => "samples.safetensors",
    }
    .into()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
