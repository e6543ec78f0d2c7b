//! Verified downloads from one repository.
//!
//! A server may answer any request with anything. So the name of the commit, the ETag and the size of a file are checked
//! before they are used, and the content is written to a temporary file, which becomes part of the cache if it has the
//! announced size and SHA-256.

use std::path::{Path, PathBuf};

use ddpm_files::{Sha256, sha256_of_file};

use super::cache::{Cache, Commit, Etag};
use super::client::{Client, Response, header};
use super::{Hub, HubAddress};
use crate::error::{Cause, Error, Result};
use crate::known_digests::check;

/// The largest file that is downloaded, in bytes.
const MAX_BYTES: u64 = 1 << 32;

/// The largest file that is downloaded if the server does not announce its size, in bytes.
const MAX_UNANNOUNCED: u64 = 1 << 26;

/// The kind of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dataset,
    Model,
}

/// A repository at one commit.
pub(super) struct Repository<'a> {
    hub: &'a Hub,
    cache: Cache,
    /// `OWNER/NAME`.
    id: String,
    /// The path on the server.
    path: String,
    /// The requested revision. After the first file is read, the commit of that file.
    revision: String,
}

/// The head of a file.
struct Head {
    commit: Commit,
    etag: Etag,
    size: Option<u64>,
}

/// A failed attempt to read a file.
struct Failure {
    error: Error,
    /// Whether another download may succeed.
    retry: bool,
    /// The damaged file to remove from the cache.
    damaged: Option<PathBuf>,
}

impl Failure {
    fn last(error: Error) -> Box<Self> {
        Box::new(Self { error, retry: false, damaged: None })
    }

    fn retry(error: Error) -> Box<Self> {
        Box::new(Self { error, retry: true, damaged: None })
    }
}

impl<'a> Repository<'a> {
    pub(super) fn new(hub: &'a Hub, kind: Kind, address: &HubAddress) -> Self {
        let (owner, name) = (address.owner(), address.name());
        let (prefix, folder) = match kind {
            Kind::Dataset => ("datasets/", "datasets"),
            Kind::Model => ("", "models"),
        };
        Self {
            hub,
            cache: Cache::new(hub.cache_dir.join(format!("{folder}--{owner}--{name}"))),
            id: format!("{owner}/{name}"),
            path: format!("{prefix}{owner}/{name}"),
            revision: address.revision().unwrap_or("main").to_owned(),
        }
    }

    /// `OWNER/NAME`.
    pub(super) fn id(&self) -> String {
        self.id.clone()
    }

