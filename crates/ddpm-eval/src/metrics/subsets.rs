//! Random rows of a set.

use ddpm_data::ShuffledBatches;

use crate::Result;

/// `size` of `rows` rows, none of them twice: the first ones of the shuffle that the seed and the number give.
/// `size` is 1 to `rows`.
pub(super) fn subset(rows: usize, size: usize, seed: u64, number: usize) -> Result<Vec<u32>> {
    let mut shuffles = ShuffledBatches::new(rows, size, seed)?;
    let first = number * shuffles.steps_per_epoch();
    Ok(shuffles.batch(first as u64).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_addressed_and_do_not_repeat_rows() {
        let seventh = subset(30, 10, 1, 7).unwrap();
        assert_eq!(seventh, subset(30, 10, 1, 7).unwrap());
        assert_ne!(seventh, subset(30, 10, 1, 8).unwrap());
        assert_ne!(seventh, subset(30, 10, 2, 7).unwrap());
        let mut all = subset(30, 30, 1, 0).unwrap();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..30));
    }
}
