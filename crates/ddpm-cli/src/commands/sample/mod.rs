//! `ddpm-cli sample`: generates images and writes them to files.

mod arrays;
mod found;
mod pictures;

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, ensure};
use console::Term;
use ddpm_files::{AtomicFile, Manifest, sha256_of_file};
use ddpm_model::{Denoiser, DenoiserConfig, SampleConfig};
use serde_json::json;

use self::found::Found;
pub(super) use self::pictures::{Layout, shown};
use super::{job::Job, part::ArrayFiles, sheet::Sheet};
use crate::{
    args::{Common, Format, Sample},
    interrupt, output, picture,
    recipe::{Recipe, with_comment},
};

/// The time that an animation shows each step, and its last one, in milliseconds.
const FRAME_MS: [u32; 2] = [90, 2500];

pub(crate) fn run(options: &Sample, common: &Common) -> Result<()> {
    let sampling = &options.sampling;
    let format = Format::of(options.out.as_deref(), options.images.format)?;
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
    let recipe = recipe(options, common, format, &job, denoiser.config(), Inputs::of(options, &denoiser)?);
    if let (Some(path), Some(like)) = (&options.like, &options.like_recipe) {
        like.check_same_inputs(path, &recipe);
    }
    output::verbose(common, &format!("{count} images, {}", job.description()));
    let is_array = matches!(format, Format::Idx | Format::Safetensors);
    let arrays = ArrayFiles { out, format, has_labels: denoiser.config().num_classes > 0 };
    let report = |names: Vec<String>, skipped: bool| {
        let seconds = started.elapsed().as_secs_f64();
        let json = json!({
            "files": names, "images": count, "model": sampling.model, "seed": common.seed, "seconds": seconds,
            "skipped": skipped,
        });
        let (names, seed) = (names.join(", "), common.seed);
        let text = if skipped {
            format!("{names}: {count} images are there and verified, skipped (seed {seed})")
        } else {
            format!("{names}: {count} images in {seconds:.2} s (seed {seed})")
        };
        output::result(common, &json, &text)
    };
    if options.array.skip_verified && is_whole(&arrays, &recipe)? {
        let names = [arrays.recipe()].into_iter().chain(arrays.arrays().map(|(_, path)| path));
        return report(names.map(|path| path.display().to_string()).collect(), true);
    }
    let (files, shown) = if is_array {
        (arrays::write(&job, &denoiser, common, &arrays, recipe)?, None)
    } else {
        let (file, shown) = drawn(options, common, format, &job, &denoiser, &arrays.out, &recipe.encode()?)?;
        (vec![file], shown)
    };
    let names: Vec<String> = files.iter().map(|file| file.path().display().to_string()).collect();
    AtomicFile::commit_all(files)?;
    if let Some(shown) = shown {
        output::text(&shown)?;
    }
    report(names, false)
}

/// Whether the part with this recipe is there and whole. Says so if it is there and not whole.
fn is_whole(files: &ArrayFiles, recipe: &Recipe) -> Result<bool> {
    ensure!(
        matches!(files.format, Format::Idx | Format::Safetensors),
        "--skip-verified is for the formats idx and safetensors, and this one is {}",
        output::name(&files.format)
    );
    match found::find(files, recipe)? {
        Found::Whole => return Ok(true),
        Found::Damaged(reason) => output::warning(&format!("{reason}; the part is made again")),
        Found::Nothing => {}
    }
    Ok(false)
}

/// The PNG that `sample --model NAME` writes, with the model of this name.
pub(super) fn default_png(name: &str, denoiser: &Denoiser, common: &Common) -> Result<Vec<u8>> {
    let options = Sample::of_model(name)?;
    let job = job(&options, common, denoiser)?;
    Layout::Grid.check(&job, denoiser, picture::PNG_TILE_SIDE)?;
    let inputs = Inputs::of(&options, denoiser)?;
    let recipe = recipe(&options, common, Format::Png, &job, denoiser.config(), inputs).encode()?;
    let picture = Layout::Grid.sample(&job, denoiser, common)?.draw(picture::PNG_TILE_SIDE)?;
    picture::encode_png(&picture, Some(&recipe))
}

