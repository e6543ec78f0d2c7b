//! Replaces the built-in model of `ddpm-cli` by a trained one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Maximum size of the built-in model, which is part of every checkout and of every build.
pub(crate) const LIMIT_BYTES: u64 = 8_000_000;

/// Copies a model folder to `to` and replaces the model there.
///
/// # Errors
/// The folder has more than `limit` bytes, in which case `to` does not change, or it cannot be copied.
pub(crate) fn install(from: &Path, to: &Path, limit: u64) -> Result<()> {
    let size = folder_size(from)?;
    if size > limit {
        bail!(
            "{} has {size} bytes, expected at most {limit} for a built-in model; it was not installed",
            from.display()
        );
    }
    let (partial, old) = (to.with_extension("partial"), to.with_extension("old"));
    for leftover in [&partial, &old] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).with_context(|| format!("cannot remove {}", leftover.display()))?;
        }
    }
    copy_folder(from, &partial)?;
    let swap = || -> std::io::Result<()> {
        if to.exists() {
            fs::rename(to, &old)?;
        }
        fs::rename(&partial, to)?;
        if old.exists() { fs::remove_dir_all(&old) } else { Ok(()) }
    };
    swap().with_context(|| format!("cannot replace {}", to.display()))
}

/// The total size of all files in a folder, in bytes.
fn folder_size(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for_each_entry(folder, &mut |path, is_folder| {
        size += if is_folder { folder_size(path)? } else { fs::metadata(path)?.len() };
        Ok(())
    })?;
    Ok(size)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for_each_entry(from, &mut |path, is_folder| {
        let target = to.join(path.file_name().context("a folder entry has no name")?);
        if is_folder {
            return copy_folder(path, &target);
        }
        // Copies the bytes without the permissions: files of weights may be readable by the user only.
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::write(&target, bytes).with_context(|| format!("cannot write {}", target.display()))
    })
}

fn for_each_entry(folder: &Path, visit: &mut dyn FnMut(&Path, bool) -> Result<()>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        visit(&path, path.is_dir())?;
    }
    Ok(())
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
