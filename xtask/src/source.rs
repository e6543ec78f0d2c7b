//! The data set that a job trains on.

use std::path::{Path, absolute};

use anyhow::{Context, Result, ensure};

/// MNIST on the Hub, as parquet.
const MNIST_ON_THE_HUB: &str = "hf://datasets/ylecun/mnist";

/// A data set, as the value of `ddpm-cli --data`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    argument: String,
}

impl Source {
    /// Reads `mnist` (built in), `hub` (MNIST from the Hub), `hf://datasets/OWNER/NAME` or a folder.
    ///
    /// # Errors
    /// The text is none of these.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let argument = match text {
            "mnist" => text.to_owned(),
            "hub" => MNIST_ON_THE_HUB.to_owned(),
            address if address.starts_with("hf://") => text.to_owned(),
            folder => {
                ensure!(
                    Path::new(folder).is_dir(),
                    "expected mnist, hub, hf://datasets/OWNER/NAME or an existing folder"
                );
                // `ddpm-cli` starts in the root of the workspace, not in the folder of the user.
                let path = absolute(folder)?.into_os_string();
                path.into_string().ok().context("the folder's path is not UTF-8")?
            }
        };
        Ok(Self { argument })
    }

    pub(crate) fn argument(&self) -> &str {
        &self.argument
    }

    /// The features of `ddpm-cli` that are needed to read the images.
    pub(crate) fn features(&self) -> &'static [&'static str] {
        if self.argument.starts_with("hf://") { &["hub"] } else { &[] }
    }

    /// Whether this is MNIST, built in or from the Hub.
    pub(crate) fn is_mnist(&self) -> bool {
        self.argument == "mnist" || self.argument == MNIST_ON_THE_HUB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_source_is_understood() {
        let parse = |text| Source::parse(text).unwrap();
        assert!(parse("mnist").is_mnist());
        assert!(parse("hub").is_mnist());
        assert_eq!(parse("hub").argument(), "hf://datasets/ylecun/mnist");
        assert!(!parse("hf://datasets/zalando-datasets/fashion_mnist").is_mnist());
        let folder = parse("src");
        assert!(Path::new(folder.argument()).is_absolute() && !folder.is_mnist());
        assert!(Source::parse("no-such-folder").is_err());
    }
}
