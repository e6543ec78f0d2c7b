//! Data sets and model files from the Hugging Face Hub.

mod fetch;
mod layout;

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::{HFClient, HFClientSync, HFError, RepoTypeAny};

use self::fetch::Repository;
use super::address::{HubAddress, is_safe_path};
use super::config::HubConfig;
use super::names::Split;
use crate::error::{Cause, Error, Result};
use crate::known_digests::{MNIST_TEST, MNIST_TRAIN};
use crate::splits::Splits;

/// A client of the Hub, or of a server with the same protocol.
///
/// Downloads go to a cache folder that the Hub's Python client can share. Each use
/// of a file verifies it:
///
/// - a large file by its SHA-256, which the Hub provides;
/// - a small file by its announced size, after a download only.
///
/// A file that fails is downloaded once more. If it fails again, it is removed from
/// the cache. On Windows the cache does not record the SHA-256, so only the size is
/// verified.
///
/// ```no_run
/// use ddpm_data::{Hub, HubConfig};
///
/// let hub = Hub::new(HubConfig::from_env())?;
/// let fashion = hub.dataset("zalando-datasets", "fashion_mnist", None)?;
/// assert_eq!(fashion.train().classes(), Some(10));
/// # Ok::<(), ddpm_data::Error>(())
/// ```
#[derive(Debug)]
pub struct Hub {
    client: HFClientSync,
    cache_dir: PathBuf,
    offline: bool,
}

/// A file of the Hub in the local cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// The path of the file in the cache.
    pub path: PathBuf,
    /// The commit of the file. Pass it as the revision of other files to read all
    /// of them from one commit.
    pub commit: String,
}

impl Hub {
    /// Sets up the client without sending a request. Reads the token file of
    /// `config` if `token` is `None` and `offline` is false.
    ///
    /// # Errors
    /// [`Error::HubClient`] if the HTTPS client cannot be set up, for example
    /// because the system has no CA certificates. [`Error::NoCacheFolder`] if
    /// `cache_dir` is `None`.
    pub fn new(config: HubConfig) -> Result<Self> {
        let HubConfig { endpoint, cache_dir, token, token_file, offline, retries } = config;
        let cache_dir = cache_dir.ok_or(Error::NoCacheFolder)?;
        let token = token.or_else(|| read_token(&token_file.filter(|_| !offline)?));
        let client = HFClient::builder()
            .endpoint(&endpoint)
            .cache_dir(&cache_dir)
            // Without a token hf-hub 1.0 reads one from the environment. A line
            // break is not valid in a header, so hf-hub sends no token.
            .token(token.unwrap_or_else(|| "\n".to_owned()))
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .retry_max_attempts(retries)
            .build_sync()
            .map_err(|source| Error::HubClient { endpoint, source: cause(source) })?;
        Ok(Self { client, cache_dir, offline })
    }

    /// Reads a data set in one of two layouts:
    ///
    /// - `NAME/{train,test}-00000-of-00001.parquet`, or the same file names in
    ///   `data/`, as in `ylecun/mnist` and `zalando-datasets/fashion_mnist`. The
    ///   column `image` is a struct whose field `bytes` is a PNG. Colours are
    ///   converted to grey, and transparency is ignored. The optional column `label`
    ///   is a 64-bit integer.
    /// - The IDX files that [`Splits::from_folder`] reads, without a prefix.
    ///
    /// A `revision` of `None` means the branch `main`. All files are read from one
    /// commit, [`Splits::commit`]. The images and labels of `ylecun/mnist` must be
    /// exactly MNIST.
    ///
    /// # Errors
    /// [`Error::BadAddress`]; [`Error::NoHubDataSet`], [`Error::NotCached`],
    /// [`Error::HubAccess`] and [`Error::HubRequest`] if no file can be read;
    /// [`Error::Checksum`] and [`Error::DownloadSize`] for a corrupt
    /// download; the errors of the file format, of
    /// [`Dataset::new`](crate::Dataset::new) and of [`Splits::new`].
    pub fn dataset(&self, owner: &str, name: &str, revision: Option<&str>) -> Result<Splits> {
        let address = HubAddress::new(owner, name, revision)?;
        let mut repository = Repository::new(self, RepoTypeAny::Dataset, &address);
        let (train, test) = layout::read(&mut repository, &address)?;
        let is_mnist = owner.eq_ignore_ascii_case("ylecun") && name.eq_ignore_ascii_case("mnist");
        if is_mnist {
            MNIST_TRAIN.verify(&train)?;
            if let Some(test) = &test {
                MNIST_TEST.verify(test)?;
            }
        }
        // Has the same images as the built-in data set, so it gets the same name.
        let title = if is_mnist { "MNIST".to_owned() } else { format!("{owner}/{name}") };
        let splits = Splits::new(title, train, test)?;
        Ok(splits.at_commit(repository.revision().to_owned()))
    }

    /// Downloads one file of a model, such as `denoiser/config.json`, unless it is
    /// in the cache. A `revision` of `None` means the branch `main`.
    ///
    /// # Errors
    /// [`Error::BadAddress`]; [`Error::NotOnHub`], [`Error::NotCached`],
    /// [`Error::HubAccess`], [`Error::HubRequest`]; [`Error::Checksum`] and
    /// [`Error::DownloadSize`] for a corrupt download.
    pub fn model_file(&self, owner: &str, name: &str, revision: Option<&str>, file: &str) -> Result<HubFile> {
        let address = HubAddress::new(owner, name, revision)?;
        if !is_safe_path(file) {
            let reason = "expected a relative file path without '..'";
            return Err(Error::BadAddress { address: format!("{address}/{file}"), reason });
        }
        let mut repository = Repository::new(self, RepoTypeAny::Model, &address);
        let path = repository.get(file, |path| Ok(path.to_owned()))?;
        Ok(HubFile { path, commit: repository.revision().to_owned() })
    }
}

/// Reads the access token from a file, or returns `None` if the file is missing or
/// empty.
fn read_token(file: &Path) -> Option<String> {
    let token = fs::read_to_string(file).ok()?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

/// The cause to report for an error of hf-hub. Some of those errors contain the text
/// of their source, which would then appear twice in a chain of causes.
fn cause(error: HFError) -> Cause {
    match error {
        HFError::Request { source, .. } => source.into(),
        HFError::Xet { .. } => error.to_string().into(),
        error => error.into(),
    }
}
