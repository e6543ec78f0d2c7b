//! `ddpm-cli push`: publishes a model on the Hub.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use ddpm_data::{Error, HubConfig, PushFile, PushOptions, check_push, push_model};
use ddpm_model::ModelFiles;
use serde_json::{Value, json};

use super::{
    card::{OnHub, PICTURE},
    sample::default_png,
};
use crate::{
    args::{Common, Push},
    model, output,
    progress::Progress,
};

/// The files of a run that go into the card.
const CONFIG: &str = "config.toml";
const QUALITY: [&str; 2] = ["eval/quality.md", "quality.md"];

/// The largest file that goes into the card, in bytes.
const MAX_TEXT: u64 = 1 << 20;

pub(crate) fn run(options: &Push, common: &Common) -> Result<()> {
    let (address, hub) = (options.address()?, HubConfig::from_env());
    match check_push(&address, &hub) {
        // Nothing is sent.
        Err(Error::NoToken { .. } | Error::PushOffline { .. }) if options.dry_run => {}
        checked => checked?,
    }
    let (folder, run) = folders(&options.run)?;
    // Reading the model verifies it.
    let model::Files { denoiser, files } = model::of_folder(&folder, &common.device.open()?)?;
    let name = format!("hf://{address}");
    let picture = default_png(&name, &denoiser, common)?;
    let in_run = |name: &str| run.as_deref().map_or(Ok(None), |run| text(&run.join(name)));
    let card = OnHub {
        denoiser: &denoiser,
        address: &address,
        license: options.license.as_deref(),
        local: text(&folder.join(ModelFiles::CARD))?.as_deref(),
        quality: quality(run.as_deref(), &folder)?.as_deref(),
        config: in_run(CONFIG)?.as_deref(),
    }
    .text();
    output::verbose(common, &card);
    let added = [(ModelFiles::CARD.to_owned(), card.into_bytes()), (PICTURE.to_owned(), picture)];
    let files: Vec<PushFile> =
        files.into_iter().chain(added).map(|(name, bytes)| PushFile { name, bytes }).collect();
    if options.dry_run {
        return list(&name, &files, common);
    }
    let message = options.message.clone().unwrap_or_else(|| "Push a model with ddpm-cli".to_owned());
    let push_options = PushOptions { private: options.private, message };
    let progress = Progress::new(common, "bytes")?;
    let mut started = false;
    let pushed = push_model(&address, &files, &push_options, &hub, |file, sent, total| {
        if !std::mem::replace(&mut started, true) {
            progress.start(0, total);
        }
        progress.set(sent, Some(file.to_owned()));
    })?;
    drop(progress);
    let (url, commit) = (&pushed.url, &pushed.commit);
    let changed: Vec<&PushFile> = files.iter().filter(|file| pushed.changed.contains(&file.name)).collect();
    let mut json = description(&name, &changed);
    json["url"] = url.as_str().into();
    json["commit"] = commit.as_str().into();
    let text = match changed.len() {
        0 => format!("{url}: nothing to do, commit {commit} has all {} files", files.len()),
        count => {
            format!("{url}: {count} of {} files, {} bytes, in commit {commit}", files.len(), size(&changed))
        }
    };
    output::result(common, &json, &text)
}

/// The model folder, and the run that it belongs to.
fn folders(path: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    let model = path.join("model");
    let index = ModelFiles::REQUIRED[0];
    if path.join(index).is_file() {
        Ok((path.to_owned(), None))
    } else if model.is_dir() {
        Ok((model, Some(path.to_owned())))
    } else {
        bail!(
            "{}: expected a model folder, with {index}, or the folder of a finished run, with the folder model",
            path.display()
        )
    }
}

/// The table of `eval` in the folder of a run, unless it is older than the weights.
fn quality(run: Option<&Path>, model: &Path) -> Result<Option<String>> {
    let Some(run) = run else { return Ok(None) };
    let Some(path) = QUALITY.iter().map(|name| run.join(name)).find(|path| path.is_file()) else {
        return Ok(None);
    };
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let [_, _, _, weights] = ModelFiles::REQUIRED;
    let is_older = changed(&path)
        .ok()
        .zip(changed(&model.join(weights)).ok())
        .is_some_and(|(table, weights)| table < weights);
    if is_older {
        output::warning(&format!(
            "{} is older than the weights, so the card has no metrics; measure again with `ddpm-cli eval`",
            path.display()
        ));
        return Ok(None);
    }
    text(&path)
}

/// The text of a file; `None` if it does not exist.
fn text(path: &Path) -> Result<Option<String>> {
    let name = path.display();
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
    };
    if size > MAX_TEXT {
        bail!("{name} has {size} bytes, expected at most {MAX_TEXT} of a text in a model card");
    }
    fs::read_to_string(path).map(Some).with_context(|| format!("cannot read {name}"))
}

/// Prints what would be sent.
fn list(name: &str, files: &[PushFile], common: &Common) -> Result<()> {
    let files: Vec<&PushFile> = files.iter().collect();
    let mut json = description(name, &files);
    json["dry_run"] = true.into();
    let lines = files.iter().map(|file| format!("{:>12}  {}\n", file.bytes.len(), file.name));
    let text = format!(
        "{}{:>12}  bytes to {name} at most, nothing was sent",
        lines.collect::<String>(),
        size(&files)
    );
    output::result(common, &json, &text)
}

fn description(name: &str, files: &[&PushFile]) -> Value {
    json!({
        "address": name,
        "files": files.iter().map(|file| json!({"name": file.name, "bytes": file.bytes.len()})).collect::<Vec<_>>(),
        "bytes": size(files),
    })
}

fn size(files: &[&PushFile]) -> usize {
    files.iter().map(|file| file.bytes.len()).sum()
}
