//! What a request asks for: the options of `sample` under their names, and a drawing.

use std::{collections::BTreeMap, fmt, sync::Arc};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ddpm_files::sha256_hex;
use ddpm_model::{Denoiser, DenoiserConfig, SampleConfig, SampleOptions};
use image::GrayImage;

use super::super::{given::given_image, job::Job, sample};
use crate::{
    args::{Args, Command, Common, Format, REPLACED_BY_PLAN, Sample},
    output, picture,
    recipe::Recipe,
};

/// The names of the files of a drawing and of its mask.
pub(super) const DRAWING_PNG: &str = "drawing.png";
pub(super) const MASK_PNG: &str = "mask.png";

/// The most images of a request.
const IMAGES: usize = 100;

/// The most evaluations of the network for an image, over all images of a request.
const EVALUATIONS: usize = 200_000;

/// The most grey levels that the steps of a request show.
const LEVELS: usize = 1 << 25;

/// The most steps that are shown; more are thinned out evenly.
pub(super) const FRAMES: usize = 100;

/// The options of `sample` that a request may have. None of them names a file.
fn options() -> impl Iterator<Item = String> {
    let of_sampling = REPLACED_BY_PLAN.map(|id| id.replace('_', "-"));
    let others = ["classes", "num-images", "per-class", "seed"].map(str::to_owned);
    others.into_iter().chain(of_sampling)
}

/// The names and values of a query.
pub(super) type Query = Vec<(String, String)>;

/// A request that is wrong; its text says why.
#[derive(Debug)]
pub(super) struct Wrong(pub(super) String);

impl<E: Into<anyhow::Error>> From<E> for Wrong {
    fn from(error: E) -> Self {
        Self(format!("{:#}", error.into()))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model with its name on the command line.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) denoiser: Arc<Denoiser>,
    /// Computing it takes as long as some images.
    pub(super) sha256: String,
}

/// Images to sample.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) model: Model,
    pub(super) job: Job,
    /// Makes the same picture again.
    pub(super) recipe: Recipe,
}

impl Asked {
    /// Reads the options of a query.
    ///
    /// # Errors
    /// A name or a value is wrong, or the request is too large.
    pub(super) fn new(query: &Query, model: &Model, common: &Common) -> Result<Self, Wrong> {
        let mut words = vec!["ddpm-cli".to_owned(), "sample".to_owned()];
        let (mut drawing, mut mask, mut strength) = (None, None, None);
        for (name, value) in query {
            match name.as_str() {
                // Which model: the caller has read it.
                "of" => {}
                "drawing" => drawing = Some(value),
                "mask" => mask = Some(value),
                "strength" => strength = Some(number(value)?),
                name if options().any(|option| option == name) => words.push(format!("--{name}={value}")),
                name => bail_wrong(format!(
                    "`{name}` is no option of a request, expected {}",
                    output::list(options())
                ))?,
            }
        }
        words.extend(["--format=png".to_owned(), format!("--model={}", model.name)]);
        let (mut options, asked) = arguments(&words)?;
        let common = Common { seed: asked.seed, ..common.clone() };
        let config = model.denoiser.config();
        let drawing = drawing.map(|drawing| levels(drawing, config)).transpose()?;
        let mask = mask.map(|mask| mask_levels(mask, config)).transpose()?;
        if drawing.is_none() && (mask.is_some() || strength.is_some()) {
            bail_wrong("`mask` and `strength` need a `drawing`".to_owned())?;
        }
        let mut job = sample::job(&options, &common, &model.denoiser)?;
        let mut files = BTreeMap::new();
        if let Some(levels) = drawing {
            let sampling = SampleOptions { strength, ..options.sampling.options() };
            let given = given_image(&levels, mask.as_deref());
            job.config =
                SampleConfig { given: Some(given), ..sampling.config(common.seed, &model.denoiser)? };
            // The files of the command line, which the page offers beside it.
            options.given.strength = strength;
            for (name, levels, option) in [
                (DRAWING_PNG, Some(levels), &mut options.given.from),
                (MASK_PNG, mask, &mut options.given.mask),
            ] {
                if let Some(levels) = levels {
                    files.insert(name.to_owned(), sha256_hex(&png(&levels, config)?));
                    *option = Some(name.into());
                }
            }
        }
        check_size(&job, config)?;
        let inputs = sample::Inputs { model: model.sha256.clone(), files };
        let recipe = sample::recipe(&options, &common, Format::Png, &job, config, inputs);
        Ok(Self { model: model.clone(), job, recipe })
    }
}

