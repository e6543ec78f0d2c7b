//! Randomness that is addressed, not drawn.
//!
//! Each number is a pure function of (seed, purpose, index, step, position): a counter-based generator
//! has no state that the order of calls, the batch size or the number of threads could change. So image
//! 17 of seed 1 is the same picture alone and in a batch of a thousand, and a training run resumes from
//! its step number alone.

mod normal;
mod philox;
mod shuffle;
mod uniform;

#[cfg(feature = "candle")]
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use normal::Fill;

pub use shuffle::ShuffledBatches;

use crate::{Error, Result};

/// The use of a random number, as part of its address: two purposes never share numbers.
///
/// A purpose is one byte. The values 0 to 127 belong to this project, which may add to the constants below. A library
/// or program that needs a purpose of its own takes one with [`Purpose::custom`], which gives the values 128 to 255:
///
/// ```
/// # use ddpm_core::Purpose;
/// const AUGMENTATION: Purpose = Purpose::custom(0);
/// const MASK: Purpose = Purpose::custom(1);
/// assert!(AUGMENTATION != MASK && AUGMENTATION != Purpose::SAMPLE_START);
/// ```
///
/// The value is part of the address, so changing it changes the random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Purpose(u8);

impl Purpose {
    /// x_T, the start of sampling; index: the image.
    pub const SAMPLE_START: Self = Self(1);
    /// The noise that a sampler adds; index: the image, step: the noise index of the sampler.
    pub const SAMPLE_STEP: Self = Self(2);
    /// ε of a training image; index: the image's position in the whole training stream, step: the number of the draw, if
    /// the image takes one of several.
    pub const TRAIN_NOISE: Self = Self(3);
    /// t of a training image; index as for the noise.
    pub const TRAIN_TIMESTEP: Self = Self(4);
    /// Whether a training image loses its class; index as for the noise.
    pub const CLASS_DROPOUT: Self = Self(5);
    /// Initial weights; index: the number of the parameter.
    pub const WEIGHTS: Self = Self(6);
    /// Noise and timesteps of test images, the same at each evaluation; index: the image.
    pub const EVALUATION: Self = Self(7);
    /// How far a training image is moved; index as for the noise.
    pub const SHIFT: Self = Self(8);
    /// The order of the images; index: the epoch.
    pub const SHUFFLE: Self = Self(9);
    /// The noise of known pixels in inpainting; index: the image, step: the step of the run.
    pub const INPAINTING: Self = Self(10);
    /// x_T of the images on which a plan is fitted; index: the image.
    pub const PLAN_FIT: Self = Self(11);
    /// The nodes of a Brownian tree; index: the image, step: the node.
    pub const BROWNIAN: Self = Self(12);

    /// The first value that does not belong to this project.
    const FIRST_CUSTOM: u8 = 128;

    /// A purpose outside this project, by a number below 128 that the caller chooses.
    ///
    /// # Panics
    ///
    /// If `number` is 128 or more; in a constant, this is a compile error.
    #[must_use]
    pub const fn custom(number: u8) -> Self {
        assert!(number < Self::FIRST_CUSTOM, "the number of a custom purpose is 0 to 127");
        Self(Self::FIRST_CUSTOM + number)
    }
}

/// A seed, and with it all random numbers of a run.
///
/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") with the seed as
/// key; normal numbers by Box and Muller's transform in f32 arithmetic that every platform computes alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRng {
    seed: u64,
}

/// The bits of an address that hold the step.
const STEP_BITS: u32 = 24;

/// The largest step that fits in an address.
const LAST_STEP: u32 = (1 << STEP_BITS) - 1;

/// The number of values of each index; `None` if there are no values.
fn row_length(indices: &[u64], out: &[f32]) -> Result<Option<usize>> {
    if out.is_empty() {
        return Ok(None);
    }
    let each = out.len().checked_div(indices.len()).unwrap_or(0);
    if each * indices.len() != out.len() {
        return Err(Error::BufferLength { found: out.len(), indices: indices.len() });
    }
    // The block of four numbers in a row is a word of the address, too.
    if u32::try_from(each.div_ceil(4)).is_err() {
        return Err(Error::out_of_range("the length of a row of random numbers", each, "at most 2³⁴"));
    }
    Ok(Some(each))
}

