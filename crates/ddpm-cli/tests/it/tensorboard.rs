//! The event file of a training run, read by a reader of its own. `cargo xtask interop` reads one with TensorBoard.

use std::{collections::BTreeMap, fs, path::Path};

use ddpm_train::Record;
use tempfile::tempdir;

use crate::{LABELLED, names, run, write_data};

const FILE: &str = "tensorboard/events.out.tfevents.00000000";
/// A run of six steps an epoch that saves after each step.
const TRAIN: [&str; 12] = [
    "train",
    "--data",
    "data",
    "--batch-size",
    "16",
    "--out-dir",
    "run",
    "-q",
    "--checkpoint-every",
    "0",
    "--epochs",
    "2",
];

/// An event: the step, the scalars by tag, and the images with their height and width.
#[derive(Debug, PartialEq)]
pub(crate) struct Event {
    step: u64,
    scalars: BTreeMap<String, f32>,
    images: Vec<(u64, u64, Vec<u8>)>,
}

/// The value of a field of a protobuf message.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(_) => panic!("expected a number"),
        }
    }

    fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => panic!("expected bytes"),
        }
    }
}

/// The fields of a protobuf message, with their numbers.
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    fn take<'a>(message: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = message.split_at(count);
        *message = rest;
        taken
    }
    fn varint(message: &mut &[u8]) -> u64 {
        let bytes = 1 + message.iter().position(|byte| *byte < 0x80).unwrap();
        take(message, bytes).iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
    }
    let little_endian =
        |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut message)),
            1 => Value::Number(little_endian(take(&mut message, 8))),
            5 => Value::Number(little_endian(take(&mut message, 4))),
            2 => {
                let length = usize::try_from(varint(&mut message)).unwrap();
                Value::Bytes(take(&mut message, length))
            }
            other => panic!("a field of type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn event(message: &[u8]) -> Event {
    let mut event = Event { step: 0, scalars: BTreeMap::new(), images: Vec::new() };
    for (field, value) in fields(message) {
        match field {
            2 => event.step = value.number(),
            5 => {
                for (_, value) in fields(value.bytes()) {
                    let mut parts: BTreeMap<_, _> = fields(value.bytes()).into_iter().collect();
                    let tag = String::from_utf8(parts[&1].bytes().to_vec()).unwrap();
                    if let Some(scalar) = parts.get(&2) {
                        let bits = u32::try_from(scalar.number()).unwrap();
                        event.scalars.insert(tag, f32::from_bits(bits));
                    } else {
                        assert_eq!(tag, "samples");
                        let image: BTreeMap<_, _> =
                            fields(parts.remove(&4).unwrap().bytes()).into_iter().collect();
                        let [height, width] = [1, 2].map(|field| image[&field].number());
                        event.images.push((height, width, image[&4].bytes().to_vec()));
                    }
                }
            }
            _ => {}
        }
    }
    event
}

/// The events of a file after the first one, which names the version of the format.
fn events(mut file: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !file.is_empty() {
        let length = usize::try_from(u64::from_le_bytes(*file.first_chunk().unwrap())).unwrap();
        events.push(event(&file[12..12 + length]));
        file = &file[16 + length..];
    }
    assert_eq!(events.remove(0), Event { step: 0, scalars: BTreeMap::new(), images: Vec::new() });
    events
}

