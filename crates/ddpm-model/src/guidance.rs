//! The output of a denoiser with guidance: by the class (Ho & Salimans 2022), and by a weaker model (Karras et al. 2024).

use candle_core::Tensor;
use ddpm_core::{Guidance, Timestep};

use crate::{Denoiser, Error, Result};

/// The scales of guidance at a timestep; 1 is no guidance. A number is the scale of guidance by the class alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuidanceScales {
    /// The scale of guidance by the class.
    pub class: f64,
    /// The scale of guidance by the guide.
    pub guide: f64,
}

impl From<f64> for GuidanceScales {
    fn from(class: f64) -> Self {
        Self { class, guide: 1.0 }
    }
}

/// The guidance of a denoiser, each with the timesteps at which it applies.
#[derive(Clone, Debug, PartialEq)]
pub struct DenoiserGuidance {
    /// Guidance by the class; of scale 1 without classes.
    pub class: Guidance,
    /// Guidance by the guide of [`Denoiser::guided_by`]; of scale 1 without one.
    pub guide: Guidance,
}

impl DenoiserGuidance {
    /// The scales at a timestep.
    #[must_use]
    pub fn scales_at(&self, timestep: Timestep) -> GuidanceScales {
        GuidanceScales { class: self.class.scale_at(timestep), guide: self.guide.scale_at(timestep) }
    }
}

/// Guidance by the class alone.
impl From<Guidance> for DenoiserGuidance {
    fn from(class: Guidance) -> Self {
        Self { class, guide: Guidance::new(1.0) }
    }
}

impl Denoiser {
    /// Gives the model a guide: a weaker model (autoguidance, Karras et al. 2024, arXiv 2406.02507). [`Denoiser::output`]
    /// can then also extrapolate away from the prediction of `guide` for the same class. The guide is in practice a smaller
    /// network, or one that was trained for a shorter time on the same data; its architecture and parameterization may be
    /// others. A guide of its own has no effect.
    ///
    /// # Errors
    ///
    /// If the guide has images of another size, another number of classes, other noise levels or another device.
    pub fn guided_by(mut self, mut guide: Self) -> Result<Self> {
        self.check_guide(&guide)?;
        guide.guide = None;
        self.guide = Some(Box::new(guide));
        Ok(self)
    }

    /// Checks that a model can be a guide of this one.
    ///
    /// # Errors
    ///
    /// As [`Denoiser::guided_by`].
    pub fn check_guide(&self, guide: &Self) -> Result<()> {
        for ((name, found), (_, expected)) in std::iter::zip(guide.facts(), self.facts()) {
            if found != expected {
                let expected = format!("{expected}, as in the model");
                return Err(Error::out_of_range(format!("{name} of the guide"), found, expected));
            }
        }
        Ok(())
    }

    /// What a guide has in common with its model, by name.
    fn facts(&self) -> Vec<(String, String)> {
        let config = self.config();
        let alphas_cumprod = self.schedule().alphas_cumprod();
        let mut facts = vec![
            ("the image size".to_owned(), format!("{}×{}", config.rows, config.cols)),
            ("the number of classes".to_owned(), config.num_classes.to_string()),
            ("the number of timesteps".to_owned(), alphas_cumprod.len().to_string()),
            ("the device".to_owned(), format!("{:?}", self.device().location())),
        ];
        let levels = alphas_cumprod.iter().enumerate();
        facts.extend(levels.map(|(t, level)| (format!("alphas_cumprod[{t}]"), level.to_string())));
        facts
    }

    /// The weaker model of [`Denoiser::guided_by`], or `None`.
    #[must_use]
    pub fn guide(&self) -> Option<&Self> {
        self.guide.as_deref()
    }

