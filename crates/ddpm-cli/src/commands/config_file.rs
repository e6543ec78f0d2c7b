//! Training configurations as TOML files: `train --config FILE` and `train --print-config`.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use ddpm_data::Source;
use ddpm_train::{Preset, TrainConfig};
use serde_json::{Map, Value};

use crate::output;

/// The keys of a configuration file, in their order, each with a comment. The image size and the classes follow from the
/// data, so no file has them.
const KEYS: [(&str, &str); 46] = [
    ("seed", "The seed of initial weights, batches, timesteps, noise, shifts and dropped classes"),
    ("epochs", "The number of passes over the training images"),
    ("batch_size", "The number of images of a step"),
    ("learning_rate", "The peak of the learning rate, which then decays along half a cosine"),
    ("warmup_fraction", "The share of the steps in which the learning rate rises"),
    ("max_grad_norm", "The largest norm of the gradient"),
    ("ema_decay", "The decay of the weights' moving average"),
    ("ema_snapshots", "The number of snapshots for `ddpm-cli average` (post-hoc EMA)"),
    ("cond_drop_prob", "The share of images that are trained without their class, for guidance"),
    ("loss", "The space of the squared error: epsilon, sample, v_prediction, min_snr or clamped_snr"),
    ("timestep_sampling", "The distribution of timesteps: uniform or loss_weight"),
    ("noise_candidates", "The number of noise samples from which each image takes the nearest one"),
    ("random_shift", "The largest random shift of an image in pixels"),
    ("sync_every", "The number of steps between synchronisations of processes (local SGD)"),
    ("outer_learning_rate", "The outer optimizer of such a run: its learning rate"),
    ("outer_momentum", "Its Nesterov momentum"),
    ("adamw.beta1", "The optimizer, AdamW: the decay of the mean of the gradient"),
    ("adamw.beta2", "The decay of the mean of its square"),
    ("adamw.eps", "Added to the root of that mean"),
    ("adamw.weight_decay", "The decay of the weights in each step, times the learning rate"),
    ("denoiser.parameterization", "What the network emits: sample (x_0), epsilon or v_prediction"),
    ("denoiser.network.type", "The architecture: patch_mlp, mlp or plain"),
    ("denoiser.network.patch", "The side of a square patch in pixels"),
    ("denoiser.network.local", "The width of the layers of each patch"),
    ("denoiser.network.code", "The width of the code of each patch"),
    ("denoiser.network.width", "The width of the residual network, or of each layer of plain"),
    ("denoiser.network.hidden", "The width inside a residual block"),
    ("denoiser.network.blocks", "The number of residual blocks"),
    ("denoiser.network.layers", "The number of layers of plain"),
    ("denoiser.network.embedding", "The width of the embedding of timestep and class"),
    ("schedule.num_train_timesteps", "The noise schedule: the number of timesteps"),
    ("schedule.beta_schedule", "linear, scaled_linear, squaredcos_cap_v2 or sigmoid"),
    ("schedule.beta_start", "The first beta"),
    ("schedule.beta_end", "The last beta"),
    ("schedule.trained_betas", "A list of betas instead"),
    ("schedule.rescale_betas_zero_snr", "Whether the last timestep is pure noise"),
    ("schedule.prediction_type", "The quantity that other programs get from the model"),
    ("schedule.variance_type", "The variance of a step of ancestral sampling"),
    ("schedule.clip_sample", "Whether a predicted x_0 is clipped"),
    ("schedule.clip_sample_range", "To which magnitude"),
    ("schedule.timestep_spacing", "How the timesteps of a run with fewer steps are spaced"),
    ("schedule.thresholding", "Whether to use dynamic thresholding instead of clipping"),
    ("schedule.dynamic_thresholding_ratio", "Its quantile"),
    ("schedule.sample_max_value", "Its largest divisor"),
    ("schedule.compat", "Whether samplers repeat the defects of diffusers: exact or diffusers"),
    ("schedule.steps_offset", "An offset of leading spacing"),
];

/// Keys of the data.
const OF_DATA: [&str; 3] = ["denoiser.rows", "denoiser.cols", "denoiser.num_classes"];

/// A configuration and its data set as a TOML file with comments, without what follows from the data.
pub(super) fn to_toml(config: &TrainConfig, data: &Source) -> Result<String> {
    let json = serde_json::to_value(config)?;
    let mut values = Vec::new();
    flatten("", &json, &mut values);
    values.retain(|(key, _)| !OF_DATA.contains(&key.as_str()));
    let place = |key: &str| KEYS.iter().position(|(known, _)| *known == key);
    // Keys without a comment come last in their table.
    let table = |key: &str| key.rsplit_once('.').map_or(String::new(), |(table, _)| table.to_owned());
    let order = ["", "adamw", "denoiser", "denoiser.network", "schedule"];
    values.sort_by_key(|(key, _)| {
        (order.iter().position(|known| *known == table(key)), place(key).unwrap_or(KEYS.len()))
    });
    let data = Value::from(data.to_string());
    let (mut text, mut current) =
        (format!("# The data set, as --data has it\ndata = {data}\n"), String::new());
    for (key, value) in values {
        let name = key.rsplit('.').next().unwrap_or(&key);
        if table(&key) != current {
            current = table(&key);
            write!(text, "\n[{current}]\n")?;
        }
        if let Some(index) = place(&key) {
            writeln!(text, "# {}", KEYS[index].1)?;
        }
        match value {
            Value::Null => writeln!(text, "# {name} = (none)")?,
            value => writeln!(text, "{name} = {value}")?,
        }
    }
    Ok(text)
}

