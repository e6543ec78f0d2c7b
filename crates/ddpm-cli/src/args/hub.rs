//! The arguments of `push` and `pull`.

use std::{ffi::OsStr, path::PathBuf};

use anyhow::{Result, ensure};
use clap::Args as ClapArgs;
use ddpm_data::HubAddress;

use super::{Sample, parsed, paths};

#[derive(Debug, ClapArgs)]
pub(crate) struct Push {
    /// The run folder of `train`, whose folder `model` is pushed, or a model folder
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// The model repository. It is created if it does not exist
    #[arg(value_name = "hf://OWNER/NAME", value_parser = HubAddress::model)]
    pub(crate) to: HubAddress,
    /// The branch to push to. It is created if it does not exist [default: main]
    #[arg(long, value_name = "BRANCH")]
    pub(crate) revision: Option<String>,
    /// Create a private repository, or push to an existing one only if it is private
    #[arg(long)]
    pub(crate) private: bool,
    /// The licence of the weights, as the Hub names it, such as mit, apache-2.0 or cc-by-4.0
    /// [default: the card says that none is named]
    #[arg(long, value_name = "ID", value_parser = license)]
    pub(crate) license: Option<String>,
    /// The first line of the commit's message [default: Push a model with ddpm-cli]
    #[arg(long, value_name = "TEXT", value_parser = message)]
    pub(crate) message: Option<String>,
    /// List the files and their sizes, and send nothing. With -v, print the model card too
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Pull {
    /// The model repository, with an optional @REVISION
    #[arg(value_name = "hf://OWNER/NAME", value_parser = HubAddress::model)]
    pub(crate) from: HubAddress,
    /// The branch, tag or commit [default: main]
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// The model folder to write; an existing model in it is replaced [default: NAME]
    #[arg(short, long, value_name = "DIR", value_parser = paths::out())]
    pub(crate) out_dir: Option<PathBuf>,
}

impl Push {
    /// The repository and the branch.
    pub(crate) fn address(&self) -> Result<HubAddress> {
        with_revision(&self.to, self.revision.as_deref())
    }
}

impl Pull {
    /// The repository and the revision.
    pub(crate) fn address(&self) -> Result<HubAddress> {
        with_revision(&self.from, self.revision.as_deref())
    }
}

impl Sample {
    /// The options of `sample --model NAME`, with which `push` draws its picture.
    pub(crate) fn of_model(name: &str) -> Result<Self, clap::Error> {
        parsed(&["sample", "--model", name].map(OsStr::new))
    }
}

fn with_revision(address: &HubAddress, revision: Option<&str>) -> Result<HubAddress> {
    let Some(revision) = revision else { return Ok(address.clone()) };
    ensure!(
        address.revision().is_none_or(|other| other == revision),
        "--revision {revision}, but the address is hf://{address}, expected one revision"
    );
    Ok(HubAddress::new(address.owner(), address.name(), Some(revision))?)
}

/// The licence is written into the metadata of the model card, so it has no characters with a meaning in YAML.
fn license(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(plain);
    if is_name {
        Ok(text.to_lowercase())
    } else {
        Err("expected an identifier such as mit or apache-2.0".to_owned())
    }
}

fn message(text: &str) -> Result<String, String> {
    let is_line = !text.trim().is_empty() && !text.contains(char::is_control);
    if is_line { Ok(text.to_owned()) } else { Err("expected one line of text".to_owned()) }
}
