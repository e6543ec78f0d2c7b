//! What is measured: images that a model generates, or images of files.

use std::{borrow::Cow, collections::BTreeSet, path::Path};

use anyhow::Result;
use candle_core::Device;
use ddpm_data::{Dataset, Splits};
use ddpm_eval::ensure_fits;
use ddpm_model::Denoiser;
use serde_json::{Value, json};

use crate::{
    args::{Common, Eval},
    commands::{job::Job, sampling::SamplingOption},
    data, output,
    progress::Progress,
};

pub(super) enum Subject {
    /// Samples of a model. The labels are `None` for a model without classes.
    Model { denoiser: Box<Denoiser>, job: Job, labels: Option<Vec<u8>> },
    /// Images of files, with sentences on how they were read.
    Images { images: Dataset, notes: Vec<String> },
}

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
        let sampling = options.sampling.config(common.seed, None, &denoiser)?;
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
    pub(super) fn sampling(&self, options: &Eval) -> Vec<SamplingOption> {
        match self {
            Self::Model { job, .. } => options.sampling.described(&job.config),
            Self::Images { .. } => Vec::new(),
        }
    }
}
