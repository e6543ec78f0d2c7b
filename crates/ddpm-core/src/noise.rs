//! The noise of a batch of images.

use candle_core::{DType, Device, Tensor};

use crate::{CounterRng, Error, Purpose, Result};

/// The random numbers of a batch of images, each addressed by its index: an image is the same alone and in any batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageNoise {
    rng: CounterRng,
    images: Vec<u64>,
    purpose: Purpose,
}

impl CounterRng {
    /// The noise of the images with these indices.
    #[must_use]
    pub fn images(self, indices: impl IntoIterator<Item = u64>) -> ImageNoise {
        ImageNoise { rng: self, images: indices.into_iter().collect(), purpose: Purpose::SAMPLE_STEP }
    }
}

impl ImageNoise {
    /// The same images with other noise than that of a sampler's steps.
    #[must_use]
    pub fn for_purpose(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// The indices of the images.
    #[must_use]
    pub fn indices(&self) -> &[u64] {
        &self.images
    }

    pub(crate) fn rng(&self) -> CounterRng {
        self.rng
    }

    /// x_T, the noise from which sampling starts, [B, `shape`…] in f32.
    ///
    /// # Errors
    ///
    /// If candle fails.
    pub fn start(&self, shape: &[usize], device: &Device) -> Result<Tensor> {
        self.rng.normal(Purpose::SAMPLE_START, &self.images, 0, shape, DType::F32, device)
    }

    /// The noise that a run adds, as the closure that it takes.
    pub fn noise(&self) -> impl Fn(&Tensor, usize) -> Result<Tensor> + Send + Sync + use<> {
        let Self { rng, images, purpose } = self.clone();
        move |x_t, noise_index| rng.normal_like(purpose, &images, noise_index, x_t)
    }
}

/// The noise source of a sampler that adds none: it fails if it is called.
///
/// # Errors
///
/// Always.
pub fn no_noise(_: &Tensor, noise_index: usize) -> Result<Tensor> {
    Err(Error::out_of_range("the noise source", "no_noise", format!("noise, for index {noise_index}")))
}
