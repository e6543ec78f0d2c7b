//! Result files that appear together or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ddpm_files::{AtomicFile, create_dir_all};
use serde::Serialize;

/// A result file and its description.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ResultFile {
    pub(crate) file: String,
    pub(crate) description: String,
}

/// A temporary folder for result files, until all of them are complete.
///
/// If a job fails, the results of the run before do not change.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    files: Vec<ResultFile>,
}

impl Staging {
    /// Creates an empty folder; deletes the files that an interrupted run left there.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        create_dir_all(&folder)?;
        Ok(Self { folder, files: Vec::new() })
    }

    /// Adds a file to the list and returns the path to write it to.
    pub(crate) fn add(&mut self, name: &str, description: &str) -> PathBuf {
        self.files.push(ResultFile { file: name.to_owned(), description: description.to_owned() });
        self.folder.join(name)
    }

    /// The files added so far.
    pub(crate) fn files(&self) -> &[ResultFile] {
        &self.files
    }

    /// Moves all files to `destination` and replaces the files of the run before.
    ///
    /// # Errors
    /// An added file is missing or empty, in which case no file is moved; or a file cannot be moved.
    pub(crate) fn publish(self, destination: &Path) -> Result<Vec<ResultFile>> {
        for ResultFile { file, .. } in &self.files {
            let path = self.folder.join(file);
            let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            ensure!(size > 0, "{} was not written", path.display());
        }
        let new = self.files.iter().map(|ResultFile { file, .. }| {
            let (from, mut new) = (self.folder.join(file), AtomicFile::create(destination.join(file))?);
            new.append(&fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?)?;
            Ok(new)
        });
        AtomicFile::commit_all(new.collect::<Result<Vec<_>>>()?)?;
        fs::remove_dir_all(&self.folder)
            .with_context(|| format!("cannot remove {}", self.folder.display()))?;
        Ok(self.files)
    }
}

/// A text as part of a file name: ASCII letters, digits, `-`, `_`, and dots that are neither first nor last. Other
/// characters become `-`. `images` if the result is empty.
pub(crate) fn file_name_part(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = text.chars().map(allowed).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "images".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_replace_those_of_the_run_before() {
        let root = tempfile::tempdir().unwrap();
        let (partial, results) = (root.path().join("runs/partial"), root.path().join("results"));
        fs::create_dir_all(&results).unwrap();
        fs::create_dir_all(&partial).unwrap();
        fs::write(results.join("a.txt"), "old").unwrap();
        fs::write(results.join("other.txt"), "kept").unwrap();
        fs::write(partial.join("left-over.txt"), "of an interrupted run").unwrap();

        let mut staging = Staging::new(partial.clone()).unwrap();
        fs::write(staging.add("a.txt", "the first"), "new").unwrap();
        let files = staging.publish(&results).unwrap();

        assert_eq!(files[0].file, "a.txt");
        assert_eq!(fs::read_to_string(results.join("a.txt")).unwrap(), "new");
        assert_eq!(fs::read_to_string(results.join("other.txt")).unwrap(), "kept");
        assert!(!results.join("left-over.txt").exists() && !partial.exists());
    }

    #[test]
    fn nothing_is_moved_while_a_file_is_missing_or_empty() {
        let root = tempfile::tempdir().unwrap();
        let results = root.path().join("results");
        let mut staging = Staging::new(root.path().join("partial")).unwrap();
        fs::write(staging.add("a.txt", "complete"), "new").unwrap();
        fs::write(staging.add("b.txt", "empty"), "").unwrap();
        let error = staging.publish(&results).unwrap_err().to_string();
        assert!(error.contains("b.txt was not written"), "{error}");
        assert!(!results.exists());
    }

    #[test]
    fn names_of_data_sets_become_parts_of_file_names() {
        assert_eq!(file_name_part("MNIST"), "MNIST");
        assert_eq!(file_name_part("../my digits/v1.2"), "my-digits-v1.2");
        assert_eq!(file_name_part("äö"), "images");
    }
}
