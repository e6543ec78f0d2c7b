//! Fuzz targets: parsers of files that come from somebody else. A target must return for any bytes, without a panic, in
//! bounded time and memory; a parser's error is a success.
//!
//! `cargo xtask fuzz` runs the targets under libFuzzer. The tests of this crate run them on every prefix and every flipped
//! bit of the seeds, with the ordinary compiler.

mod seeds;

use std::{hint::black_box, path::Path};

/// A parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name, an argument of `cargo xtask fuzz`.
    pub name: &'static str,
    /// Runs the parser.
    pub run: fn(&[u8]),
    /// Small valid files, from which libFuzzer starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets of this build.
pub const TARGETS: &[Target] = &[
    Target { name: "idx-images", run: idx_images, seeds: seeds::idx_images },
    Target { name: "idx-labels", run: idx_labels, seeds: seeds::idx_labels },
    Target { name: "idx-gz", run: idx_images, seeds: seeds::idx_gz },
    Target { name: "scheduler", run: scheduler, seeds: seeds::schedulers },
    Target { name: "flow", run: flow, seeds: seeds::flow },
    #[cfg(feature = "model")]
    Target { name: "denoiser-config", run: model::config, seeds: seeds::denoiser_config },
    #[cfg(feature = "model")]
    Target { name: "weights", run: model::weights, seeds: seeds::weights },
];

fn idx_images(bytes: &[u8]) {
    if let Ok(images) = ddpm_data::idx::parse_images(Path::new("images-idx3-ubyte"), bytes) {
        assert_eq!(images.pixels().len(), images.count() * images.rows() * images.cols());
    }
}

fn idx_labels(bytes: &[u8]) {
    let _ = black_box(ddpm_data::idx::parse_labels(Path::new("labels-idx1-ubyte"), bytes));
}

/// Reads a file of a scheduler. A file that is read can be written, and is read again as the same.
fn scheduler(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = ddpm_core::DiffusersConfig::from_diffusers_json(text) else { return };
    if let Ok(scheduler) = ddpm_core::Scheduler::new(&config) {
        let _ = black_box(scheduler.plan(3));
        let written = config.to_diffusers_json();
        let read = written.map(|text| ddpm_core::DiffusersConfig::from_diffusers_json(&text));
        assert!(read.is_ok_and(|read| read.is_ok_and(|read| read == config)), "{text}");
    }
}

fn flow(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(scheduler) = ddpm_core::FlowMatchEuler::from_diffusers_json(text) else { return };
    let sigmas = scheduler.sigmas(3, Some(1.0));
    if let Ok(Ok(plan)) = sigmas.map(|sigmas| scheduler.plan(&sigmas)) {
        assert!(plan.check().is_ok(), "{text}");
    }
}

#[cfg(feature = "model")]
mod model {
    use std::{borrow::Cow, hint::black_box, path::Path};

    use candle_core::Device;

    use crate::seeds;

    /// Reads a model folder with one file replaced.
    fn read(replaced: &str, bytes: &[u8]) {
        let read = |name: &str| {
            Ok(if name == replaced { Cow::Borrowed(bytes) } else { seeds::model_file(name).into() })
        };
        let _ = black_box(ddpm_model::read_model_from(Path::new("model"), read, &Device::Cpu));
    }

    pub(crate) fn config(bytes: &[u8]) {
        read("denoiser/config.json", bytes);
    }

    pub(crate) fn weights(bytes: &[u8]) {
        read("denoiser/diffusion_pytorch_model.safetensors", bytes);
    }
}