/// All values of a tree of tables, by their full names.
fn flatten(prefix: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&key, value, found);
            }
        }
        value => found.push((prefix.to_owned(), value.clone())),
    }
}

/// The names of all options.
pub(super) fn all_keys(config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    flatten("", config, &mut found);
    found.into_iter().map(|(key, _)| key).collect()
}

/// The known name that is most similar to a mistyped one.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    let similarity = |known: &str| strsim::jaro_winkler(name, known);
    known.max_by(|a, b| similarity(a).total_cmp(&similarity(b))).unwrap_or_default()
}

/// A file of --config.
pub(super) struct ConfigFile<'a> {
    path: &'a Path,
    table: Map<String, Value>,
    /// The preset on which the file builds, the value of its key `preset`.
    pub(super) preset: Option<Preset>,
    /// The data set, the value of its key `data`.
    pub(super) data: Option<Source>,
}

impl<'a> ConfigFile<'a> {
    /// # Errors
    /// The file cannot be read, is not TOML, or names no known preset or no data set.
    pub(super) fn read(path: &'a Path) -> Result<Self> {
        let name = path.display().to_string();
        let text =
            fs::read_to_string(path).with_context(|| format!("{name}: cannot read the configuration"))?;
        let mut table: Map<String, Value> =
            toml::from_str(&text).with_context(|| format!("{name}: not TOML"))?;
        let preset = match table.remove("preset") {
            None => None,
            Some(Value::String(preset)) => Some(Preset::from_str(&preset, false).map_err(|_| {
                let known: Vec<String> = Preset::value_variants().iter().map(output::name).collect();
                anyhow!("{name}: preset is {preset:?}, expected one of {}", known.join(", "))
            })?),
            Some(other) => bail!("{name}: preset is {other}, expected the name of a preset"),
        };
        let data = match table.remove("data") {
            None => None,
            Some(Value::String(data)) => Some(data.parse().with_context(|| format!("{name}: data"))?),
            Some(other) => bail!("{name}: data is {other}, expected the name of a data set"),
        };
        Ok(Self { path, table, preset, data })
    }

    /// The configuration with the values of the file.
    ///
    /// # Errors
    /// A key is unknown, or a value does not fit; the error names the file and the key.
    pub(super) fn applied_to(&self, config: &TrainConfig) -> Result<TrainConfig> {
        let name = self.path.display();
        let mut json = serde_json::to_value(config)?;
        overlay("", &mut json, &Value::Object(self.table.clone())).with_context(|| name.to_string())?;
        serde_json::from_value(json).with_context(|| name.to_string())
    }
}

/// Replaces the values of a tree by those of another one, which has no other keys. A network of another type replaces the
/// network as a whole.
fn overlay(prefix: &str, base: &mut Value, with: &Value) -> Result<()> {
    let (Value::Object(known), Value::Object(with)) = (&mut *base, with) else {
        *base = with.clone();
        return Ok(());
    };
    if with.get("type").is_some_and(|kind| known.get("type") != Some(kind)) {
        *base = Value::Object(with.clone());
        return Ok(());
    }
    for (name, value) in with {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let Some(place) = known.get_mut(name) else {
            let names = known
                .keys()
                .map(String::as_str)
                .chain(["preset", "data"].into_iter().filter(|_| prefix.is_empty()));
            bail!("there is no option `{key}`; did you mean `{}`?", nearest(name, names));
        };
        overlay(&key, place, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ddpm_data::{Dataset, idx::Images};

    use super::*;

    fn presets() -> impl Iterator<Item = TrainConfig> {
        let images = Images::new("data", 8, 8, vec![0; 64 * 200]).unwrap();
        let data = Dataset::new("data", images, None).unwrap();
        Preset::value_variants().iter().map(move |&preset| TrainConfig::preset(preset, &data))
    }

    #[test]
    fn a_printed_configuration_is_read_back() {
        for config in presets() {
            let text = to_toml(&config, &Source::Mnist).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &text).unwrap();
            for other in presets() {
                let denoiser = ddpm_model::DenoiserConfig { rows: 8, cols: 8, ..other.denoiser.clone() };
                let other = TrainConfig { seed: 9, denoiser, ..other };
                let read = ConfigFile::read(file.path()).unwrap().applied_to(&other).unwrap();
                assert_eq!(read, config, "{text}");
                assert_eq!(ConfigFile::read(file.path()).unwrap().data, Some(Source::Mnist));
            }
        }
    }

    /// A field without a comment, or a comment without a field, is forgotten.
    #[test]
    fn every_key_has_a_comment() {
        let mut found: Vec<String> = Vec::new();
        for config in presets() {
            let mut values = Vec::new();
            flatten("", &serde_json::to_value(&config).unwrap(), &mut values);
            found.extend(
                values.into_iter().map(|(key, _)| key).filter(|key| !OF_DATA.contains(&key.as_str())),
            );
        }
        found.sort();
        found.dedup();
        let mut known: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        known.sort_unstable();
        assert_eq!(found, known);
    }
}
