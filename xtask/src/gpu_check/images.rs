//! Images in IDX files, as `ddpm-cli sample --format idx` writes them, and the difference of two sets of them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The length of the header of an IDX file of images: a magic number, and three sizes.
const HEADER: usize = 16;

/// The mean absolute difference of two sets of images, in grey levels of 0 to 255.
///
/// # Errors
/// A file cannot be read, or the sizes of the sets differ.
pub(super) fn difference(one: &Path, other: &Path) -> Result<f64> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (a, b) = (read(one)?, read(other)?);
    ensure!(
        a.len() > HEADER && a.len() == b.len() && a[..HEADER] == b[..HEADER],
        "{} and {} hold no images, or sets of different sizes: {} and {} bytes",
        one.display(),
        other.display(),
        a.len(),
        b.len()
    );
    let levels = std::iter::zip(&a[HEADER..], &b[HEADER..]);
    let sum: u64 = levels.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    Ok(sum as f64 / (a.len() - HEADER) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_a_mean_of_grey_levels() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, levels: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, [&[0; HEADER], levels].concat()).unwrap();
            path
        };
        let [one, other, short] =
            [write("a", &[0, 9, 255, 7]), write("b", &[0, 11, 251, 7]), write("c", &[0])];
        assert_eq!(difference(&one, &other).unwrap(), 1.5);
        assert_eq!(difference(&one, &one).unwrap(), 0.0);
        let error = difference(&one, &short).unwrap_err().to_string();
        assert!(error.contains("20 and 17 bytes"), "{error}");
        assert!(difference(&write("d", &[]), &write("e", &[])).is_err(), "no images");
    }
}
