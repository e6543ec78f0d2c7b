//! The list of images to sample, and sampling in parts of limited size.

use std::{borrow::Cow, iter, ops::Range};

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use ddpm_core::StepInfo;
use ddpm_data::to_pixel;
use ddpm_model::{Denoiser, GivenImage, SampleConfig};

use super::sheet::Sheet;
use crate::{args::Shard, interrupt, progress::Progress};

/// Number of images in a part. Only one part at a time is in memory, so the memory does not grow with the job.
const PART: usize = 500;

/// Maximum number of images in a job, over all its shards. It prevents a mistyped number from filling the disk, or the
/// memory where all pixels are needed at once.
const LIMIT: usize = 20_000_000;

/// The images to sample. Image `i` has the class `classes[(i / run) % classes.len()]`, so no list of images is stored.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) config: SampleConfig,
    images: Range<usize>,
    classes: Vec<u32>,
    run: usize,
}

/// Consecutive images of a job, with their classes.
pub(crate) struct Part {
    pub(crate) images: Vec<u64>,
    pub(crate) labels: Vec<u32>,
}

impl Job {
    /// `per_class` images of each class, in order of the classes. Without classes, `10 * per_class` images.
    ///
    /// # Errors
    /// The job has no images, or more than 20 million.
    pub(crate) fn per_class(config: SampleConfig, classes: &[u32], per_class: usize) -> Result<Self> {
        let len = len_per_class(classes, per_class);
        Self::new(config, if classes.is_empty() { &[0; 10] } else { classes }, per_class, len)
    }

    /// `number` images, with alternating classes.
    ///
    /// # Errors
    /// The job has no images, or more than 20 million.
    pub(crate) fn in_turn(config: SampleConfig, classes: &[u32], number: usize) -> Result<Self> {
        let classes = if classes.is_empty() { &[0] } else { classes };
        Self::new(config, classes, 1, number)
    }

    fn new(config: SampleConfig, classes: &[u32], run: usize, count: usize) -> Result<Self> {
        let images = 0..checked_len(count)?;
        Ok(Self { config, images, classes: classes.to_vec(), run })
    }

    /// One of several equal parts of the job, which can run in separate processes.
    ///
    /// # Errors
    /// The part has no images.
    pub(crate) fn shard(self, shard: Shard) -> Result<Self> {
        let images = shard.range(self.len());
        ensure!(
            !images.is_empty(),
            "this part has no images: --shard has more parts than the job has images"
        );
        Ok(Self { images, ..self })
    }

    /// The number of images.
    pub(crate) fn len(&self) -> usize {
        self.images.len()
    }

    /// The indices of the first and of the last image.
    pub(crate) fn ends(&self) -> [usize; 2] {
        [self.images.start, self.images.end - 1]
    }

    /// The classes, in the order of the images.
    pub(crate) fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// What is done for each image.
    pub(crate) fn description(&self) -> String {
        let SampleConfig { seed, plan, guidance, noise_path, .. } = &self.config;
        let (steps, evaluations) = (plan.steps(), plan.evaluations());
        format!(
            "seed: {seed}, {steps} steps, {evaluations} evaluations without those of guidance, {guidance:?}, \
             noise: {noise_path:?}"
        )
    }

    /// All images in one part, for jobs that are known to be small.
    pub(crate) fn all(&self) -> Part {
        self.part(self.images.clone())
    }

    /// The class of each image as a byte, as files store it.
    pub(crate) fn byte_labels(&self) -> Result<impl Iterator<Item = u8>> {
        let byte = |&class: &u32| u8::try_from(class).context("a class above 255 does not fit in a byte");
        let classes = self.classes.iter().map(byte).collect::<Result<Vec<_>>>()?;
        let run = self.run;
        Ok(self.images.clone().map(move |image| class_of(image, &classes, run)))
    }

    /// Samples one part after the other. Calls `finished` with the grey levels of each part, n × pixels.
    pub(crate) fn sample(
        &self,
        denoiser: &Denoiser,
        progress: &Progress,
        mut finished: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        progress.start(0, self.len() as u64);
        for part in self.parts() {
            let sampled = self.sample_part(denoiser, &part, |_| Ok(()))?;
            finished(&grey_levels(&sampled)?)?;
            progress.add(part.images.len());
        }
        Ok(())
    }

