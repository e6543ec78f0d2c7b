//! A class-conditional diffusion model as a classifier.

use std::iter::zip;

use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, LossWeighting, NoiseSchedule, PredictionType, Purpose};
use ddpm_data::Dataset;
use ddpm_model::Denoiser;
use serde::Serialize;

use crate::{ClassAccuracy, Error, Result, ensure_fits};

/// Images at a time, each with every class.
const BATCH: usize = 50;

/// How much the squared error of x₀ at each timestep counts.
///
/// The built-in model is right for these parts of 2,000 *training* images of MNIST (standard errors of 0.011 at
/// the top and 0.004 at the bottom):
///
/// | weight | 20 draws | 50 draws | 100 draws |
/// | --- | --- | --- | --- |
/// | [`ErrorWeight::Bound`] | 0.586 | 0.595 | 0.610 |
/// | [`LossWeighting::Epsilon`] | 0.649 | 0.632 | 0.650 |
/// | [`LossWeighting::Sample`] | 0.881 | 0.879 | 0.879 |
/// | [`LossWeighting::VPrediction`] | 0.908 | 0.903 | 0.907 |
/// | [`LossWeighting::MinSnr`] | **0.959** | **0.965** | **0.970** |
///
/// Where t is small the image shows through, and the model hardly needs the class; where it is large nothing is
/// seen. With five draws of one timestep alone, 0.52 are right by t = 0, 0.95 by t = 9 and 0.76 by t = 19. The
/// bound and ε put nearly all weight on small t.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorWeight {
    /// The weight in the variational bound, c²/(2σ²) with the posterior's factor c and variance σ², of which that
    /// of t = 0 is the one of t = 1, as in [`BoundEstimator`](ddpm_core::likelihood::BoundEstimator).
    Bound,
    /// The weight of a training loss, [`LossWeighting::sample_weight`]; Li et al. use [`LossWeighting::Epsilon`].
    Space(LossWeighting),
}

/// `bound`, and the names of the loss weights.
#[cfg(feature = "clap")]
impl clap::ValueEnum for ErrorWeight {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Bound,
            Self::Space(LossWeighting::Epsilon),
            Self::Space(LossWeighting::Sample),
            Self::Space(LossWeighting::VPrediction),
            Self::Space(LossWeighting::MinSnr),
            Self::Space(LossWeighting::ClampedSnr),
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::Bound => Some(clap::builder::PossibleValue::new("bound")),
            Self::Space(loss) => loss.to_possible_value(),
        }
    }
}

impl ErrorWeight {
    /// Those of these weights that gave the best accuracy on training images.
    pub const BEST: Self = Self::Space(LossWeighting::MinSnr);

    /// The weight at each timestep of the schedule.
    ///
    /// # Errors
    ///
    /// None for a valid schedule.
    pub fn over_timesteps(self, schedule: &NoiseSchedule) -> Result<Vec<f64>> {
        let weight = |t: usize| match (self, t) {
            (Self::Bound, 0) => Ok(0.5 / schedule.posterior_variance()[1]),
            (Self::Bound, _) => {
                let step = schedule.posterior_coefs(t, t.checked_sub(1))?;
                Ok(step.x_start_coef.powi(2) / (2.0 * step.variance))
            }
            (Self::Space(loss), _) => Ok(loss.sample_weight(schedule.snr(t)?)),
        };
        (0..schedule.num_train_timesteps()).map(weight).collect()
    }
}

/// What [`classify`] does.
#[derive(Clone, Debug)]
pub struct ClassifyConfig {
    /// The number of test images, spaced evenly over the set; all if it has fewer.
    pub num_images: usize,
    /// Numbers of noise samples for each image; an accuracy is measured for each. The first noise samples are the
    /// same in each number.
    pub num_noise: Vec<usize>,
    /// How much the error at each timestep counts.
    pub weighting: ErrorWeight,
    /// The seed of the noise.
    pub seed: u64,
}

/// The result of [`classify`] for one number of noise samples.
#[derive(Clone, Debug, Serialize)]
pub struct Classification {
    /// The number of noise samples for each image.
    pub num_noise: usize,
    /// How many images are classified correctly.
    #[serde(flatten)]
    pub accuracy: ClassAccuracy,
}

