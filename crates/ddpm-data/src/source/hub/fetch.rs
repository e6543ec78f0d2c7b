//! Verified downloads from one repository.
//!
//! hf-hub 1.0 does not check the status or the size of the response to a GET. If an
//! error page follows a successful HEAD, it stores the page in the cache as the
//! file. So this module verifies each file, and downloads it once more if it fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ddpm_files::sha256_of_file;
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFError, HFRepositorySync, RepoTypeAny};

use super::{Hub, HubAddress, cause};
use crate::error::{Error, Result};
use crate::known_digests::check;

/// A repository at one commit.
pub(super) struct Repository<'a> {
    hub: &'a Hub,
    remote: HFRepositorySync<RepoTypeAny>,
    /// The requested revision. After the first file is read, the commit of that file.
    revision: String,
}

/// A failed attempt to read a file.
struct Failure {
    error: Error,
    /// Whether another download may succeed.
    retry: bool,
    /// The damaged file to remove from the cache.
    damaged: Option<PathBuf>,
}

impl<'a> Repository<'a> {
    pub(super) fn new(hub: &'a Hub, kind: RepoTypeAny, address: &HubAddress) -> Self {
        Self {
            hub,
            remote: hub.client.repository(kind, address.owner(), address.name()),
            revision: address.revision().unwrap_or("main").to_owned(),
        }
    }

    /// `OWNER/NAME`.
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.remote.owner(), self.remote.name())
    }

    /// The commit if a file was read, otherwise the requested revision.
    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    /// Parses the first of `files` that exists in the repository, or returns `None` if
    /// none exists.
    pub(super) fn first<T>(
        &mut self,
        files: &[String],
        parse: impl Fn(&Path) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut not_cached = None;
        for file in files {
            match self.get(file, &parse) {
                Ok(parsed) => return Ok(Some(parsed)),
                Err(Error::NotOnHub { .. }) => {}
                // Offline it is not known whether the repository has this file. The
                // cache may hold one of the other files.
                Err(error @ Error::NotCached { .. }) => {
                    not_cached.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        not_cached.map_or(Ok(None), Err)
    }

    /// Downloads a file if it is not in the cache, verifies it and parses it.
    pub(super) fn get<T>(&mut self, file: &str, parse: impl Fn(&Path) -> Result<T>) -> Result<T> {
        let mut force_download = false;
        loop {
            let failure = match self.attempt(file, force_download, &parse) {
                Ok(parsed) => return Ok(parsed),
                Err(failure) => *failure,
            };
            // Offline a damaged file cannot be downloaded again, so it is kept.
            if let Some(path) = failure.damaged.filter(|_| !self.hub.offline) {
                remove_from_cache(&path);
            }
            if force_download || self.hub.offline || !failure.retry {
                return Err(failure.error);
            }
            force_download = true;
        }
    }

    fn attempt<T>(
        &mut self,
        file: &str,
        force_download: bool,
        parse: impl Fn(&Path) -> Result<T>,
    ) -> Result<T, Box<Failure>> {
        let announced = Arc::new(AnnouncedSize::default());
        let path = self
            .remote
            .download_file()
            .filename(file)
            .revision(self.revision.clone())
            .force_download(force_download)
            .local_files_only(self.hub.offline)
            .progress(Arc::clone(&announced))
            .send()
            .map_err(|error| self.failure(file, error))?;
        let damaged = |error| Box::new(Failure { error, retry: true, damaged: Some(path.clone()) });
        let by_digest = verify(&path, announced.0.load(Ordering::Relaxed)).map_err(damaged)?;
        // With the right digest, another download would give the same content.
        let parsed = parse(&path).map_err(|error| match by_digest {
            true => Box::new(Failure { error, retry: false, damaged: None }),
            false => damaged(error),
        })?;
        if let Some(commit) = commit_of(&path, &self.hub.cache_dir) {
            self.revision = commit;
        }
        Ok(parsed)
    }

    /// Converts an error of hf-hub.
    fn failure(&self, file: &str, error: HFError) -> Box<Failure> {
        let (repo, revision, file) = (self.id(), self.revision.clone(), file.to_owned());
        // hf-hub does not retry if the connection breaks while the body is read.
        let retry =
            matches!(&error, HFError::Request { source, .. } if source.is_body() || source.is_decode());
        let error = match error {
            HFError::EntryNotFound { .. }
            | HFError::RepoNotFound { .. }
            | HFError::RevisionNotFound { .. } => Error::NotOnHub { repo, revision, file },
            HFError::LocalEntryNotFound { .. } => {
                Error::NotCached { repo, revision, file, cache: self.hub.cache_dir.clone() }
            }
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
                Error::HubAccess { repo, file, source: cause(error) }
            }
            error => Error::HubRequest { repo, file, source: cause(error) },
        };
        Box::new(Failure { error, retry, damaged: None })
    }
}

/// The size of a file in bytes, from the response to the HEAD request; 0 if
/// unknown.
#[derive(Default)]
struct AnnouncedSize(AtomicU64);

impl ProgressHandler for AnnouncedSize {
    fn on_progress(&self, event: &ProgressEvent) {
        if let ProgressEvent::Download(DownloadEvent::Start { total_bytes, .. }) = event {
            self.0.store(*total_bytes, Ordering::Relaxed);
        }
    }
}

/// Verifies a file of the cache by its digest, or by its size if the digest is
/// unknown. Returns whether it used the digest. An `announced` size of 0 is unknown.
fn verify(path: &Path, announced: u64) -> Result<bool> {
    if let Some(expected) = sha256_of_cache(path) {
        check(path, &sha256_of_file(path)?, &expected)?;
        return Ok(true);
    }
    let found = fs::metadata(path).map_err(|source| Error::Read { file: path.to_owned(), source })?.len();
    if announced != 0 && announced != found {
        return Err(Error::DownloadSize { file: path.to_owned(), found, expected: announced });
    }
    Ok(false)
}

/// The SHA-256 that the Hub provides for a file, or `None` if it provides none. A file
/// of the cache is a link to `blobs/ETAG`, and the ETag of a large file is its SHA-256.
fn sha256_of_cache(path: &Path) -> Option<String> {
    let blob = fs::read_link(path).ok()?;
    let etag = blob.file_name()?.to_str()?;
    let is_sha256 = etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sha256.then(|| etag.to_ascii_lowercase())
}

/// The commit in a path `CACHE/REPOSITORY/snapshots/COMMIT/FILE`.
fn commit_of(path: &Path, cache_dir: &Path) -> Option<String> {
    let commit = path.strip_prefix(cache_dir).ok()?.components().nth(2)?;
    Some(commit.as_os_str().to_str()?.to_owned())
}

/// Removes `snapshots/COMMIT/FILE` and the blob that it links to, so that the next
/// call downloads the file. If the removal fails, the next verification fails again.
fn remove_from_cache(path: &Path) {
    let blob = fs::read_link(path).ok().and_then(|link| Some(path.parent()?.join(link)));
    let _ = fs::remove_file(path);
    if let Some(blob) = blob {
        let _ = fs::remove_file(blob);
    }
}
