//! The configuration of a training run, and its presets.

use ddpm_core::{LossWeighting, NoiseScheduleConfig, PredictionType, TimestepSampling};
use ddpm_data::Dataset;
use ddpm_model::DenoiserConfig;
use serde::{Deserialize, Serialize};

use crate::{
    AdamWConfig, Error, Result,
    post_hoc_ema::{MAX_SNAPSHOTS, SIGMA_RELS},
};

/// The configuration of a training run. Together with the data it determines the resulting weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The seed of initial weights, batches, timesteps, noise, shifts and dropped classes.
    pub seed: u64,
    /// The number of passes over the training images, 1 to 1000000.
    pub epochs: u64,
    /// The number of images of a step, 1 to the number of training images.
    pub batch_size: usize,
    /// The peak learning rate, above 0 and at most 1, reached after the warm-up. It then decays along half a cosine to
    /// 1 % of the peak.
    pub learning_rate: f64,
    /// The length of the warm-up as a fraction of all steps, at least 0 and below 1. In the warm-up the learning rate
    /// rises linearly from 0.
    pub warmup_fraction: f64,
    /// The optimizer's hyperparameters.
    pub adamw: AdamWConfig,
    /// The largest norm of the gradient, above 0; a longer gradient is multiplied by this over its norm (Pascanu et al. 2013,
    /// arXiv 1211.5063). `None`, the default, does not clip.
    #[serde(default)]
    pub max_grad_norm: Option<f64>,
    /// The decay of the weights' moving average, at least 0 and below 1: 0.999 averages about the last 1000 steps.
    pub ema_decay: f64,
    /// The number of snapshots of averaged weights, evenly spaced over the run, from which
    /// [`average_snapshots`](crate::average_snapshots) makes an average of any length after the training (post-hoc EMA,
    /// Karras et al. 2023, arXiv 2312.02696); 0 to 256. With 0, the default, there are none. 32 are enough for most
    /// lengths. A snapshot takes 4 bytes of disk space for each weight of the network.
    #[serde(default)]
    pub ema_snapshots: usize,
    /// The probability, 0 to 1, of replacing an image's class by the null class (for classifier-free guidance).
    pub cond_drop_prob: f64,
    /// The weighting of the loss over timesteps.
    pub loss: LossWeighting,
    /// The distribution of timesteps.
    #[serde(default)]
    pub timestep_sampling: TimestepSampling,
    /// The number K of noise samples from which each image takes the nearest one, 1 to 1024; 1, the default, is ordinary
    /// training. More make the noise immiscible: an image is mostly seen with noise near it, so the network has fewer images
    /// to tell apart at high noise levels (Li et al. 2024, arXiv 2406.12303, which assigns noise within a batch; the nearest
    /// of K is from Li et al. 2025, arXiv 2505.18521).
    ///
    /// The noise of an image is then not exactly Gaussian: it leans towards the image and is a little shorter. Sampling
    /// still starts from Gaussian noise, so a large K makes training and sampling differ. The loss on test images is
    /// measured with ordinary noise.
    #[serde(default = "one")]
    pub noise_candidates: usize,
    /// The largest random shift of an image in pixels, in both directions; 0 (no shift) to 64.
    #[serde(default)]
    pub random_shift: usize,
    /// The number of steps H after which processes that train together synchronise, 1 to 1000000 (local SGD; DiLoCo, Douillard
    /// et al. 2023, arXiv 2311.08105): each takes H steps on its part of every batch, then the outer optimizer moves the common
    /// weights by the mean of the changes. With `None`, the default, processes add their gradients in each step, which is the
    /// training of one process. See docs/scaling.md.
    #[serde(default)]
    pub sync_every: Option<u64>,
    /// The learning rate of the outer optimizer, above 0 and at most 2; it has no effect without `sync_every`. With 1, the default,
    /// and no momentum, the common weights are the mean of the processes' weights (local SGD). DiLoCo has 0.7 and a momentum
    /// of 0.9, which suit larger networks and longer rounds; here they may diverge.
    #[serde(default = "outer_learning_rate")]
    pub outer_learning_rate: f64,
    /// The Nesterov momentum of the outer optimizer, at least 0 (the default) and below 1; it has no effect without `sync_every`.
    #[serde(default)]
    pub outer_momentum: f64,
    /// The network's architecture.
    pub denoiser: DenoiserConfig,
    /// The noise schedule.
    pub schedule: NoiseScheduleConfig,
}

fn one() -> usize {
    1
}

/// Without momentum, this makes the common weights the mean of the processes' weights.
fn outer_learning_rate() -> f64 {
    1.0
}

/// A named set of training options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Preset {
    /// The options of the built-in model; trains the longest.
    Best,
    /// The network of `best` with fewer epochs, a higher learning rate and a shorter average of the weights.
    Standard,
    /// The plain network of the original recipe, but emitting x₀: with its original output ε, it does not learn.
    Original,
    /// The fewest epochs, for a first try.
    Quick,
    /// A small network, as the guide of a larger one (autoguidance).
    Guide,
}

