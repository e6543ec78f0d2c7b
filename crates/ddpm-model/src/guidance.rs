//! The output of a denoiser with guidance: without the class (Ho & Salimans 2022), or by a weaker model (Karras et al.
//! 2024).

use candle_core::Tensor;
use ddpm_core::Guidance;

use crate::{Denoiser, Error, Result};

impl Denoiser {
    /// Uses a weaker model for guidance (autoguidance, Karras et al. 2024, arXiv 2406.02507): [`Denoiser::output`]
    /// extrapolates from the prediction of `guide` instead of the prediction without a class. Both models are given the
    /// class. The guide is in practice a smaller network, or one that was trained for a shorter time on the same data; its
    /// architecture and parameterization may be others.
    ///
    /// # Errors
    ///
    /// If the guide has images of another size, another number of classes, other noise levels or another device.
    pub fn guided_by(mut self, guide: Self) -> Result<Self> {
        for ((name, found), (_, expected)) in std::iter::zip(guide.facts(), self.facts()) {
            if found != expected {
                let expected = format!("{expected}, as in the model");
                return Err(Error::out_of_range(format!("{name} of the guide"), found, expected));
            }
        }
        self.guide = Some(Box::new(guide));
        Ok(self)
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
    /// `guidance` is a scale s: weak + s·(prediction(class) − weak). The weak prediction is the one for the null class,
    /// which is classifier-free guidance with the scale of diffusers (Ho & Salimans 2022, arXiv 2207.12598, eq. 6, with
    /// s = 1 + w), or the prediction of the guide of [`Denoiser::guided_by`] for the class. A scale of 1 is no guidance and
    /// needs no second network evaluation; nor does 0, the weak prediction alone. As in [`Denoiser::forward`], the result
    /// for an image does not depend on the other images.
    ///
    /// # Errors
    ///
    /// If the shapes do not fit, a class is out of range, the scale is not finite, or an unconditional model without a
    /// guide is given a scale other than 1.
    pub fn output(&self, x_t: &Tensor, t: usize, labels: &[u32], guidance: f64) -> Result<Tensor> {
        self.check_scale(guidance)?;
        let steps = vec![t; x_t.dim(0)?];
        let nulls = vec![u32::try_from(self.config().null_class()).unwrap_or(u32::MAX); x_t.dim(0)?];
        let labels = if self.config().num_classes == 0 { nulls.as_slice() } else { labels };
        self.check_labels(labels, nulls.len())?;
        let weak = || match self.guide() {
            Some(guide) => {
                let [from, to] = [guide, self].map(|denoiser| denoiser.config().parameterization);
                let output = guide.forward(x_t, &steps, labels)?;
                Ok(self.schedule().convert(from, to, &output, x_t, &[t])?)
            }
            None => self.forward(x_t, &steps, &nulls),
        };
        match guidance {
            0.0 => weak(),
            1.0 => self.forward(x_t, &steps, labels),
            scale => {
                let (strong, weak) = (self.forward(x_t, &steps, labels)?, weak()?);
                Ok((&weak + ((strong - &weak)? * scale)?)?)
            }
        }
    }

    /// Checks that guidance fits the schedule and the classes of the model.
    pub(crate) fn check_guidance(&self, guidance: &Guidance) -> Result<()> {
        guidance.check(self.schedule())?;
        if guidance.rescale() != 0.0 {
            let expected = "0: the guidance of a denoiser is a scale, and rescales nothing";
            return Err(Error::out_of_range("guidance rescale", guidance.rescale(), expected));
        }
        self.check_scale(guidance.scale())?;
        if guidance.annealing().is_none() {
            return Ok(());
        }
        match self.guide() {
            // The weak prediction is the guide's, which has the class.
            Some(_) => Err(Error::out_of_range("class annealing", "used with a guide", "one of the two")),
            None => self.check_scale(0.0),
        }
    }

    /// Checks that the guidance scale is finite, and 1 if the model has no classes and no guide.
    fn check_scale(&self, guidance: f64) -> Result<()> {
        if !guidance.is_finite() {
            return Err(Error::GuidanceScale { found: guidance });
        }
        if guidance != 1.0 && self.config().num_classes == 0 && self.guide.is_none() {
            return Err(Error::Guidance { found: guidance });
        }
        Ok(())
    }
}
