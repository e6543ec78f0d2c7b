//! A class-conditional diffusion model as a classifier.

use std::iter::zip;

use candle_core::{DType, Device, Tensor};
use ddpm_core::{CounterRng, NoiseSchedule, PredictionType, Purpose};
use ddpm_data::Dataset;
use ddpm_model::Denoiser;
use serde::Serialize;

use crate::{ClassAccuracy, Error, ErrorWeighting, Result, ensure_fits};

/// Images in a batch. Each is repeated once for each class.
const BATCH: usize = 50;

/// Configuration of [`classify`].
#[derive(Clone, Debug)]
pub struct ClassifyConfig {
    /// The number of images, spaced evenly over the data set; a smaller data set is used completely.
    pub num_images: usize,
    /// Numbers of noise samples for each image, each at least 1. [`classify`] measures the accuracy for each number.
    /// A smaller number uses the first noise samples of a larger one.
    pub num_noise: Vec<usize>,
    /// The weight of the error at each timestep.
    pub weighting: ErrorWeighting,
    /// The seed of the noise.
    pub seed: u64,
}

/// The result of [`classify`] for one number of noise samples.
#[derive(Clone, Debug, Serialize)]
pub struct Classification {
    /// The number of noise samples for each image.
    pub num_noise: usize,
    /// The fraction of images classified correctly.
    #[serde(flatten)]
    pub accuracy: ClassAccuracy,
}

