//! `ddpm-cli doctor`: what this machine and this build can do, and what to do about the rest.

use std::{env, fs, path::Path, thread, time::Instant};

use anyhow::{Result, ensure};
use ddpm_data::HubConfig;
use ddpm_files::AtomicFile;
use ddpm_model::{Denoiser, DeviceChoice, SampleConfig, simd_lanes};
use serde::Serialize;

use super::info;
use crate::{args::Common, model, output};

/// The least free space for a training run with its checkpoints, in bytes.
const ENOUGH: u64 = 1 << 30;

/// How good what was found is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// All is well.
    Good,
    /// Something is missing that not everybody needs, or slows the program down.
    Note,
    /// Something keeps the program from its work.
    Fault,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Good, found: found.into(), advice: None }
    }

    fn advised(
        name: &'static str,
        state: State,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { name, state, found: found.into(), advice: Some(advice.into()) }
    }

    /// A note if there is advice.
    fn note_if(name: &'static str, found: impl Into<String>, advice: Option<&str>) -> Self {
        match advice {
            Some(advice) => Self::advised(name, State::Note, found, advice),
            None => Self::good(name, found),
        }
    }
}

pub(crate) fn run(common: &Common) -> Result<()> {
    let hub = HubConfig::from_env();
    let checks = [
        build(),
        features(),
        instructions(),
        threads(),
        device(common.device),
        built_in_model(),
        folder("folder", Path::new(".")),
        cache(&hub),
        token(&hub),
        hub_access(&hub),
    ];
    let text: String = checks.iter().map(line).collect();
    output::result(common, &checks, &text)?;
    let faults = checks.iter().filter(|check| check.state == State::Fault).count();
    ensure!(faults == 0, "{faults} of {} checks found a fault", checks.len());
    Ok(())
}

fn line(check: &Check) -> String {
    let mark = match check.state {
        State::Good => "ok",
        State::Note => "note",
        State::Fault => "FAULT",
    };
    let advice = check.advice.as_ref().map_or(String::new(), |advice| format!("{:21}→ {advice}\n", ""));
    format!("{mark:6} {:13} {}\n{advice}", check.name, check.found)
}

fn build() -> Check {
    let (version, target) = (env!("CARGO_PKG_VERSION"), format!("{}-{}", env::consts::ARCH, env::consts::OS));
    let (profile, advice) = if cfg!(debug_assertions) {
        (
            "debug",
            Some(
                "an optimised build is many times faster: `cargo install --path crates/ddpm-cli`, or --release",
            ),
        )
    } else {
        ("release", None)
    };
    Check::note_if("build", format!("ddpm-cli {version}, {profile}, {target}"), advice)
}

fn features() -> Check {
    let hub = "hf:// addresses need the feature hub: `cargo install --path crates/ddpm-cli --features hub`";
    Check::note_if("features", info::features(), (!cfg!(feature = "hub")).then_some(hub))
}

fn instructions() -> Check {
    let lanes = simd_lanes();
    let name = match (lanes, env::consts::ARCH) {
        (16, _) => "AVX-512",
        (8, _) => "AVX2 and FMA",
        (4, "aarch64") => "NEON",
        _ => "none that the kernels use",
    };
    let advice = "without such instructions training and sampling are several times slower";
    Check::note_if("instructions", format!("{name}, {lanes} numbers at once"), (lanes == 1).then_some(advice))
}

fn threads() -> Check {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = rayon::current_num_threads();
    let advice = if threads < cores {
        Some("--threads or RAYON_NUM_THREADS limits the program to a part of the cores")
    } else if threads > cores {
        Some("more threads than cores wait for each other; leave --threads and RAYON_NUM_THREADS out")
    } else {
        None
    };
    Check::note_if("threads", format!("{threads} on {cores} cores"), advice)
}

