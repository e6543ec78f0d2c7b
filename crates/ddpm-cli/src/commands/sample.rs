//! `ddpm-cli sample`: generates images and writes them to files.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use ddpm_data::idx::{header_of_images, header_of_labels};
use ddpm_files::AtomicFile;
use ddpm_model::{Denoiser, DenoiserConfig, safetensors_header};
use safetensors::{Dtype, tensor::TensorInfo};
use serde_json::json;

use super::job::{Job, grey_levels};
use crate::{
    args::{Common, Format, Sample},
    interrupt, output, picture,
    progress::Progress,
    recipe::{self, Recipe, with_comment},
};

/// Maximum number of steps that an animation shows.
const FRAMES: usize = 100;

/// Maximum number of images in a PNG or GIF; `idx` and `safetensors` have no such limit.
const PICTURE_LIMIT: usize = 10_000;

pub(crate) fn run(options: &Sample, common: &Common) -> Result<()> {
    let sampling = &options.sampling;
    let format = Format::of(options.out.as_deref(), options.format)?;
    let denoiser = sampling.load(&common.device.open()?)?;
    // Until here, while a model may be downloaded, a signal ends the program at once.
    interrupt::listen()?;
    let started = Instant::now();
    let job = job(options, common, &denoiser)?;
    let default_out = || match format {
        Format::Idx => "samples".into(),
        other => format!("samples.{}", output::name(&other)).into(),
    };
    let out = options.out.clone().unwrap_or_else(default_out);
    let count = job.len();
    let recipe = recipe(options, common, format, &job, denoiser.config(), denoiser.sha256()?);
    if let Some(like) = &options.like {
        Recipe::read(like)?.check_model(like, &recipe.model_sha256);
    }
    let recipe = recipe.encode()?;
    output::verbose(common, &format!("{count} images, {}", job.description()));
    // Each file is opened before sampling starts.
    let files = match format {
        Format::Gif => vec![gif(&job, &denoiser, &out, &recipe)?],
        Format::Png => vec![png(&job, &denoiser, common, &out, &recipe)?],
        Format::Idx => idx(&job, &denoiser, common, &out, &recipe)?,
        Format::Safetensors => vec![safetensors(&job, &denoiser, common, &out, recipe)?],
    };
    let names: Vec<String> = files.iter().map(|file| file.path().display().to_string()).collect();
    AtomicFile::commit_all(files)?;
    let seconds = started.elapsed().as_secs_f64();
    let json = json!({
        "files": names, "images": count, "model": sampling.model, "seed": common.seed, "seconds": seconds,
    });
    let text = format!("{}: {count} images in {seconds:.2} s (seed {})", names.join(", "), common.seed);
    output::result(common, &json, &text)
}

pub(super) fn job(options: &Sample, common: &Common, denoiser: &Denoiser) -> Result<Job> {
    let config = options.sampling.config(common.seed, denoiser)?;
    let classes = options.sampling.classes(denoiser)?;
    let job = match options.num_images {
        Some(number) => Job::in_turn(config, &classes, number)?,
        None => Job::per_class(config, &classes, options.per_class)?,
    };
    match options.shard {
        Some(shard) => job.shard(shard),
        None => Ok(job),
    }
}

/// What makes the same file again. `sha256` is that of the model.
pub(super) fn recipe(
    options: &Sample,
    common: &Common,
    format: Format,
    job: &Job,
    config: &DenoiserConfig,
    sha256: String,
) -> Recipe {
    let mut pairs = vec![("model", options.sampling.model.clone())];
    let described = options.sampling.described(&job.config);
    pairs.extend(described.into_iter().filter_map(|(name, _, text)| Some((name, text?))));
    pairs.push(match options.num_images {
        Some(number) => ("num-images", number.to_string()),
        None => ("per-class", options.per_class.to_string()),
    });
    pairs.extend(options.shard.map(|shard| ("shard", shard.to_string())));
    pairs.extend([("seed", common.seed.to_string()), ("format", output::name(&format))]);
    Recipe {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_sha256: sha256,
        images: job.ends(),
        classes: if config.num_classes > 0 { job.classes().to_vec() } else { Vec::new() },
        steps: job.config.plan.steps(),
        arguments: pairs.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect(),
    }
}

/// Writes a grid of the images with a label above each class.
fn png(job: &Job, denoiser: &Denoiser, common: &Common, out: &Path, recipe: &str) -> Result<AtomicFile> {
    ensure_picture(job, denoiser, picture::PNG_TILE_SIDE)?;
    let mut file = AtomicFile::create(out)?;
    let pixels = job.pixels(denoiser, &Progress::new(common, "images")?)?;
    let picture = job.picture(denoiser, &pixels, picture::PNG_TILE_SIDE)?;
    file.append(&picture::encode_png(&picture, Some(recipe))?)?;
    Ok(file)
}

/// Writes an animation of the grid: the initial noise, then the images after each step, or after [`FRAMES`] steps that are
/// evenly spaced.
fn gif(job: &Job, denoiser: &Denoiser, out: &Path, recipe: &str) -> Result<AtomicFile> {
    const STEP_MS: u32 = 90;
    const LAST_MS: u32 = 2500;
    ensure_picture(job, denoiser, picture::GIF_TILE_SIDE)?;
    let mut file = AtomicFile::create(out)?;
    let part = job.all();
    let mut states = vec![grey_levels(denoiser.start(&job.config, &part.images)?.x_t())?];
    job.sample_part(denoiser, &part, |step| {
        let frame = |steps: usize| (steps * step.total.min(FRAMES)).div_euclid(step.total);
        if frame(step.index + 1) > frame(step.index) {
            states.push(grey_levels(step.x_t)?);
        }
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
    file.append(&with_comment(picture::encode_gif(&frames, &delays)?, recipe))?;
    Ok(file)
}

/// Writes three files: images, labels and the recipe. Each part of the images is written as soon as it is sampled.
fn idx(job: &Job, denoiser: &Denoiser, common: &Common, out: &Path, recipe: &str) -> Result<Vec<AtomicFile>> {
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
fn safetensors(
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

/// Fails before sampling starts if the picture would be too large: draws it with blank tiles.
fn ensure_picture(job: &Job, denoiser: &Denoiser, tile_side: usize) -> Result<()> {
    let count = job.len();
    let advice = || format!("{count} images do not fit in a picture; use --format idx or safetensors");
    ensure!(count <= PICTURE_LIMIT, advice());
    let blank = vec![0; count * denoiser.config().pixels()];
    job.picture(denoiser, &blank, tile_side).map(|_| ()).with_context(advice)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
