//! Pictures: grids, strips, interpolations and animations.

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;
use ddpm_core::StepInfo;
use ddpm_model::Denoiser;

use crate::{
    args::{Common, Images, Strip},
    commands::{
        job::{Job, grey_levels},
        sheet::Sheet,
    },
    progress::Progress,
};

/// Maximum number of steps that an animation shows.
const FRAMES: usize = 100;

/// Maximum number of stages in a strip.
const STAGES: usize = 12;

/// Maximum number of images in a picture; `idx` and `safetensors` have no such limit.
const LIMIT: usize = 10_000;

/// What a picture shows.
#[derive(Clone, Copy)]
pub(in crate::commands) enum Layout {
    /// The images.
    Grid,
    /// Stages of each image.
    Strip(Strip),
    /// Images on the way from each image of a class to the next: the number of images of a class, and of those between two.
    Interpolation { per_class: usize, between: usize },
}

impl Layout {
    pub(super) fn of(options: &Images) -> Self {
        match (options.strip, options.interpolate) {
            (Some(strip), _) => Self::Strip(strip),
            (None, Some(between)) => Self::Interpolation { per_class: options.per_class, between },
            (None, None) => Self::Grid,
        }
    }

    /// Fails before sampling starts if the picture would be too large: draws it with blank tiles.
    pub(super) fn check(self, job: &Job, denoiser: &Denoiser, tile_side: usize) -> Result<()> {
        let count = job.len();
        let advice = || format!("{count} images do not fit in a picture; use --format idx or safetensors");
        ensure!(count <= LIMIT, advice());
        let pixels = denoiser.config().pixels();
        let blank = |count: usize| vec![0; count * pixels];
        let columns = |labels: Vec<String>, rows: usize| {
            let columns = labels.into_iter().map(|label| (label, Cow::Owned(blank(rows)))).collect();
            Sheet::new(denoiser.config(), columns).draw(tile_side)
        };
        let drawn = match self {
            Self::Grid => job.sheet(denoiser, &blank(count)).draw(tile_side),
            Self::Strip(strip) => {
                columns(strip.stages(job, denoiser).into_iter().map(|(_, l)| l).collect(), count)
            }
            Self::Interpolation { per_class, between } => {
                ensure!(
                    per_class >= 2,
                    "--interpolate needs two images of a class, and --per-class is {per_class}"
                );
                columns(places(per_class, between).map(label_of_place).collect(), job.classes().len())
            }
        };
        drawn.map(|_| ()).with_context(advice)
    }

    /// Samples the images of a picture.
    pub(in crate::commands) fn sample(
        self,
        job: &Job,
        denoiser: &Denoiser,
        common: &Common,
    ) -> Result<Sheet<'static>> {
        let progress = Progress::new(common, "images")?;
        match self {
            Self::Grid => {
                let pixels = job.pixels(denoiser, &progress)?;
                Ok(job.sheet(denoiser, &pixels).into_owned())
            }
            Self::Strip(strip) => strip.sample(job, denoiser),
            Self::Interpolation { per_class, between } => {
                let places = places(per_class, between).collect::<Vec<_>>();
                progress.start(0, places.len() as u64 * job.classes().len() as u64);
                let mut columns = Vec::with_capacity(places.len());
                for (image, step) in places {
                    let ends = [image, image + usize::from(step > 0)].map(|image| {
                        let rows = 0..job.classes().len();
                        rows.map(|row| (row * per_class + image) as u64).collect::<Vec<_>>()
                    });
                    let lambda = step as f64 / (between + 1) as f64;
                    let pixels = job.sample_between(denoiser, [&ends[0], &ends[1]], lambda)?;
                    columns.push((label_of_place((image, step)), Cow::Owned(pixels)));
                    progress.add(job.classes().len());
                }
                Ok(Sheet::new(denoiser.config(), columns))
            }
        }
    }
}

/// The columns of an interpolation: an image, and how many images stand between it and the column.
fn places(per_class: usize, between: usize) -> impl Iterator<Item = (usize, usize)> {
    let last = per_class - 1;
    let inner = (0..last).flat_map(move |image| (0..=between).map(move |step| (image, step)));
    inner.chain([(last, 0)])
}

/// The number of an image within its class; nothing for a column between two images.
fn label_of_place((image, step): (usize, usize)) -> String {
    if step == 0 { image.to_string() } else { String::new() }
}

