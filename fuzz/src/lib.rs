//! Fuzz targets: parsers of files that come from somebody else. A target must return for any bytes, without a panic, in
//! bounded time and memory; a parser's error is a success.
//!
//! `cargo xtask fuzz` runs the targets under libFuzzer. The tests of this crate run them on every prefix and every flipped
//! bit of the seeds, with the ordinary compiler.

mod seeds;

use std::path::Path;

use ddpm_core::{DiffusersConfig, FlowMatchEuler, Scheduler};

/// A parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name, an argument of `cargo xtask fuzz`.
    pub name: &'static str,
    /// Runs the parser, and returns the text of its error.
    pub run: fn(&[u8]) -> Result<(), String>,
    /// The file that the errors name, if the parser takes a path.
    pub file: Option<&'static str>,
    /// Small valid files, from which libFuzzer starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

const IMAGES: &str = "images-idx3-ubyte";
const LABELS: &str = "labels-idx1-ubyte";
const ARRAYS: &str = "arrays";

/// All targets of this build.
pub const TARGETS: &[Target] = &[
    Target { name: "idx-images", run: idx_images, file: Some(IMAGES), seeds: seeds::idx_images },
    Target { name: "idx-labels", run: idx_labels, file: Some(LABELS), seeds: seeds::idx_labels },
    Target { name: "idx-gz", run: idx_images, file: Some(IMAGES), seeds: seeds::idx_gz },
    Target { name: "npz", run: arrays, file: Some(ARRAYS), seeds: seeds::npz },
    Target { name: "npy", run: arrays, file: Some(ARRAYS), seeds: seeds::npy },
    Target { name: "image-tensors", run: arrays, file: Some(ARRAYS), seeds: seeds::image_tensors },
    Target { name: "scheduler", run: scheduler, file: None, seeds: seeds::schedulers },
    Target { name: "flow", run: flow, file: None, seeds: seeds::flow },
    Target { name: "manifest", run: manifest, file: None, seeds: seeds::manifest },
    #[cfg(feature = "model")]
    Target {
        name: "denoiser-config",
        run: model::config,
        file: Some(model::CONFIG),
        seeds: seeds::denoiser_config,
    },
    #[cfg(feature = "model")]
    Target { name: "weights", run: model::weights, file: Some(model::WEIGHTS), seeds: seeds::weights },
    #[cfg(feature = "model")]
    Target { name: "plan", run: model::plan, file: Some(model::PLAN), seeds: seeds::plan },
    #[cfg(feature = "hub")]
    Target { name: "parquet", run: hub::parquet, file: Some(hub::PARQUET), seeds: seeds::parquet },
    #[cfg(feature = "hub")]
    Target { name: "image", run: hub::image, file: Some(hub::PARQUET), seeds: seeds::image },
];

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn idx_images(bytes: &[u8]) -> Result<(), String> {
    let images = ddpm_data::idx::parse_images(Path::new(IMAGES), bytes).map_err(text)?;
    assert_eq!(images.pixels().len(), images.count() * images.rows() * images.cols());
    Ok(())
}

fn idx_labels(bytes: &[u8]) -> Result<(), String> {
    ddpm_data::idx::parse_labels(Path::new(LABELS), bytes).map(drop).map_err(text)
}

/// Reads images from a file of arrays.
fn arrays(bytes: &[u8]) -> Result<(), String> {
    let read = |size: Option<[usize; 2]>| -> Result<_, String> {
        let set = ddpm_data::formats::parse(Path::new(ARRAYS), bytes, size).map_err(text)?;
        assert_eq!(set.images().len(), set.len() * set.rows() * set.cols());
        assert!(set.labels().is_none_or(|labels| labels.len() == set.len()));
        Ok(set)
    };
    // Images of any size, which may be another one.
    drop(read(None));
    let set = read(Some(seeds::SIZE))?;
    assert_eq!([set.rows(), set.cols()], seeds::SIZE);
    Ok(())
}

/// Reads a file of a scheduler. A file that is read can be written, and is read again as the same.
fn scheduler(bytes: &[u8]) -> Result<(), String> {
    let json = std::str::from_utf8(bytes).map_err(text)?;
    let config = DiffusersConfig::from_diffusers_json(json).map_err(text)?;
    // The error of a plan is a success.
    drop(Scheduler::new(&config).map_err(text)?.plan(3));
    let read = config.to_diffusers_json().map(|json| DiffusersConfig::from_diffusers_json(&json));
    assert!(read.is_ok_and(|read| read.is_ok_and(|read| read == config)), "{json}");
    Ok(())
}

fn flow(bytes: &[u8]) -> Result<(), String> {
    let json = std::str::from_utf8(bytes).map_err(text)?;
    let scheduler = FlowMatchEuler::from_diffusers_json(json).map_err(text)?;
    let sigmas = scheduler.sigmas(3, Some(1.0)).map_err(text)?;
    assert!(scheduler.plan(&sigmas).map_err(text)?.check().is_ok(), "{json}");
    Ok(())
}

fn manifest(bytes: &[u8]) -> Result<(), String> {
    ddpm_files::Manifest::parse(bytes).map(drop).map_err(text)
}

#[cfg(feature = "model")]
mod model {
    use std::{borrow::Cow, path::Path};

    use candle_core::Device;
    use ddpm_model::FittedPlan;

    use crate::{seeds, text};

    pub(crate) const CONFIG: &str = "denoiser/config.json";
    pub(crate) const WEIGHTS: &str = "denoiser/diffusion_pytorch_model.safetensors";
    pub(crate) const PLAN: &str = "plan.json";

    /// Reads a model folder with one file replaced.
    fn read(replaced: &str, bytes: &[u8]) -> Result<(), String> {
        let read = |name: &str| {
            Ok(if name == replaced { Cow::Borrowed(bytes) } else { seeds::model_file(name).into() })
        };
        ddpm_model::read_model_from(Path::new("model"), read, &Device::Cpu).map(drop).map_err(text)
    }

    pub(crate) fn config(bytes: &[u8]) -> Result<(), String> {
        read(CONFIG, bytes)
    }

    pub(crate) fn weights(bytes: &[u8]) -> Result<(), String> {
        read(WEIGHTS, bytes)
    }

    /// Reads a plan for the model. The error that it cannot be carried out names no file, and is a success.
    pub(crate) fn plan(bytes: &[u8]) -> Result<(), String> {
        let plan = FittedPlan::parse(Path::new(PLAN), bytes).map_err(text)?;
        let model = seeds::model().map_err(text)?;
        if let Ok(config) = plan.config(1, &model) {
            assert!(config.plan.check().is_ok(), "{config:?}");
        }
        Ok(())
    }
}

#[cfg(feature = "hub")]
mod hub {
    use std::path::Path;

    use crate::text;

    pub(crate) const PARQUET: &str = "train.parquet";

    pub(crate) fn parquet(bytes: &[u8]) -> Result<(), String> {
        let set = ddpm_data::parquet::parse(Path::new(PARQUET), bytes.to_vec()).map_err(text)?;
        assert_eq!(set.images().len(), set.len() * set.rows() * set.cols());
        Ok(())
    }

    pub(crate) fn image(bytes: &[u8]) -> Result<(), String> {
        ddpm_data::parquet::parse_image(Path::new(PARQUET), bytes).map(drop).map_err(text)
    }
}
