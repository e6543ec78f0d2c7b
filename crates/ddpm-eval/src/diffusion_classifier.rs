//! A class-conditional diffusion model as a classifier (Li et al. 2023, "Your diffusion model is secretly a
//! zero-shot classifier", arXiv 2303.16203).
//!
//! The model says how likely an image is of each class, by the variational bound:
//!
//! ```text
//! −log p(x₀ given c) ≤ E [w(t) |x₀ − x̂₀(xₜ, t, c)|²] + const,   xₜ = √ᾱₜ x₀ + √(1−ᾱₜ) ε
//! ```
//!
//! and the class with the least is the answer. The expectation over t and ε is a mean over draws, the same draws
//! for all classes of an image: what the classes have in common then has no part in their difference.
//!
//! No part of the model was trained to tell classes apart, so the accuracy says how much of a class the model
//! has learnt, of *real* images and without a sample being drawn.

use candle_core::{DType, Tensor};
use ddpm_core::{AddressedRng, NoiseSchedule, PredictionType, Purpose};
use ddpm_model::Denoiser;
use ddpm_train::Loss;

use crate::{Error, Result};

/// How much the squared error of x₀ at each timestep counts.
///
/// The built-in model, on 2,000 *training* images of MNIST with 100 draws, is right for
///
/// ```text
/// WEIGHTS_TABLE
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorWeight {
    /// The weight in the variational bound, c²/(2σ²) with the posterior's factor c and variance σ², of which that
    /// of t = 0 is the one of t = 1, as in [`BoundEstimator`](ddpm_core::likelihood::BoundEstimator).
    Bound,
    /// That of a loss, as for [`Loss::sample_weight`]: [`Loss::Epsilon`] is what Li et al. use.
    Space(Loss),
}

impl ErrorWeight {
    /// The weights that gave the best accuracy on training images.
    pub const BEST: Self = Self::Space(Loss::Sample);

    /// The weight at each timestep of the schedule.
    ///
    /// # Errors
    ///
    /// None for a valid schedule.
    pub fn over_timesteps(self, schedule: &NoiseSchedule) -> Result<Vec<f64>> {
        let weight = |t: usize| match (self, t) {
            (Self::Bound, 0) => Ok(0.5 / schedule.posterior_variance()[1]),
            (Self::Bound, _) => {
                let step = schedule.posterior_step(t, t.checked_sub(1))?;
                Ok(step.x_start_coef.powi(2) / (2.0 * step.variance))
            }
            (Self::Space(loss), _) => Ok(loss.sample_weight(schedule.snr(t)?)),
        };
        (0..schedule.num_train_timesteps()).map(weight).collect()
    }
}

