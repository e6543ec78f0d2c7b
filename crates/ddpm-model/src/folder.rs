//! Reading and writing a model folder, in the layout of diffusers.
//!
//! ```text
//! model_index.json                                   the pipeline class and its parts
//! scheduler/scheduler_config.json                    the schedule, as diffusers' DDPMScheduler
//! denoiser/config.json                               the architecture
//! denoiser/diffusion_pytorch_model.safetensors       the weights
//! guide/…                                            the same two files of the guide, if the model has one
//! README.md                                          the model card
//! ```

use std::{
    borrow::Cow,
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use ddpm_core::{DiffusersConfig, NoiseSchedule, NoiseScheduleConfig, ReverseVariance, Sampler, Steps};
use ddpm_files::{AtomicDir, check_keys};
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::{
    Denoiser, DenoiserConfig, Error, Parameter, Result, WeightType,
    encode::{check_finite, encode_tensors},
    encode_json,
};

const INDEX: &str = "model_index.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const CONFIG: &str = "denoiser/config.json";
const WEIGHTS: &str = "denoiser/diffusion_pytorch_model.safetensors";
const GUIDE_CONFIG: &str = "guide/config.json";
const GUIDE_WEIGHTS: &str = "guide/diffusion_pytorch_model.safetensors";
const CARD: &str = "README.md";
/// The configuration of a network of another architecture.
const OTHER_CONFIG: &str = "config.json";
const PIPELINE: &str = "DdpmPipeline";

/// The names of a model folder's files.
#[derive(Clone, Copy, Debug)]
pub struct ModelFiles;

impl ModelFiles {
    /// The files that every model folder must have, in the order in which [`read_model`] reads them.
    pub const REQUIRED: [&'static str; 4] = [INDEX, SCHEDULER, CONFIG, WEIGHTS];

    /// The files of a guide, of a model that has one.
    pub const GUIDE: [&'static str; 2] = [GUIDE_CONFIG, GUIDE_WEIGHTS];

    /// The model card, which is not read.
    pub const CARD: &'static str = CARD;
}

/// The keys of `model_index.json` that are read; the others, which name the libraries of the parts, are ignored.
#[derive(Deserialize)]
struct Index {
    #[serde(rename = "_class_name")]
    class_name: String,
    /// Whether there is a guide is all that is read of it.
    guide: Option<serde_json::Value>,
}

/// Reads a model folder.
///
/// # Errors
///
/// If a file is missing or not valid, the tensors' names and shapes differ from the configuration, or a weight is NaN
/// or infinite; the error names the file.
pub fn read_model(folder: &Path, device: &Device) -> Result<Denoiser> {
    read_model_from(folder, |name| fs::read(folder.join(name)).map(Cow::Owned), device)
}

/// Reads a model through `read`, which returns a file's bytes by name, for example from memory. `folder` is used in
/// error messages only.
///
/// # Errors
///
/// The same as for [`read_model`], and if `read` fails.
pub fn read_model_from<'a>(
    folder: &Path,
    mut read: impl FnMut(&str) -> io::Result<Cow<'a, [u8]>>,
    device: &Device,
) -> Result<Denoiser> {
    let mut file = |name| -> Result<(PathBuf, Cow<'a, [u8]>)> {
        let path = folder.join(name);
        match read(name) {
            Ok(bytes) => Ok((path, bytes)),
            Err(source) => Err(Error::Read { path, source }),
        }
    };
    // A network of diffusers without a pipeline has `config.json` only.
    let index = file(INDEX);
    let (path, bytes) = match index {
        Err(error) => match file(OTHER_CONFIG) {
            Ok((path, bytes)) if parse::<Index>(&path, &bytes).is_ok() => (path, bytes),
            _ => return Err(error),
        },
        found => found?,
    };
    let index: Index = parse(&path, &bytes)?;
    if index.class_name != PIPELINE {
        let (found, key) = (index.class_name, "_class_name");
        return Err(Error::Kind { path, key, found, expected: PIPELINE });
    }
    let (path, bytes) = file(SCHEDULER)?;
    check_keys(&bytes).map_err(Error::json(&path))?;
    let schedule = read_schedule(&String::from_utf8_lossy(&bytes))
        .map_err(|source| Error::Scheduler { path, source })?;
    let mut network = |config, weights| {
        let (path, bytes) = file(config)?;
        let config: DenoiserConfig = parse(&path, &bytes)?;
        config.validate().map_err(|source| Error::Denoiser { path, source: Box::new(source) })?;
        let (path, bytes) = file(weights)?;
        let shapes = config.parameters().into_iter().map(|Parameter { name, shape, .. }| (name, shape));
        Denoiser::new(&config, &schedule, decode_weights(&path, &bytes, shapes, None, device)?)
    };
    let denoiser = network(CONFIG, WEIGHTS)?;
    match index.guide {
        Some(_) => denoiser.guided_by(network(GUIDE_CONFIG, GUIDE_WEIGHTS)?),
        None => Ok(denoiser),
    }
}

/// Checks that [`write_model`] may write to a folder: it does not exist, is empty, or holds a model and nothing else.
///
/// # Errors
///
/// If the folder holds anything other than a model of this crate.
pub fn check_writable(folder: &Path) -> Result<()> {
    let is_model = || {
        let index = fs::read(folder.join(INDEX)).unwrap_or_default();
        serde_json::from_slice::<Index>(&index).is_ok_and(|index| index.class_name == PIPELINE)
    };
    Ok(ddpm_files::check_writable(
        folder,
        "model of this kind",
        is_model,
        &[INDEX, SCHEDULER, CONFIG, WEIGHTS, GUIDE_CONFIG, GUIDE_WEIGHTS, CARD],
    )?)
}

/// Writes a model folder atomically. It replaces an existing model, and refuses to replace anything else.
///
/// # Errors
///
/// If the folder holds something other than a model, a weight is not finite in the stored type, or the folder cannot be
/// written. The previous content is then unchanged.
pub fn write_model(folder: &Path, denoiser: &Denoiser, weight_type: WeightType, card: &str) -> Result<()> {
    check_writable(folder)?;
    let new = AtomicDir::create(folder)?;
    let path = |name| folder.join(name);
    let mut index = serde_json::json!({
        "_class_name": PIPELINE,
        "denoiser": ["ddpm_model", "Denoiser"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    });
    if denoiser.guide().is_some() {
        index["guide"] = index["denoiser"].clone();
    }
    new.write(INDEX, &encode_json(&path(INDEX), &index)?)?;
    new.write(SCHEDULER, scheduler_json(&denoiser.schedule_config())?.as_bytes())?;
    let networks = [(Some(denoiser), CONFIG, WEIGHTS), (denoiser.guide(), GUIDE_CONFIG, GUIDE_WEIGHTS)];
    for (network, config, weights) in networks {
        let Some(network) = network else { continue };
        new.write(config, &encode_json(&path(config), network.config())?)?;
        new.write(weights, &encode_tensors(&path(weights), network.weights(), weight_type)?)?;
    }
    new.write(CARD, card.as_bytes())?;
    Ok(new.commit()?)
}

/// The `scheduler_config.json` of a model with this schedule.
///
/// # Errors
///
/// If the file cannot hold the schedule, [`read_model`] would refuse it, or no sample can be drawn with it, for example
/// because of its `variance_type`.
pub fn scheduler_json(schedule: &NoiseScheduleConfig) -> Result<String> {
    let sampler = Sampler::Ddpm(schedule.variance_type.clone());
    sampler.plan(&NoiseSchedule::new(schedule)?, Steps::All)?;
    let json = DiffusersConfig::new(schedule.clone(), sampler).to_diffusers_json()?;
    read_schedule(&json)?;
    Ok(json)
}

/// Reads the schedule from the JSON of a `DDPMScheduler`. Other scheduler classes are refused: they would name a
/// sampler, which here is an option of sampling, not of the model.
fn read_schedule(json: &str) -> ddpm_core::Result<NoiseScheduleConfig> {
    let config = DiffusersConfig::from_diffusers_json(json)?;
    let refuse = |option: &str, found: &str, expected: &str| {
        let found = format!("{found:?}");
        Err(ddpm_core::Error::scheduler_option("a model folder", option, found, expected))
    };
    if !matches!(config.sampler, Sampler::Ddpm(_)) {
        return refuse("_class_name", config.sampler.diffusers_class(), "\"DDPMScheduler\"");
    }
    if config.schedule.variance_type == ReverseVariance::LearnedRange {
        let expected = "a fixed variance: these networks have no output for a learned variance";
        return refuse("variance_type", "learned_range", expected);
    }
    NoiseSchedule::new(&config.schedule)?;
    Ok(config.schedule)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    check_keys(bytes).and_then(|()| serde_json::from_slice(bytes)).map_err(Error::json(path))
}

/// Decodes weights in the safetensors format to f32. `expected` lists the names and shapes, and `stored` is the
/// required type of the file; `None` allows every float type. `path` is used in error messages only.
///
/// # Errors
///
/// If the names and shapes differ from `expected`, a type differs from `stored`, or a number is not finite.
pub fn decode_weights(
    path: &Path,
    bytes: &[u8],
    expected: impl IntoIterator<Item = (String, Vec<usize>)>,
    stored: Option<DType>,
    device: &Device,
) -> Result<HashMap<String, Tensor>> {
    let file = SafeTensors::deserialize(bytes).map_err(Error::safetensors(path))?;
    if let Some((len, rest)) = bytes.split_first_chunk() {
        let len = usize::try_from(u64::from_le_bytes(*len)).unwrap_or(usize::MAX);
        check_keys(rest.get(..len).unwrap_or_default()).map_err(Error::json(path))?;
    }
    let path = path.to_owned();
    let mut weights = HashMap::new();
    for (name, expected) in expected {
        let Ok(view) = file.tensor(&name) else {
            return Err(Error::MissingTensor { path, name, expected });
        };
        let dtype = DType::try_from(view.dtype()).ok();
        let dtype = dtype.filter(|dtype| stored.map_or(dtype.is_float(), |stored| *dtype == stored));
        let Some(dtype) = dtype.filter(|_| view.shape() == expected) else {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            let stored = stored.map_or("floats".to_owned(), |dtype| format!("{dtype:?}"));
            let expected = format!("{stored} {expected:?}");
            return Err(Error::TensorMismatch { path, name, found, expected });
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, &expected, &Device::Cpu)?;
        let tensor = tensor.to_dtype(DType::F32)?;
        check_finite(&path, &name, &tensor.flatten_all()?.to_vec1()?, WeightType::F32)?;
        weights.insert(name, tensor.to_device(device)?);
    }
    // The first in alphabetical order, so that the message does not depend on the order of a hash map.
    match file.names().into_iter().filter(|name| !weights.contains_key(*name)).min() {
        Some(name) => Err(Error::UnexpectedTensor { path, name: name.to_owned() }),
        None => Ok(weights),
    }
}