/// Numbers, at least, for which it is worth waking a thread.
const TASK: usize = 2048;

impl CounterRng {
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
    #[cfg(feature = "candle")]
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

    /// [`CounterRng::normal`] in the shape, type and device of `like`, whose first dimension is the
    /// number of indices.
    ///
    /// # Errors
    ///
    /// If the number of indices is not the first dimension, or as [`CounterRng::normal`].
    #[cfg(feature = "candle")]
    pub fn normal_like(
        &self,
        purpose: Purpose,
        indices: &[u64],
        step: usize,
        like: &Tensor,
    ) -> Result<Tensor> {
        let (batch, shape) = like.dims().split_first().map_or((1, [].as_slice()), |(b, s)| (*b, s));
        if batch != indices.len() {
            let expected = format!("{batch}, one for each image");
            return Err(Error::out_of_range("the number of indices", indices.len(), expected));
        }
        self.normal(purpose, indices, step, shape, like.dtype(), like.device())
    }

    /// Fills `out` with standard normal numbers, an equal part for each index.
    ///
    /// # Errors
    ///
    /// If `step` is 2²⁴ or more, or `out` cannot be divided equally.
    pub fn fill_normal(&self, purpose: Purpose, indices: &[u64], step: usize, out: &mut [f32]) -> Result<()> {
        let purpose_and_step = Self::purpose_and_step(purpose, step)?;
        let Some(each) = row_length(indices, out)? else { return Ok(()) };
        let rows = TASK.div_ceil(each);
        let key = self.key();
        out.par_chunks_mut(each * rows).zip(indices.par_chunks(rows)).for_each(|(rows, indices)| {
            Fill { rows, each, indices, purpose_and_step, key }.run();
        });
        Ok(())
    }

    /// A whole number below `bound`, uniform up to a bias of `bound`/2³². `bound` is at least 1.
    #[must_use]
    pub fn below(&self, purpose: Purpose, index: u64, step: u16, bound: u32) -> u32 {
        debug_assert!(bound > 0);
        let [word, ..] = self.words(purpose, index, step, 0);
        philox::high(word, bound)
    }

    /// A number in [0, 1), uniform, with 32 random bits.
    #[must_use]
    pub fn uniform(&self, purpose: Purpose, index: u64, step: u16) -> f64 {
        let [word, ..] = self.words(purpose, index, step, 0);
        f64::from(word) / 2.0_f64.powi(32)
    }

    /// The four words of a block at an address. A step of 16 bits always fits.
    #[allow(clippy::cast_possible_truncation, reason = "words of an address")]
    fn words(&self, purpose: Purpose, index: u64, step: u16, block: u32) -> [u32; 4] {
        let purpose_and_step = u32::from(purpose.0) << STEP_BITS | u32::from(step);
        let counter = [block, purpose_and_step, index as u32, (index >> 32) as u32];
        philox::philox4x32_10(counter.map(|word| [word]), self.key()).map(|[word]| word)
    }

    /// One word of an address: the purpose in the upper 8 bits, the step in the lower 24.
    fn purpose_and_step(purpose: Purpose, step: usize) -> Result<u32> {
        let fits = u32::try_from(step).ok().filter(|step| step >> STEP_BITS == 0);
        let step = fits.ok_or_else(|| {
            Error::out_of_range("the step of a random number", step, format!("0 to {LAST_STEP}"))
        })?;
        Ok(u32::from(purpose.0) << STEP_BITS | step)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the two halves")]
    fn key(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rng: CounterRng, purpose: Purpose, index: u64, step: usize) -> Vec<f32> {
        let mut row = vec![0.0; 9];
        rng.fill_normal(purpose, &[index], step, &mut row).unwrap();
        row
    }

    /// The values are a promise: a change of these bits changes every picture of every seed.
    #[test]
    fn golden_bits_of_seed_1() {
        let bits: Vec<u32> =
            row(CounterRng::new(1), Purpose::SAMPLE_START, 17, 0).iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits, GOLDEN);
    }