    /// Evaluates the network on `x_t` [B, pixels] at timestep `t`, with a class for each image. Returns the output in the
    /// network's own `parameterization`, [B, pixels]. An unconditional model ignores the classes.
    ///
    /// ```text
    /// output = prediction(class) + (s − 1)·(prediction(class) − prediction(null class))
    ///                            + (g − 1)·(prediction(class) − guide(class))
    /// ```
    ///
    /// with the [`GuidanceScales`] s and g. The first is classifier-free guidance with the scale of diffusers (Ho &
    /// Salimans 2022, arXiv 2207.12598, eq. 6, with s = 1 + w), the second autoguidance (Karras et al. 2024, arXiv
    /// 2406.02507, eq. 5) by the guide of [`Denoiser::guided_by`]. A scale of 1 needs no further network evaluation. As in
    /// [`Denoiser::forward`], the result for an image does not depend on the other images.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit, a class is out of range, a scale is not finite, an unconditional model is given a scale s
    /// other than 1, or a model without a guide a scale g other than 1.
    pub fn output(
        &self,
        x_t: &Tensor,
        t: usize,
        labels: &[u32],
        guidance: impl Into<GuidanceScales>,
    ) -> Result<Tensor> {
        let scales = guidance.into();
        self.check_scales(scales)?;
        let steps = vec![t; x_t.dim(0)?];
        let nulls = vec![u32::try_from(self.config().null_class()).unwrap_or(u32::MAX); x_t.dim(0)?];
        let labels = if self.config().num_classes == 0 { nulls.as_slice() } else { labels };
        self.check_labels(labels, nulls.len())?;
        let guide = self.guide().filter(|_| scales.guide != 1.0);
        let null = || self.forward(x_t, &steps, &nulls);
        if scales.class == 0.0 && guide.is_none() {
            return null();
        }
        let strong = self.forward(x_t, &steps, labels)?;
        let null = if scales.class == 1.0 { None } else { Some(null()?) };
        let weak = guide.map(|guide| guide.forward(x_t, &steps, labels)).transpose()?;
        self.guided(x_t, t, scales, &strong, null.as_ref(), weak.as_ref())
    }

    /// The output with guidance, from the network's output with the class, that without (`null`, if s is not 1) and the
    /// guide's (`weak`, if g is not 1).
    pub(crate) fn guided(
        &self,
        x_t: &Tensor,
        t: usize,
        scales: GuidanceScales,
        strong: &Tensor,
        null: Option<&Tensor>,
        weak: Option<&Tensor>,
    ) -> Result<Tensor> {
        let output = match null {
            None => strong.clone(),
            Some(null) => (null + ((strong - null)? * scales.class)?)?,
        };
        let (Some(guide), Some(weak)) = (self.guide(), weak) else { return Ok(output) };
        let [from, to] = [guide, self].map(|denoiser| denoiser.config().parameterization);
        let weak = self.schedule().convert(from, to, weak, x_t, &[t])?;
        Ok((output + ((strong - weak)? * (scales.guide - 1.0))?)?)
    }

    /// Checks that guidance fits the schedule, the classes and the guide of the model.
    pub(crate) fn check_guidance(&self, guidance: &DenoiserGuidance) -> Result<()> {
        let DenoiserGuidance { class, guide } = guidance;
        for guidance in [class, guide] {
            guidance.check(self.schedule())?;
            if guidance.rescale() != 0.0 {
                let expected = "0: the guidance of a denoiser is a scale, and rescales nothing";
                return Err(Error::out_of_range("guidance rescale", guidance.rescale(), expected));
            }
        }
        self.check_scales(GuidanceScales { class: class.scale(), guide: guide.scale() })?;
        if guide.annealing().is_some() {
            let expected = "none: it is an option of guidance by the class";
            return Err(Error::out_of_range("annealing of guidance by the guide", "given", expected));
        }
        // With annealing the scale is 0 at some timesteps.
        class.annealing().map_or(Ok(()), |_| self.check_scales(0.0.into()))
    }

    /// Checks that the scales are finite, and 1 if the model has no classes or no guide.
    pub(crate) fn check_scales(&self, scales: GuidanceScales) -> Result<()> {
        let GuidanceScales { class, guide } = scales;
        if let Some(&found) = [class, guide].iter().find(|scale| !scale.is_finite()) {
            return Err(Error::GuidanceScale { found });
        }
        if class != 1.0 && self.config().num_classes == 0 {
            return Err(Error::Guidance { found: class });
        }
        if guide != 1.0 && self.guide.is_none() {
            return Err(Error::NoGuide { found: guide });
        }
        Ok(())
    }
}
