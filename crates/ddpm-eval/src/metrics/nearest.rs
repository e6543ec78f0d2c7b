//! Nearest-neighbour search.

use super::points::Points;
use crate::{Error, Result};

/// The nearest point in a set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Neighbour {
    /// Its index; the smallest index if several points are equally near.
    pub(super) index: usize,
    /// The squared Euclidean distance.
    pub(super) squared: f64,
}

/// For each of `queries`, the nearest of `references` by Euclidean distance.
pub(super) fn nearest(queries: &Points<'_>, references: &Points<'_>) -> Result<Vec<Neighbour>> {
    if references.len() == 0 {
        return Err(Error::too_few_images(0, 1));
    }
    let mut found = vec![Neighbour { index: 0, squared: f64::INFINITY }; queries.len()];
    queries.fold_distances(references, &mut found, |_, best, start, squared| {
        for (index, &squared) in (start..).zip(squared) {
            if squared < best.squared {
                *best = Neighbour { index, squared };
            }
        }
    })?;
    Ok(found)
}
