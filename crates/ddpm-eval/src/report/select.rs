//! The choice of the real images that generated images are compared with.

use std::borrow::Cow;

use ddpm_core::ShuffledBatches;
use ddpm_data::Dataset;

use crate::Result;

/// A subset of the images of a data set, in the order of the data set.
pub(super) struct RealImages<'a> {
    data: &'a Dataset,
    indices: Vec<u32>,
}

impl<'a> RealImages<'a> {
    /// The images of `classes`, or of all classes if it is `None`. If there are more than `limit`, a random subset of
    /// `limit` images.
    pub(super) fn select(data: &'a Dataset, classes: Option<&[u8]>, limit: usize, seed: u64) -> Result<Self> {
        let of_class = |index: &u32| match (classes, data.labels()) {
            (Some(classes), Some(labels)) => classes.contains(&labels[*index as usize]),
            _ => true,
        };
        let indices: Vec<u32> = (0..).take(data.len()).filter(of_class).collect();
        let positions = random_subset(indices.len(), limit, seed)?;
        Ok(Self { data, indices: positions.into_iter().map(|at| indices[at as usize]).collect() })
    }

    pub(super) fn len(&self) -> usize {
        self.indices.len()
    }

    /// The images at these positions of the subset.
    pub(super) fn at(&self, positions: &[u32]) -> Self {
        Self { data: self.data, indices: positions.iter().map(|&at| self.indices[at as usize]).collect() }
    }

    /// The grey levels of consecutive images.
    pub(super) fn pixels(&self) -> Cow<'a, [u8]> {
        if self.indices.len() == self.data.len() {
            return Cow::Borrowed(self.data.images());
        }
        let images = self.indices.iter().filter_map(|&index| self.data.image(index as usize));
        images.collect::<Vec<_>>().concat().into()
    }

    pub(super) fn labels(&self) -> Option<Vec<u8>> {
        let labels = self.data.labels()?;
        Some(self.indices.iter().map(|&index| labels[index as usize]).collect())
    }
}

/// `limit` random numbers below `count` without repetition, in ascending order; all numbers if `count` ≤ `limit`.
pub(super) fn random_subset(count: usize, limit: usize, seed: u64) -> Result<Vec<u32>> {
    if count <= limit {
        return Ok((0..).take(count).collect());
    }
    let mut numbers = ShuffledBatches::new(count, limit, seed)?.batch(0).to_vec();
    numbers.sort_unstable();
    Ok(numbers)
}