impl TrainConfig {
    /// A preset, for the image size and the classes of a data set. A data set of fewer images than a batch is one
    /// batch.
    #[must_use]
    pub fn preset(preset: Preset, data: &Dataset) -> Self {
        let (rows, cols, classes) = (data.rows(), data.cols(), data.classes().unwrap_or(0));
        let (epochs, ema_decay) = match preset {
            Preset::Best => (200, 0.9995),
            Preset::Standard => (24, 0.999),
            Preset::Original => (60, 0.999),
            Preset::Quick => (6, 0.999),
            Preset::Guide => (30, 0.999),
        };
        let (loss, denoiser) = match preset {
            Preset::Original => {
                let plain = DenoiserConfig::plain(rows, cols, classes);
                let parameterization = PredictionType::Sample;
                (LossWeighting::Sample, DenoiserConfig { parameterization, ..plain })
            }
            Preset::Guide => {
                (LossWeighting::ClampedSnr, DenoiserConfig::small_patch_mlp(rows, cols, classes))
            }
            _ => (LossWeighting::ClampedSnr, DenoiserConfig::patch_mlp(rows, cols, classes)),
        };
        Self {
            seed: 1,
            epochs,
            batch_size: data.len().min(128),
            learning_rate: if preset == Preset::Best { 5e-4 } else { 1e-3 },
            warmup_fraction: 0.02,
            adamw: AdamWConfig::default(),
            max_grad_norm: None,
            ema_decay,
            ema_snapshots: 0,
            cond_drop_prob: 0.1,
            loss,
            timestep_sampling: TimestepSampling::Uniform,
            noise_candidates: 1,
            random_shift: 0,
            sync_every: None,
            outer_learning_rate: outer_learning_rate(),
            outer_momentum: 0.0,
            denoiser,
            schedule: NoiseScheduleConfig::mnist20(),
        }
    }

    /// Checks that each option is in its range and that the data fits the network.
    ///
    /// # Errors
    ///
    /// If an option is outside its range or the data does not fit; the error names it.
    pub fn validate(&self, data: &Dataset) -> Result<()> {
        let check = |option, found: f64, good: bool, expected| {
            if good {
                return Ok(());
            }
            Err(Error::out_of_range(format!("training option `{option}`"), found, expected))
        };
        check("epochs", self.epochs as f64, (1..=1_000_000).contains(&self.epochs), "1 to 1000000")?;
        let rate = self.learning_rate;
        check("learning_rate", rate, rate > 0.0 && rate <= 1.0, "above 0, at most 1")?;
        let unit = |x: f64| (0.0..1.0).contains(&x);
        check("warmup_fraction", self.warmup_fraction, unit(self.warmup_fraction), "0 to below 1")?;
        check("ema_decay", self.ema_decay, unit(self.ema_decay), "0 to below 1")?;
        let snapshots = self.ema_snapshots;
        check("ema_snapshots", snapshots as f64, snapshots <= MAX_SNAPSHOTS, "0 to 256")?;
        if let Some(max) = self.max_grad_norm {
            check("max_grad_norm", max, max > 0.0 && max.is_finite(), "a positive number")?;
        }
        let dropout = self.cond_drop_prob;
        check("cond_drop_prob", dropout, (0.0..=1.0).contains(&dropout), "0 to 1")?;
        let candidates = self.noise_candidates;
        check("noise_candidates", candidates as f64, (1..=1024).contains(&candidates), "1 to 1024")?;
        check("random_shift", self.random_shift as f64, self.random_shift <= 64, "0 to 64")?;
        self.adamw.validate()?;
        if let Some(every) = self.sync_every {
            check("sync_every", every as f64, (1..=1_000_000).contains(&every), "1 to 1000000")?;
        }
        let rate = self.outer_learning_rate;
        check("outer_learning_rate", rate, rate > 0.0 && rate <= 2.0, "above 0, at most 2")?;
        check("outer_momentum", self.outer_momentum, unit(self.outer_momentum), "0 to below 1")?;
        self.denoiser.validate()?;
        // Found here rather than when the model is written.
        ddpm_model::scheduler_json(&self.schedule)?;
        let DenoiserConfig { rows, cols, num_classes, .. } = self.denoiser;
        let (found, expected) = ([data.rows(), data.cols()], [rows, cols]);
        if found != expected {
            return Err(Error::ImageSize { data: data.name().to_owned(), found, expected });
        }
        let (found, expected) = (data.classes().unwrap_or(0), num_classes);
        if found != expected {
            return Err(Error::Classes { data: data.name().to_owned(), found, expected });
        }
        Ok(())
    }

    /// The number of averages by power functions that the run updates.
    pub(crate) fn power_averages(&self) -> usize {
        if self.ema_snapshots > 0 { SIGMA_RELS.len() } else { 0 }
    }

    /// The learning rate of step `step` (from 0) of `total` steps: linear warm-up, then cosine decay (Loshchilov &
    /// Hutter 2017, arXiv 1608.03983).
    #[must_use]
    pub fn learning_rate_at(&self, step: u64, total: u64) -> f64 {
        const FLOOR: f64 = 0.01;
        let (step, total) = (step as f64, total as f64);
        let warmup = (self.warmup_fraction * total).ceil();
        if step < warmup {
            return self.learning_rate * (step + 1.0) / warmup;
        }
        let progress = ((step - warmup) / (total - warmup).max(1.0)).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.learning_rate * (FLOOR + (1.0 - FLOOR) * cosine)
    }
}
