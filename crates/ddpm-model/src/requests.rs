//! The requests of several runs, answered by one evaluation of the network.

use candle_core::Tensor;

use crate::{Denoiser, GuidanceScales, Result, device::run_on_device};

/// A request for the network's output, as [`Denoiser::output`] takes it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The images, [B, pixels].
    pub x_t: &'a Tensor,
    /// The timestep of the images.
    pub t: usize,
    /// The class of each image.
    pub labels: &'a [u32],
    /// The scales of guidance.
    pub guidance: GuidanceScales,
}

/// Rows of one evaluation, with a timestep and a class for each.
#[derive(Default)]
struct Rows {
    x_t: Vec<Tensor>,
    t: Vec<usize>,
    labels: Vec<u32>,
}

impl Rows {
    /// Adds the images of a request and returns the index of the first row.
    fn add(&mut self, request: &Request<'_>, labels: &[u32]) -> usize {
        let first = self.labels.len();
        self.x_t.push(request.x_t.clone());
        self.t.extend(std::iter::repeat_n(request.t, labels.len()));
        self.labels.extend(labels);
        first
    }

    fn forward(&self, denoiser: &Denoiser) -> Result<Option<Tensor>> {
        if self.x_t.is_empty() {
            return Ok(None);
        }
        Ok(Some(denoiser.forward(&Tensor::cat(&self.x_t, 0)?, &self.t, &self.labels)?))
    }
}

impl Denoiser {
    /// [`Denoiser::output`] for several requests, whose timesteps and scales may differ. The network runs once, on the
    /// images of all requests with and without their classes, and the guide once. On a CPU, each result is the same, bit
    /// for bit, as that of [`Denoiser::output`].
    ///
    /// # Errors
    ///
    /// As [`Denoiser::output`], if one of the requests is wrong.
    pub fn outputs(&self, requests: &[Request<'_>]) -> Result<Vec<Tensor>> {
        run_on_device(&self.device().location(), || self.outputs_here(requests))
    }

    fn outputs_here(&self, requests: &[Request<'_>]) -> Result<Vec<Tensor>> {
        let null = u32::try_from(self.config().null_class()).unwrap_or(u32::MAX);
        let (mut own, mut guides) = (Rows::default(), Rows::default());
        let mut places = Vec::with_capacity(requests.len());
        for request in requests {
            self.check_scales(request.guidance)?;
            let count = request.x_t.dim(0)?;
            let nulls = vec![null; count];
            let labels = if self.config().num_classes == 0 { nulls.as_slice() } else { request.labels };
            self.check_labels(labels, count)?;
            let GuidanceScales { class, guide } = request.guidance;
            let strong = own.add(request, labels);
            let null = (class != 1.0).then(|| own.add(request, &nulls));
            let weak = (guide != 1.0).then(|| guides.add(request, labels));
            places.push((count, strong, null, weak));
        }
        let own = own.forward(self)?;
        let weak = self.guide().map(|guide| guides.forward(guide)).transpose()?.flatten();
        let mut outputs = Vec::with_capacity(requests.len());
        for (request, (count, strong, null_at, weak_at)) in std::iter::zip(requests, places) {
            let part = |rows: &Option<Tensor>, at: Option<usize>| {
                let rows = rows.as_ref().and_then(|rows| at.map(|at| rows.narrow(0, at, count)));
                rows.transpose()
            };
            let Some(strong) = part(&own, Some(strong))? else { continue };
            let (null, weak) = (part(&own, null_at)?, part(&weak, weak_at)?);
            outputs.push(match null {
                // As in `output`, which then evaluates nothing else.
                Some(null) if request.guidance.class == 0.0 && weak.is_none() => null,
                null => {
                    let scales = request.guidance;
                    self.guided(request.x_t, request.t, scales, &strong, null.as_ref(), weak.as_ref())?
                }
            });
        }
        Ok(outputs)
    }
}