impl Strip {
    /// The stages that are shown, each with the label of its column: the number of steps done, or the timestep of the forward
    /// process.
    fn stages(self, job: &Job, denoiser: &Denoiser) -> Vec<(usize, String)> {
        let total = match self {
            Self::Reverse | Self::Predictions => job.config.plan.steps(),
            Self::Forward => denoiser.schedule().num_train_timesteps(),
        };
        let shown = shown(total, STAGES - 1);
        let stages: Vec<usize> = match self {
            Self::Reverse | Self::Forward => shown.collect(),
            // There is no prediction before the first step.
            Self::Predictions => shown.skip(1).collect(),
        };
        let label = |stage: usize| match (self, stage) {
            (Self::Forward, 0) => "x0".to_owned(),
            (Self::Forward, stage) => format!("t={}", stage - 1),
            (Self::Reverse | Self::Predictions, stage) => stage.to_string(),
        };
        stages.into_iter().map(|stage| (stage, label(stage))).collect()
    }

    fn sample(self, job: &Job, denoiser: &Denoiser) -> Result<Sheet<'static>> {
        let stages = self.stages(job, denoiser);
        let wanted: Vec<usize> = stages.iter().map(|(stage, _)| *stage).collect();
        let pixels = match self {
            Self::Reverse => states(job, denoiser, &wanted, |step| step.x_t.clone())?,
            Self::Predictions => states(job, denoiser, &wanted, |step| step.x_start.clone())?,
            Self::Forward => {
                let part = job.all();
                let x_start = job.sample_part(denoiser, &part, |_| Ok(()))?;
                let noise = Denoiser::noise(&job.config, &part.images);
                let eps = noise.start(&[denoiser.config().pixels()], denoiser.device())?;
                let noised = |&stage: &usize| match stage.checked_sub(1) {
                    None => Ok(grey_levels(&x_start)?),
                    Some(t) => Ok(grey_levels(&denoiser.schedule().q_sample(&x_start, &[t], &eps)?)?),
                };
                wanted.iter().map(noised).collect::<Result<_>>()?
            }
        };
        let columns = std::iter::zip(stages, pixels).map(|((_, label), pixels)| (label, Cow::Owned(pixels)));
        Ok(Sheet::new(denoiser.config(), columns.collect()))
    }
}

/// The frames of an animation: the initial noise, then the images after each step, or after [`FRAMES`] steps that are
/// evenly spaced.
pub(super) fn frames(job: &Job, denoiser: &Denoiser) -> Result<Vec<Sheet<'static>>> {
    let wanted: Vec<usize> = shown(job.config.plan.steps(), FRAMES).collect();
    let states = states(job, denoiser, &wanted, |step| step.x_t.clone())?;
    Ok(states.iter().map(|pixels| job.sheet(denoiser, pixels).into_owned()).collect())
}

/// The grey levels of all images after these numbers of steps, in ascending order. 0 is the start.
fn states(
    job: &Job,
    denoiser: &Denoiser,
    wanted: &[usize],
    pick: impl Fn(&StepInfo<'_>) -> Tensor + Send + Sync,
) -> Result<Vec<Vec<u8>>> {
    let part = job.all();
    let mut states = Vec::with_capacity(wanted.len());
    if wanted.first() == Some(&0) {
        states.push(grey_levels(denoiser.start(&job.config, &part.images)?.x_t())?);
    }
    job.sample_part(denoiser, &part, |step| {
        if wanted.contains(&(step.index + 1)) {
            states.push(grey_levels(&pick(&step))?);
        }
        Ok(())
    })?;
    if states.len() != wanted.len() {
        bail!("the run has {} of the {} stages of the picture", states.len(), wanted.len());
    }
    Ok(states)
}

/// The numbers 0 to `total`, or `at_most` + 1 of them that are evenly spaced, with both ends.
pub(in crate::commands) fn shown(total: usize, at_most: usize) -> impl Iterator<Item = usize> {
    let steps = total.min(at_most);
    (0..=steps).map(move |step| (step * total).div_ceil(steps.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_evenly_spaced_and_have_both_ends() {
        assert!(shown(0, 11).eq([0]));
        assert!(shown(4, 11).eq([0, 1, 2, 3, 4]));
        assert!(shown(20, 10).eq((0..=20).step_by(2)));
        assert!(shown(20, 11).eq([0, 2, 4, 6, 8, 10, 11, 13, 15, 17, 19, 20]));
        for total in 1..300 {
            let stages: Vec<_> = shown(total, FRAMES).collect();
            assert!(stages.is_sorted_by(|a, b| a < b) && stages.len() <= FRAMES + 1, "{total}");
            assert_eq!((stages[0], stages.last()), (0, Some(&total)));
        }
    }

    #[test]
    fn an_interpolation_has_each_image_once() {
        assert!(places(3, 1).eq([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]));
    }
}
