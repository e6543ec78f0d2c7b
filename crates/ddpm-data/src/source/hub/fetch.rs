//! Verified downloads from one repository.
//!
//! hf-hub 1.0 does not look at the status or the size of the answer to a GET: an
//! error page that follows a good HEAD is kept in the cache as if it were the
//! file. So whatever it hands out is checked here, and fetched again once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ddpm_files::sha256_of_file;
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFError, HFRepositorySync, RepoTypeAny};

use super::{Hub, HubAddress};
use crate::error::{Error, Result};
use crate::known_digests::check;

/// A repository at one commit: the revision that was asked for, until the first
/// file tells which commit that is.
pub(super) struct Repository<'a> {
    hub: &'a Hub,
    remote: HFRepositorySync<RepoTypeAny>,
    revision: String,
}

/// Why an attempt to get a file failed.
struct Failure {
    error: Error,
    /// Whether another download may help.
    retry: bool,
    /// The file that must not stay in the cache.
    bad: Option<PathBuf>,
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

    /// The commit, once a file was read.
    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    /// What `parse` makes of the first of `files` that the repository has, or
    /// `None` if it has none of them.
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
                // Offline, one cannot tell whether the repository has the file;
                // another of the names may be the one that was fetched.
                Err(error @ Error::NotCached { .. }) => {
                    not_cached.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        not_cached.map_or(Ok(None), Err)
    }

    /// What `parse` makes of a file that was verified.
    pub(super) fn get<T>(&mut self, file: &str, parse: impl Fn(&Path) -> Result<T>) -> Result<T> {
        let mut force = false;
        loop {
            let failure = match self.attempt(file, force, &parse) {
                Ok(parsed) => return Ok(parsed),
                Err(failure) => *failure,
            };
            // Offline, a damaged file is all that there is: leave it alone.
            if let Some(bad) = failure.bad.filter(|_| !self.hub.offline) {
                remove_from_cache(&bad);
            }
            if force || self.hub.offline || !failure.retry {
                return Err(failure.error);
            }
            force = true;
        }
    }

    fn attempt<T>(
        &mut self,
        file: &str,
        force: bool,
        parse: impl Fn(&Path) -> Result<T>,
    ) -> Result<T, Box<Failure>> {
        let announced = Arc::new(Announced::default());
        let path = self
            .remote
            .download_file()
            .filename(file)
            .revision(self.revision.clone())
            .force_download(force)
            .local_files_only(self.hub.offline)
            .progress(Arc::clone(&announced))
            .send()
            .map_err(|error| self.failure(file, error))?;
        let bad = |error| Box::new(Failure { error, retry: true, bad: Some(path.clone()) });
        let by_digest = verify(&path, announced.0.load(Ordering::Relaxed)).map_err(bad)?;
        // A file with the right digest is what the Hub has: it will not change.
        let parsed = parse(&path).map_err(|error| match by_digest {
            true => Box::new(Failure { error, retry: false, bad: None }),
            false => bad(error),
        })?;
        if let Some(commit) = commit_of(&path, &self.hub.cache_dir) {
            self.revision = commit;
        }
        Ok(parsed)
    }

    fn failure(&self, file: &str, error: HFError) -> Box<Failure> {
        let (repo, revision, file) = (self.id(), self.revision.clone(), file.to_owned());
        // The connection broke within the body, which hf-hub does not repeat.
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
                Error::HubAccess { repo, file, source: error.into() }
            }
            error => Error::HubRequest { repo, file, source: error.into() },
        };
        Box::new(Failure { error, retry, bad: None })
    }
}

/// The size of a file as the HEAD request announced it; 0 if it is not known.
#[derive(Default)]
struct Announced(AtomicU64);

impl ProgressHandler for Announced {
    fn on_progress(&self, event: &ProgressEvent) {
        if let ProgressEvent::Download(DownloadEvent::Start { total_bytes, .. }) = event {
            self.0.store(*total_bytes, Ordering::Relaxed);
        }
    }
}

/// Checks a file of the cache; `Ok(true)` if by its digest.
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

/// The digest that the Hub gives for a file: a file of the cache is a link to
/// `blobs/ETAG`, and the ETag of a large file is its SHA-256.
fn sha256_of_cache(path: &Path) -> Option<String> {
    let blob = fs::read_link(path).ok()?;
    let etag = blob.file_name()?.to_str()?;
    let is_sha256 = etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sha256.then(|| etag.to_ascii_lowercase())
}

/// `COMMIT` of `CACHE/REPOSITORY/snapshots/COMMIT/FILE`.
fn commit_of(path: &Path, cache_dir: &Path) -> Option<String> {
    let commit = path.strip_prefix(cache_dir).ok()?.components().nth(2)?;
    Some(commit.as_os_str().to_str()?.to_owned())
}

/// Removes `snapshots/COMMIT/FILE` and the blob that it links to, so that the
/// next call fetches the file. What cannot be removed will fail its check again.
fn remove_from_cache(path: &Path) {
    let blob = fs::read_link(path).ok().and_then(|link| Some(path.parent()?.join(link)));
    let _ = fs::remove_file(path);
    if let Some(blob) = blob {
        let _ = fs::remove_file(blob);
    }
}
