//! Which grey levels an image has, by the company they keep.

use rayon::prelude::*;

use super::{discretized::LEVELS, largest};
use crate::{Error, Result};

/// Rounds of expectation and maximisation.
const ROUNDS: usize = 30;

/// Distributions of the 256 levels, of which each image has one.
///
/// The levels of an image are not those of another: in MNIST the ink of one is 253 and that of the next 254, by what
/// was done to the images on their way. A palette is such a distribution; a set of images is a mixture of palettes,
/// chosen by expectation–maximisation (of multinomial distributions; Dempster et al. 1977).
#[derive(Clone, Debug, PartialEq)]
pub struct Palettes {
    /// The part of the images that has a palette.
    shares: Vec<f64>,
    /// How frequent each level is, for each palette.
    frequencies: Vec<Vec<f64>>,
    /// How frequent each level is in all images.
    overall: Vec<f64>,
}

impl Palettes {
    /// Chooses `count` palettes, or as many as there are images, by training images of `dimensions` levels each. A
    /// palette counts one image more that has the frequencies of all, so no level is impossible.
    ///
    /// # Errors
    ///
    /// If there is no image, or the levels are not a multiple of `dimensions`.
    pub fn fit(levels: &[u8], dimensions: usize, count: usize) -> Result<Self> {
        if levels.is_empty() || dimensions == 0 || count == 0 {
            return Err(Error::NoImages);
        }
        if !levels.len().is_multiple_of(dimensions) {
            let (found, indices) = (levels.len(), levels.len().div_euclid(dimensions));
            return Err(Error::BufferLength { found, indices });
        }
        let images: Vec<Counts> = levels.par_chunks(dimensions).map(Counts::of).collect();
        let mut overall = vec![1.0; LEVELS];
        images.iter().for_each(|image| image.add_to(&mut overall, 1.0));
        let overall = normalised(overall);
        let count = count.min(images.len());
        let with_overall = |counts: Vec<f64>| {
            let prior = overall.iter().map(|share| share * dimensions as f64);
            normalised(std::iter::zip(counts, prior).map(|(count, prior)| count + prior).collect())
        };
        // Each starts as an image, and these are spread by the golden ratio, so that the order of the set hardly
        // matters.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the place of an image")]
        let start = |palette: usize| {
            const GOLDEN: f64 = 0.618_033_988_749_895;
            let place = (palette as f64 * GOLDEN).fract() * images.len() as f64;
            let mut counts = vec![0.0; LEVELS];
            images[place as usize].add_to(&mut counts, 1.0);
            with_overall(counts)
        };
        let frequencies = (0..count).map(start).collect();
        let shares = vec![1.0 / count as f64; count];
        let mut palettes = Self { shares, frequencies, overall: overall.clone() };
        for _ in 0..ROUNDS {
            let tables = palettes.logarithms();
            let owned: Vec<Vec<f64>> = images.par_iter().map(|image| image.probabilities(&tables)).collect();
            let palette = |palette: usize| {
                let mut counts = vec![0.0; LEVELS];
                let parts = std::iter::zip(&images, &owned);
                parts.for_each(|(image, owned)| image.add_to(&mut counts, owned[palette]));
                (owned.iter().map(|owned| owned[palette]).sum::<f64>(), with_overall(counts))
            };
            let next: Vec<(f64, Vec<f64>)> = (0..count).into_par_iter().map(palette).collect();
            let (shares, frequencies): (Vec<f64>, _) = next.into_iter().unzip();
            palettes.shares = normalised(shares.into_iter().map(|share| share + 1.0).collect());
            palettes.frequencies = frequencies;
        }
        Ok(palettes)
    }

    /// The frequencies of the 256 levels in all images.
    #[must_use]
    pub fn overall(&self) -> &[f64] {
        &self.overall
    }

    /// The frequencies of the 256 levels and the part of the images, of each palette.
    pub fn iter(&self) -> impl Iterator<Item = (&[f64], f64)> {
        std::iter::zip(self.frequencies.iter().map(Vec::as_slice), self.shares.iter().copied())
    }

