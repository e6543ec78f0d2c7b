//! Training runs that are repeated, interrupted, resumed or replaced.

use std::{fs, path::Path};
#[cfg(unix)]
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    thread,
};

use assert_cmd::cargo::cargo_bin;
use tempfile::tempdir;

use crate::{LABELLED, WEIGHTS, fail, json, names, run, tensorboard, with_model, write_data};

const TRAIN: [&str; 9] =
    ["train", "--data", "data", "--batch-size", "16", "--epochs", "6", "--out-dir", "run"];

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("model").join(WEIGHTS)).unwrap()
}

/// Runs with one and with two threads, compared with a run that has the default number of threads.
#[test]
fn the_same_command_gives_the_same_model() {
    for threads in ["1", "2"] {
        let folder = with_model();
        let args =
            ["train", "--data", "data", "--epochs", "2", "--batch-size", "16", "--out-dir", "again", "-q"];
        run(folder.path(), &[&args[..], &["--threads", threads]].concat());
        let same = weights(&folder.path().join("again")) == LABELLED.files[&Path::new("model").join(WEIGHTS)];
        assert!(same, "with {threads} threads");
        for file in ["previews/epoch-002.png", "model/denoiser/config.json"] {
            let bytes = fs::read(folder.path().join("again").join(file)).unwrap();
            assert!(bytes == LABELLED.files[Path::new(file)], "{file} with {threads} threads");
        }
    }
}

#[test]
fn another_seed_gives_another_model() {
    let folder = with_model();
    let args = ["train", "--data", "data", "--epochs", "2", "--batch-size", "16", "--seed", "2", "-q"];
    run(folder.path(), &[&args[..], &["--out-dir", "other"]].concat());
    assert!(weights(&folder.path().join("other")) != LABELLED.files[&Path::new("model").join(WEIGHTS)]);
}

/// Starts the run in a process that the system kills when it reports its first checkpoint. The limit on the size of files is 512 MiB, and standard error is a file with space left for `report` only,
/// which the process writes before that.
#[cfg(unix)]
fn kill_after_first_checkpoint(folder: &Path, report: &str) {
    use std::os::unix::process::ExitStatusExt;
    let stderr = fs::OpenOptions::new().create(true).append(true).open(folder.join("stderr")).unwrap();
    // The file is sparse, so it takes no space on the disk.
    stderr.set_len((512 << 20) - report.len() as u64).unwrap();
    // The unit is a block of 512 bytes.
    let script = r#"ulimit -c 0; ulimit -f 1048576; exec "$0" "$@" -v"#;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(cargo_bin!("ddpm-cli")).args(TRAIN).current_dir(folder).stderr(stderr);
    let status = command.status().unwrap();
    assert!(status.signal().is_some(), "{status}");
    assert_eq!(names(&folder.join("run")), [".lock", "checkpoints", "metrics.jsonl"]);
    assert_eq!(names(&folder.join("run/checkpoints")), ["step-00000006"]);
}

#[cfg(unix)]
#[test]
fn a_run_that_was_killed_is_resumed_to_the_same_model() {
    let (folder, uninterrupted) = (tempdir().unwrap(), tempdir().unwrap());
    for folder in [&folder, &uninterrupted] {
        write_data(folder.path(), true);
    }
    let expected = run(uninterrupted.path(), &[&TRAIN[..], &["--json", "-v"]].concat());
    let report = String::from_utf8(expected.get_output().stderr.clone()).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected.get_output().stdout).unwrap();
    kill_after_first_checkpoint(folder.path(), report.split_once("saved step 6").unwrap().0);
    let resumed = json(folder.path(), &[&TRAIN[..], &["--resume"]].concat());
    for key in ["steps", "images", "train_loss", "test_loss", "epochs"] {
        assert_eq!(resumed[key], expected[key], "{key}");
    }
    let (folder, uninterrupted) = (folder.path().join("run"), uninterrupted.path().join("run"));
    assert!(weights(&folder) == weights(&uninterrupted));
    assert_eq!(names(&folder.join("model")), names(&uninterrupted.join("model")));
    let checkpoints =
        |run: &Path| names(&run.join("checkpoints")).into_iter().filter(|n| n.starts_with("step-"));
    assert!(checkpoints(&folder).eq(checkpoints(&uninterrupted)));
    let preview = "previews/epoch-006.png";
    assert!(fs::read(folder.join(preview)).unwrap() == fs::read(uninterrupted.join(preview)).unwrap());
    tensorboard::check(&folder);
}

/// Starts a command that goes on for ever, sends it a signal when it has printed `mark`, and returns its exit code and its
/// standard error.
#[cfg(unix)]
fn interrupted(folder: &Path, args: &[&str], signal: &str, mark: &str) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(cargo_bin!("ddpm-cli"));
    command.args(args).current_dir(folder).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(mark)), "{args:?} ends without `{mark}`");
    let kill = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let rest: Vec<String> = lines.collect();
    (child.wait().unwrap().code(), rest.join("\n"))
}

