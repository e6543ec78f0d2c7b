//! A list of images to sample, and the sampling of it in parts.

use anyhow::{Context, Result, bail, ensure};
use ddpm_core::{
    NoiseMode, Sampler,
    sampler::{Churn, DpmSolver, Guidance, UniPc},
};
use ddpm_data::to_pixel;
use ddpm_model::{Denoiser, SampleConfig, Steps};
use indicatif::ProgressBar;

use crate::{
    args::{Common, Interval, NoiseName, SamplerName, Sampling},
    output,
    picture::{self, Column},
};

/// Images of a part; memory does not grow with the job beyond the finished pixels.
const PART: usize = 500;

/// Images of a job at most, over all its shards: the list of them must fit in memory, and the pixels of a
/// shard.
const LIMIT: usize = 20_000_000;

/// Which images to sample: their indices and their classes.
pub(crate) struct Job {
    pub(crate) config: SampleConfig,
    pub(crate) images: Vec<u64>,
    pub(crate) labels: Vec<u32>,
}

impl Job {
    /// `per_class` images of each class, class by class. A model without classes gets as many images as if
    /// it had ten. None and too many are an error.
    pub(crate) fn per_class(
        config: SampleConfig,
        denoiser: &Denoiser,
        classes: &[u32],
        per_class: usize,
    ) -> Result<Self> {
        let classes = if denoiser.config().num_classes == 0 { &[0; 10] } else { classes };
        check_count(classes.len().saturating_mul(per_class))?;
        let labels = classes.iter().flat_map(|&class| std::iter::repeat_n(class, per_class));
        Ok(Self::new(config, labels.collect()))
    }

    /// `number` images, going round the classes. None and too many are an error.
    pub(crate) fn in_turn(
        config: SampleConfig,
        denoiser: &Denoiser,
        classes: &[u32],
        number: usize,
    ) -> Result<Self> {
        let classes = if denoiser.config().num_classes == 0 { &[0] } else { classes };
        check_count(number)?;
        Ok(Self::new(config, classes.iter().copied().cycle().take(number).collect()))
    }

    fn new(config: SampleConfig, labels: Vec<u32>) -> Self {
        Self { config, images: (0..labels.len() as u64).collect(), labels }
    }

    /// Samples all images: N × pixels grey levels.
    pub(crate) fn run(&self, denoiser: &Denoiser, bar: &ProgressBar) -> Result<Vec<u8>> {
        let mut pixels = Vec::with_capacity(self.images.len() * denoiser.config().pixels());
        for (images, labels) in std::iter::zip(self.images.chunks(PART), self.labels.chunks(PART)) {
            let sampled = denoiser.sample(&self.config, images, labels, |_| Ok(()))?;
            pixels.extend(grey_levels(&sampled)?);
            bar.inc(images.len() as u64);
        }
        Ok(pixels)
    }

    /// [`Job::run`] with a progress bar.
    pub(crate) fn run_with_progress(&self, denoiser: &Denoiser, common: &Common) -> Result<Vec<u8>> {
        let template = "{wide_bar} {pos}/{len} images  {per_sec}  {eta} left";
        let bar = output::progress(common, self.images.len() as u64, template)?;
        let pixels = self.run(denoiser, &bar)?;
        bar.finish_and_clear();
        Ok(pixels)
    }

    /// The classes as they are stored in files.
    pub(crate) fn byte_labels(&self) -> Result<Vec<u8>> {
        let byte = |&label: &u32| u8::try_from(label).context("a class above 255 fits in no byte");
        self.labels.iter().map(byte).collect()
    }

