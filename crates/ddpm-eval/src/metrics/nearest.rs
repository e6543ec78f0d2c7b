//! Nearest-neighbour search.

use super::points::Points;
use crate::{Error, Result};

/// For each of `queries`, the index of the nearest of `references` by Euclidean distance, and the squared distance. The
/// smallest index, if several points are equally near.
pub(super) fn nearest(queries: &Points<'_>, references: &Points<'_>) -> Result<Vec<(usize, f64)>> {
    if references.len() == 0 {
        return Err(Error::too_few_images(0, 1));
    }
    let mut found = vec![(0, f64::INFINITY); queries.len()];
    queries.fold_distances(references, &mut found, |_, best, start, squared| {
        for (index, &squared) in (start..).zip(squared) {
            if squared < best.1 {
                *best = (index, squared);
            }
        }
    })?;
    Ok(found)
}
