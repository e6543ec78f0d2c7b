//! The likelihood of real images: the variational bound on test images.

use candle_core::{Device, Tensor};
use ddpm_core::{
    CounterRng, Purpose, ReverseVariance, Timestep, TimestepCostEstimator, Timesteps,
    likelihood::{Bound, BoundEstimator, RateDistortion},
};
use ddpm_data::{Dataset, Splits};
use ddpm_model::Denoiser;
use serde::Serialize;

use crate::{Error, Result, ensure_fits};

/// The largest number of network outputs, images times timesteps, kept in memory at once.
const MAX_CACHED_OUTPUTS: usize = 5000;
/// The noise index of the first training image, above the noise indices of all test images.
const TRAIN_NOISE_OFFSET: u64 = 1 << 32;

/// Configuration of [`likelihood`].
#[derive(Clone, Copy, Debug)]
pub struct LikelihoodConfig {
    /// The number of test images, and the number of training images on which variances and timesteps are fitted.
    /// They are spaced evenly over the split; a smaller split is used completely.
    pub num_images: usize,
    /// The seed of the noise.
    pub seed: u64,
}

/// The variational bound of a denoiser on test images, in bits per dimension (natural logarithms divided by ln 2 and
/// by the number of pixels).
#[derive(Clone, Debug, Serialize)]
pub struct LikelihoodReport {
    /// The number of test images.
    pub images: usize,
    /// The number of training images on which variances and timesteps were fitted.
    pub training_images: usize,
    /// The bound for three choices of the reverse variance.
    pub bound: BoundByVariance,
    /// The optimal reverse variance of each timestep, from T − 1 down to 0.
    pub optimal_variances: Vec<f64>,
    /// The rate-distortion curve with the optimal variances.
    pub rate_distortion: Vec<RateDistortion>,
    /// The best list of timesteps of each length, shortest first: the list with the smallest bound on training
    /// images, with optimal variances.
    pub best_timesteps: Vec<BestTimesteps>,
}

/// The bound for three choices of the reverse variance.
#[derive(Clone, Debug, Serialize)]
pub struct BoundByVariance {
    /// β̃ₜ, the variance of the posterior q(xₜ₋₁ given xₜ, x₀).
    pub fixed_small: Bound,
    /// βₜ, the variance of the forward process.
    pub fixed_large: Bound,
    /// The variances of [`optimal_variances`](ddpm_core::likelihood::optimal_variances), fitted on training images.
    pub optimal: Bound,
}

/// A list of timesteps and its bound on training images.
#[derive(Clone, Debug, Serialize)]
pub struct BestTimesteps {
    /// The timesteps, in descending order.
    pub timesteps: Vec<usize>,
    /// The bound in bits per dimension.
    pub bits_per_dim: f64,
}

/// Computes the variational bound of `denoiser`, without guidance, on test images. Reverse variances and lists of
/// timesteps are fitted on training images. `progress` receives the number of images processed and the total number.
///
/// # Errors
///
/// If there are no test images, the data does not fit the model, or the network fails.
pub fn likelihood(
    denoiser: &Denoiser,
    data: &Splits,
    config: LikelihoodConfig,
    mut progress: impl FnMut(usize, usize),
) -> Result<LikelihoodReport> {
    let test = data.test().ok_or_else(|| Error::NoTestImages { data: data.name().to_owned() })?;
    for split in [data.train(), test] {
        ensure_fits(denoiser, split)?;
    }
    let (schedule, timesteps) = (denoiser.schedule(), Timesteps::all(denoiser.schedule()));
    let training = Images::new(denoiser, data.train(), config, TRAIN_NOISE_OFFSET);
    let test = Images::new(denoiser, test, config, 0);
    let total = 2 * training.indices.len() + test.indices.len();
    let mut processed = 0;
    let mut advance = |images| {
        processed += images;
        progress(processed, total);
    };

    let estimator = |mode: &ReverseVariance| BoundEstimator::new(schedule, &timesteps, mode);
    let mut fitted = [estimator(&ReverseVariance::FixedSmall)?];
    training.add_to(&mut fitted, &mut advance)?;
    let mut costs = TimestepCostEstimator::new(schedule, &fitted[0].finish()?)?;
    training.each_batch(&mut advance, |x_start, network, noise| Ok(costs.add(x_start, network, noise)?))?;
    let costs = costs.finish()?;
    let variances = costs.optimal_variances(&timesteps)?;

    let optimal = ReverseVariance::PerStep(variances.clone());
    let mut estimators = [
        estimator(&ReverseVariance::FixedSmall)?,
        estimator(&ReverseVariance::FixedLarge)?,
        estimator(&optimal)?,
    ];
    test.add_to(&mut estimators, &mut advance)?;
    let [fixed_small, fixed_large, optimal] = estimators.map(|estimator| estimator.finish());
    let bound = BoundByVariance { fixed_small: fixed_small?, fixed_large: fixed_large?, optimal: optimal? };
    let best = costs.best_lists(schedule)?.into_iter();
    Ok(LikelihoodReport {
        images: test.indices.len(),
        training_images: training.indices.len(),
        rate_distortion: bound.optimal.rate_distortion(),
        bound,
        optimal_variances: variances,
        best_timesteps: best
            .map(|(list, bits_per_dim)| BestTimesteps { timesteps: list.indices(), bits_per_dim })
            .collect(),
    })
}

