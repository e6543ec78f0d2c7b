//! Randomness that is addressed, not drawn.
//!
//! Each number is a pure function of (seed, purpose, index, step, position): a counter-based generator
//! has no state that the order of calls, the batch size or the number of threads could change. So image
//! 17 of seed 1 is the same picture alone and in a batch of a thousand, and a training run resumes from
//! its step number alone.

mod normal;
mod philox;

use candle_core::{DType, Device, Tensor};
use pulp::Arch;
use rayon::prelude::*;

use normal::Fill;

use crate::{Error, Result};

/// What random numbers are for. Two purposes never share numbers. The values are part of the address, so
/// changing one changes pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// x_T, the start of sampling; index: the image.
    SampleStart = 1,
    /// The noise that a sampler adds; index: the image, step: the timestep.
    SampleStep = 2,
    /// ε of a training image; index: the image's position in the whole training stream.
    TrainNoise = 3,
    /// t of a training image; index as for the noise.
    TrainTimestep = 4,
    /// Whether a training image loses its class; index as for the noise.
    ClassDropout = 5,
    /// Initial weights; index: the number of the parameter.
    Weights = 6,
    /// Noise and timesteps of held-out images, the same at each evaluation; index: the image.
    Evaluation = 7,
    /// How far a training image is moved; index as for the noise.
    Shift = 8,
}

/// A seed, and with it all random numbers of a run.
///
/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") with the seed as
/// key; normal numbers by Box and Muller's transform in f32 arithmetic that every platform computes alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressedRng {
    seed: u64,
}

/// The largest step that fits in an address.
const LAST_STEP: usize = (1 << 24) - 1;

/// Numbers, at least, for which it is worth waking a thread.
const TASK: usize = 2048;

impl AddressedRng {
    /// The random numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Standard normal numbers of shape [`indices.len()`, `shape`…], computed on the CPU in parallel and
    /// moved to `device`, so that every device gets the same ones.
    ///
    /// # Errors
    ///
    /// If `step` is 2²⁴ or more, or the tensor library fails.
    pub fn normal(
        &self,
        purpose: Purpose,
        indices: &[u64],
        step: usize,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let mut values = vec![0.0; indices.len() * shape.iter().product::<usize>()];
        self.fill_normal(purpose, indices, step, &mut values)?;
        let shape: Vec<usize> = std::iter::once(indices.len()).chain(shape.iter().copied()).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    }

    /// [`AddressedRng::normal`] in the shape, type and device of `like`, whose first dimension is the
    /// number of indices.
    ///
    /// # Errors
    ///
    /// If the number of indices is not the first dimension, or as [`AddressedRng::normal`].
    pub fn normal_like(
        &self,
        purpose: Purpose,
        indices: &[u64],
        step: usize,
        like: &Tensor,
    ) -> Result<Tensor> {
        let (batch, shape) = like.dims().split_first().map_or((1, [].as_slice()), |(b, s)| (*b, s));
        if batch != indices.len() {
            return Err(Error::ImageIndices { found: indices.len(), batch });
        }
        self.normal(purpose, indices, step, shape, like.dtype(), like.device())
    }

    /// Fills `out` with standard normal numbers, an equal part for each index.
    ///
    /// # Errors
    ///
    /// If `step` is 2²⁴ or more, or `out` cannot be divided equally.
    pub fn fill_normal(&self, purpose: Purpose, indices: &[u64], step: usize, out: &mut [f32]) -> Result<()> {
        if step > LAST_STEP {
            return Err(Error::TimestepRange { found: step, last: LAST_STEP });
        }
        if out.is_empty() {
            return Ok(());
        }
        let each = out.len().checked_div(indices.len()).unwrap_or(0);
        if each * indices.len() != out.len() {
            return Err(Error::BufferLength { found: out.len(), indices: indices.len() });
        }
        let rows = TASK.div_ceil(each);
        let (purpose_and_step, key) = (Self::purpose_and_step(purpose, step), self.key());
        out.par_chunks_mut(each * rows).zip(indices.par_chunks(rows)).for_each(|(rows, indices)| {
            Arch::new().dispatch(Fill { rows, each, indices, purpose_and_step, key });
        });
        Ok(())
    }

