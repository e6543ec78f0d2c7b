//! Loads a model by its name on the command line.

use std::{borrow::Cow, fs, io, path::Path};

use anyhow::{Result, bail};
use candle_core::Device;
use ddpm_data::{HubAddress, HubConfig};
use ddpm_model::{Denoiser, ModelFiles, read_model, read_model_from};

use crate::output;

/// The name of the model that is compiled into the program.
pub(crate) const BUILT_IN: &str = "built-in";

macro_rules! built_in {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../../assets/models/mnist/", $name
        )) as &[u8])),*]
    };
}

static FILES: [(&str, &[u8]); 4] = built_in!(
    "model_index.json",
    "scheduler/scheduler_config.json",
    "denoiser/config.json",
    "denoiser/diffusion_pytorch_model.safetensors"
);

/// Loads the built-in model, a model from the Hub, or a model folder. Warns if its noise schedule is unusual.
pub(crate) fn load(name: &str, device: &Device) -> Result<Denoiser> {
    let denoiser = find(name, device)?;
    if let Some(warning) = denoiser.schedule().warning() {
        output::warning(&format!("{name}: {warning}"));
    }
    Ok(denoiser)
}

fn find(name: &str, device: &Device) -> Result<Denoiser> {
    if name == BUILT_IN {
        let read = |wanted: &str| {
            let found = FILES.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, bytes)| Cow::Borrowed(*bytes)).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        return Ok(read_model_from(Path::new(BUILT_IN), read, device)?);
    }
    if name.starts_with("hf://") {
        return from_hub(name, device);
    }
    let folder = Path::new(name);
    if !folder.is_dir() {
        bail!("{name}: no such model folder; expected a folder, hf://OWNER/NAME, or `{BUILT_IN}`");
    }
    Ok(read_model(folder, device)?)
}

fn from_hub(name: &str, device: &Device) -> Result<Denoiser> {
    let names = ModelFiles::REQUIRED;
    let paths = ddpm_data::fetch_model(&HubAddress::model(name)?, &names, &HubConfig::from_env())?;
    let read = |wanted: &str| match names.iter().zip(&paths).find(|(name, _)| **name == wanted) {
        Some((_, path)) => fs::read(path).map(Cow::Owned),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    Ok(read_model_from(Path::new(name), read, device)?)
}