/// Checks that the only event file of a run has exactly what its log and its previews have.
#[expect(clippy::cast_possible_truncation, reason = "event files have f32")]
pub(crate) fn check(run: &Path) -> Vec<Event> {
    let files = names(&run.join("tensorboard"));
    assert_eq!(files.len(), 1, "{files:?}");
    let found = events(&fs::read(run.join("tensorboard").join(&files[0])).unwrap());
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut expected = Vec::new();
    for record in log.lines().map(|line| serde_json::from_str(line).unwrap()) {
        let scalars: Vec<(&str, f64)> = match &record {
            Record::Start { .. } => vec![],
            &Record::Train { loss, learning_rate, grad_norm, images_per_second, .. } => {
                let all = [
                    ("loss", loss),
                    ("learning_rate", learning_rate),
                    ("images_per_second", images_per_second),
                ];
                all.into_iter().chain(grad_norm.map(|norm| ("grad_norm", norm))).collect()
            }
            Record::Epoch { test_loss, .. } => test_loss.iter().map(|loss| ("test_loss", *loss)).collect(),
        };
        let scalars: BTreeMap<_, _> =
            scalars.into_iter().map(|(tag, value)| (tag.to_owned(), value as f32)).collect();
        let step = record.step();
        if !scalars.is_empty() {
            expected.push(Event { step, scalars, images: vec![] });
        }
        let Record::Epoch { epoch, .. } = record else { continue };
        if let Ok(png) = fs::read(run.join(format!("previews/epoch-{epoch:03}.png"))) {
            let picture = image::load_from_memory(&png).unwrap();
            let image = (picture.height().into(), picture.width().into(), png);
            expected.push(Event { step, scalars: BTreeMap::new(), images: vec![image] });
        }
    }
    assert!(found == expected, "the event file differs from the log and the previews of {}", run.display());
    found
}

#[test]
fn the_event_file_has_the_scalars_of_the_log_and_the_previews() {
    let folder = tempdir().unwrap();
    for (path, bytes) in &LABELLED.files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let found = check(folder.path());
    assert_eq!(found.iter().map(|event| event.step).collect::<Vec<_>>(), [6, 12, 12, 12]);
    assert!(folder.path().join(FILE).is_file());
}

/// Half of the events are added to the file, the others are written when the run is resumed.
#[test]
fn the_file_of_a_resumed_run_has_each_step_once() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let folder = folder.path();
    run(folder, &TRAIN);
    let whole = check(&folder.join("run"));
    // The state after step 6, with the log and the events of the run to its end.
    fs::remove_dir_all(folder.join("run/checkpoints/step-00000012")).unwrap();
    fs::remove_dir_all(folder.join("run/model")).unwrap();
    let newest = names(&folder.join("run/checkpoints"));
    assert_eq!(newest, ["step-00000011"]);
    run(folder, &[&TRAIN[..], &["--resume"]].concat());
    let steps = |events: &[Event]| events.iter().map(|event| event.step).collect::<Vec<_>>();
    assert_eq!(steps(&check(&folder.join("run"))), steps(&whole));
    assert_eq!(names(&folder.join("run/tensorboard")), ["events.out.tfevents.00000011"]);
    // A finished run has nothing to add.
    run(folder, &[&TRAIN[..], &["--resume"]].concat());
    assert_eq!(steps(&check(&folder.join("run"))), steps(&whole));
}

/// The first checkpoint of the new run, after its first epoch, removes the preview that the older run wrote after its own.
#[test]
fn the_file_of_a_new_run_has_nothing_of_the_run_that_it_replaces() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let run_of = |epochs: &str, more: &[&str]| {
        let args = ["train", "--data", "data", "--batch-size", "96", "--out-dir", "run", "-q", "--epochs"];
        run(folder.path(), &[&args[..], &[epochs], more].concat());
        check(&folder.path().join("run"))
    };
    run_of("1", &[]);
    let new = run_of("2", &["--overwrite", "--seed", "2"]);
    let pictures: Vec<_> = new.iter().filter(|event| !event.images.is_empty()).collect();
    assert_eq!(pictures.iter().map(|event| event.step).collect::<Vec<_>>(), [2]);
    assert_eq!(names(&folder.path().join("run/previews")), ["epoch-002.png"]);
}

/// In place of a full disk: a link to nowhere.
#[test]
#[cfg(unix)]
fn an_event_file_that_cannot_be_written_is_a_warning() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    fs::create_dir_all(folder.path().join("run")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("run/tensorboard")).unwrap();
    let assert = run(folder.path(), &TRAIN);
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(error.contains("warning: cannot write the event file for TensorBoard: run"), "{error}");
    assert!(folder.path().join("run/model/model_index.json").exists());
}