/// Classifies labelled images by [`DiffusionClassifier`], with one result for each entry of `config.num_noise`. Use
/// images that the model was not trained on. `progress` receives the number of images classified and the total number.
///
/// # Errors
///
/// If the model is unconditional, the data does not fit it or has no labels, a number of noise samples is 0, or the
/// network fails.
pub fn classify(
    denoiser: &Denoiser,
    data: &Dataset,
    config: &ClassifyConfig,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Classification>> {
    let (schedule, classes) = (denoiser.schedule(), denoiser.config().num_classes);
    let max_noise = config.num_noise.iter().copied().max().unwrap_or_default();
    let classifier = DiffusionClassifier::new(schedule, classes, max_noise, config.seed)?;
    let weights = config.weighting.weights(schedule)?;
    ensure_fits(denoiser, data)?;

    let indices = data.evenly_spaced(config.num_images);
    let (mut images, mut labels, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    let mut predicted = vec![Vec::with_capacity(indices.len()); config.num_noise.len()];
    for batch in indices.chunks(BATCH) {
        data.gather_images(batch, &mut images)?;
        data.gather_labels(batch, &mut labels)?;
        expected.extend_from_slice(&labels);
        let x_start = Tensor::from_slice(&images, (batch.len(), data.image_size()), &Device::Cpu)?;
        let noise_indices: Vec<u64> = batch.iter().copied().map(u64::from).collect();
        let errors = classifier.denoiser_errors(denoiser, &x_start, &noise_indices)?;
        for (predicted, &num_noise) in zip(&mut predicted, &config.num_noise) {
            predicted.extend(errors.classes(&weights, num_noise)?);
        }
        progress(expected.len(), indices.len());
    }
    let result = |(&num_noise, predicted): (&usize, &Vec<u8>)| {
        Ok(Classification { num_noise, accuracy: ClassAccuracy::new(&expected, predicted, classes)? })
    };
    zip(&config.num_noise, &predicted).map(result).collect()
}

/// A class-conditional diffusion model as a classifier (Li et al. 2023, "Your diffusion model is secretly a
/// zero-shot classifier", arXiv 2303.16203).
///
/// The likelihood of an image x₀ given a class c is estimated by the variational bound, with the weights w(t) of an
/// [`ErrorWeighting`]:
///
/// ```text
/// −log p(x₀ given c) ≤ E [w(t) |x₀ − x̂₀(xₜ, t, c)|²] + const,   xₜ = √ᾱₜ x₀ + √(1−ᾱₜ) ε
/// ```
///
/// The right-hand side is a bound with [`ErrorWeighting::Bound`], and a score with other weightings. The predicted
/// class has the smallest value. The expectation over t and ε is a mean over noise samples. All classes of an image
/// share the noise samples, so that errors common to all classes cancel.
///
/// The accuracy on real images measures how well the model has learnt the classes, without generating any image.
///
/// ```no_run
/// use std::path::Path;
///
/// use candle_core::{Device, Tensor};
/// use ddpm_data::Splits;
/// use ddpm_eval::{DiffusionClassifier, ErrorWeighting};
///
/// let denoiser = ddpm_model::read_model(Path::new("runs/train/model"), &Device::Cpu)?;
/// let (schedule, classes) = (denoiser.schedule(), denoiser.config().num_classes);
/// let classifier = DiffusionClassifier::new(schedule, classes, 100, 1)?;
/// let (train, mut images) = (Splits::mnist()?.into_splits().0, Vec::new());
/// train.gather_images(&[0, 1], &mut images)?;
/// let x_start = Tensor::from_vec(images, (2, 784), &Device::Cpu)?;
/// let errors = classifier.denoiser_errors(&denoiser, &x_start, &[0, 1])?;
/// println!("{:?}", errors.classes(&ErrorWeighting::BEST.weights(schedule)?, 100)?); // [5, 0]
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DiffusionClassifier {
    schedule: NoiseSchedule,
    num_classes: usize,
    /// The timestep of each noise sample.
    timesteps: Vec<usize>,
    rng: CounterRng,
}

impl DiffusionClassifier {
    /// A classifier for a model with classes 0 to `num_classes` − 1 (2 to 256 classes), with `num_noise` noise samples
    /// (at least 1) for each image.
    ///
    /// The timesteps of the noise samples are spread evenly over the schedule. Every timestep occurs once before any
    /// occurs twice, and the first n of N noise samples are the noise samples of a classifier with n.
    ///
    /// # Errors
    ///
    /// If `num_classes` or `num_noise` is out of range.
    pub fn new(schedule: &NoiseSchedule, num_classes: usize, num_noise: usize, seed: u64) -> Result<Self> {
        if num_classes == 0 {
            return Err(Error::NoClasses);
        }
        if !(2..=256).contains(&num_classes) {
            return Err(Error::out_of_range("number of classes of the model", num_classes, "2 to 256"));
        }
        if num_noise == 0 {
            return Err(Error::out_of_range("num_noise", num_noise, "at least 1"));
        }
        let order = van_der_corput(schedule.num_train_timesteps());
        let timesteps = order.into_iter().cycle().take(num_noise).collect();
        Ok(Self { schedule: schedule.clone(), num_classes, timesteps, rng: CounterRng::new(seed) })
    }

    /// The errors of `model` for a batch of images `x_start`, [B, D] in [−1, 1]. `images[i]` is the index of image i in
    /// its data set, and selects its noise.
    ///
    /// `model(x_t, t, labels)` predicts x₀, [N, D] like `x_t`. `t` and `labels` have one entry for each of the N rows.
    /// The model is called once for each noise sample, with N = B · classes rows.
    ///
    /// # Errors
    ///
    /// If the model fails, a prediction is infinite or NaN, or the shapes do not fit.
    pub fn errors(
        &self,
        x_start: &Tensor,
        images: &[u64],
        mut model: impl FnMut(&Tensor, &[usize], &[u32]) -> Result<Tensor>,
    ) -> Result<ClassErrors> {
        let (batch, dimensions) = x_start.dims2()?;
        let rows = batch * self.num_classes;
        let each_class = |x: &Tensor| {
            x.unsqueeze(1)?.expand((batch, self.num_classes, dimensions))?.reshape((rows, dimensions))
        };
        let labels: Vec<u32> = (0..batch).flat_map(|_| (0..).take(self.num_classes)).collect();
        let expected = each_class(&x_start.to_dtype(DType::F32)?)?;
        let mut errors = Vec::with_capacity(self.timesteps.len() * rows);
        for (sample, &t) in self.timesteps.iter().enumerate() {
            let eps = self.rng.normal_like(Purpose::EVALUATION, images, sample, x_start)?;
            let x_t = each_class(&self.schedule.q_sample(x_start, &[t], &eps)?)?;
            let predicted = model(&x_t, &vec![t; rows], &labels)?.to_dtype(DType::F32)?;
            let squares: Vec<f32> = (predicted - &expected)?.sqr()?.sum(1)?.to_vec1()?;
            if squares.iter().any(|square| !square.is_finite()) {
                return Err(Error::Prediction { t });
            }
            errors.extend(squares);
        }
        Ok(ClassErrors { errors, batch, num_classes: self.num_classes, timesteps: self.timesteps.clone() })
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

/// The squared error |x₀ − x̂₀|² of a batch of images for each noise sample and class, without weights.
#[derive(Clone, Debug)]
pub struct ClassErrors {
    /// [num_noise, batch, num_classes].
    errors: Vec<f32>,
    batch: usize,
    num_classes: usize,
    timesteps: Vec<usize>,
}

impl ClassErrors {
    /// The weighted sum of errors of each class over the first `num_noise` noise samples, [batch, num_classes].
    /// `weights[t]` is the weight of timestep t, for example from [`ErrorWeighting::weights`].
    ///
    /// # Errors
    ///
    /// If `num_noise` is not 1 to the number of noise samples of the classifier, or a timestep has no weight.
    pub fn sums(&self, weights: &[f64], num_noise: usize) -> Result<Vec<f64>> {
        let largest = self.timesteps.len();
        if !(1..=largest).contains(&num_noise) {
            return Err(Error::out_of_range("num_noise", num_noise, format!("1 to {largest}")));
        }
        let mut sums = vec![0.0; self.batch * self.num_classes];
        if sums.is_empty() {
            return Ok(sums);
        }
        let errors = self.errors.chunks(sums.len());
        for (&t, errors) in zip(&self.timesteps[..num_noise], errors) {
            let no_weight = || {
                Error::out_of_range("timestep", t, format!("below {}, the number of weights", weights.len()))
            };
            let weight = weights.get(t).ok_or_else(no_weight)?;
            zip(&mut sums, errors).for_each(|(sum, &error)| *sum += weight * f64::from(error));
        }
        Ok(sums)
    }

    /// The predicted class of each image: the class with the smallest of [`ClassErrors::sums`].
    ///
    /// # Errors
    ///
    /// As [`ClassErrors::sums`].
    pub fn classes(&self, weights: &[f64], num_noise: usize) -> Result<Vec<u8>> {
        let sums = self.sums(weights, num_noise)?;
        let argmin = |sums: &[f64]| (0..=u8::MAX).zip(sums).min_by(|a, b| a.1.total_cmp(b.1)).map(|(c, _)| c);
        Ok(sums.chunks(self.num_classes).filter_map(argmin).collect())
    }
}

/// The numbers below `count` in the order of van der Corput's sequence (bits reversed), so that the first n are spread
/// evenly for every n.
fn van_der_corput(count: usize) -> Vec<usize> {
    let bits = count.next_power_of_two().trailing_zeros();
    let reversed = |i: usize| i.reverse_bits().checked_shr(usize::BITS - bits).unwrap_or(0);
    (0..count.next_power_of_two()).map(reversed).filter(|&number| number < count).collect()
}

#[cfg(test)]
mod tests;