/// Asks a model about images once for each draw and class.
#[derive(Clone, Debug)]
pub struct DiffusionClassifier {
    schedule: NoiseSchedule,
    classes: usize,
    /// The timestep of each draw.
    timesteps: Vec<usize>,
    rng: AddressedRng,
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
        Ok(Self { schedule: schedule.clone(), classes, timesteps, rng: AddressedRng::new(seed) })
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
        for (draw, &t) in self.timesteps.iter().enumerate() {
            let eps = self.noise(x_start, images, draw)?;
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

    /// Each second round of the timesteps has the noise of the round before with the other sign (antithetic
    /// draws): what is linear in ε of the difference between two classes, cancels.
    fn noise(&self, x_start: &Tensor, images: &[u64], draw: usize) -> Result<Tensor> {
        let round = self.schedule.num_train_timesteps();
        let second = draw.div_euclid(round) % 2 == 1;
        let source = if second { draw - round } else { draw };
        let eps = self.rng.normal_like(Purpose::Evaluation, images, source, x_start)?;
        Ok(if second { eps.neg()? } else { eps })
    }

    /// [`DiffusionClassifier::errors`] of a denoiser, on its device. The mean of a Gaussian head counts, without
    /// its variance.
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
        let from = denoiser.config().output_type;
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
        for (&t, errors) in std::iter::zip(&self.timesteps[..draws], errors) {
            let last = weights.len().saturating_sub(1);
            let weight = weights.get(t).ok_or(ddpm_core::Error::TimestepRange { found: t, last })?;
            std::iter::zip(&mut sums, errors).for_each(|(sum, &error)| *sum += weight * f64::from(error));
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
mod tests {
    use candle_core::Device;
    use ddpm_core::ScheduleConfig;

    use super::*;

    const SEED: u64 = 5;
    const MEANS: [[f32; 3]; 2] = [[0.3, -0.2, 0.1], [-0.4, 0.1, 0.2]];
    /// The standard deviation of each pixel in either class.
    const DEVIATION: f64 = 0.5;

    fn schedule() -> NoiseSchedule {
        NoiseSchedule::new(&ScheduleConfig::mnist20()).unwrap()
    }

    /// The factor of xₜ − √ᾱ m in the best prediction of x₀ ~ N(m, s²): s² √ᾱ / (s² ᾱ + 1 − ᾱ).
    fn gain(t: usize) -> f64 {
        let (alpha_bar, variance) = (schedule().alphas_cumprod()[t], DEVIATION.powi(2));
        variance * alpha_bar.sqrt() / (variance * alpha_bar + 1.0 - alpha_bar)
    }

    /// The best denoiser for two classes, each a normal distribution about one of the means.
    fn best(x_t: &Tensor, t: &[usize], labels: &[u32]) -> Result<Tensor> {
        let mut predictions = Vec::new();
        let rows = x_t.to_vec2::<f32>()?;
        for ((x_t, &t), &label) in rows.iter().zip(t).zip(labels) {
            let signal = schedule().alphas_cumprod()[t].sqrt() as f32;
            let pull = |(m, x): (f32, &f32)| m + gain(t) as f32 * (x - signal * m);
            predictions.extend(std::iter::zip(MEANS[label as usize], x_t).map(pull));
        }
        Ok(Tensor::from_vec(predictions, x_t.shape(), x_t.device())?)
    }

    /// Images of alternating classes from the two distributions, [count, 3], and their numbers.
    fn images(count: usize) -> (Tensor, Vec<u64>) {
        let indices: Vec<u64> = (0..count as u64).collect();
        let normal =
            AddressedRng::new(9).normal(Purpose::SampleStart, &indices, 0, &[3], DType::F32, &Device::Cpu);
        let means: Vec<f32> = (0..count).flat_map(|image| MEANS[image % 2]).collect();
        let means = Tensor::from_vec(means, (count, 3), &Device::Cpu).unwrap();
        (((normal.unwrap() * DEVIATION).unwrap() + means).unwrap(), indices)
    }

    fn distances(image: &[f32]) -> [f64; 2] {
        MEANS.map(|mean| std::iter::zip(mean, image).map(|(m, x)| f64::from(m - x).powi(2)).sum())
    }

    /// The error is |(1 − g√ᾱ)(x₀ − m) − g√(1−ᾱ) ε|², with one ε for both classes.
    #[test]
    fn errors_are_those_of_the_closed_form_with_the_same_noise_for_each_class() {
        let (x_start, indices) = images(4);
        let classifier = DiffusionClassifier::new(&schedule(), 2, 33, SEED).unwrap();
        let errors = classifier.errors(&x_start, &indices, best).unwrap();
        assert_eq!(errors.errors.len(), 33 * 4 * 2);
        let mut found = errors.errors.iter();
        for (draw, &t) in classifier.timesteps().iter().enumerate() {
            let eps = AddressedRng::new(SEED).normal_like(Purpose::Evaluation, &indices, draw, &x_start);
            let (eps, alpha_bar) = (eps.unwrap().to_vec2::<f32>().unwrap(), schedule().alphas_cumprod()[t]);
            for (image, eps) in x_start.to_vec2::<f32>().unwrap().iter().zip(&eps) {
                for mean in MEANS {
                    let residual = |i: usize| {
                        (1.0 - gain(t) * alpha_bar.sqrt()) * f64::from(image[i] - mean[i])
                            - gain(t) * (1.0 - alpha_bar).sqrt() * f64::from(eps[i])
                    };
                    let expected: f64 = (0..3).map(|i| residual(i).powi(2)).sum();
                    let found = f64::from(*found.next().unwrap());
                    assert!((found - expected).abs() < 1e-5, "draw {draw}: {found} {expected}");
                }
            }
        }
    }

    /// Bayes' rule for equal variances is the nearest mean, and its accuracy Φ(|m₁ − m₀| / 2s).
    #[test]
    fn two_normal_distributions_are_told_apart_as_by_bayes() {
        let (x_start, indices) = images(1000);
        let bayes = |image: &Vec<f32>| {
            let [first, second] = distances(image);
            u8::from(second < first)
        };
        let bayes: Vec<u8> = x_start.to_vec2::<f32>().unwrap().iter().map(bayes).collect();
        let classifier = DiffusionClassifier::new(&schedule(), 2, 400, SEED).unwrap();
        let errors = classifier.errors(&x_start, &indices, best).unwrap();
        let agreement = |weight: ErrorWeight, draws: usize| {
            let found = errors.classes(&weight.over_timesteps(&schedule()).unwrap(), draws).unwrap();
            std::iter::zip(&bayes, found).filter(|(bayes, found)| *bayes == found).count()
        };
        for weight in [ErrorWeight::Bound, ErrorWeight::BEST, ErrorWeight::Space(Loss::Epsilon)] {
            assert!(agreement(weight, 400) >= 960, "{weight:?}: {}", agreement(weight, 400));
            assert!(agreement(weight, 20) < agreement(weight, 400), "{weight:?}: {}", agreement(weight, 20));
        }
        let right =
            bayes.iter().enumerate().filter(|(image, class)| image % 2 == usize::from(**class)).count();
        assert!((755..=815).contains(&right), "Φ(0.7937) is 0.786: {right}");
    }

    /// An image far from either mean but nearer to one, at the timesteps where a mean is all the model knows.
    #[test]
    fn the_weight_decides_which_timesteps_count() {
        let x_start = Tensor::new(&[[0.0_f32]], &Device::Cpu).unwrap();
        let classifier = DiffusionClassifier::new(&schedule(), 2, 20, SEED).unwrap();
        // The second class is better at t = 3 alone.
        let model = |x_t: &Tensor, t: &[usize], labels: &[u32]| {
            let error = |(&t, &label): (&usize, &u32)| if (t == 3) == (label == 0) { 1.0_f32 } else { 0.5 };
            Ok(Tensor::from_vec(std::iter::zip(t, labels).map(error).collect(), x_t.shape(), x_t.device())?)
        };
        let errors = classifier.errors(&x_start, &[0], model).unwrap();
        let mut weights = vec![1.0; 20];
        assert_eq!(errors.classes(&weights, 20).unwrap(), [0]);
        weights[3] = 19.5;
        assert_eq!(errors.classes(&weights, 20).unwrap(), [1]);
    }

    #[test]
    fn draws_are_even_and_nested() {
        let timesteps = |schedule: &NoiseSchedule, draws| {
            DiffusionClassifier::new(schedule, 2, draws, SEED).unwrap().timesteps().to_vec()
        };
        let fifty = timesteps(&schedule(), 50);
        for round in [&fifty[..20], &fifty[20..40]] {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..20));
        }
        let mut rest = fifty[40..].to_vec();
        rest.sort_unstable();
        assert!(rest.into_iter().eq((0..20).step_by(2)), "half a round is every second timestep");
        assert_eq!(timesteps(&schedule(), 20), fifty[..20]);
        let long = NoiseSchedule::new(&ScheduleConfig::ho2020()).unwrap();
        let mut few = timesteps(&long, 20);
        few.sort_unstable();
        few.push(1000);
        assert!(few.windows(2).all(|pair| pair[1] - pair[0] <= 64), "{few:?}");
    }

    #[test]
    fn an_image_has_the_same_class_alone_and_with_fewer_draws_made() {
        let (x_start, indices) = images(40);
        let weights = ErrorWeight::BEST.over_timesteps(&schedule()).unwrap();
        let found = |x_start: &Tensor, indices: &[u64], made, draws| {
            let classifier = DiffusionClassifier::new(&schedule(), 2, made, SEED).unwrap();
            classifier.errors(x_start, indices, best).unwrap().classes(&weights, draws).unwrap()
        };
        let together = found(&x_start, &indices, 50, 20);
        assert_eq!(found(&x_start, &indices, 20, 20), together);
        let alone: Vec<u8> =
            (0..40).flat_map(|i| found(&x_start.narrow(0, i, 1).unwrap(), &indices[i..=i], 20, 20)).collect();
        assert_eq!(alone, together);
        assert_ne!(found(&x_start, &indices, 50, 1), together, "the draws matter");
    }

    /// Σ c²/(2β̃) telescopes to half the difference of the signal-to-noise ratios.
    #[test]
    fn weights_are_those_of_the_bound_and_of_the_losses() {
        let schedule = schedule();
        let snr: Vec<f64> = (0..20).map(|t| schedule.snr(t).unwrap()).collect();
        let bound = ErrorWeight::Bound.over_timesteps(&schedule).unwrap();
        assert_eq!(bound[0], 0.5 / schedule.posterior_variance()[1]);
        let sum: f64 = bound[1..].iter().sum();
        assert!((sum / (0.5 * (snr[0] - snr[19])) - 1.0).abs() < 1e-12, "{sum}");
        let space = |loss| ErrorWeight::Space(loss).over_timesteps(&schedule).unwrap();
        assert_eq!(space(Loss::Epsilon), snr);
        assert_eq!(space(Loss::Sample), [1.0; 20]);
        assert!(std::iter::zip(space(Loss::VPrediction), snr).all(|(weight, snr)| weight == snr + 1.0));
    }

    #[test]
    fn what_cannot_be_classified_is_refused() {
        let new = |classes, draws| DiffusionClassifier::new(&schedule(), classes, draws, SEED);
        for found in [0, 1, 257] {
            assert!(matches!(new(found, 20), Err(Error::ModelClasses { found: f }) if f == found));
        }
        assert!(matches!(new(2, 0), Err(Error::Draws { found: 0, largest: None })));
        let (x_start, indices) = images(2);
        let errors = new(2, 3).unwrap().errors(&x_start, &indices, best).unwrap();
        for draws in [0, 4] {
            assert!(matches!(errors.classes(&[1.0; 20], draws), Err(Error::Draws { largest: Some(3), .. })));
        }
        assert!(matches!(errors.classes(&[1.0; 3], 3), Err(Error::Core(_))));
        let nan = |x: &Tensor, _: &[usize], _: &[u32]| Ok((x * f64::NAN)?);
        assert!(matches!(
            new(2, 1).unwrap().errors(&x_start, &indices, nan),
            Err(Error::Prediction { t: 0 })
        ));
        assert!(new(2, 1).unwrap().errors(&x_start, &indices[..1], best).is_err());
    }
}