    /// Samples a part. `observe` is called after each step.
    ///
    /// # Errors
    /// Sampling fails, or [`interrupt::check`] fails after a step.
    pub(crate) fn sample_part(
        &self,
        denoiser: &Denoiser,
        part: &Part,
        mut observe: impl FnMut(StepInfo<'_>) -> ddpm_model::Result<()> + Send,
    ) -> Result<Tensor> {
        let sampled = denoiser.sample(&self.config, &part.images, &part.labels, |step| {
            observe(step)?;
            check()
        });
        // The interruption itself, without the layers through which it came.
        interrupt::check()?;
        Ok(sampled?)
    }

    /// Samples all images and returns their grey levels, N × pixels, which must fit in memory.
    pub(crate) fn pixels(&self, denoiser: &Denoiser, progress: &Progress) -> Result<Vec<u8>> {
        let mut pixels = Vec::with_capacity(self.len() * denoiser.config().pixels());
        self.sample(denoiser, progress, |part| {
            pixels.extend_from_slice(part);
            Ok(())
        })?;
        Ok(pixels)
    }

    fn parts(&self) -> impl Iterator<Item = Part> {
        let Range { start, end } = self.images;
        (start..end).step_by(PART).map(move |start| self.part(start..end.min(start + PART)))
    }

    fn part(&self, images: Range<usize>) -> Part {
        let labels = images.clone().map(|image| class_of(image, &self.classes, self.run)).collect();
        Part { images: images.map(|image| image as u64).collect(), labels }
    }

    /// Samples images between those of two lists, one for each class of the job; see [`Denoiser::sample_between`].
    ///
    /// # Errors
    /// As [`Job::sample_part`].
    pub(crate) fn sample_between(
        &self,
        denoiser: &Denoiser,
        ends: [&[u64]; 2],
        lambda: f64,
    ) -> Result<Vec<u8>> {
        let sampled = denoiser.sample_between(&self.config, ends, lambda, &self.classes, |_| check());
        interrupt::check()?;
        Ok(grey_levels(&sampled?)?)
    }

    /// The images in a column for each class, or in one grid without classes. A given image stands before them.
    pub(crate) fn sheet<'a>(&self, denoiser: &Denoiser, pixels: &'a [u8]) -> Sheet<'a> {
        let config = denoiser.config();
        let given = self.config.given.as_ref().map(given_pixels);
        if config.num_classes == 0 {
            let all = match given {
                Some(given) => Cow::Owned([&given, pixels].concat()),
                None => Cow::Borrowed(pixels),
            };
            return Sheet::new(config, vec![(String::new(), all)]);
        }
        let mut columns: Vec<(String, Cow<'a, [u8]>)> = Vec::new();
        columns.extend(given.map(|given| ("from".to_owned(), Cow::Owned(given))));
        for (tile, label) in std::iter::zip(pixels.chunks(config.pixels()), &self.all().labels) {
            let label = label.to_string();
            match columns.iter_mut().find(|(other, _)| *other == label) {
                Some((_, column)) => column.to_mut().extend(tile),
                None => columns.push((label, Cow::Borrowed(tile))),
            }
        }
        Sheet::new(config, columns)
    }
}

/// The number of images of a job with `per_class` images of each class, or `10 * per_class` without classes.
pub(crate) fn len_per_class(classes: &[u32], per_class: usize) -> usize {
    if classes.is_empty() { 10 } else { classes.len() }.saturating_mul(per_class)
}

/// The number of images of a job, if a job may have as many.
///
/// # Errors
/// There are no images, or more than 20 million.
pub(crate) fn checked_len(count: usize) -> Result<usize> {
    ensure!(count > 0, "the job has no images; see --per-class, -n and --classes");
    ensure!(count <= LIMIT, "{count} images are too many, expected at most {LIMIT}");
    Ok(count)
}

/// The grey levels of a given image; pixels to paint are grey.
fn given_pixels(given: &GivenImage) -> Vec<u8> {
    let mask = given.mask.iter().flatten().copied().chain(iter::repeat(1.0));
    iter::zip(&given.image, mask).map(|(&value, known)| to_pixel(value * known)).collect()
}

/// Whether the program was interrupted, as an error of sampling.
fn check() -> ddpm_model::Result<()> {
    interrupt::check().map_err(|error| ddpm_core::Error::Callback(error.into()).into())
}

/// The class of an image, where `run` consecutive images have the same class and the classes repeat in order.
fn class_of<T: Copy>(image: usize, classes: &[T], run: usize) -> T {
    classes[image.div_euclid(run) % classes.len()]
}

/// The grey levels, 0 to 255, of images with values in [−1, 1].
pub(crate) fn grey_levels(images: &Tensor) -> candle_core::Result<Vec<u8>> {
    Ok(images.flatten_all()?.to_vec1::<f32>()?.into_iter().map(to_pixel).collect())
}

#[cfg(test)]
mod tests {
    use ddpm_core::{Guidance, Plan, PredictionType};
    use ddpm_model::SampleConfig;

    use super::{Job, LIMIT, PART};

    fn job(classes: &[u32], run: usize, count: usize) -> anyhow::Result<Job> {
        let (plan, guidance) = (Plan::without_schedule(PredictionType::Sample), Guidance::new(1.0));
        let noise_path = ddpm_model::NoisePath::default();
        let config = SampleConfig { seed: 1, plan, guidance: guidance.into(), noise_path, given: None };
        Job::new(config, classes, run, count)
    }

    #[test]
    fn the_parts_are_small_and_together_the_whole() {
        for (run, count) in [(1, 1), (1, PART), (1, PART + 1), (1000, 2000), (1, 4 * PART - 1)] {
            for shards in [1, 3] {
                let (mut images, mut labels, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
                for shard in (1..=shards).map(|i| format!("{i}/{shards}").parse().unwrap()) {
                    // With one image and three parts, two parts are empty, which is an error.
                    let Ok(job) = job(&[7, 3], run, count).unwrap().shard(shard) else { continue };
                    bytes.extend(job.byte_labels().unwrap().map(u32::from));
                    for part in job.parts() {
                        assert!((1..=PART).contains(&part.images.len()));
                        images.extend(part.images);
                        labels.extend(part.labels);
                    }
                }
                let class = |image: usize| if image.div_euclid(run) % 2 == 0 { 7 } else { 3 };
                assert!(images.into_iter().eq(0..count as u64), "{count} in {shards}");
                assert!(labels.iter().copied().eq((0..count).map(class)) && bytes == labels);
            }
        }
    }

    #[test]
    fn the_largest_job_is_no_list() {
        let job = job(&[0, 1, 2], 1, LIMIT).unwrap().shard("1000/1000".parse().unwrap()).unwrap();
        assert_eq!((job.len(), job.parts().last().unwrap().images.last()), (20_000, Some(&19_999_999)));
    }

    #[test]
    fn a_class_that_fits_in_no_byte_is_found_before_sampling() {
        assert!(job(&[0, 255], 1, 2).unwrap().byte_labels().is_ok());
        assert!(job(&[0, 256], 1, 2).unwrap().byte_labels().is_err());
    }
}