/// Samples and draws a picture or an animation; also returns the text of --show.
fn drawn(
    options: &Sample,
    common: &Common,
    format: Format,
    job: &Job,
    denoiser: &Denoiser,
    out: &Path,
    recipe: &str,
) -> Result<(AtomicFile, Option<String>)> {
    let layout = Layout::of(&options.images);
    let is_still = format == Format::Png;
    ensure!(
        is_still || matches!(layout, Layout::Grid),
        "--strip and --interpolate draw a still picture, and the format is {}",
        output::name(&format)
    );
    let tile_side = if is_still { picture::PNG_TILE_SIDE } else { picture::GIF_TILE_SIDE };
    layout.check(job, denoiser, tile_side)?;
    let mut file = AtomicFile::create(out)?;
    let sheets =
        if is_still { vec![layout.sample(job, denoiser, common)?] } else { pictures::frames(job, denoiser)? };
    let frames = sheets.iter().map(|sheet| sheet.draw(tile_side)).collect::<Result<Vec<_>>>()?;
    let [step, last] = FRAME_MS;
    let delays: Vec<u32> =
        (1..=frames.len()).map(|frame| if frame < frames.len() { step } else { last }).collect();
    file.append(&match format {
        Format::Gif => with_comment(picture::encode_gif(&frames, &delays)?, recipe),
        Format::Apng => picture::encode_apng(&frames, &delays, Some(recipe))?,
        _ => picture::encode_png(&frames[0], Some(recipe))?,
    })?;
    let text = sheets.last().filter(|_| options.show && !common.quiet).map(terminal_text);
    Ok((file, text))
}

/// A sheet as text for the terminal of standard output.
fn terminal_text(sheet: &Sheet<'_>) -> String {
    let width = Term::stdout().size().1.into();
    let colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    sheet.text(width, colours) + "\n"
}

pub(super) fn job(options: &Sample, common: &Common, denoiser: &Denoiser) -> Result<Job> {
    let given = options.given.read(denoiser.config())?;
    let config = options.sampling.config(common.seed, options.given.strength, denoiser)?;
    let config = SampleConfig { given, ..config };
    let classes = options.sampling.classes(denoiser)?;
    let job = match options.images.num_images {
        Some(number) => Job::in_turn(config, &classes, number)?,
        None => Job::per_class(config, &classes, options.images.per_class)?,
    };
    match options.images.shard {
        Some(shard) => job.shard(shard),
        None => Ok(job),
    }
}

/// The SHA-256 of everything that is read.
pub(super) struct Inputs {
    /// The model with its guide.
    pub(super) model: String,
    /// The other files, by their names.
    pub(super) files: BTreeMap<String, String>,
}

impl Inputs {
    fn of(options: &Sample, denoiser: &Denoiser) -> Result<Self> {
        let Sample { given, sampling, .. } = options;
        let files = [&sampling.plan, &given.from, &given.mask].into_iter().flatten();
        // A pipe can be read only once.
        let files = files.filter(|path| path.is_file());
        let digest = |file: &PathBuf| Ok((file.display().to_string(), sha256_of_file(file)?));
        Ok(Self { model: denoiser.sha256()?, files: files.map(digest).collect::<Result<_>>()? })
    }
}

/// What makes the same file again.
pub(super) fn recipe(
    options: &Sample,
    common: &Common,
    format: Format,
    job: &Job,
    config: &DenoiserConfig,
    inputs: Inputs,
) -> Recipe {
    let mut pairs = vec![("model", options.sampling.model.clone())];
    let described = options.sampling.described(&job.config);
    pairs.extend(described.into_iter().filter_map(|(name, _, text)| Some((name, text?))));
    let (images, given) = (&options.images, &options.given);
    pairs.push(match images.num_images {
        Some(number) => ("num-images", number.to_string()),
        None => ("per-class", images.per_class.to_string()),
    });
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let optional = [
        ("shard", images.shard.map(|shard| shard.to_string())),
        ("strip", images.strip.map(|strip| output::name(&strip))),
        ("interpolate", images.interpolate.map(|between| between.to_string())),
        ("from", path(&given.from)),
        ("strength", given.strength.map(|strength| strength.to_string())),
        ("mask", path(&given.mask)),
    ];
    pairs.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    pairs.extend([("seed", common.seed.to_string()), ("format", output::name(&format))]);
    Recipe {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model_sha256: inputs.model,
        images: job.ends(),
        classes: if config.num_classes > 0 { job.classes().to_vec() } else { Vec::new() },
        steps: job.config.plan.steps(),
        files: inputs.files,
        arguments: pairs.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect(),
        written: Manifest::default(),
    }
}
