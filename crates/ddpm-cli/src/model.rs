//! Loads a model by its name on the command line.

use std::{
    borrow::Cow,
    fs,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::Device;
use ddpm_data::{HubAddress, HubConfig};
use ddpm_model::{Denoiser, ModelFiles, read_model, read_model_from};

use crate::output;

/// The name of the model that is compiled into the program.
pub(crate) const BUILT_IN: &str = "built-in";

macro_rules! built_in {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"), "/assets/models/mnist/", $name
        )) as &[u8])),*]
    };
}

static FILES: [(&str, &[u8]); 6] = built_in!(
    "model_index.json",
    "scheduler/scheduler_config.json",
    "denoiser/config.json",
    "denoiser/diffusion_pytorch_model.safetensors",
    "guide/config.json",
    "guide/diffusion_pytorch_model.safetensors"
);

/// Loads the built-in model, a model from the Hub, or a model folder. Warns if its noise schedule is unusual.
pub(crate) fn load(name: &str, device: &Device) -> Result<Denoiser> {
    let denoiser = find(name, device)?;
    if let Some(warning) = denoiser.schedule().warning() {
        output::warning(&format!("{name}: {warning}"));
    }
    Ok(denoiser)
}

/// Loads a model, and another guide than its own, if one is given.
pub(crate) fn load_guided(name: &str, guide: Option<&str>, device: &Device) -> Result<Denoiser> {
    let denoiser = load(name, device)?;
    match guide {
        Some(guide) => {
            Ok(denoiser.guided_by(load(guide, device)?).with_context(|| format!("--guide {guide}"))?)
        }
        None => Ok(denoiser),
    }
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
        return Ok(of_hub(&HubAddress::model(name)?, device)?.0.denoiser);
    }
    let folder = Path::new(name);
    if !folder.is_dir() {
        bail!("{name}: no such model folder; expected a folder, hf://OWNER/NAME, or `{BUILT_IN}`");
    }
    read_model(folder, device).map_err(|error| other_kind(folder).unwrap_or_else(|| error.into()))
}

/// A model with the content of its files, by their names in its folder.
pub(crate) struct Files {
    pub(crate) denoiser: Denoiser,
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

/// Loads a model folder, and keeps what was read.
pub(crate) fn of_folder(folder: &Path, device: &Device) -> Result<Files> {
    let (denoiser, files) = keeping(folder, |name| fs::read(folder.join(name)), device);
    let denoiser = denoiser.map_err(|error| other_kind(folder).unwrap_or_else(|| error.into()))?;
    Ok(Files { denoiser, files })
}

/// Reads a model through `read`, and keeps what it returned.
fn keeping(
    folder: &Path,
    mut read: impl FnMut(&str) -> io::Result<Vec<u8>>,
    device: &Device,
) -> (ddpm_model::Result<Denoiser>, Vec<(String, Vec<u8>)>) {
    let mut files = Vec::new();
    let kept = |name: &str| {
        let bytes = read(name)?;
        files.push((name.to_owned(), bytes.clone()));
        Ok(Cow::Owned(bytes))
    };
    let denoiser = read_model_from(folder, kept, device);
    (denoiser, files)
}

/// The error that a file of a model folder is of another kind, such as a Git LFS pointer; `None` if none is.
fn other_kind(folder: &Path) -> Option<anyhow::Error> {
    ModelFiles::REQUIRED.iter().chain(&ModelFiles::GUIDE).map(|name| folder.join(name)).find_map(|path| {
        let mut start = Vec::new();
        fs::File::open(&path).ok()?.take(300).read_to_end(&mut start).ok()?;
        let kind = ddpm_data::kind_of(&start)?;
        Some(anyhow!("{} is {kind}; expected a file of a model", path.display()))
    })
}

/// Loads a model of the Hub, and keeps what was read. All files are of one commit, which is the revision of the returned
/// address.
pub(crate) fn of_hub(address: &HubAddress, device: &Device) -> Result<(Files, HubAddress)> {
    let (names, hub) = (ModelFiles::REQUIRED, HubConfig::from_env());
    let name = format!("hf://{address}");
    let one = |address: &HubAddress, wanted: &str| {
        let fetched = ddpm_data::fetch_model(address, &[wanted], &hub).map_err(io::Error::other)?;
        fetched.paths.iter().map(fs::read).next().unwrap_or(Err(io::ErrorKind::NotFound.into()))
    };
    let fetched = match ddpm_data::fetch_model(address, &names, &hub) {
        // A model of another architecture lacks some of the files; those that it has name its class.
        Err(error @ ddpm_data::Error::NotOnHub { .. }) => {
            return match keeping(Path::new(&name), |wanted| one(address, wanted), device).0 {
                Err(other @ ddpm_model::Error::Kind { .. }) => Err(other.into()),
                _ => Err(error.into()),
            };
        }
        fetched => fetched?,
    };
    // The files of a guide are asked for only if the model has one.
    let read = |wanted: &str| match names.iter().zip(&fetched.paths).find(|(name, _)| **name == wanted) {
        Some((_, path)) => fs::read(path),
        None => one(&fetched.address, wanted),
    };
    let (denoiser, files) = keeping(Path::new(&name), read, device);
    Ok((Files { denoiser: denoiser?, files }, fetched.address))
}