    /// The commit if a file was read, otherwise the requested revision.
    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    /// `datasets/OWNER/NAME`, or `OWNER/NAME` of a model.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn client(&self) -> &Client {
        &self.hub.client
    }

    pub(super) fn is_offline(&self) -> bool {
        self.hub.offline
    }

    /// The files of the newest known commit that the cache holds; `None` if it holds none.
    pub(super) fn cached_files(&self) -> Option<Vec<String>> {
        let commit = self.cache.commit(&self.revision)?;
        Some(self.cache.files(&commit)).filter(|files| !files.is_empty())
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
                self.cache.remove(&path);
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
        let (commit, path) = self.fetch(file, force_download)?;
        let damaged = |error| Box::new(Failure { error, retry: true, damaged: Some(path.clone()) });
        let digest = self.cache.etag(&path).and_then(|etag| etag.sha256());
        if let Some(expected) = &digest {
            let found = sha256_of_file(&path).map_err(|error| Failure::last(error.into()))?;
            check(&path, &found, expected).map_err(damaged)?;
        }
        // With the right digest, another download would give the same content.
        let parsed = parse(&path).map_err(|error| match digest {
            Some(_) => Failure::last(error),
            None => damaged(error),
        })?;
        self.revision = commit.as_str().to_owned();
        Ok(parsed)
    }

    /// The commit and the path in the cache of a file, which it downloads if the cache lacks it.
    fn fetch(&self, file: &str, force_download: bool) -> Result<(Commit, PathBuf), Box<Failure>> {
        let commit = self.cache.commit(&self.revision);
        if self.hub.offline && commit.as_ref().is_some_and(|commit| self.cache.is_absent(commit, file)) {
            return Err(Failure::last(self.not_on_hub(file)));
        }
        let cached = commit.map(|commit| (self.cache.file(&commit, file), commit));
        let cached = cached.filter(|(path, _)| path.is_file()).map(|(path, commit)| (commit, path));
        if self.hub.offline {
            return cached.ok_or_else(|| Failure::last(self.not_cached(file)));
        }
        // The content of a commit does not change.
        let fixed = Commit::new(&self.revision).is_some();
        let cached = match cached {
            Some(found) if fixed && !force_download => return Ok(found),
            cached => cached.filter(|_| !force_download),
        };
        let head = match (self.head(file), cached) {
            (Ok(head), _) => head,
            // Without an answer, the cache has the newest known content.
            (Err(Error::HubRequest { .. }), Some(cached)) => return Ok(cached),
            (Err(error), _) => return Err(Failure::last(error)),
        };
        let path = self.cache.file(&head.commit, file);
        self.cache.record(&self.revision, &head.commit);
        let is_cached =
            path.is_file() || self.cache.link_existing(&path, &head.etag).map_err(Failure::last)?;
        if force_download || !is_cached {
            self.download(file, &head, &path)?;
        }
        Ok((head.commit, path))
    }

    fn head(&self, file: &str) -> Result<Head> {
        let address = self.hub.client.address(&self.path, &self.revision, file);
        let response = self.hub.client.head(&address).map_err(|source| self.failed(file, source))?;
        let commit = header(&response, "X-Repo-Commit").and_then(Commit::new);
        if let Some(commit) = commit.filter(|_| response.status().as_u16() == 404) {
            self.cache.record(&self.revision, &commit);
            self.cache.record_absent(&commit, file);
        }
        let response = self.accepted(file, response)?;
        let wrong = |name: &str, found: Option<&str>, expected: &'static str| {
            let name = format!("{name} that the server gives for {file} of {}", self.id);
            Error::out_of_range(name, found.unwrap_or("missing"), expected)
        };
        let found = header(&response, "X-Repo-Commit");
        let commit = found.and_then(Commit::new);
        let commit = commit.ok_or_else(|| wrong("commit", found, "40 hexadecimal digits"))?;
        if Commit::new(&self.revision).is_some_and(|requested| requested != commit) {
            return Err(wrong("commit", found, "the requested commit"));
        }
        // A large file is on another server, which gives it other headers of these names.
        let of_file = |linked, plain| header(&response, linked).or_else(|| header(&response, plain));
        let found = of_file("X-Linked-Etag", "ETag");
        let expected = "1 to 128 letters, digits, '-' and '_'";
        let etag = found.and_then(Etag::new).ok_or_else(|| wrong("ETag", found, expected))?;
        let plain = if response.status().is_redirection() { "" } else { "Content-Length" };
        let size: Option<u64> = of_file("X-Linked-Size", plain).and_then(|size| size.parse().ok());
        if let Some(size) = size.filter(|&size| size > MAX_BYTES) {
            return Err(wrong("size", Some(&size.to_string()), "at most 4294967296 bytes"));
        }
        Ok(Head { commit, etag, size })
    }

    /// Downloads a file into the cache.
    fn download(&self, file: &str, head: &Head, path: &Path) -> Result<(), Box<Failure>> {
        let client = &self.hub.client;
        // By its commit, so that a branch that moves in the meantime does not change the content.
        let address = client.address(&self.path, head.commit.as_str(), file);
        let response = client.get(&address).map_err(|source| Failure::retry(self.failed(file, source)))?;
        let response = self.accepted(file, response).map_err(Failure::last)?;
        if response.status().as_u16() != 200 {
            return Err(Failure::retry(self.failed(file, self.client().refusal(&response).into())));
        }
        let body = response.into_body();
        let stored = self.cache.store(path, &head.etag, |write| {
            let mut digest = Sha256::default();
            let found = client.read(body, head.size.unwrap_or(MAX_UNANNOUNCED), |piece| {
                digest.update(piece);
                write(piece)
            })?;
            let found = found.map_err(|source| self.failed(file, source))?;
            match head.size {
                Some(expected) if expected != found => {
                    return Err(Error::DownloadSize { file: path.to_owned(), found, expected });
                }
                None if found > MAX_UNANNOUNCED => {
                    let name = format!("size of {file} of {}", self.id);
                    let found = format!("at least {found} bytes");
                    return Err(Error::out_of_range(
                        name,
                        found,
                        "67108864 or fewer, as the Hub announced none",
                    ));
                }
                _ => {}
            }
            match head.etag.sha256() {
                Some(expected) => check(path, &digest.into_hex(), &expected),
                None => Ok(()),
            }
        });
        stored.map_err(|error| match error {
            Error::CacheNotWritable { .. } | Error::OutsideCache { .. } => Failure::last(error),
            error => Failure::retry(error),
        })
    }

    /// Converts an answer that refuses the request to an error.
    pub(super) fn accepted(&self, file: &str, response: Response) -> Result<Response> {
        let repo = self.id();
        match response.status().as_u16() {
            200..=399 => Ok(response),
            401 | 403 => Err(Error::HubAccess {
                repo,
                file: file.to_owned(),
                source: self.client().refusal(&response).into(),
            }),
            404 => Err(self.not_on_hub(file)),
            _ => Err(self.failed(file, self.client().refusal(&response).into())),
        }
    }

    pub(super) fn failed(&self, file: &str, source: Cause) -> Error {
        Error::HubRequest { repo: self.id(), file: file.to_owned(), source }
    }

    fn not_on_hub(&self, file: &str) -> Error {
        Error::NotOnHub { repo: self.id(), revision: self.revision.clone(), file: file.to_owned() }
    }

    fn not_cached(&self, file: &str) -> Error {
        let (repo, revision) = (self.id(), self.revision.clone());
        Error::NotCached { repo, revision, file: file.to_owned(), cache: self.hub.cache_dir.clone() }
    }
}