/// The network: x₀, ε or v for xₜ and a timestep, as a sampler calls it.
type Network<'a> = &'a mut dyn FnMut(&Tensor, Timestep) -> candle_core::Result<Tensor>;
/// The noise source: noise like a tensor for a noise index, as a sampler calls it.
type Noise<'a> = &'a mut dyn FnMut(&Tensor, usize) -> ddpm_core::Result<Tensor>;

/// Evenly spaced images of a split, with the network and the noise source for them.
struct Images<'a> {
    denoiser: &'a Denoiser,
    data: &'a Dataset,
    indices: Vec<u32>,
    /// The noise index of image 0 of the split.
    noise_offset: u64,
    rng: CounterRng,
}

impl<'a> Images<'a> {
    fn new(denoiser: &'a Denoiser, data: &'a Dataset, config: LikelihoodConfig, noise_offset: u64) -> Self {
        let (indices, rng) = (data.evenly_spaced(config.num_images), CounterRng::new(config.seed));
        Self { denoiser, data, indices, noise_offset, rng }
    }

    /// Calls `use_batch` with x₀ [B, pixels], the network and the noise source of each batch.
    fn each_batch(
        &self,
        advance: &mut dyn FnMut(usize),
        mut use_batch: impl FnMut(&Tensor, Network<'_>, Noise<'_>) -> Result<()>,
    ) -> Result<()> {
        let pixels = self.denoiser.config().pixels();
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        let batch = MAX_CACHED_OUTPUTS.div_euclid(self.denoiser.schedule().num_train_timesteps()).max(1);
        for indices in self.indices.chunks(batch) {
            self.data.gather_images(indices, &mut images)?;
            if self.denoiser.config().num_classes > 0 {
                self.data.gather_labels(indices, &mut labels)?;
            } else {
                labels = vec![0; indices.len()];
            }
            let labels: Vec<u32> = labels.iter().copied().map(u32::from).collect();
            let x_start = Tensor::from_slice(&images, (indices.len(), pixels), &Device::Cpu)?;
            let noise_indices: Vec<u64> =
                indices.iter().map(|&index| self.noise_offset + u64::from(index)).collect();
            let mut network = |x_t: &Tensor, timestep: Timestep| {
                let prediction = self.denoiser.output(x_t, timestep.index(), &labels, 1.0);
                prediction.map_err(candle_core::Error::wrap)
            };
            let mut noise =
                |x: &Tensor, step: usize| self.rng.normal_like(Purpose::EVALUATION, &noise_indices, step, x);
            use_batch(&x_start.to_device(self.denoiser.device())?, &mut network, &mut noise)?;
            advance(indices.len());
        }
        Ok(())
    }

    /// Adds the images to each estimator. The noise at a timestep is the same for all estimators, so the network runs
    /// once for each timestep.
    fn add_to(&self, estimators: &mut [BoundEstimator], advance: &mut dyn FnMut(usize)) -> Result<()> {
        self.each_batch(advance, |x_start, network, noise| {
            let mut outputs = vec![None; self.denoiser.schedule().num_train_timesteps()];
            let mut network = |x_t: &Tensor, timestep: Timestep| match &mut outputs[timestep.index()] {
                Some(output) => candle_core::Result::Ok(Tensor::clone(output)),
                empty => Ok(empty.insert(network(x_t, timestep)?).clone()),
            };
            for estimator in &mut *estimators {
                estimator.add(x_start, &mut network, &mut *noise)?;
            }
            Ok(())
        })
    }
}
