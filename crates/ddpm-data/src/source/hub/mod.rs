//! Data sets and model files from the Hugging Face Hub.

mod fetch;
mod layout;
mod parquet;

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::{HFClient, HFClientSync, RepoTypeAny};

use self::fetch::Repository;
use super::address::{HubAddress, is_safe_path};
use super::config::HubConfig;
use super::names::Split;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::known_digests::{MNIST_TEST, MNIST_TRAIN};

/// A client of the Hub, or of a server that speaks its protocol.
///
/// Files are kept in a cache that is shared with the Hub's other clients. Each
/// use of a file, fresh or cached, checks it: against its SHA-256 if the Hub
/// names one, as it does for large files, else against the size that was
/// announced for a fresh one. A file that fails is fetched once more, and if
/// that fails too it is removed from the cache. (On Windows the cache does not
/// record the SHA-256, so only the size is checked.)
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
    /// Where the file is.
    pub path: PathBuf,
    /// The commit that it belongs to. Pass it as the revision of further files
    /// to get all of them from one commit.
    pub commit: String,
}

impl Hub {
    /// Sets up the client; nothing is sent yet. Reads the token file of `config`
    /// if the token is needed.
    ///
    /// # Errors
    /// [`Error::HubClient`], for example without system CA certificates, and
    /// [`Error::NoCacheFolder`].
    pub fn new(config: HubConfig) -> Result<Self> {
        let HubConfig { endpoint, cache_dir, token, token_file, offline, retries } = config;
        let cache_dir = cache_dir.ok_or(Error::NoCacheFolder)?;
        let token = token.or_else(|| read_token(&token_file.filter(|_| !offline)?));
        let client = HFClient::builder()
            .endpoint(&endpoint)
            .cache_dir(&cache_dir)
            // Without a token hf-hub 1.0 looks for one in the environment. This
            // one cannot be part of a header, so none is sent.
            .token(token.unwrap_or_else(|| "\n".to_owned()))
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .retry_max_attempts(retries)
            .build_sync()
            .map_err(|source| Error::HubClient { endpoint, source: source.into() })?;
        Ok(Self { client, cache_dir, offline })
    }

    /// Reads a data set in one of two layouts:
    ///
    /// - `NAME/{train,test}-00000-of-00001.parquet`, or the same in `data/`, with
    ///   the columns `image` (a struct whose `bytes` are a PNG; colours become
    ///   grey, transparency is ignored) and `label` (a 64-bit integer, optional),
    ///   as in `ylecun/mnist` and `zalando-datasets/fashion_mnist`;
    /// - the IDX files that [`Corpus::from_folder`] reads, without a prefix.
    ///
    /// Without a `revision` it is the branch `main`; all files are of the one
    /// commit that it stands for, which is [`Corpus::commit`]. The content of
    /// `ylecun/mnist` must be the built-in MNIST, image for image.
    ///
    /// # Errors
    /// [`Error::BadAddress`]; [`Error::NoHubDataSet`], [`Error::NotCached`],
    /// [`Error::HubAccess`] and [`Error::HubRequest`] if there is nothing to
    /// read; [`Error::Checksum`] and [`Error::DownloadSize`] for a corrupt
    /// download; else the errors of the file format, of
    /// [`DataSet::new`](crate::DataSet::new) and of [`Corpus::new`].
    pub fn dataset(&self, owner: &str, name: &str, revision: Option<&str>) -> Result<Corpus> {
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
        // Verified to be the same images, so it goes by the same name as the built-in set.
        let title = if is_mnist { "MNIST".to_owned() } else { format!("{owner}/{name}") };
        let corpus = Corpus::new(title, train, test)?;
        Ok(corpus.at_commit(repository.revision().to_owned()))
    }

    /// Fetches one file of a model, such as `denoiser/config.json`, unless it is
    /// in the cache. Without a `revision` it is the branch `main`.
    ///
    /// # Errors
    /// [`Error::BadAddress`]; [`Error::NotOnHub`], [`Error::NotCached`],
    /// [`Error::HubAccess`], [`Error::HubRequest`]; [`Error::Checksum`] and
    /// [`Error::DownloadSize`] for a corrupt download.
    pub fn model_file(&self, owner: &str, name: &str, revision: Option<&str>, file: &str) -> Result<HubFile> {
        let address = HubAddress::new(owner, name, revision)?;
        if !is_safe_path(file) {
            let reason = "a file of a repository is a relative path without '..'";
            return Err(Error::BadAddress { address: format!("{address}/{file}"), reason });
        }
        let mut repository = Repository::new(self, RepoTypeAny::Model, &address);
        let path = repository.get(file, |path| Ok(path.to_owned()))?;
        Ok(HubFile { path, commit: repository.revision().to_owned() })
    }
}

/// The token that a login has stored, or `None` if there is no login.
fn read_token(file: &Path) -> Option<String> {
    let token = fs::read_to_string(file).ok()?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}
