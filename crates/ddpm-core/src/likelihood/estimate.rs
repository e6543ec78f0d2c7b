//! Means over images with standard errors.

use serde::Serialize;

/// The mean of a quantity over independent images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanAndError {
    /// The mean over the images.
    pub mean: f64,
    /// The standard error of the mean, s/√n with s² = Σ(x − mean)²/(n−1). It is infinite for a single image, from which
    /// the variance cannot be estimated.
    pub standard_error: f64,
}

impl MeanAndError {
    /// The ends of the 95 % confidence interval, mean ± 1.96 standard errors. It assumes at least a few dozen images.
    #[must_use]
    pub fn interval(self) -> (f64, f64) {
        let half = 1.96 * self.standard_error;
        (self.mean - half, self.mean + half)
    }
}

/// A running mean and sum of squared deviations (Welford 1962). It keeps its precision if the mean is large.
#[cfg(feature = "candle")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunningMean {
    count: usize,
    mean: f64,
    squares: f64,
}

#[cfg(feature = "candle")]
impl RunningMean {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1;
        let deviation = value - self.mean;
        self.mean += deviation / self.count as f64;
        self.squares += deviation * (value - self.mean);
    }

    pub(crate) fn extend(&mut self, values: &[f64]) {
        values.iter().for_each(|&value| self.add(value));
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    pub(crate) fn estimate(&self) -> MeanAndError {
        let n = self.count as f64;
        let standard_error =
            if self.count > 1 { (self.squares / (n - 1.0) / n).sqrt() } else { f64::INFINITY };
        MeanAndError { mean: self.mean, standard_error }
    }
}

#[cfg(all(test, feature = "candle"))]
mod tests {
    use super::*;

    #[test]
    fn digits_survive_a_large_mean() {
        let mut running = RunningMean::default();
        running.extend(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]);
        let MeanAndError { mean, standard_error } = running.estimate();
        assert_eq!(mean, 1e9 + 10.0);
        assert!((standard_error - (30.0_f64 / 4.0).sqrt()).abs() < 1e-9, "{standard_error}");
    }

    #[test]
    fn one_image_says_nothing_about_others() {
        let mut running = RunningMean::default();
        running.add(3.0);
        assert_eq!(running.estimate().interval(), (f64::NEG_INFINITY, f64::INFINITY));
    }
}
