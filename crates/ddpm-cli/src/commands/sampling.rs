//! The sampling options of `sample` and `eval`, and the configuration that they give for a model.

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use ddpm_core::{Guidance, ReverseVariance, Steps};
use ddpm_model::{ComputeType, Denoiser, FittedPlan, NoisePath, SampleConfig, SampleOptions};
use serde_json::{Value, json};

use crate::{
    args::{Interval, Noise, Sampling, Variance},
    model, output,
};

/// A sampling option: name, value in JSON, and value on the command line, which is `None` if the command does not need the
/// option.
pub(super) type SamplingOption = (&'static str, Value, Option<String>);

impl Sampling {
    /// The model of --model, with the guide of --guide, in the number type of --compute.
    pub(crate) fn load(&self, device: &Device) -> Result<Denoiser> {
        let denoiser = model::load_guided(&self.model, self.guiding.guide.as_deref(), device)?;
        Ok(denoiser.computing_in(self.compute)?)
    }

    /// The sampling configuration for a model. `strength` is that of --strength.
    pub(crate) fn config(
        &self,
        seed: u64,
        strength: Option<f64>,
        denoiser: &Denoiser,
    ) -> Result<SampleConfig> {
        if let Some(path) = &self.plan {
            let plan = FittedPlan::read(path)?;
            return plan.config(seed, denoiser).with_context(|| path.display().to_string());
        }
        Ok(SampleOptions { strength, ..self.options() }.config(seed, denoiser)?)
    }

    /// The sampling options, which have an effect without --plan.
    pub(crate) fn options(&self) -> SampleOptions {
        let steps = match (self.steps, &self.timesteps) {
            (Some(steps), _) => Steps::Spaced(steps),
            (None, Some(list)) => Steps::Explicit(list.clone()),
            (None, None) => Steps::All,
        };
        SampleOptions {
            sampler: self.sampler,
            variance: self.variance(),
            eta: self.eta,
            steps,
            epsilon_scale: self.epsilon_scale,
            guidance: self.guiding.options(),
            noise_path: self.noise_path,
            strength: None,
        }
    }

    /// The reverse-step variance; `None` if neither --variance nor --noise is given.
    fn variance(&self) -> Option<ReverseVariance> {
        match (&self.variance, self.noise) {
            (Some(Variance(variance)), _) => Some(variance.clone()),
            (None, Some(Noise::None)) => Some(ReverseVariance::Zero),
            (None, None) => None,
        }
    }

    /// The classes of --classes, or all classes of the model.
    pub(crate) fn classes(&self, denoiser: &Denoiser) -> Result<Vec<u32>> {
        let count = denoiser.config().num_classes;
        let Some(list) = &self.classes else { return Ok((0..).take(count).collect()) };
        ensure!(count > 0, "--classes needs a class-conditional model, and this one has no classes");
        // The index `count` is the model's null class; it must be refused here.
        match list.0.iter().find(|&&class| class as usize >= count) {
            Some(class) => bail!("class {class}, but the model has classes 0 to {}", count - 1),
            None => Ok(list.0.clone()),
        }
    }

    /// The options with the values that were chosen for a model.
    pub(super) fn described(&self, config: &SampleConfig) -> Vec<SamplingOption> {
        let classes = self.classes.as_ref().map(|list| &list.0);
        let plan = self.plan.as_ref().map(|path| path.display().to_string());
        // A plan has its own steps and guidance.
        let own = plan.is_none();
        let chosen = self.options();
        let sampler = own.then(|| output::name(&chosen.sampler_name()));
        let variance = chosen.variance;
        let step_count = config.plan.steps();
        let timesteps = &self.timesteps;
        let [scale, guide_scale] = [&config.guidance.class, &config.guidance.guide].map(Guidance::scale);
        let interval = |interval: Option<Interval>| {
            let ends = interval.map(|Interval(first, last)| [first, last]);
            (json!(ends), ends.map(|[first, last]| format!("{first}-{last}")))
        };
        let (guided, guided_text) = interval(self.guiding.guidance_interval);
        let (annealed, annealed_text) = interval(self.guiding.class_annealing);
        let (by_guide, by_guide_text) = interval(self.guiding.guide_interval);
        // A scale that the user gave counts even if it is that of a model without a guide.
        let by_guide_scale = own && (guide_scale != 1.0 || self.guiding.guide_scale.is_some());
        let own_path = (self.noise_path != NoisePath::default()).then(|| output::name(&self.noise_path));
        let half = (self.compute != ComputeType::default()).then(|| output::name(&self.compute));
        let (guide, epsilon_scale) = (&self.guiding.guide, self.epsilon_scale);
        vec![
            ("classes", json!(classes), classes.map(output::list)),
            ("plan", json!(plan), plan),
            ("sampler", json!(sampler), sampler),
            ("variance", json!(variance), variance.as_ref().map(variance_name)),
            ("eta", json!(self.eta), self.eta.map(|eta| eta.to_string())),
            ("steps", json!(step_count), self.steps.map(|steps| steps.to_string())),
            ("timesteps", json!(timesteps), timesteps.as_ref().map(output::list)),
            ("noise-path", json!(output::name(&self.noise_path)), own_path),
            ("epsilon-scale", json!(epsilon_scale), epsilon_scale.map(|scale| scale.to_string())),
            ("compute", json!(output::name(&self.compute)), half),
            ("guidance-scale", json!(scale), own.then(|| scale.to_string())),
            ("guidance-interval", guided, guided_text),
            ("guide", json!(guide), guide.clone()),
            ("guide-scale", json!(guide_scale), by_guide_scale.then(|| guide_scale.to_string())),
            ("guide-interval", by_guide, by_guide_text),
            ("class-annealing", annealed, annealed_text),
        ]
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
