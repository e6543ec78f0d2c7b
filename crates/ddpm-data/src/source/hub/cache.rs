//! The cache folder, in the layout of the Hub's Python client.
//!
//! ```text
//! CACHE/datasets--OWNER--NAME/refs/REVISION          the commit of a branch or tag
//! CACHE/datasets--OWNER--NAME/blobs/ETAG             the content of a file
//! CACHE/datasets--OWNER--NAME/snapshots/COMMIT/FILE  a link to the blob
//! CACHE/datasets--OWNER--NAME/.no_exist/COMMIT/FILE  an empty file: the commit has no such file
//! ```
//!
//! A commit and an ETag come from a server. They become file names only as a [`Commit`] and an [`Etag`], which have no
//! characters that could lead out of a folder. Nothing is written or removed in a folder that lies outside of the
//! repository's folder, links resolved.

use std::fs;
use std::path::{Path, PathBuf};

#[cfg(unix)]
use ddpm_files::link_atomic;
use ddpm_files::{AtomicFile, create_dir_all, write_atomic};

use crate::error::{Error, Result};

/// The name of a commit: 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit(String);

impl Commit {
    pub(super) fn new(text: &str) -> Option<Self> {
        is_hex(text, 40).then(|| Self(text.to_ascii_lowercase()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The ETag of a file, by which the cache names the file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Etag(String);

impl Etag {
    /// Reads the value of a header, such as `"abc"` or `W/"abc"`.
    pub(super) fn new(text: &str) -> Option<Self> {
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        ((1..=128).contains(&text.len()) && text.bytes().all(is_name)).then(|| Self(text.to_owned()))
    }

    /// The SHA-256 of the content: the Hub uses it as the ETag of a large file.
    pub(super) fn sha256(&self) -> Option<String> {
        is_hex(&self.0, 64).then(|| self.0.to_ascii_lowercase())
    }
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The folder of one repository in the cache.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// `folder` is `CACHE/KIND--OWNER--NAME`, with names that cannot lead out of `CACHE`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The commit that a revision had at its last download.
    pub(super) fn commit(&self, revision: &str) -> Option<Commit> {
        Commit::new(revision).or_else(|| {
            let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
            Commit::new(text.trim())
        })
    }

    /// The path of a file of a commit.
    pub(super) fn file(&self, commit: &Commit, file: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit.as_str()).join(file)
    }

    /// The names of all files of a commit, sorted.
    pub(super) fn files(&self, commit: &Commit) -> Vec<String> {
        let root = self.folder.join("snapshots").join(commit.as_str());
        let (mut folders, mut files) = (vec![root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                // The cache itself makes no links to folders.
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else if let Ok(name) = path.strip_prefix(&root) {
                    files.extend(name.to_str().map(|name| name.replace(std::path::MAIN_SEPARATOR, "/")));
                }
            }
        }
        files.sort();
        files
    }

    /// The ETag of a file of the cache; `None` if the file is not a link to a blob of this repository, as on Windows.
    pub(super) fn etag(&self, path: &Path) -> Option<Etag> {
        let link = fs::read_link(path).ok()?;
        let etag = Etag::new(link.file_name()?.to_str()?)?;
        (link == self.link_to_blob(path, &etag)?).then_some(etag)
    }

    /// Stores a file: `write` gives the content. If it fails, the cache keeps its state.
    pub(super) fn store(
        &self,
        path: &Path,
        etag: &Etag,
        write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        // Without links, the file itself is in the place of the link.
        let blob = if cfg!(unix) { self.blob(etag) } else { path.to_owned() };
        self.writable(&blob)?;
        remove_link(&blob)?;
        let mut file = AtomicFile::create(&blob).map_err(|source| self.not_writable(source))?;
        write(&mut |piece| file.append(piece).map_err(|source| self.not_writable(source)))?;
        file.commit().map_err(|source| self.not_writable(source))?;
        self.link(path, etag)
    }

    /// Links a file to its blob. Returns false if the cache has no such blob.
    pub(super) fn link_existing(&self, path: &Path, etag: &Etag) -> Result<bool> {
        let exists = cfg!(unix) && self.blob(etag).is_file();
        if exists {
            self.link(path, etag)?;
        }
        Ok(exists)
    }

    /// Links a file to its blob.
    #[cfg(unix)]
    fn link(&self, path: &Path, etag: &Etag) -> Result<()> {
        let Some(target) = self.link_to_blob(path, etag) else { return Ok(()) };
        self.writable(path)?;
        link_atomic(path, &target).map_err(|source| self.not_writable(source))
    }

    #[cfg(not(unix))]
    fn link(&self, _path: &Path, _etag: &Etag) -> Result<()> {
        Ok(())
    }

    /// Records the commit of a revision.
    pub(super) fn record(&self, revision: &str, commit: &Commit) {
        if self.commit(revision).as_ref() != Some(commit) {
            self.note(&self.folder.join("refs").join(revision), commit.as_str());
        }
    }

    /// Records that a commit has no such file.
    pub(super) fn record_absent(&self, commit: &Commit, file: &str) {
        if !self.is_absent(commit, file) {
            self.note(&self.absent(commit, file), "");
        }
    }

    /// Whether it is recorded that a commit has no such file.
    pub(super) fn is_absent(&self, commit: &Commit, file: &str) -> bool {
        self.absent(commit, file).is_file()
    }

    fn absent(&self, commit: &Commit, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit.as_str()).join(file)
    }

    /// Writes a record that only offline mode needs. A cache that cannot be written stays as it is.
    fn note(&self, path: &Path, text: &str) {
        let write = || {
            self.writable(path)?;
            remove_link(path)?;
            Ok(write_atomic(path, text.as_bytes())?)
        };
        let _: Result<()> = write();
    }

    /// Removes a file and its blob, so that the next call downloads the file. If the removal fails, the next
    /// verification fails again. The target of any other link stays.
    pub(super) fn remove(&self, path: &Path) {
        for path in
            [self.etag(path).map(|etag| self.blob(&etag)), Some(path.to_owned())].into_iter().flatten()
        {
            if self.is_inside(&path) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn blob(&self, etag: &Etag) -> PathBuf {
        self.folder.join("blobs").join(&etag.0)
    }

    /// The target of the link at `path` to a blob, relative to the folder of the link.
    fn link_to_blob(&self, path: &Path, etag: &Etag) -> Option<PathBuf> {
        let depth = path.strip_prefix(&self.folder).ok()?.components().count();
        let mut target: PathBuf = std::iter::repeat_n("..", depth - 1).collect();
        target.extend(["blobs", &etag.0]);
        Some(target)
    }

    /// Creates the folder of `path`, if it lies in the folder of the repository.
    fn writable(&self, path: &Path) -> Result<()> {
        let create = |folder| create_dir_all(folder).map_err(|source| self.not_writable(source));
        create(&self.folder)?;
        if !self.is_inside(path) {
            return Err(Error::OutsideCache { path: path.to_owned(), cache: self.folder.clone() });
        }
        path.parent().map_or(Ok(()), create)
    }

    /// Whether the folder of `path` lies in the folder of the repository, links resolved.
    fn is_inside(&self, path: &Path) -> bool {
        let existing = path.ancestors().skip(1).find(|folder| folder.exists());
        let resolved = existing.and_then(|folder| folder.canonicalize().ok());
        resolved.zip(self.folder.canonicalize().ok()).is_some_and(|(path, cache)| path.starts_with(cache))
    }

    fn not_writable(&self, source: ddpm_files::Error) -> Error {
        Error::CacheNotWritable { cache: self.folder.clone(), source }
    }
}

/// Removes a link, which would lead a write to its target.
fn remove_link(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        fs::remove_file(path).map_err(|source| Error::Read { file: path.to_owned(), source })?;
    }
    Ok(())
}
