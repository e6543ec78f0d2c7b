//! What the components of a mixture say of a value.

use std::ops::Range;

use super::super::discretized::{LEVELS, log_mass, value};
use crate::{PosteriorStep, timesteps::Transition};

/// By how much the network's precision is divided; the last leaves next to nothing of it.
pub(super) const DOUBTS: [f64; 7] = [1.0 / 16.0, 0.25, 1.0, 4.0, 16.0, 256.0, 65_536.0];
/// A normal distribution for each doubt, and then one of levels for each.
pub(super) const COMPONENTS: usize = 2 * DOUBTS.len();
/// The smallest variance of x₀, so that none is 0.
const SMALLEST: f64 = 1e-12;
/// The deviation of what a step says about x₀, on the scale [−1, 1], up to which levels are looked at.
const COARSEST: f64 = 0.5;

/// ln of the density, or of the probability, of a value by each component.
pub(super) type LogDensities = [f64; COMPONENTS];
/// The mean and the precision of x₀ for each doubt.
pub(super) type Beliefs = [(f64, f64); DOUBTS.len()];

/// The numbers of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// ᾱ/(1−ᾱ), the precision of what xₜ says about x₀, and √ᾱ/(1−ᾱ).
    snr: f64,
    pull: f64,
    pub(super) posterior: PosteriorStep,
}

impl Step {
    pub(super) fn new(step: Transition) -> Self {
        let alpha_bar = step.from.alpha_cumprod();
        Self {
            snr: alpha_bar / (1.0 - alpha_bar),
            pull: alpha_bar.sqrt() / (1.0 - alpha_bar),
            posterior: PosteriorStep::between(alpha_bar, step.to),
        }
    }

    pub(super) fn beliefs(self, x_t: f64, mean: f64, variance: f64) -> Beliefs {
        // The network may not know less than xₜ does.
        let precision = (1.0 / variance.max(SMALLEST)).max(1.001 * self.snr).max(1e-9);
        let (own, said) = (self.pull * x_t, mean * precision);
        DOUBTS.map(|doubt| {
            let precision = self.snr + (precision - self.snr) / doubt;
            ((own + (said - own) / doubt) / precision, precision)
        })
    }

    /// ln of p(x_prev given xₜ)/q(x_prev given xₜ, x₀) by each component, at an x_prev of the latter: with c the factor
    /// of x₀ in its mean and y = x_prev − (the part of xₜ) = c x₀ + √β̃ z,
    ///
    /// ```text
    /// normal    ½ ln (β̃/R) − (y − c m)²/2R + z²/2,                         R = β̃ + c² v
    /// levels    ln S(C, 1/v + c²/β̃) − ln S(m, 1/v) − (y − c m)²/2R + z²/2,  S(C, A) = Σ f(g) e^(−A (g−C)²/2)
    /// ```
    ///
    /// where C is the mean of x₀ given y and N(m, v).
    pub(super) fn log_ratios(
        self,
        beliefs: Beliefs,
        x_start: f64,
        noise: f64,
        frequencies: &[f64],
    ) -> LogDensities {
        let PosteriorStep { x_start_coef: c, variance, .. } = self.posterior;
        let y = c * x_start + variance.sqrt() * noise;
        let mut said = [f64::NEG_INFINITY; COMPONENTS];
        let tells_levels = variance.sqrt() < COARSEST * c;
        for (j, (mean, precision)) in beliefs.into_iter().enumerate() {
            let total = variance + c * c / precision;
            let far = 0.5 * (noise * noise - (y - c * mean).powi(2) / total);
            let both = precision + c * c / variance;
            let centre = (mean * precision + c * y / variance) / both;
            said[j] = 0.5 * (variance / total).ln() + far;
            if tells_levels {
                said[j + DOUBTS.len()] = Bell::new(centre, both).log_sum(frequencies)
                    - Bell::new(mean, precision).log_sum(frequencies)
                    + far;
            }
        }
        said
    }
}

