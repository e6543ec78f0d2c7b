//! The search for the nearest neighbour.

use super::points::Points;
use crate::{Error, Result};

/// The nearest point of a set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Neighbour {
    /// Its number; the first of several as near.
    pub(super) index: usize,
    /// The squared Euclidean distance to it.
    pub(super) squared: f64,
}

/// The nearest of `references` for each of `queries`, by Euclidean distance.
pub(super) fn nearest(queries: &Points<'_>, references: &Points<'_>) -> Result<Vec<Neighbour>> {
    if references.len() == 0 {
        return Err(Error::TooFewRows { found: 0, least: 1 });
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
