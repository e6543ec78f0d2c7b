//! Addresses of repositories on the Hub.

use std::fmt;

use crate::error::{Error, Result};

/// The owner, name and optional revision of a repository on the Hub.
///
/// ```
/// use ddpm_data::HubAddress;
///
/// let address = HubAddress::dataset("hf://datasets/ylecun/mnist@main")?;
/// assert_eq!((address.owner(), address.name()), ("ylecun", "mnist"));
/// assert_eq!(address.revision(), Some("main"));
/// # Ok::<(), ddpm_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubAddress {
    owner: String,
    name: String,
    config: Option<String>,
    revision: Option<String>,
}

impl HubAddress {
    /// Parses `hf://datasets/OWNER/NAME`, with an optional `/CONFIG`, the configuration of a
    /// repository with several data sets, and an optional `@REVISION`, which is a branch, a
    /// tag or a commit.
    ///
    /// # Errors
    /// [`Error::BadAddress`] if the text has another form.
    pub fn dataset(address: &str) -> Result<Self> {
        let reason = "expected hf://datasets/OWNER/NAME, with an optional /CONFIG and an optional @REVISION";
        Self::parse(address, "hf://datasets/", reason)
    }

    /// Parses the address of a model, `hf://OWNER/NAME` with an optional
    /// `@REVISION`.
    ///
    /// # Errors
    /// [`Error::BadAddress`] if the text has another form.
    pub fn model(address: &str) -> Result<Self> {
        let reason = "expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION";
        if address.starts_with("hf://datasets/") {
            return Err(Error::BadAddress { address: address.to_owned(), reason });
        }
        let parsed = Self::parse(address, "hf://", reason)?;
        match parsed.config {
            None => Ok(parsed),
            Some(_) => Err(Error::BadAddress { address: address.to_owned(), reason }),
        }
    }

    /// An address from its parts. A `revision` of `None` means the branch `main`.
    ///
    /// # Errors
    /// [`Error::BadAddress`] if a part has characters that the Hub does not allow.
    pub fn new(owner: &str, name: &str, revision: Option<&str>) -> Result<Self> {
        let address = Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            config: None,
            revision: revision.map(ToOwned::to_owned),
        };
        // The parts become file names in the cache, so they must be safe.
        let bad_address = |reason| Err(Error::BadAddress { address: address.to_string(), reason });
        if !is_name(owner) || !is_name(name) {
            return bad_address(
                "expected owner and name of letters, digits, '-', '_' and '.', without '--' or a first '.'",
            );
        }
        if !revision.is_none_or(|revision| is_safe_path(revision) && !revision.contains('@')) {
            return bad_address("expected a branch, a tag or a commit after '@'");
        }
        Ok(address)
    }

    fn parse(address: &str, prefix: &str, reason: &'static str) -> Result<Self> {
        let bad_address = || Error::BadAddress { address: address.to_owned(), reason };
        let rest = address.strip_prefix(prefix).ok_or_else(bad_address)?;
        let (repo, revision) = match rest.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (rest, None),
        };
        let (owner, name) = repo.split_once('/').ok_or_else(bad_address)?;
        let (name, config) = match name.split_once('/') {
            Some((name, config)) => (name, Some(config)),
            None => (name, None),
        };
        if !config.is_none_or(is_safe_path) {
            return Err(bad_address());
        }
        let address = Self::new(owner, name, revision).map_err(|_| bad_address())?;
        Ok(Self { config: config.map(ToOwned::to_owned), ..address })
    }

    /// The user or organisation that owns the repository.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The name of the repository, without its owner.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The configuration, or `None` if the repository has only one data set.
    #[must_use]
    pub fn config(&self) -> Option<&str> {
        self.config.as_deref()
    }

    /// The branch, tag or commit, or `None` for the branch `main`.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }
}

/// Writes `OWNER/NAME[/CONFIG][@REVISION]`.
impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        self.config.as_ref().map_or(Ok(()), |config| write!(f, "/{config}"))?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

/// Whether a text can be the owner or the name of a repository.
fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !part.starts_with('.')
        // `--` separates owner and name in the cache.
        && !part.contains("--")
}

/// Whether a relative path with `/` as separator cannot leave the folder that it is
/// joined to.
pub(crate) fn is_safe_path(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !path.contains(|c: char| c == '\\' || c == ':' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_datasets_and_models_are_parsed() {
        let dataset = HubAddress::dataset("hf://datasets/zalando-datasets/fashion_mnist").unwrap();
        assert_eq!(dataset, HubAddress::new("zalando-datasets", "fashion_mnist", None).unwrap());
        let model = HubAddress::model("hf://some.one/a-model@refs/pr/1").unwrap();
        assert_eq!(model.revision(), Some("refs/pr/1"));
        assert_eq!(model.to_string(), "some.one/a-model@refs/pr/1");
    }

    #[test]
    fn a_malformed_address_is_refused_and_the_error_names_it() {
        for address in [
            "hf://datasets/",
            "hf://datasets/mnist",
            "hf://datasets/a/b/",
            "hf://datasets/a/b/../c",
            "hf://datasets//b",
            "hf://datasets/a/",
            "hf://datasets/../b",
            "hf://datasets/a/b@",
            "hf://datasets/a/b@../../x",
            "hf://datasets/a/b@/x",
            "hf://datasets/a/b@x@y",
            "hf://datasets/a/b c",
            "hf://a/b",
        ] {
            let error = HubAddress::dataset(address).unwrap_err();
            assert!(matches!(&error, Error::BadAddress { address: a, .. } if a == address), "{error}");
            assert!(error.to_string().contains("expected hf://datasets/OWNER/NAME"), "{error}");
        }
        for address in ["hf://datasets/a/b", "hf://datasets/a", "hf://a", "a/b", "hf://a/b@"] {
            let error = HubAddress::model(address).unwrap_err();
            assert!(matches!(&error, Error::BadAddress { address: a, .. } if a == address), "{error}");
        }
    }
}
