//! Replaces the built-in model of `ddpm-cli` by a trained one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ddpm_files::AtomicDir;

/// Maximum size of the built-in model, which is part of every checkout and of every build.
pub(crate) const LIMIT_BYTES: usize = 8_000_000;

/// Replaces the model folder `to` by a copy of `from`.
///
/// # Errors
/// The folder has more than `limit` bytes, in which case `to` does not change, or it cannot be copied.
pub(crate) fn install(from: &Path, to: &Path, limit: usize) -> Result<()> {
    let (new, mut size) = (AtomicDir::create(to)?, 0);
    for file in files(from)? {
        // Copies the bytes without the permissions: files of weights may be readable by the user only.
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        size += bytes.len();
        new.write(file.strip_prefix(from)?, &bytes)?;
    }
    ensure!(
        size <= limit,
        "{} has {size} bytes, expected at most {limit} for a built-in model; it was not installed",
        from.display()
    );
    Ok(new.commit()?)
}

/// The paths of all files in a folder and in the folders below it.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(root: &Path, bytes: usize) -> std::path::PathBuf {
        let model = root.join("model");
        fs::create_dir_all(model.join("denoiser")).unwrap();
        fs::write(model.join("model_index.json"), "{}").unwrap();
        fs::write(model.join("denoiser/weights"), vec![1; bytes]).unwrap();
        model
    }

    #[test]
    fn a_model_takes_the_place_of_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let from = model(root.path(), 98);
        let to = root.path().join("assets/mnist");
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("stale"), "of the old model").unwrap();

        install(&from, &to, 100).unwrap();

        assert_eq!(fs::read(to.join("denoiser/weights")).unwrap().len(), 98);
        assert!(!to.join("stale").exists());
        assert_eq!(fs::read_dir(root.path().join("assets")).unwrap().count(), 1, "no left-overs");
        assert!(from.join("model_index.json").exists(), "copied, not moved");
    }

    #[test]
    fn a_model_over_the_limit_is_refused_and_the_old_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let from = model(root.path(), 99);
        let to = root.path().join("mnist");
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("old"), "model").unwrap();
        let error = install(&from, &to, 100).unwrap_err().to_string();
        assert!(error.contains("101 bytes") && error.contains("100"), "{error}");
        assert!(to.join("old").exists() && !to.join("denoiser").exists());
    }
}