    const GOLDEN: [u32; 9] = [
        1057017073, 3207921714, 1062214040, 3191929474, 3212882463, 3197148026, 3183275997, 1061654183,
        1061926960,
    ];

    #[test]
    fn a_row_is_the_same_alone_in_a_batch_and_in_any_order() {
        let rng = CounterRng::new(5);
        let mut batch = vec![0.0; 27];
        rng.fill_normal(Purpose::SAMPLE_STEP, &[3, 17, 4], 9, &mut batch).unwrap();
        assert_eq!(batch[9..18], row(rng, Purpose::SAMPLE_STEP, 17, 9));
    }

    #[test]
    fn every_part_of_the_address_matters() {
        let base = row(CounterRng::new(1), Purpose::SAMPLE_STEP, 2, 3);
        for other in [
            row(CounterRng::new(2), Purpose::SAMPLE_STEP, 2, 3),
            row(CounterRng::new(1 | 1 << 32), Purpose::SAMPLE_STEP, 2, 3),
            row(CounterRng::new(1), Purpose::TRAIN_NOISE, 2, 3),
            row(CounterRng::new(1), Purpose::SAMPLE_STEP, 1, 3),
            row(CounterRng::new(1), Purpose::SAMPLE_STEP, 2 | 1 << 32, 3),
            row(CounterRng::new(1), Purpose::SAMPLE_STEP, 2, 4),
        ] {
            assert!(std::iter::zip(&base, &other).all(|(a, b)| a != b), "{base:?} {other:?}");
        }
    }

    #[test]
    fn whole_numbers_below_twenty_are_uniform() {
        let rng = CounterRng::new(3);
        let mut counts = [0_u32; 20];
        for index in 0..200_000 {
            counts[rng.below(Purpose::TRAIN_TIMESTEP, index, 0, 20) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|&n| (f64::from(n) - 1e4).powi(2) / 1e4).sum();
        assert!(chi2 < 43.8, "chi² with 19 degrees of freedom, 0.1 % level: {chi2}");
    }

    /// One more would be a bit of the purpose, and give the numbers of another one.
    #[test]
    fn a_step_too_large_for_the_address_is_refused() {
        let (rng, last) = (CounterRng::new(1), LAST_STEP as usize);
        let fill = |step| rng.fill_normal(Purpose::SAMPLE_STEP, &[0], step, &mut [0.0; 4]);
        fill(last).unwrap();
        for step in [last + 1, 1 << 32, usize::MAX] {
            let expected = format!("the step of a random number is {step}, expected 0 to 16777215");
            assert_eq!(fill(step).unwrap_err().to_string(), expected);
        }
    }

    /// The whole address of a uniform number, which takes no step that could spill into the purpose.
    #[test]
    fn uniform_numbers_of_the_largest_step_are_those_of_their_own_purpose() {
        let rng = CounterRng::new(1);
        let at = |purpose, step| rng.uniform(purpose, 5, step);
        let mut found: Vec<f64> = [Purpose::SAMPLE_STEP, Purpose::TRAIN_NOISE, Purpose::custom(0)]
            .into_iter()
            .flat_map(|purpose| [0, 1, u16::MAX].map(|step| at(purpose, step)))
            .collect();
        found.sort_by(f64::total_cmp);
        found.dedup();
        assert_eq!(found.len(), 9);
    }

    /// A custom purpose never meets one of this project, present or future.
    #[test]
    fn custom_purposes_are_above_those_of_the_project() {
        assert_eq!([0, 127].map(|number| Purpose::custom(number).0), [128, 255]);
        assert!(std::panic::catch_unwind(|| Purpose::custom(128)).is_err());
        let named =
            [Purpose::SAMPLE_START, Purpose::SAMPLE_STEP, Purpose::TRAIN_NOISE, Purpose::TRAIN_TIMESTEP];
        assert_eq!(named.map(|purpose| purpose.0), [1, 2, 3, 4]);
        let named = [Purpose::CLASS_DROPOUT, Purpose::WEIGHTS, Purpose::EVALUATION, Purpose::SHIFT];
        assert_eq!(named.map(|purpose| purpose.0), [5, 6, 7, 8]);
    }
}
