//! What is measured: images that a model generates, or images of files.

use std::{borrow::Cow, collections::BTreeSet, path::Path};

use anyhow::Result;
use candle_core::Device;
use ddpm_core::{Guidance, ReverseVariance};
use ddpm_data::{Dataset, Splits};
use ddpm_eval::ensure_fits;
use ddpm_model::Denoiser;
use serde_json::{Value, json};

use crate::{
    args::{Common, Eval, Interval},
    commands::job::Job,
    data, output,
    progress::Progress,
};

pub(super) enum Subject {
    /// Samples of a model. The labels are `None` for a model without classes.
    Model { denoiser: Box<Denoiser>, job: Job, labels: Option<Vec<u8>> },
    /// Images of files, with sentences on how they were read.
    Images { images: Dataset, notes: Vec<String> },
}

/// A sampling option: name, value in JSON, and value on the command line, which is `None` if the command does not need the
/// option.
pub(super) type SamplingOption = (&'static str, Value, Option<String>);

impl Subject {
    /// The subject, and the data set to compare with.
    pub(super) fn open(options: &Eval, common: &Common, device: &Device) -> Result<(Self, Splits)> {
        match &options.images {
            Some(path) => {
                let splits = data::load(&options.data)?;
                Ok((Self::images(path, splits.train())?, splits))
            }
            None => {
                let denoiser = options.sampling.load(device)?;
                let splits = data::load_for(&options.data, &denoiser)?;
                ensure_fits(&denoiser, splits.train())?;
                Ok((Self::model(options, common, denoiser)?, splits))
            }
        }
    }

    fn model(options: &Eval, common: &Common, denoiser: Denoiser) -> Result<Self> {
        let sampling = options.sampling.config(common.seed, &denoiser)?;
        let classes = options.sampling.classes(&denoiser)?;
        let job = Job::in_turn(sampling, &classes, options.num_images)?;
        let labels = if classes.is_empty() { None } else { Some(job.byte_labels()?.collect()) };
        Ok(Self::Model { denoiser: denoiser.into(), job, labels })
    }

    /// Reads images of the size of `train`, with labels below its number of classes.
    fn images(path: &Path, train: &Dataset) -> Result<Self> {
        let mut images = Dataset::from_path(path, [train.rows(), train.cols()])?;
        let mut notes = images.notes().to_vec();
        if let (Some(classes), Some(_)) = (train.classes(), images.classes()) {
            images = images.with_classes(classes)?;
            let found: BTreeSet<usize> =
                images.labels().unwrap_or_default().iter().map(|&label| label.into()).collect();
            let absent: Vec<usize> = (0..classes).filter(|class| !found.contains(class)).collect();
            if !absent.is_empty() {
                let absent = output::list(absent);
                notes.push(format!(
                    "{}: no image has the label {absent}, and the real images have all classes",
                    path.display()
                ));
            }
        }
        Ok(Self::Images { images, notes })
    }

    /// The class of each image.
    pub(super) fn labels(&self) -> Option<&[u8]> {
        match self {
            Self::Model { labels, .. } => labels.as_deref(),
            Self::Images { images, .. } => images.labels(),
        }
    }

    /// The grey levels of all images. Samples them, if they come from a model.
    pub(super) fn pixels(&self, common: &Common) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Model { denoiser, job, .. } => {
                Ok(job.pixels(denoiser, &Progress::new(common, "images")?)?.into())
            }
            Self::Images { images, .. } => Ok(images.images().into()),
        }
    }

    /// The options that select the subject and the data, as the command line has them.
    pub(super) fn command(&self, options: &Eval) -> String {
        let data = &options.data;
        match self {
            Self::Model { .. } => {
                format!(
                    "--model {} --data {data} --num-images {}",
                    options.sampling.model, options.num_images
                )
            }
            Self::Images { .. } => {
                let images = options.images.as_deref().unwrap_or(Path::new(""));
                format!("--images {} --data {data}", images.display())
            }
        }
    }

    /// What names the subject in JSON.
    pub(super) fn json(&self, options: &Eval) -> Value {
        match self {
            Self::Model { .. } => json!({ "model": options.sampling.model }),
            Self::Images { images, notes } => json!({
                "images": options.images,
                "images_sha256": images.images_sha256(),
                "labels_sha256": images.labels_sha256(),
                "notes": notes,
            }),
        }
    }

    /// The sampling options; none for images of files.
    pub(super) fn sampling(&self, options: &Eval) -> Result<Vec<SamplingOption>> {
        let Self::Model { job, .. } = self else { return Ok(Vec::new()) };
        let sampling = &options.sampling;
        let classes = sampling.classes.as_ref().map(|list| &list.0);
        let plan = sampling.plan.as_ref().map(|path| path.display().to_string());
        // A plan has its own steps and guidance.
        let own = plan.is_none();
        let chosen = sampling.options();
        let sampler = own.then(|| output::name(&chosen.sampler_name()));
        let variance = chosen.variance;
        let step_count = job.config.plan.steps();
        let timesteps = &sampling.timesteps;
        let [scale, guide_scale] =
            [&job.config.guidance.class, &job.config.guidance.guide].map(Guidance::scale);
        let interval = |interval: Option<Interval>| {
            let ends = interval.map(|Interval(first, last)| [first, last]);
            (json!(ends), ends.map(|[first, last]| format!("{first}-{last}")))
        };
        let (guided, guided_text) = interval(sampling.guiding.guidance_interval);
        let (annealed, annealed_text) = interval(sampling.guiding.class_annealing);
        let (by_guide, by_guide_text) = interval(sampling.guiding.guide_interval);
        let (guide, epsilon_scale) = (&sampling.guiding.guide, sampling.epsilon_scale);
        Ok(vec![
            ("classes", json!(classes), classes.map(output::list)),
            ("plan", json!(plan), plan),
            ("sampler", json!(sampler), sampler),
            ("variance", json!(variance), variance.as_ref().map(variance_name)),
            ("eta", json!(sampling.eta), sampling.eta.map(|eta| eta.to_string())),
            ("steps", json!(step_count), sampling.steps.map(|steps| steps.to_string())),
            ("timesteps", json!(timesteps), timesteps.as_ref().map(output::list)),
            ("epsilon-scale", json!(epsilon_scale), epsilon_scale.map(|scale| scale.to_string())),
            ("guidance-scale", json!(scale), own.then(|| scale.to_string())),
            ("guidance-interval", guided, guided_text),
            ("guide", json!(guide), guide.clone()),
            ("guide-scale", json!(guide_scale), (own && guide_scale != 1.0).then(|| guide_scale.to_string())),
            ("guide-interval", by_guide, by_guide_text),
            ("class-annealing", annealed, annealed_text),
        ])
    }
}

/// A variance as the value of --variance.
fn variance_name(variance: &ReverseVariance) -> String {
    match variance {
        ReverseVariance::FixedSmall => "fixed_small".to_owned(),
        ReverseVariance::FixedLarge => "fixed_large".to_owned(),
        ReverseVariance::PerStep(list) => output::list(list),
        _ => "zero".to_owned(),
    }
}
