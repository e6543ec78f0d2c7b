//! Pushing a model to the Hub.

use super::{HubAddress, HubConfig};
#[cfg(not(feature = "hub"))]
use crate::error::Error;
use crate::error::Result;

/// A file to push, by its path in the repository, such as `denoiser/config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushFile {
    /// The path in the repository.
    pub name: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// What a push needs besides its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOptions {
    /// Whether a new repository is private. An existing one that is not private is then refused.
    pub private: bool,
    /// The first line of the commit's message.
    pub message: String,
}

/// A finished push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The address of the repository for a browser.
    pub url: String,
    /// The commit with the files: a new one, or the newest one of the branch if it has all files already.
    pub commit: String,
    /// The names of the files that the new commit adds or replaces. Empty if there is no new commit.
    pub changed: Vec<String>,
}

/// Checks that [`push_model`] may begin, without sending a request.
///
/// # Errors
/// [`HubFeature`](crate::Error::HubFeature) if the crate was built without the feature `hub`,
/// [`BadAddress`](crate::Error::BadAddress) if the revision is a commit, [`PushOffline`](crate::Error::PushOffline) in
/// offline mode, [`NoToken`](crate::Error::NoToken) without an access token, and those of `Hub::new`.
#[cfg_attr(not(feature = "hub"), expect(unused_variables, reason = "only the Hub's client uses it"))]
pub fn check_push(address: &HubAddress, hub: &HubConfig) -> Result<()> {
    #[cfg(not(feature = "hub"))]
    return Err(Error::HubFeature { address: format!("hf://{address}") });
    #[cfg(feature = "hub")]
    super::Hub::new(hub.clone())?.check_push(address)
}

/// Pushes files to a model repository in one commit, `Hub::push_model`.
///
/// # Errors
/// Those of [`check_push`] and `Hub::push_model`.
#[cfg_attr(not(feature = "hub"), expect(unused_variables, reason = "only the Hub's client uses them"))]
pub fn push_model(
    address: &HubAddress,
    files: &[PushFile],
    options: &PushOptions,
    hub: &HubConfig,
    progress: impl FnMut(&str, u64, u64),
) -> Result<Pushed> {
    #[cfg(not(feature = "hub"))]
    return Err(Error::HubFeature { address: format!("hf://{address}") });
    #[cfg(feature = "hub")]
    super::Hub::new(hub.clone())?.push_model(address, files, options, progress)
}
