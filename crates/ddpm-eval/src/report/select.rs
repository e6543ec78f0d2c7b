//! Which real images generated ones are compared with.

use std::borrow::Cow;

use ddpm_data::{Dataset, ShuffledBatches};

use crate::Result;

/// Some of the images of a data set, in its order.
pub(super) struct RealImages<'a> {
    data: &'a Dataset,
    indices: Vec<u32>,
}

impl<'a> RealImages<'a> {
    /// The images of some classes, or of all; `limit` of them, drawn at random, if there are more.
    pub(super) fn of(data: &'a Dataset, classes: Option<&[u8]>, limit: usize, seed: u64) -> Result<Self> {
        let of_class = |index: &u32| match (classes, data.labels()) {
            (Some(classes), Some(labels)) => classes.contains(&labels[*index as usize]),
            _ => true,
        };
        let indices: Vec<u32> = (0..).take(data.len()).filter(of_class).collect();
        let chosen = draw(indices.len(), limit, seed)?;
        Ok(Self { data, indices: chosen.into_iter().map(|at| indices[at as usize]).collect() })
    }

    pub(super) fn len(&self) -> usize {
        self.indices.len()
    }

    /// Those at some places of the list.
    pub(super) fn at(&self, places: &[u32]) -> Self {
        Self { data: self.data, indices: places.iter().map(|&at| self.indices[at as usize]).collect() }
    }

    /// The grey levels, one image after another.
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

/// `limit` numbers below `count` in ascending order, or all.
pub(super) fn draw(count: usize, limit: usize, seed: u64) -> Result<Vec<u32>> {
    if count <= limit {
        return Ok((0..).take(count).collect());
    }
    let mut chosen = ShuffledBatches::new(count, limit, seed)?.batch(0).to_vec();
    chosen.sort_unstable();
    Ok(chosen)
}