/// What the components say of a level of an image whose palette is not known yet.
pub(super) struct LevelBeliefs {
    level: u8,
    /// ln of the probability by each normal distribution.
    normal: [f64; DOUBTS.len()],
    bells: [Bell; DOUBTS.len()],
}

impl LevelBeliefs {
    pub(super) fn new(beliefs: Beliefs, level: u8) -> Self {
        let mass = |(mean, precision): (f64, f64)| log_mass(level, mean, precision.sqrt().recip());
        Self {
            level,
            normal: beliefs.map(mass),
            bells: beliefs.map(|(mean, precision)| Bell::new(mean, precision)),
        }
    }

    /// ln of the probability by each component, with the frequencies of a palette.
    pub(super) fn log_probabilities(&self, frequencies: &[f64]) -> LogDensities {
        let mut said = [0.0; COMPONENTS];
        let (normal, levels) = said.split_at_mut(DOUBTS.len());
        normal.copy_from_slice(&self.normal);
        let frequency = frequencies[usize::from(self.level)].ln();
        for (said, bell) in levels.iter_mut().zip(&self.bells) {
            *said = frequency + bell.log(self.level) - bell.log_sum(frequencies);
        }
        said
    }
}

/// The bell curve exp(−½ `precision` (g − `centre`)²) over the levels g.
pub(super) struct Bell {
    centre: f64,
    precision: f64,
    /// The curve, as multiples of its largest number, at the levels where it counts.
    curve: [f64; LEVELS],
    counts: Range<usize>,
    /// The level of the largest number.
    nearest: u8,
}

impl Bell {
    /// Along equal distances each number is the one before times a factor, which itself changes by a constant one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
    pub(super) fn new(centre: f64, precision: f64) -> Self {
        /// So small that even all levels, of any frequency, would not count.
        const NOTHING: f64 = 1e-30;
        let between = value(1) - value(0);
        let nearest = ((centre - value(0)) / between).round().clamp(0.0, 255.0) as u8;
        let (distance, middle) = (value(nearest) - centre, usize::from(nearest));
        let bend = (-precision * between * between).exp();
        let mut curve = [0.0; LEVELS];
        curve[middle] = 1.0;
        // From the nearest level away, so that numbers only get smaller; how many count is returned.
        let along = |curve: &mut dyn Iterator<Item = &mut f64>, distance: f64| {
            let mut factor = (-precision * between * (distance + 0.5 * between)).exp();
            let (mut number, mut count) = (factor, 0);
            for place in curve {
                if number < NOTHING {
                    break;
                }
                *place = number;
                factor *= bend;
                number *= factor;
                count += 1;
            }
            count
        };
        let above = along(&mut curve[middle + 1..].iter_mut(), distance);
        let below = along(&mut curve[..middle].iter_mut().rev(), -distance);
        Self { centre, precision, curve, counts: middle - below..middle + above + 1, nearest }
    }

    /// The exponent at a level.
    fn log(&self, level: u8) -> f64 {
        -0.5 * self.precision * (value(level) - self.centre).powi(2)
    }

    /// ln Σ f(g) exp(…).
    pub(super) fn log_sum(&self, frequencies: &[f64]) -> f64 {
        // Four sums at once, which do not wait for each other.
        let pairs = [&self.curve[self.counts.clone()], &frequencies[self.counts.clone()]];
        let [curve, frequencies] = pairs.map(|values| values.chunks_exact(4));
        let rest: f64 = std::iter::zip(curve.remainder(), frequencies.remainder()).map(|(a, b)| a * b).sum();
        let mut sums = [0.0; 4];
        for (a, b) in std::iter::zip(curve, frequencies) {
            sums.iter_mut().zip(std::iter::zip(a, b)).for_each(|(sum, (a, b))| *sum += a * b);
        }
        (sums.iter().sum::<f64>() + rest).ln() + self.log(self.nearest)
    }
}