/// Classifies images of `data`, which should not have been trained on. `progress` gets the number of images
/// classified and the number in all.
///
/// # Errors
///
/// If the model has no classes, the data does not fit it or has no labels, or the network fails.
pub fn classify(
    denoiser: &Denoiser,
    data: &Dataset,
    config: &ClassifyConfig,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Classification>> {
    let (schedule, classes) = (denoiser.schedule(), denoiser.config().num_classes);
    let most = config.num_noise.iter().copied().max().unwrap_or_default();
    let classifier = DiffusionClassifier::new(schedule, classes, most, config.seed)?;
    let weights = config.weighting.over_timesteps(schedule)?;
    ensure_fits(denoiser, data)?;

    let indices = data.evenly_spaced(config.num_images);
    let (mut images, mut labels, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    let mut found = vec![Vec::with_capacity(indices.len()); config.num_noise.len()];
    for batch in indices.chunks(BATCH) {
        data.gather_images(batch, &mut images)?;
        data.gather_labels(batch, &mut labels)?;
        expected.extend_from_slice(&labels);
        let x_start = Tensor::from_slice(&images, (batch.len(), data.image_size()), &Device::Cpu)?;
        let addresses: Vec<u64> = batch.iter().copied().map(u64::from).collect();
        let errors = classifier.denoiser_errors(denoiser, &x_start, &addresses)?;
        for (found, &num_noise) in zip(&mut found, &config.num_noise) {
            found.extend(errors.classes(&weights, num_noise)?);
        }
        progress(expected.len(), indices.len());
    }
    let result = |(&num_noise, found): (&usize, &Vec<u8>)| {
        Ok(Classification { num_noise, accuracy: ClassAccuracy::new(&expected, found, classes)? })
    };
    zip(&config.num_noise, &found).map(result).collect()
}

/// A class-conditional diffusion model as a classifier (Li et al. 2023, "Your diffusion model is secretly a
/// zero-shot classifier", arXiv 2303.16203).
///
/// The model says how likely an image is of each class, by the variational bound,
///
/// ```text
/// −log p(x₀ given c) ≤ E [w(t) |x₀ − x̂₀(xₜ, t, c)|²] + const,   xₜ = √ᾱₜ x₀ + √(1−ᾱₜ) ε
/// ```
///
/// and the class with the least is the answer. The expectation over t and ε is a mean over draws, the same draws
/// for all classes of an image: what the classes have in common has no part in their difference.
///
/// Nothing in the model was trained to tell classes apart, so the accuracy says how much of the classes it has
/// learnt, by real images and without a sample being drawn.
///
/// ```no_run
/// use std::path::Path;
///
/// use candle_core::{Device, Tensor};
/// use ddpm_data::Splits;
/// use ddpm_eval::{DiffusionClassifier, ErrorWeight};
///
/// let denoiser = ddpm_model::read_model(Path::new("runs/train/model"), &Device::Cpu)?;
/// let (schedule, classes) = (denoiser.schedule(), denoiser.config().num_classes);
/// let classifier = DiffusionClassifier::new(schedule, classes, 100, 1)?;
/// let (train, mut images) = (Splits::mnist()?.into_splits().0, Vec::new());
/// train.gather_images(&[0, 1], &mut images)?;
/// let x_start = Tensor::from_vec(images, (2, 784), &Device::Cpu)?;
/// let errors = classifier.denoiser_errors(&denoiser, &x_start, &[0, 1])?;
/// println!("{:?}", errors.classes(&ErrorWeight::BEST.over_timesteps(schedule)?, 100)?); // [5, 0]
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DiffusionClassifier {
    schedule: NoiseSchedule,
    classes: usize,
    /// The timestep of each draw.
    timesteps: Vec<usize>,
    rng: CounterRng,
}

impl DiffusionClassifier {
    /// A classifier for a model of `classes` classes, which are 0 to `classes` − 1, with a number of draws for
    /// each image.
    ///
    /// The timesteps of the draws are spread evenly over the schedule: each is there once before any is there
    /// again, and so for the first n draws of more.
    ///
    /// # Errors
    ///
    /// If there are not 2 to 256 classes to choose from, as in an unconditional model, or no draws.
    pub fn new(schedule: &NoiseSchedule, classes: usize, draws: usize, seed: u64) -> Result<Self> {
        if !(2..=256).contains(&classes) {
            return Err(Error::ModelClasses { found: classes });
        }
        if draws == 0 {
            return Err(Error::Draws { found: 0, largest: None });
        }
        let timesteps = evenly(schedule.num_train_timesteps()).into_iter().cycle().take(draws).collect();
        Ok(Self { schedule: schedule.clone(), classes, timesteps, rng: CounterRng::new(seed) })
    }

    /// The timestep of each draw.
    #[must_use]
    pub fn timesteps(&self) -> &[usize] {
        &self.timesteps
    }

    /// The errors of `model` for a batch of images `x_start`, [B, D] in [−1, 1], whose noise is addressed by the
    /// number of the image in `images`.
    ///
    /// `model(x_t, t, labels)` predicts x₀, [N, D] like `x_t`, for one timestep and one class for each row. It is
    /// asked once for each draw, about N = B · classes rows.
    ///
    /// # Errors
    ///
    /// If the model fails or puts out what is not finite, or the shapes do not fit.
    pub fn errors(
        &self,
        x_start: &Tensor,
        images: &[u64],
        mut model: impl FnMut(&Tensor, &[usize], &[u32]) -> Result<Tensor>,
    ) -> Result<ClassErrors> {
        let (batch, dimensions) = x_start.dims2()?;
        let rows = batch * self.classes;
        let each_class = |x: &Tensor| {
            x.unsqueeze(1)?.expand((batch, self.classes, dimensions))?.reshape((rows, dimensions))
        };
        let labels: Vec<u32> = (0..batch).flat_map(|_| (0..).take(self.classes)).collect();
        let expected = each_class(&x_start.to_dtype(DType::F32)?)?;
        let mut errors = Vec::with_capacity(self.timesteps.len() * rows);
        for (noise_index, &t) in self.timesteps.iter().enumerate() {
            let eps = self.rng.normal_like(Purpose::EVALUATION, images, noise_index, x_start)?;
            let x_t = each_class(&self.schedule.q_sample(x_start, &[t], &eps)?)?;
            let found = model(&x_t, &vec![t; rows], &labels)?.to_dtype(DType::F32)?;
            let squares: Vec<f32> = (found - &expected)?.sqr()?.sum(1)?.to_vec1()?;
            if squares.iter().any(|square| !square.is_finite()) {
                return Err(Error::Prediction { t });
            }
            errors.extend(squares);
        }
        Ok(ClassErrors { errors, batch, classes: self.classes, timesteps: self.timesteps.clone() })
    }

    /// [`DiffusionClassifier::errors`] of a denoiser, on its device.
    ///
    /// # Errors
    ///
    /// As [`DiffusionClassifier::errors`].
    pub fn denoiser_errors(
        &self,
        denoiser: &Denoiser,
        x_start: &Tensor,
        images: &[u64],
    ) -> Result<ClassErrors> {
        let from = denoiser.config().parameterization;
        self.errors(&x_start.to_device(denoiser.device())?, images, |x_t, t, labels| {
            let raw = denoiser.forward(x_t, t, labels)?;
            Ok(self.schedule.convert(from, PredictionType::Sample, &raw, x_t, t)?)
        })
    }
}

/// |x₀ − x̂₀|² of a batch of images for each draw and class, to be weighted in any way.
#[derive(Clone, Debug)]
pub struct ClassErrors {
    /// [draws, batch, classes].
    errors: Vec<f32>,
    batch: usize,
    classes: usize,
    timesteps: Vec<usize>,
}

impl ClassErrors {
    /// The class of each image by the first `draws` draws, with a weight for each timestep of the schedule, such as
    /// those of [`ErrorWeight::over_timesteps`].
    ///
    /// # Errors
    ///
    /// If there are no draws or more than were made, or a timestep has no weight.
    pub fn classes(&self, weights: &[f64], draws: usize) -> Result<Vec<u8>> {
        let largest = self.timesteps.len();
        if !(1..=largest).contains(&draws) {
            return Err(Error::Draws { found: draws, largest: Some(largest) });
        }
        let mut sums = vec![0.0; self.batch * self.classes];
        if sums.is_empty() {
            return Ok(Vec::new());
        }
        let errors = self.errors.chunks(sums.len());
        for (&t, errors) in zip(&self.timesteps[..draws], errors) {
            let refuse = || {
                let expected = format!("below {}, the number of weights", weights.len());
                ddpm_core::Error::out_of_range("timestep", t, expected)
            };
            let weight = weights.get(t).ok_or_else(refuse)?;
            zip(&mut sums, errors).for_each(|(sum, &error)| *sum += weight * f64::from(error));
        }
        let least = |sums: &[f64]| (0..=u8::MAX).zip(sums).min_by(|a, b| a.1.total_cmp(b.1)).map(|(c, _)| c);
        Ok(sums.chunks(self.classes).filter_map(least).collect())
    }
}

/// The numbers below `count` in an order whose beginnings are spread evenly: by their bits in reverse (van der
/// Corput's sequence).
fn evenly(count: usize) -> Vec<usize> {
    let bits = count.next_power_of_two().trailing_zeros();
    let reversed = |i: usize| i.reverse_bits().checked_shr(usize::BITS - bits).unwrap_or(0);
    (0..count.next_power_of_two()).map(reversed).filter(|&number| number < count).collect()
}

#[cfg(test)]
mod tests;
