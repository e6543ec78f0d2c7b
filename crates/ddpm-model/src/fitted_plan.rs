//! Plans that were fitted to a model, as files.

use std::{fs, ops::RangeInclusive, path::Path};

use ddpm_core::{Guidance, Multistep, MultistepStep};
use ddpm_files::{Sha256, check_keys};
use serde::{Deserialize, Serialize};

use crate::{
    Denoiser, DenoiserGuidance, Error, NoisePath, Result, SampleConfig, WeightType,
    encode::{encode_json, encode_tensors},
    scheduler_json,
};

/// A plan of few steps that was fitted to a model, with the guidance with which it was fitted. [`PlanFit`](crate::PlanFit)
/// makes one. It is a JSON file, and belongs to one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedPlan {
    /// The [`Denoiser::sha256`] of the model.
    model_sha256: String,
    /// Guidance by the class.
    guidance: GuidanceFile,
    /// Guidance by the guide; `None` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guide: Option<GuidanceFile>,
    steps: Vec<MultistepStep>,
}

/// [`Guidance`] with ends of intervals that JSON can hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuidanceFile {
    scale: f64,
    interval: [f64; 2],
    annealing: Option<[f64; 2]>,
}

impl FittedPlan {
    /// The plan of a method that was fitted to a model with this guidance.
    ///
    /// # Errors
    ///
    /// As [`Denoiser::sha256`].
    pub(crate) fn new(denoiser: &Denoiser, guidance: &DenoiserGuidance, method: Multistep) -> Result<Self> {
        let last = (denoiser.schedule().num_train_timesteps() - 1) as f64;
        let DenoiserGuidance { class, guide } = guidance;
        Ok(Self {
            model_sha256: denoiser.sha256()?,
            guidance: GuidanceFile::new(class, last),
            guide: denoiser.guide().map(|_| GuidanceFile::new(guide, last)),
            steps: method.steps,
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not the JSON of a plan; the error names the file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|source| Error::ReadPlan { path: path.to_owned(), source })?;
        Self::parse(path, &bytes)
    }

    /// Reads the bytes of a file. `path` is used in error messages only.
    ///
    /// # Errors
    ///
    /// If it is not the JSON of a plan. Whether the plan can be carried out is checked by [`FittedPlan::config`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        check_keys(bytes).and_then(|()| serde_json::from_slice(bytes)).map_err(Error::json(path))
    }

    /// The content of the file. `path` is used in error messages only.
    ///
    /// # Errors
    ///
    /// If a factor is not finite.
    pub fn encode(&self, path: &Path) -> Result<Vec<u8>> {
        encode_json(path, self)
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[MultistepStep] {
        &self.steps
    }

    /// The sampling configuration of the plan, for the model to which it was fitted.
    ///
    /// # Errors
    ///
    /// If the plan was fitted to another model, or with another guide, or it does not fit the schedule.
    pub fn config(&self, seed: u64, denoiser: &Denoiser) -> Result<SampleConfig> {
        let found = denoiser.sha256()?;
        if found != self.model_sha256 {
            return Err(Error::PlanOfOtherModel { found, expected: self.model_sha256.clone() });
        }
        let guide = self.guide.as_ref().map_or(Guidance::new(1.0), GuidanceFile::guidance);
        let guidance = DenoiserGuidance { class: self.guidance.guidance(), guide };
        denoiser.check_guidance(&guidance)?;
        let plan = Multistep { steps: self.steps.clone() }.plan(denoiser.schedule())?;
        Ok(SampleConfig { seed, plan, guidance, noise_path: NoisePath::default(), given: None })
    }
}

impl GuidanceFile {
    /// Intervals without an end reach to the timestep `last`.
    fn new(guidance: &Guidance, last: f64) -> Self {
        let ends = |interval: &RangeInclusive<f64>| [*interval.start(), interval.end().min(last)];
        Self {
            scale: guidance.scale(),
            interval: ends(guidance.interval()),
            annealing: guidance.annealing().map(ends),
        }
    }

    fn guidance(&self) -> Guidance {
        let [first, last] = self.interval;
        let guidance = Guidance::new(self.scale).within(first..=last);
        match self.annealing {
            Some([first, last]) => guidance.annealed(first..=last),
            None => guidance,
        }
    }
}

impl Denoiser {
    /// The SHA-256 of what determines the predictions, in hexadecimal: the schedule, the architecture and the weights, as
    /// [`write_model`](crate::write_model) writes them in f32, and the digest of the guide, if there is one.
    ///
    /// # Errors
    ///
    /// If the model cannot be written.
    pub fn sha256(&self) -> Result<String> {
        let path = Path::new("the model");
        let mut digest = Sha256::default();
        digest.update(scheduler_json(&self.schedule_config())?.as_bytes());
        digest.update(&encode_json(path, self.config())?);
        digest.update(&encode_tensors(path, self.weights(), WeightType::F32)?);
        if let Some(guide) = self.guide() {
            digest.update(guide.sha256()?.as_bytes());
        }
        Ok(digest.into_hex())
    }
}
