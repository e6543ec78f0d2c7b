//! Integration tests of `ddpm-train`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod checkpoints;
mod config;
mod folder;
mod gradients;
mod group;
mod learning;
mod metrics;
mod optimizer;
mod post_hoc_ema;
mod reproducible;
mod resume;
mod seeded;
mod snapshots;
mod variables;

use std::{fs, path::Path, sync::LazyLock};

use candle_core::{Device, Tensor};
use ddpm_data::{Dataset, Images, Labels, Splits};
use ddpm_model::{DenoiserConfig, Network};
use ddpm_train::{
    AdamWConfig, CheckpointEvery, Event, Outcome, Preset, Record, Result, RunOptions, Start, TrainConfig, run,
};

const ROWS: usize = 6;
const COLS: usize = 5;
const CLASSES: usize = 3;

/// The result type of a run's observer.
type Observed = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Images of three classes, a bright bar at one of three heights, with grey noise that depends on `salt`.
fn images(count: usize, salt: usize) -> Images {
    let pixel = |i: usize| {
        let (image, row) = (i.div_euclid(ROWS * COLS), i.rem_euclid(ROWS * COLS).div_euclid(COLS));
        let noise = ((i + salt) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] & 31;
        if row.div_euclid(2) == image % CLASSES { 220 + noise } else { noise }
    };
    Images::new("images", ROWS, COLS, (0..count * ROWS * COLS).map(pixel).collect()).unwrap()
}

fn labels(count: usize) -> Labels {
    let class = |image: usize| u8::try_from(image % CLASSES).unwrap();
    Labels { file: "labels".into(), values: (0..count).map(class).collect() }
}

fn labelled(count: usize, salt: usize) -> Dataset {
    Dataset::new("tiny", images(count, salt), Some(labels(count))).unwrap()
}

fn unlabelled(count: usize, salt: usize) -> Dataset {
    Dataset::new("plain", images(count, salt), None).unwrap()
}

/// 200 training images and 40 test images.
fn splits() -> &'static Splits {
    static CORPUS: LazyLock<Splits> =
        LazyLock::new(|| Splits::new("tiny", labelled(200, 0), Some(labelled(40, 7_000_000))).unwrap());
    &CORPUS
}

fn small_mlp() -> Network {
    Network::Mlp { width: 16, hidden: 24, blocks: 1, embedding: 8 }
}

fn small_plain() -> Network {
    Network::Plain { width: 24, layers: 2, embedding: 8 }
}

/// Three epochs of ten steps; every hyperparameter of the optimizer has an effect.
fn config_for(data: &Dataset) -> TrainConfig {
    let preset = TrainConfig::preset(Preset::Quick, data);
    TrainConfig {
        epochs: 3,
        batch_size: 20,
        learning_rate: 5e-3,
        warmup_fraction: 0.1,
        adamw: AdamWConfig { weight_decay: 0.01, ..AdamWConfig::default() },
        ema_decay: 0.9,
        denoiser: DenoiserConfig { network: small_mlp(), ..preset.denoiser },
        ..preset
    }
}

fn config() -> TrainConfig {
    config_for(splits().train())
}

/// A checkpoint and an evaluation after each epoch.
fn options(start: Start) -> RunOptions<'static> {
    let checkpoint_every = CheckpointEvery::Epoch;
    RunOptions { start, checkpoint_every, evaluate_every: 1, ..RunOptions::default() }
}

/// A run of `config` on the tiny splits, without an observer.
fn train(config: &TrainConfig, folder: &Path, start: Start) -> Result<Outcome> {
    run(config, splits(), folder, options(start), &Device::Cpu, |_| Ok(()))
}

/// A run whose observer returns an error at the first event for which `stop` is true.
fn train_until(config: &TrainConfig, folder: &Path, start: Start, stop: impl Fn(&Event<'_>) -> bool) {
    let observe =
        |event: Event<'_>| -> Observed { if stop(&event) { Err("stopped".into()) } else { Ok(()) } };
    let error = run(config, splits(), folder, options(start), &Device::Cpu, observe).unwrap_err();
    assert_eq!(error.to_string(), "stopped");
}

/// Whether the event is the step with this number.
fn is_step(event: &Event<'_>, number: u64) -> bool {
    matches!(event, Event::Step { step, .. } if *step == number)
}

/// Whether the event is the end of the epoch with this number.
fn is_epoch(event: &Event<'_>, number: u64) -> bool {
    matches!(event, Event::Epoch { record: Record::Epoch { epoch, .. }, .. } if *epoch == number)
}

/// The numbers of a tensor.
fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The bits of named tensors, in the order of their names.
fn bits<'a>(tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>) -> Vec<(String, Vec<u32>)> {
    let bits = |tensor: &Tensor| values(tensor).into_iter().map(f32::to_bits).collect();
    let mut list: Vec<_> = tensors.into_iter().map(|(name, tensor)| (name.clone(), bits(tensor))).collect();
    list.sort();
    list
}

/// The log of a run; each line must be a record.
fn records(folder: &Path) -> Vec<Record> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}
