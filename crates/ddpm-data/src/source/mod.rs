//! Sources of data sets: built-in MNIST, folders and the Hub.

mod address;
mod config;
#[cfg(feature = "mnist")]
mod embedded;
mod folder;
#[cfg(feature = "hub")]
mod hub;
mod listing;
pub(crate) mod names;
mod parquet_names;
mod push;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use address::HubAddress;
pub use config::HubConfig;
#[cfg(feature = "hub")]
pub use hub::{Hub, HubFile};
pub use push::{PushFile, PushOptions, Pushed, check_push, push_model};

use crate::error::{Error, Result};
use crate::splits::Splits;

/// The location of a data set. On a command line it is written as:
///
/// | text | source |
/// | --- | --- |
/// | `mnist`, in any case | the built-in MNIST |
/// | `hf://datasets/OWNER/NAME` | a data set of the Hub; a final `@REVISION` selects a branch, tag or commit |
/// | anything else | a folder of IDX files, or one of several data sets in it; write `./mnist` for a folder named `mnist` |
///
/// ```
/// # #[cfg(feature = "mnist")] {
/// use ddpm_data::{HubConfig, Source};
///
/// let splits = "mnist".parse::<Source>()?.load(&HubConfig::from_env())?;
/// assert_eq!(splits.train().len(), 60_000);
/// # }
/// # Ok::<(), ddpm_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The built-in MNIST.
    Mnist,
    /// A folder of IDX files.
    Folder(PathBuf),
    /// A data set of the Hub.
    Hub(HubAddress),
}

impl Source {
    /// Reads the data set, [without classes that no image has](Splits::without_unused_classes). Only [`Source::Hub`]
    /// uses `hub`.
    ///
    /// # Errors
    /// The errors of `Splits::mnist`, [`Splits::from_folder`] and `Hub::dataset`;
    /// [`Error::MnistFeature`] or [`Error::HubFeature`] if the crate was built
    /// without the feature that the source needs.
    #[cfg_attr(not(feature = "hub"), expect(unused_variables, reason = "only the Hub's client uses it"))]
    pub fn load(&self, hub: &HubConfig) -> Result<Splits> {
        let splits = match self {
            #[cfg(feature = "mnist")]
            Self::Mnist => Splits::mnist(),
            #[cfg(not(feature = "mnist"))]
            Self::Mnist => Err(Error::MnistFeature),
            Self::Folder(folder) => Splits::from_folder(folder),
            #[cfg(feature = "hub")]
            Self::Hub(address) => Hub::new(hub.clone())?.dataset(address),
            #[cfg(not(feature = "hub"))]
            Self::Hub(address) => Err(Error::HubFeature { address: format!("hf://datasets/{address}") }),
        };
        Ok(splits?.without_unused_classes())
    }
}

/// Files of a model on the Hub, in the local cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedModel {
    /// The address with the commit of the files as its revision. Without files, it is the address that was asked for.
    pub address: HubAddress,
    /// The paths of the files, in the order in which they were asked for.
    pub paths: Vec<PathBuf>,
}

/// Fetches files of a model on the Hub, such as `denoiser/config.json`, unless
/// they are in the cache. All are of one commit.
///
/// # Errors
/// Those of `Hub::new` and `Hub::model_file`; [`Error::HubFeature`] if the crate
/// was built without the feature `hub`.
#[cfg_attr(not(feature = "hub"), expect(unused_variables, reason = "only the Hub's client uses them"))]
pub fn fetch_model(address: &HubAddress, files: &[&str], hub: &HubConfig) -> Result<FetchedModel> {
    #[cfg(not(feature = "hub"))]
    return Err(Error::HubFeature { address: format!("hf://{address}") });
    #[cfg(feature = "hub")]
    {
        let hub = Hub::new(hub.clone())?;
        let (mut address, mut paths) = (address.clone(), Vec::new());
        for file in files {
            // The first answer names the commit that the others are fetched from.
            let found = hub.model_file(address.owner(), address.name(), address.revision(), file)?;
            address = HubAddress::new(address.owner(), address.name(), Some(&found.commit))?;
            paths.push(found.path);
        }
        Ok(FetchedModel { address, paths })
    }
}

impl FromStr for Source {
    type Err = Error;