    /// The frequencies that each image most likely has.
    pub(super) fn of_images<'a>(&self, images: impl Iterator<Item = &'a [u8]>) -> Vec<&[f64]> {
        let tables = self.logarithms();
        let of_image = |levels| {
            let probabilities = Counts::of(levels).probabilities(&tables);
            let best = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            best.map_or(self.overall.as_slice(), |(palette, _)| &self.frequencies[palette])
        };
        images.map(of_image).collect()
    }

    /// ln of a palette's share, and of its frequencies.
    fn logarithms(&self) -> Vec<(f64, Vec<f64>)> {
        let ln =
            |(frequencies, share): (&[f64], f64)| (share.ln(), frequencies.iter().map(|f| f.ln()).collect());
        self.iter().map(ln).collect()
    }
}

/// The levels that an image has, with their numbers.
struct Counts(Vec<(usize, f64)>);

impl Counts {
    fn of(levels: &[u8]) -> Self {
        let mut counts = [0.0; LEVELS];
        levels.iter().for_each(|&level| counts[usize::from(level)] += 1.0);
        Self(counts.into_iter().enumerate().filter(|(_, count)| *count > 0.0).collect())
    }

    fn add_to(&self, sums: &mut [f64], weight: f64) {
        self.0.iter().for_each(|&(level, count)| sums[level] += weight * count);
    }

    /// The probability of each palette, given the image.
    fn probabilities(&self, palettes: &[(f64, Vec<f64>)]) -> Vec<f64> {
        let log = |(share, frequencies): &(f64, Vec<f64>)| {
            share + self.0.iter().map(|&(level, count)| count * frequencies[level]).sum::<f64>()
        };
        let logs: Vec<f64> = palettes.iter().map(log).collect();
        let most = largest(&logs);
        normalised(logs.into_iter().map(|log| (log - most).exp()).collect())
    }
}

/// Divided by their sum.
fn normalised(mut values: Vec<f64>) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images of two kinds that share a level: each kind is found, with its part and its levels.
    #[test]
    fn kinds_of_images_are_told_apart() {
        let image = |i: usize| {
            (0..100).map(move |at| match (i % 4, at % 10) {
                (_, 0..6) => 0,
                (0, _) => 253,
                (_, 6) => 7,
                _ => 254,
            })
        };
        let levels: Vec<u8> = (0..400).flat_map(image).collect();
        let palettes = Palettes::fit(&levels, 100, 2).unwrap();
        let shares: Vec<f64> = palettes.iter().map(|(_, share)| share).collect();
        assert!(
            (shares[0] - 101.0 / 402.0).abs() < 1e-9 && (shares[1] - 301.0 / 402.0).abs() < 1e-9,
            "{shares:?}"
        );
        let expected = [(254, 253, 0.4), (253, 254, 0.3)];
        for ((frequencies, _), (rare, frequent, part)) in palettes.iter().zip(expected) {
            assert!((frequencies.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(
                (frequencies[frequent] - part).abs() < 0.01 && frequencies[rare] < 0.01,
                "{frequencies:?}"
            );
            assert!(frequencies.iter().all(|&frequency| frequency > 0.0));
        }
        let second: Vec<u8> = image(1).collect();
        assert!(palettes.of_images([second.as_slice()].into_iter())[0][254] > 0.2);
        assert!((palettes.overall()[0] - 0.6).abs() < 0.01);
    }

    #[test]
    fn there_are_not_more_palettes_than_images_and_none_of_nothing() {
        assert_eq!(Palettes::fit(&[1, 2, 3, 4], 2, 9).unwrap().iter().count(), 2);
        assert!(matches!(Palettes::fit(&[], 2, 9), Err(Error::NoImages)));
        assert!(matches!(Palettes::fit(&[1, 2, 3], 2, 9), Err(Error::BufferLength { .. })));
    }
}
