//! Random subsets of rows.

use ddpm_core::ShuffledBatches;

use crate::Result;

/// `size` different row indices below `rows`: the start of the shuffle that `seed` and `index` select. `size` is 1 to
/// `rows`.
pub(super) fn subset(rows: usize, size: usize, seed: u64, index: usize) -> Result<Vec<u32>> {
    let mut shuffles = ShuffledBatches::new(rows, size, seed)?;
    let first = index * shuffles.steps_per_epoch();
    Ok(shuffles.batch(first as u64).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_depends_on_seed_and_index_and_repeats_no_row() {
        let seventh = subset(30, 10, 1, 7).unwrap();
        assert_eq!(seventh, subset(30, 10, 1, 7).unwrap());
        assert_ne!(seventh, subset(30, 10, 1, 8).unwrap());
        assert_ne!(seventh, subset(30, 10, 2, 7).unwrap());
        let mut all = subset(30, 30, 1, 0).unwrap();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..30));
    }
}
