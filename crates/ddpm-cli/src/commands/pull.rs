//! `ddpm-cli pull`: copies a model of the Hub into a folder.

use std::{fs, path::PathBuf};

use anyhow::Result;
use candle_core::Device;
use ddpm_data::{Error, HubAddress, HubConfig, fetch_model};
use ddpm_files::AtomicDir;
use ddpm_model::{ModelFiles, check_writable};
use serde_json::json;

use crate::{
    args::{Common, Pull},
    model, output,
};

pub(crate) fn run(options: &Pull, common: &Common) -> Result<()> {
    let address = options.address()?;
    let folder = options.out_dir.clone().unwrap_or_else(|| PathBuf::from(address.name()));
    // Before the download.
    check_writable(&folder)?;
    // Reading the model verifies it.
    let (model::Files { mut files, .. }, at_commit) = model::of_hub(&address, &Device::Cpu)?;
    if let Some(card) = card(&at_commit)? {
        files.push((ModelFiles::CARD.to_owned(), card));
    }
    check_writable(&folder)?;
    let new = AtomicDir::create(&folder)?;
    for (name, bytes) in &files {
        new.write(name, bytes)?;
    }
    new.commit()?;
    let (commit, bytes) =
        (at_commit.revision().unwrap_or_default(), files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    let json = json!({
        "model": folder.display().to_string(),
        "address": format!("hf://{address}"),
        "commit": commit,
        "files": files.iter().map(|(name, bytes)| json!({"name": name, "bytes": bytes.len()})).collect::<Vec<_>>(),
        "bytes": bytes,
    });
    let count = files.len();
    let text =
        format!("{}: {count} files, {bytes} bytes, of hf://{address} at commit {commit}", folder.display());
    output::result(common, &json, &text)
}

/// The model card; `None` if the repository has none, or offline, if the cache has none.
fn card(address: &HubAddress) -> Result<Option<Vec<u8>>> {
    match fetch_model(address, &[ModelFiles::CARD], &HubConfig::from_env()) {
        Ok(fetched) => fetched.paths.first().map(|path| Ok(fs::read(path)?)).transpose(),
        Err(Error::NotOnHub { .. } | Error::NotCached { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