    /// A picture of the images: a column for each class, or a plain grid without classes.
    pub(crate) fn picture(
        &self,
        denoiser: &Denoiser,
        pixels: &[u8],
        tile_side: usize,
    ) -> Result<image::GrayImage> {
        let config = denoiser.config();
        let (rows, cols) = (config.rows, config.cols);
        let scale = picture::tile_scale(rows, cols, tile_side);
        let tiles: Vec<&[u8]> = pixels.chunks(config.pixels()).collect();
        if config.num_classes == 0 {
            return picture::plain_grid(&tiles, rows, cols, scale);
        }
        let mut columns: Vec<Column<'_>> = Vec::new();
        for (tile, label) in tiles.into_iter().zip(self.labels.iter().map(u32::to_string)) {
            match columns.iter_mut().find(|column| column.label == label) {
                Some(column) => column.tiles.push(tile),
                None => columns.push(Column { label, tiles: vec![tile] }),
            }
        }
        picture::labelled_grid(&columns, rows, cols, scale)
    }
}

fn check_count(count: usize) -> Result<()> {
    ensure!(count > 0, "no images were asked for; see --per-class, -n and --classes");
    ensure!(count <= LIMIT, "{count} images are too many, expected {LIMIT} at most");
    Ok(())
}

/// Images on the scale [−1, 1] as grey levels.
pub(crate) fn grey_levels(images: &candle_core::Tensor) -> candle_core::Result<Vec<u8>> {
    Ok(images.flatten_all()?.to_vec1::<f32>()?.into_iter().map(to_pixel).collect())
}

impl Sampling {
    /// The sampler's configuration for a model.
    pub(crate) fn config(&self, seed: u64, denoiser: &Denoiser) -> Result<SampleConfig> {
        let default = SampleConfig::ancestral(seed, denoiser);
        ensure!(
            self.sampler == SamplerName::Ddpm || self.noise.is_none(),
            "--noise is an option of the sampler ddpm"
        );
        ensure!(
            self.sampler == SamplerName::Ddim || self.eta.is_none(),
            "--eta is an option of the sampler ddim"
        );
        let sampler = match self.sampler {
            SamplerName::Ddpm => match self.noise {
                None => default.sampler,
                Some(NoiseName::Posterior) => Sampler::Ddpm(NoiseMode::Posterior),
                Some(NoiseName::Beta) => Sampler::Ddpm(NoiseMode::Beta),
                Some(NoiseName::None) => Sampler::Ddpm(NoiseMode::None),
            },
            SamplerName::Ddim => Sampler::Ddim(self.eta.unwrap_or(0.0)),
            SamplerName::DpmPp2m => Sampler::DpmSolverMultistep(DpmSolver::plus_plus_2m()),
            SamplerName::DpmPp2mSde => Sampler::DpmSolverMultistep(DpmSolver::sde_2m()),
            SamplerName::Euler => Sampler::Euler(Churn::NONE),
            SamplerName::EulerAncestral => Sampler::EulerAncestral,
            SamplerName::Heun => Sampler::Heun(Churn::NONE),
            SamplerName::Unipc => Sampler::UniPc(UniPc::order_2()),
        };
        let steps = match (self.steps, &self.timesteps) {
            (Some(steps), _) => Steps::Spaced(steps),
            (None, Some(list)) => Steps::List(list.clone()),
            (None, None) => Steps::All,
        };
        let mut guidance = self.guidance.map_or(default.guidance, Guidance::new);
        if let Some(Interval(first, last)) = self.guidance_interval {
            guidance = guidance.within(first.into()..=last.into());
        }
        Ok(SampleConfig { sampler, steps, guidance, ..default })
    }

    /// The classes asked for, or all of the model.
    pub(crate) fn classes(&self, denoiser: &Denoiser) -> Result<Vec<u32>> {
        let count = denoiser.config().num_classes;
        let Some(list) = &self.classes else { return Ok((0..).take(count).collect()) };
        ensure!(count > 0, "--classes needs a class-conditional model, and this one has no classes");
        // The model would take its null class, too.
        match list.0.iter().find(|&&class| class as usize >= count) {
            Some(class) => bail!("class {class}, but the model has classes 0 to {}", count - 1),
            None => Ok(list.0.clone()),
        }
    }
}
