//! Sampling from a given image: from the image with noise (SDEdit), or around its known pixels (inpainting).

use candle_core::Tensor;
use ddpm_core::{Inpainting, Operation, Plan, Purpose, Run, Timestep};

use crate::{Denoiser, Error, Result, SampleConfig};

/// An image from which all images of a batch are made.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenImage {
    /// The image, one value in \[−1, 1\] for each pixel of the model. The images start from it with the noise of the plan's
    /// first timestep (Meng et al. 2022, arXiv 2108.01073), so a plan of fewer steps keeps more of it.
    pub image: Vec<f32>,
    /// The pixels that the images keep: 1 at a known pixel, 0 at a pixel to paint; `None` if all are painted.
    pub mask: Option<Vec<f32>>,
}

impl GivenImage {
    /// x_t at the first timestep of a plan, from `eps` of shape [N, pixels].
    pub(crate) fn noised(&self, denoiser: &Denoiser, plan: &Plan, eps: &Tensor) -> Result<Tensor> {
        let image = tensor("the given image", &self.image, denoiser, eps)?;
        let Some(first) = first_timestep(plan) else { return Ok(image) };
        Ok(first.q_sample(&image, eps)?)
    }

    /// The known pixels of N images with the shape of `x_t`; `None` without a mask.
    pub(crate) fn inpainting(&self, denoiser: &Denoiser, x_t: &Tensor) -> Result<Option<Inpainting>> {
        let Some(mask) = &self.mask else { return Ok(None) };
        let image = tensor("the given image", &self.image, denoiser, x_t)?;
        let mask = tensor("the mask", mask, denoiser, x_t)?;
        Ok(Some(Inpainting::new(&image, &mask)?))
    }
}

impl Denoiser {
    /// Puts the known pixels of [`SampleConfig::given`] into the images of a run that has finished a step, and does nothing
    /// without a mask. [`Denoiser::sample`] does this after each step; whoever answers a run must do it.
    ///
    /// # Errors
    ///
    /// If the given image does not fit the model.
    pub fn keep_known(&self, config: &SampleConfig, images: &[u64], run: &mut Run) -> Result<()> {
        let Some(given) = &config.given else { return Ok(()) };
        if let Some(known) = given.inpainting(self, run.x_t())? {
            known.blend(run, Self::noise(config, images).for_purpose(Purpose::INPAINTING).noise())?;
        }
        Ok(())
    }
}

/// The values of an image as a tensor of the shape of `like`, [N, pixels].
fn tensor(name: &'static str, values: &[f32], denoiser: &Denoiser, like: &Tensor) -> Result<Tensor> {
    let (found, expected) = (values.len(), denoiser.config().pixels());
    if found != expected {
        let expected = format!("{expected}, the number of pixels of the model");
        return Err(Error::out_of_range(format!("the number of values of {name}"), found, expected));
    }
    Ok(Tensor::new(values, like.device())?.broadcast_as(like.dims())?.contiguous()?)
}

fn first_timestep(plan: &Plan) -> Option<Timestep> {
    plan.operations().iter().find_map(|operation| match operation {
        Operation::Evaluate { timestep, .. } => Some(*timestep),
        _ => None,
    })
}