/// Parses the words of a command line of `sample`.
fn arguments(words: &[String]) -> Result<(Sample, Common), Wrong> {
    // The first paragraph of clap's message; the others are about the command line.
    let message = |error: clap::Error| {
        let text = error.to_string();
        let first = text.split("\n\n").next().unwrap_or_default();
        let lines: Vec<_> = first.lines().map(str::trim).collect();
        Wrong(lines.join(" ").trim_start_matches("error: ").to_owned())
    };
    let Args { command, common } = Args::of_words(words).map_err(message)?;
    match command {
        Command::Sample(options) => Ok((options, common)),
        _ => Err(anyhow!("expected the options of `sample`").into()),
    }
}

fn check_size(job: &Job, config: &DenoiserConfig) -> Result<()> {
    let (images, plan) = (job.len(), &job.config.plan);
    ensure!(images <= IMAGES, "{images} images are too many for a request, expected at most {IMAGES}");
    let evaluations = images.saturating_mul(plan.evaluations());
    ensure!(
        evaluations <= EVALUATIONS,
        "{images} images with {} evaluations each are too many for a request, expected at most {EVALUATIONS} in all",
        plan.evaluations()
    );
    let levels = (images * 2 * plan.steps().min(FRAMES)).saturating_mul(config.pixels());
    ensure!(
        levels <= LEVELS,
        "the steps of {images} images of {} pixels have too many pixels for a request, expected at most {LEVELS}",
        config.pixels()
    );
    Ok(())
}

/// The grey levels of a drawing: 4 bits for each pixel, the higher ones first, in base64url.
pub(super) fn levels(drawing: &str, config: &DenoiserConfig) -> Result<Vec<u8>> {
    let bytes = decoded("drawing", drawing, config.pixels().div_ceil(2))?;
    let nibbles = bytes.into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(nibbles.map(|nibble| nibble * 17).take(config.pixels()).collect())
}

/// The grey levels of a mask, white where pixels are painted: 1 bit for each pixel, the highest first, in base64url.
pub(super) fn mask_levels(mask: &str, config: &DenoiserConfig) -> Result<Vec<u8>> {
    let bytes = decoded("mask", mask, config.pixels().div_ceil(8))?;
    let bits = bytes.into_iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    Ok(bits.map(|bit| bit * u8::MAX).take(config.pixels()).collect())
}

/// Grey levels as a PNG of the model's size.
pub(super) fn png(levels: &[u8], config: &DenoiserConfig) -> Result<Vec<u8>> {
    let [cols, rows] = [config.cols, config.rows].map(u32::try_from);
    let picture = GrayImage::from_raw(cols?, rows?, levels.to_vec()).context("an image of another size")?;
    picture::encode_png(&picture, None)
}

fn decoded(name: &str, text: &str, expected: usize) -> Result<Vec<u8>> {
    let start: String = text.chars().take(20).collect();
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(bytes) if bytes.len() == expected => Ok(bytes),
        Ok(bytes) => bail!("`{name}` is {start}… of {} bytes, expected {expected} bytes", bytes.len()),
        Err(error) => bail!("`{name}` is {start}…: {error}, expected base64url without padding"),
    }
}

fn number(text: &str) -> Result<f64> {
    text.parse().map_err(|_| anyhow!("`strength` is `{text}`, expected a number above 0 and at most 1"))
}

fn bail_wrong(text: String) -> Result<(), Wrong> {
    Err(Wrong(text))
}