/// SIGINT and SIGTERM end a training after its step, with a checkpoint, from which it resumes; nothing temporary is left.
#[cfg(unix)]
#[test]
fn an_interrupted_training_saves_and_says_how_to_go_on() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let endless =
        ["train", "--data", "data", "--batch-size", "96", "--epochs", "100000", "--out-dir", "run", "-v"];
    let mut resume = None;
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let args: Vec<&str> = endless.into_iter().chain(resume).collect();
        let mark = if resume.is_some() { "resumed after step" } else { "saved step 1" };
        let (found, error) = interrupted(folder.path(), &args, signal, mark);
        assert_eq!(found, Some(code), "{error}");
        let last = error.lines().last().unwrap();
        let (_, rest) = last.split_once("the training run was stopped after step ").unwrap();
        let step: u64 = rest.split_once(' ').unwrap().0.parse().unwrap();
        assert!(last.contains("add --resume") && last.ends_with("interrupted"), "{last}");
        assert!(folder.path().join(format!("run/checkpoints/step-{step:08}")).is_dir(), "{last}");
        let expected = [".lock", "checkpoints", "config.toml", "metrics.jsonl", "tensorboard"];
        assert_eq!(names(&folder.path().join("run")), expected);
        assert!(names(&folder.path().join("run/checkpoints")).iter().all(|name| name.starts_with("step-")));
        resume = Some("--resume");
    }
}

/// An interrupted sampling leaves no file.
#[cfg(unix)]
#[test]
fn an_interrupted_sampling_leaves_nothing() {
    let folder = with_model();
    let before = names(folder.path());
    let args = ["sample", "--model", "model", "-n", "10000000", "--format", "idx", "-v"];
    let (code, error) = interrupted(folder.path(), &args, "-INT", "10000000 images");
    assert_eq!((code, error.as_str()), (Some(130), "error: interrupted"));
    assert_eq!(names(folder.path()), before);
}

/// An interrupted evaluation, whose files are open while it samples, leaves none.
#[cfg(unix)]
#[test]
fn an_interrupted_evaluation_leaves_nothing() {
    let folder = with_model();
    let mut command = std::process::Command::new(cargo_bin!("ddpm-cli"));
    let eval = ["eval", "--model", "model", "--data", "data", "--features", "net"];
    command.args(eval).args(["--num-images", "1000000", "-o", "report", "-q"]).current_dir(folder.path());
    let mut child = command.spawn().unwrap();
    let report = folder.path().join("report");
    while !report.is_dir() || names(&report).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the evaluation ends before it opens a file");
        thread::yield_now();
    }
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(!report.exists());
}