    /// A whole number below `bound`, uniform up to a bias of `bound`/2³².
    ///
    /// `bound` is at least 1, and `step` below 2²⁴.
    #[must_use]
    pub fn below(&self, purpose: Purpose, index: u64, step: usize, bound: u32) -> u32 {
        debug_assert!(bound > 0 && step <= LAST_STEP);
        let [word, ..] = self.words(purpose, index, step);
        philox::high(word, bound)
    }

    /// A number in [0, 1), uniform, with 32 random bits. `step` is below 2²⁴.
    #[must_use]
    pub fn uniform(&self, purpose: Purpose, index: u64, step: usize) -> f64 {
        debug_assert!(step <= LAST_STEP);
        let [word, ..] = self.words(purpose, index, step);
        f64::from(word) / 2.0_f64.powi(32)
    }

    /// The first four words at an address.
    #[allow(clippy::cast_possible_truncation, reason = "words of an address")]
    fn words(&self, purpose: Purpose, index: u64, step: usize) -> [u32; 4] {
        let counter = [0, Self::purpose_and_step(purpose, step), index as u32, (index >> 32) as u32];
        philox::philox4x32_10(counter.map(|word| [word]), self.key()).map(|[word]| word)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the step was checked")]
    fn purpose_and_step(purpose: Purpose, step: usize) -> u32 {
        (purpose as u32) << 24 | step as u32
    }

    #[allow(clippy::cast_possible_truncation, reason = "the two halves")]
    fn key(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rng: AddressedRng, purpose: Purpose, index: u64, step: usize) -> Vec<f32> {
        let mut row = vec![0.0; 9];
        rng.fill_normal(purpose, &[index], step, &mut row).unwrap();
        row
    }

    /// The values are a promise: a change of these bits changes every picture of every seed.
    #[test]
    fn golden_bits_of_seed_1() {
        let bits: Vec<u32> =
            row(AddressedRng::new(1), Purpose::SampleStart, 17, 0).iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits, GOLDEN);
    }

    const GOLDEN: [u32; 9] = [
        1057017073, 3207921714, 1062214040, 3191929474, 3212882463, 3197148026, 3183275997, 1061654183,
        1061926960,
    ];

    #[test]
    fn a_row_is_the_same_alone_in_a_batch_and_in_any_order() {
        let rng = AddressedRng::new(5);
        let mut batch = vec![0.0; 27];
        rng.fill_normal(Purpose::SampleStep, &[3, 17, 4], 9, &mut batch).unwrap();
        assert_eq!(batch[9..18], row(rng, Purpose::SampleStep, 17, 9));
    }

    #[test]
    fn every_part_of_the_address_matters() {
        let base = row(AddressedRng::new(1), Purpose::SampleStep, 2, 3);
        for other in [
            row(AddressedRng::new(2), Purpose::SampleStep, 2, 3),
            row(AddressedRng::new(1 | 1 << 32), Purpose::SampleStep, 2, 3),
            row(AddressedRng::new(1), Purpose::TrainNoise, 2, 3),
            row(AddressedRng::new(1), Purpose::SampleStep, 1, 3),
            row(AddressedRng::new(1), Purpose::SampleStep, 2 | 1 << 32, 3),
            row(AddressedRng::new(1), Purpose::SampleStep, 2, 4),
        ] {
            assert!(std::iter::zip(&base, &other).all(|(a, b)| a != b), "{base:?} {other:?}");
        }
    }

    #[test]
    fn whole_numbers_below_twenty_are_uniform() {
        let rng = AddressedRng::new(3);
        let mut counts = [0_u32; 20];
        for index in 0..200_000 {
            counts[rng.below(Purpose::TrainTimestep, index, 0, 20) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|&n| (f64::from(n) - 1e4).powi(2) / 1e4).sum();
        assert!(chi2 < 43.8, "chi² with 19 degrees of freedom, 0.1 % level: {chi2}");
    }

    #[test]
    fn a_step_too_large_for_the_address_is_refused() {
        let failed = AddressedRng::new(1).fill_normal(Purpose::SampleStep, &[0], 1 << 24, &mut [0.0; 4]);
        assert!(matches!(failed, Err(Error::TimestepRange { found: 0x100_0000, .. })));
    }
}
