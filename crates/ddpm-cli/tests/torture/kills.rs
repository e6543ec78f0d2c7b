//! Signals at any instant of `train` and `sample`.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    STEPS, check_resumed, ddpm, folder, reports, size, spread, success, temporary, text, train, trained,
    uninterrupted,
};

/// SIGINT and SIGTERM, with the exit codes that a shell gives to a program that they ended.
const SIGNALS: [(i32, i32); 2] = [(2, 130), (15, 143)];

/// Kills a training after it has printed that it saved this step.
fn kill_after(folder: &Path, step: usize) {
    let mut child = train(folder, &[], "").stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == format!("saved step {step}")), "ends without step {step}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Half of the trainings are killed at a call that writes, the others after a step, wherever they are then.
#[test]
fn a_training_killed_at_any_instant_resumes_to_the_same_weights() {
    let (count, calls) = (size(300, 6), uninterrupted().1);
    for index in 0..count {
        let folder = folder();
        if index % 2 == 0 {
            let fault = format!("signal {} 9", 1 + spread(index, calls));
            let output = train(folder.path(), &[], &fault).output().unwrap();
            assert_eq!(output.status.signal(), Some(9), "{fault}: {}", text(&output));
            check_resumed(folder.path(), &fault);
        } else {
            let step = 1 + spread(index, STEPS);
            kill_after(folder.path(), step);
            check_resumed(folder.path(), &format!("killed after step {step}"));
        }
    }
    println!(
        "torture | kill −9 | {count} instants of a training of {STEPS} steps: half while saving, at one of its {calls} calls \
         that write, sync, rename or make a file, half after a step | {count} of {count} resumed to the weights and the \
         snapshots of the uninterrupted run, nothing temporary left"
    );
}

#[test]
fn an_interrupted_training_loses_no_step() {
    let (count, calls) = (size(100, 4), uninterrupted().1);
    let mut finished = 0;
    for index in 0..count {
        let (folder, (signal, code)) = (folder(), SIGNALS[index % 2]);
        let fault = format!("signal {} {signal}", 1 + spread(index, calls));
        let output = train(folder.path(), &[], &fault).output().unwrap();
        let stderr = text(&output);
        let saved = stderr.lines().filter_map(|line| line.strip_prefix("saved step ")?.parse().ok()).max();
        if output.status.success() {
            // The signal came after the last step.
            assert_eq!(saved, Some(STEPS), "{fault}: {stderr}");
            finished += 1;
        } else {
            assert_eq!(output.status.code(), Some(code), "{fault}: {stderr}");
            let (_, after) = stderr.split_once("the training run was stopped after step ").unwrap();
            let step: usize = after.split(' ').next().unwrap().parse().unwrap();
            assert!(step >= saved.unwrap_or(0), "{fault}: {stderr}");
            let checkpoint = folder.path().join(format!("run/checkpoints/step-{step:08}/manifest.json"));
            assert!(step == 0 || checkpoint.exists() && after.contains("--resume"), "{fault}: {stderr}");
        }
        assert_eq!(temporary(folder.path()), [""; 0], "{fault}");
        check_resumed(folder.path(), &fault);
    }
    println!(
        "torture | SIGINT, SIGTERM | {count} instants of `train` | {count} of {count}: exit code 130 or 143 and a checkpoint \
         of the last step ({finished} came after the last step: done), nothing temporary left, resumed to the same weights"
    );
}

#[test]
fn an_interrupted_sampling_leaves_nothing() {
    let count = size(100, 4);
    let folder = folder();
    success(&mut train(folder.path(), &[], ""));
    let args = ["sample", "--model", "run/model", "-n", "5000", "--format", "idx", "-o", "new/out"];
    let calls = reports(&success(&mut ddpm(folder.path(), &args, "report"))).last().unwrap().calls;
    let mut finished = 0;
    for index in 0..count {
        let (signal, code) = SIGNALS[index % 2];
        fs::remove_dir_all(folder.path().join("new")).unwrap_or_default();
        let fault = format!("signal {} {signal}", 1 + spread(index, calls));
        let output = ddpm(folder.path(), &args, &fault).output().unwrap();
        if output.status.success() {
            // The signal came after the last image.
            assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 3, "{fault}");
            finished += 1;
        } else {
            assert_eq!(output.status.code(), Some(code), "{fault}: {}", text(&output));
            assert!(!folder.path().join("new").exists(), "{fault}");
        }
        assert_eq!(temporary(folder.path()), [""; 0], "{fault}");
    }
    println!(
        "torture | SIGINT, SIGTERM | {count} instants of `sample` | {count} of {count}: exit code 130 or 143 and no file \
         ({finished} came after the last image: done), nothing temporary left"
    );
}

/// The first trainer stops itself, with SIGSTOP, until the others have ended.
#[test]
fn a_second_trainer_is_refused_and_the_first_is_unharmed() {
    let (folder, calls) = (folder(), uninterrupted().1);
    let fault = format!("signal {} 19", calls.div_euclid(2));
    let mut first =
        train(folder.path(), &[], &fault).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let stat = format!("/proc/{}/stat", first.id());
    while !fs::read_to_string(&stat).unwrap().contains(") T ") {
        assert!(first.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(1));
    }
    let others = [&[][..], &["--resume"], &["--overwrite"]];
    for more in others {
        let output = train(folder.path(), more, "").output().unwrap();
        let stderr = text(&output);
        assert!(stderr.contains("run: another training run is using this folder"), "{more:?}: {stderr}");
        assert_eq!(output.status.code(), Some(1), "{more:?}: {stderr}");
    }
    assert!(Command::new("kill").args(["-CONT", &first.id().to_string()]).status().unwrap().success());
    assert!(first.wait().unwrap().success());
    assert!(trained(folder.path()) == uninterrupted().0);
    assert_eq!(temporary(folder.path()), [""; 0]);
    let count = others.len();
    println!(
        "torture | two trainers | {count} trainers on the folder of a running one: new, `--resume`, `--overwrite` | {count} \
         of {count} refused; the first ended with the weights of an undisturbed run"
    );
}