/// A finished run is trained further from its model; the new model's card names the old one.
#[test]
fn a_finished_run_is_continued_by_a_new_run_from_its_weights() {
    let folder = with_model();
    let args = ["train", "--data", "data", "--batch-size", "96", "--epochs", "1", "--from", "model", "-q"];
    run(folder.path(), &[&args[..], &["--out-dir", "more"]].concat());
    let log = fs::read_to_string(folder.path().join("more/metrics.jsonl")).unwrap();
    assert!(log.starts_with(r#"{"kind":"start","initial":"model","sha256":""#), "{log}");
    let card = fs::read_to_string(folder.path().join("more/model/README.md")).unwrap();
    assert!(card.contains("| starts from the weights of | model |"), "{card}");
    let error = fail(folder.path(), 2, &[&args[..], &["--network", "mlp"]].concat());
    assert!(error.contains("--from") && error.contains("--network"), "{error}");
    let error = fail(folder.path(), 1, &["train", "--data", "data", "--from", "nowhere", "--out-dir", "x"]);
    assert!(error.contains("nowhere: no such model folder"), "{error}");
}

/// A folder with data and a finished run of one epoch.
fn finished() -> (tempfile::TempDir, Vec<&'static str>) {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let args =
        vec!["train", "--data", "data", "--batch-size", "96", "--epochs", "1", "--out-dir", "run", "-q"];
    run(folder.path(), &args);
    (folder, args)
}

#[test]
fn resuming_a_finished_run_writes_the_same_model_again() {
    let (folder, args) = finished();
    let before = weights(&folder.path().join("run"));
    fs::remove_dir_all(folder.path().join("run/model")).unwrap();
    run(folder.path(), &[&args[..], &["--resume"]].concat());
    assert!(weights(&folder.path().join("run")) == before);
}

#[test]
fn an_occupied_folder_is_not_changed_and_the_message_names_the_options() {
    let (folder, args) = finished();
    let before = weights(&folder.path().join("run"));
    let error = fail(folder.path(), 1, &args);
    assert!(error.contains("--resume") && error.contains("--overwrite") && error.contains("run"), "{error}");
    assert!(weights(&folder.path().join("run")) == before);
}

#[test]
fn overwriting_replaces_the_run_and_its_previews_and_nothing_else() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let args = ["train", "--data", "data", "--batch-size", "96", "--out-dir", "run", "-q", "--epochs"];
    run(folder.path(), &[&args[..], &["3"]].concat());
    let before = weights(&folder.path().join("run"));
    let mine = ["previews/epoch-030.png", "previews/holiday.png", "checkpoints/step-best", "notes.txt"];
    for name in mine {
        fs::write(folder.path().join("run").join(name), "mine").unwrap();
    }
    run(folder.path(), &[&args[..], &["1", "--overwrite", "--seed", "2"]].concat());
    assert!(weights(&folder.path().join("run")) != before);
    assert_eq!(names(&folder.path().join("run/previews")), ["epoch-001.png", "epoch-030.png", "holiday.png"]);
    assert_eq!(names(&folder.path().join("run/checkpoints")), ["step-00000001", "step-best"]);
    for name in mine {
        assert_eq!(fs::read_to_string(folder.path().join("run").join(name)).unwrap(), "mine");
    }
}

/// A project of another program has files of the same names. The error names the file before the first step.
#[test]
fn a_file_that_no_run_wrote_is_never_replaced() {
    for file in [
        "loss.svg",
        "previews/epoch-001.png",
        "model/net.py",
        "metrics.jsonl",
        "tensorboard/events.out.tfevents.00000000",
    ] {
        for start in [&[][..], &["--overwrite"]] {
            let folder = tempdir().unwrap();
            write_data(folder.path(), true);
            let path = folder.path().join("run").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "of a project").unwrap();
            let args = ["train", "--data", "data", "--batch-size", "96", "--epochs", "1", "--out-dir", "run"];
            let error = fail(folder.path(), 1, &[&args[..], start].concat());
            let named = file.split('/').next().unwrap();
            assert!(error.contains(named) && !error.contains("--overwrite"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "of a project");
            assert_eq!(names(&folder.path().join("run")), [named]);
        }
    }
}

/// In place of a full disk: a link to nowhere.
#[test]
#[cfg(unix)]
fn pictures_that_cannot_be_written_are_a_warning() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    fs::create_dir_all(folder.path().join("run")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("run/previews")).unwrap();
    let args = ["train", "--data", "data", "--batch-size", "96", "--epochs", "2", "--out-dir", "run", "-q"];
    let assert = run(folder.path(), &args);
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(error.contains("warning: cannot write the preview") && error.contains("previews"), "{error}");
    assert!(folder.path().join("run/model/model_index.json").exists());
}

#[test]
fn resuming_with_other_options_names_the_option() {
    let (folder, args) = finished();
    let error = fail(folder.path(), 1, &[&args[..], &["--resume", "--seed", "2"]].concat());
    assert!(error.contains("`seed`") && error.contains("step-00000001"), "{error}");
    let error = fail(folder.path(), 1, &[&args[..], &["--resume", "--learning-rate", "0.5"]].concat());
    assert!(error.contains("`learning_rate`") && error.contains("0.5"), "{error}");
}

#[test]
fn resuming_without_a_checkpoint_is_refused_with_advice() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let error = fail(folder.path(), 1, &[&TRAIN[..], &["--resume"]].concat());
    assert!(error.contains("run") && error.contains("no complete checkpoint"), "{error}");
    assert!(error.contains("without --resume") || error.contains("--overwrite"), "{error}");
}

/// For example, a mistyped folder name.
#[test]
fn resuming_where_there_is_nothing_makes_no_folder() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    fail(folder.path(), 1, &[&TRAIN[..], &["--resume"]].concat());
    assert_eq!(names(folder.path()), ["data"]);
}

#[test]
fn a_damaged_checkpoint_is_a_warning_and_the_older_one_is_used() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let args = ["train", "--data", "data", "--batch-size", "96", "--epochs", "2", "--out-dir", "run", "-q"];
    run(folder.path(), &args);
    let before = weights(&folder.path().join("run"));
    let manifest = folder.path().join("run/checkpoints/step-00000002/manifest.json");
    fs::write(&manifest, "{}").unwrap();
    let assert = run(folder.path(), &[&args[..], &["--resume"]].concat());
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(error.contains("warning") && error.contains("damaged"), "{error}");
    assert!(weights(&folder.path().join("run")) == before);
    assert!(fs::read(&manifest).unwrap().len() > 100, "the checkpoint was written anew");
}

#[test]
fn resume_and_overwrite_exclude_each_other() {
    let folder = tempdir().unwrap();
    let error = fail(folder.path(), 2, &["train", "--resume", "--overwrite"]);
    assert!(error.contains("--resume") && error.contains("--overwrite"), "{error}");
}