fn device(choice: DeviceChoice) -> Check {
    let gpus = [
        ("cuda", cfg!(feature = "cuda"), DeviceChoice::Cuda(0)),
        ("metal", cfg!(feature = "metal"), DeviceChoice::Metal),
    ];
    if let Err(error) = choice.open() {
        let advice = format!("leave --device {choice} out to compute on the CPU");
        return Check::advised("device", State::Fault, error_text(&error.into()), advice);
    }
    let others = gpus.iter().filter(|(_, built, gpu)| *built && *gpu != choice);
    let others: Vec<String> = others
        .map(|(name, _, gpu)| match gpu.open() {
            Ok(_) => format!("{name} works: pass --device {name}"),
            Err(error) => error_text(&error.into()),
        })
        .collect();
    let advice = (!others.is_empty()).then(|| others.join("; "));
    Check::note_if("device", format!("{choice} works"), advice.as_deref())
}

/// Loads the built-in model and samples one image.
fn built_in_model() -> Check {
    let started = Instant::now();
    let sampled = model::load(model::BUILT_IN, &candle_core::Device::Cpu).and_then(|denoiser: Denoiser| {
        let config = SampleConfig::ancestral(1, &denoiser)?;
        denoiser.sample(&config, &[0], &[3], |_| Ok(()))?;
        Ok(denoiser.sha256()?)
    });
    match sampled {
        Ok(sha256) => {
            let seconds = started.elapsed().as_secs_f64();
            Check::good(
                "model",
                format!("the built-in one, SHA-256 {}…, sampled an image in {seconds:.2} s", &sha256[..12]),
            )
        }
        Err(error) => Check::advised("model", State::Fault, error_text(&error), "build the program again"),
    }
}

/// Whether files can be written to a folder, and how much space it has.
fn folder(name: &'static str, path: &Path) -> Check {
    let shown = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let shown = shown.display();
    if let Err(error) = AtomicFile::create(path.join("doctor")) {
        return Check::advised(name, State::Fault, error_text(&error.into()), "work in another folder");
    }
    match free(path) {
        None => Check::good(name, format!("{shown} can be written")),
        Some(bytes) => {
            let found = format!("{shown} can be written, {:.1} GiB free", bytes as f64 / f64::from(1 << 30));
            let advice = "a long training run with checkpoints may fill the disk";
            Check::note_if(name, found, (bytes < ENOUGH).then_some(advice))
        }
    }
}

/// The free space at a path, in bytes; `None` where it is not known.
#[cfg(unix)]
fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

fn cache(hub: &HubConfig) -> Check {
    let Some(cache) = &hub.cache_dir else {
        let advice = "set HF_HOME, HF_HUB_CACHE or HOME to download from the Hub";
        return Check::advised("cache", State::Note, "no folder for downloads", advice);
    };
    let state = if cache.is_dir() { "exists" } else { "does not exist yet" };
    Check::good("cache", format!("{} {state} (HF_HUB_CACHE)", cache.display()))
}

/// Says whether there is a token, and where it comes from; the token itself is not printed.
fn token(hub: &HubConfig) -> Check {
    let advice = "only `push` and private repositories need one: `hf auth login`, or HF_TOKEN";
    match (&hub.token, &hub.token_file) {
        (Some(_), _) => Check::good("token", "from the environment"),
        (None, Some(file)) if fs::metadata(file).is_ok_and(|file| file.len() > 0) => {
            Check::good("token", format!("in {}", file.display()))
        }
        _ => Check::advised("token", State::Note, "none", advice),
    }
}

fn hub_access(hub: &HubConfig) -> Check {
    let found = format!("{}{}", hub.endpoint, if hub.offline { ", offline" } else { "" });
    let advice = "HF_HUB_OFFLINE is set, so only downloads that are in the cache can be used";
    Check::note_if("hub", found, hub.offline.then_some(advice))
}

fn error_text(error: &anyhow::Error) -> String {
    format!("{error:#}")
}