    /// # Errors
    /// [`Error::BadAddress`] if the text begins with `hf://` and is not a valid
    /// address of a data set, [`Error::WebAddress`] if it is another address.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            mnist if mnist.eq_ignore_ascii_case("mnist") => Self::Mnist,
            address if address.starts_with("hf://") => Self::Hub(HubAddress::dataset(address)?),
            address if address.contains("://") => return Err(web_address(address)),
            folder => Self::Folder(folder.into()),
        })
    }
}

/// The error about an address of the web, with the address of the same data set on the Hub if it is one.
fn web_address(address: &str) -> Error {
    let repository = address
        .split_once("/datasets/")
        .map(|(_, path)| path.split(['/', '?', '#']).take(2).collect::<Vec<_>>().join("/"));
    let hub = repository.map(|repository| format!("hf://datasets/{repository}"));
    let hub = hub.filter(|hub| HubAddress::dataset(hub).is_ok());
    let instead =
        hub.unwrap_or_else(|| "a folder with the downloaded files, or hf://datasets/OWNER/NAME".to_owned());
    Error::WebAddress { address: address.to_owned(), instead }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mnist => f.write_str("mnist"),
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Hub(address) => write!(f, "hf://datasets/{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_parsed_to_a_source_and_back() {
        for (text, source) in [
            ("mnist", Source::Mnist),
            ("./mnist", Source::Folder("./mnist".into())),
            ("data/emnist", Source::Folder("data/emnist".into())),
            ("hf://datasets/a/b@c", Source::Hub(HubAddress::new("a", "b", Some("c")).unwrap())),
            ("hf://datasets/a/b/c@d/e", Source::Hub(HubAddress::dataset("hf://datasets/a/b/c@d/e").unwrap())),
        ] {
            assert_eq!(text.parse::<Source>().unwrap(), source);
            assert_eq!(source.to_string(), text);
        }
        assert!(matches!("hf://a/b".parse::<Source>(), Err(Error::BadAddress { .. })));
        assert_eq!("MNIST".parse::<Source>().unwrap(), Source::Mnist);
    }

    #[test]
    fn an_address_of_the_web_is_refused_with_the_address_to_write() {
        for (address, instead) in [
            ("https://host/datasets/a/b/tree/main", "expected hf://datasets/a/b"),
            ("http://host/datasets/a/b?x=1", "expected hf://datasets/a/b"),
            (
                "https://host/mnist.zip",
                "expected a folder with the downloaded files, or hf://datasets/OWNER/NAME",
            ),
            ("file:///data/mnist", "expected a folder"),
        ] {
            let error = address.parse::<Source>().unwrap_err().to_string();
            assert!(error.starts_with(address) && error.contains(instead), "{error}");
        }
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn without_its_feature_the_hub_is_an_error_that_names_it() {
        let source: Source = "hf://datasets/a/b".parse().unwrap();
        let error = source.load(&HubConfig::new("http://127.0.0.1:9", "cache")).unwrap_err();
        assert!(matches!(error, Error::HubFeature { .. }));
        assert!(error.to_string().contains("feature `hub`"), "{error}");
        let address = HubAddress::model("hf://a/b@c").unwrap();
        let error = fetch_model(&address, &[], &HubConfig::new("http://127.0.0.1:9", "cache")).unwrap_err();
        assert!(matches!(error, Error::HubFeature { address } if address == "hf://a/b@c"));
        let (config, options) = (
            HubConfig::new("http://127.0.0.1:9", "cache"),
            PushOptions { private: false, message: "m".into() },
        );
        for error in [
            check_push(&address, &config).unwrap_err(),
            push_model(&address, &[], &options, &config, |_, _, _| {}).unwrap_err(),
        ] {
            assert!(matches!(error, Error::HubFeature { address } if address == "hf://a/b@c"));
        }
    }

    #[cfg(not(feature = "mnist"))]
    #[test]
    fn without_its_feature_mnist_is_an_error_that_names_it() {
        let error = Source::Mnist.load(&HubConfig::new("http://127.0.0.1:9", "cache")).unwrap_err();
        assert!(matches!(error, Error::MnistFeature));
        assert!(error.to_string().contains("feature `mnist`"), "{error}");
    }
}
