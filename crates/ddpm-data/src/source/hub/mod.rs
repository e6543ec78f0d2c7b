//! Data sets and model files from the Hugging Face Hub, and models that are pushed to it.

mod cache;
mod client;
mod fetch;
mod layout;
mod push;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use self::client::Client;
use self::fetch::{Kind, Repository};
use super::address::{HubAddress, is_safe_path};
use super::config::HubConfig;
use super::names::Split;
use crate::error::{Error, Result};
use crate::known_digests::{MNIST_TEST, MNIST_TRAIN};
use crate::splits::Splits;

/// A client of the Hub, or of a server with the same protocol.
///
/// Downloads go to a cache folder that the Hub's Python client can share. Each use
/// of a file verifies it:
///
/// - a large file by its SHA-256, which the Hub provides;
/// - a small file by its announced size, at its download only.
///
/// A file that fails is downloaded once more. A file becomes part of the cache after its
/// verification. On Windows the cache does not record the SHA-256, so it is verified at
/// the download only.
///
/// Whatever the server answers, nothing outside of the cache folder is written or
/// removed, a download ends at the announced size, and a server that sends nothing, or
/// less than 16 KiB within [`HubConfig::timeout`], is an error.
///
/// ```no_run
/// use ddpm_data::{Hub, HubAddress, HubConfig};
///
/// let hub = Hub::new(HubConfig::from_env())?;
/// let fashion = hub.dataset(&HubAddress::dataset("hf://datasets/zalando-datasets/fashion_mnist")?)?;
/// assert_eq!(fashion.train().classes(), Some(10));
/// # Ok::<(), ddpm_data::Error>(())
/// ```
#[derive(Debug)]
pub struct Hub {
    client: Client,
    cache_dir: PathBuf,
    token_file: Option<PathBuf>,
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
    /// [`Error::HubEndpoint`] if the endpoint is not an address of a server.
    /// [`Error::NoCacheFolder`] if `cache_dir` is `None`. [`Error::OutOfRange`] if the
    /// token has a character that a token cannot have.
    pub fn new(config: HubConfig) -> Result<Self> {
        let HubConfig { endpoint, cache_dir, token, token_file, offline, retries, timeout } = config;
        let cache_dir = cache_dir.ok_or(Error::NoCacheFolder)?;
        let token = match token {
            Some(token) => clean_token(&token, "HF_TOKEN")?,
            None => token_file.as_deref().filter(|_| !offline).map_or(Ok(None), read_token)?,
        };
        let client = Client::new(&endpoint, token.as_deref(), retries, timeout)?;
        Ok(Self { client, cache_dir, token_file, offline })
    }

    /// Reads a data set: parquet files in any layout that [`Splits::from_folder`] reads, or
    /// its IDX files without a prefix. Of several data sets, the address chooses one by its
    /// configuration.
    ///
    /// All files are read from one commit, [`Splits::commit`]. The images and labels of
    /// `ylecun/mnist` must be exactly MNIST.
    ///
    /// # Errors
    /// [`Error::NoHubDataSet`], [`Error::Ambiguous`], [`Error::NotCached`],
    /// [`Error::HubAccess`] and [`Error::HubRequest`] if no file can be read;
    /// [`Error::Checksum`], [`Error::DownloadSize`] and [`Error::OutOfRange`] for a
    /// corrupt download or answer; [`Error::CacheNotWritable`] and
    /// [`Error::OutsideCache`]; the errors of the file format, of
    /// [`Dataset::new`](crate::Dataset::new) and of [`Splits::new`].
    pub fn dataset(&self, address: &HubAddress) -> Result<Splits> {
        let (owner, name) = (address.owner(), address.name());
        let mut repository = Repository::new(self, Kind::Dataset, address);
        let (train, test) = layout::read(&mut repository, address)?;
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
    /// [`Error::HubAccess`], [`Error::HubRequest`]; [`Error::Checksum`],
    /// [`Error::DownloadSize`] and [`Error::OutOfRange`] for a corrupt download or
    /// answer; [`Error::CacheNotWritable`] and [`Error::OutsideCache`].
    pub fn model_file(&self, owner: &str, name: &str, revision: Option<&str>, file: &str) -> Result<HubFile> {
        let address = HubAddress::new(owner, name, revision)?;
        if !is_safe_path(file) {
            let reason = "expected a relative file path without '..'";
            return Err(Error::BadAddress { address: format!("{address}/{file}"), reason });
        }
        let mut repository = Repository::new(self, Kind::Model, &address);
        let path = repository.get(file, |path| Ok(path.to_owned()))?;
        Ok(HubFile { path, commit: repository.revision().to_owned() })
    }
}

/// Reads the access token from a file, or returns `None` if the file is missing or
/// empty.
fn read_token(file: &Path) -> Result<Option<String>> {
    fs::read_to_string(file).map_or(Ok(None), |token| clean_token(&token, &file.display().to_string()))
}

/// An access token without white space around it; `None` if it is empty. `source` names
/// its origin in the error.
fn clean_token(token: &str, source: &str) -> Result<Option<String>> {
    let token = token.trim();
    match token.chars().find(|c| !c.is_ascii_graphic()) {
        // The token itself is not shown.
        Some(found) => Err(Error::out_of_range(
            format!("a character of the access token in {source}"),
            found.escape_unicode(),
            "letters, digits and '_', as in hf_…",
        )),
        None => Ok((!token.is_empty()).then(|| token.to_owned())),
    }
}
