//! Disks that fail, are full, cannot be written, or lack locks.

use std::{fs, path::Path, process::Command};

use ddpm_files::Manifest;

use crate::{
    STEPS, TRAIN, check_resumed, ddpm, folder, size, success, temporary, text, train, trained, uninterrupted,
};

/// Whether one call fails, it and all later ones, or the disk is full from it on.
#[test]
fn a_training_survives_an_error_at_any_call() {
    let calls = uninterrupted().1;
    for (kind, what) in [
        ("error", "one call fails"),
        ("errors", "this call and all later ones fail"),
        ("short", "a short write, then a full disk"),
    ] {
        let (mut count, mut warnings) = (0, 0);
        for at in (1..=calls).step_by(size(1, calls.div_ceil(3))) {
            let (folder, fault) = (folder(), format!("{kind} {at}"));
            let output = train(folder.path(), &[], &fault).output().unwrap();
            let stderr = text(&output);
            let last = stderr.lines().last().unwrap_or_default();
            match output.status.code() {
                Some(0) => warnings += 1,
                Some(1) => assert!(last.starts_with("error: ") && last.contains("run"), "{fault}: {stderr}"),
                code => panic!("{fault}: {code:?}: {stderr}"),
            }
            assert_eq!(temporary(folder.path()), [""; 0], "{fault}: {stderr}");
            check_resumed(folder.path(), &fault);
            count += 1;
        }
        println!(
            "torture | torn writes | {count} of the {calls} calls of a training that write, sync, rename or make a file: \
             {what} | {count} of {count}: an error that names the file ({warnings} went on), nothing temporary left, \
             resumed to the same weights"
        );
    }
}

/// Runs the program with an empty file system, with these options, mounted on the folder `disk`. Returns its exit code, its
/// standard error, and the temporary files left on the disk; `None` if the system does not allow mounts.
fn on_disk(folder: &Path, options: &str, args: &[&str]) -> Option<(i32, String, String)> {
    fs::create_dir_all(folder.join("disk")).unwrap();
    let script = r#"mount -t tmpfs -o size=1M disk disk && mount -o "remount,$1" disk || exit 99
        shift; "$@"; code=$?; find disk -name '.tmp-*' -o -name '*.old-*'; exit $code"#;
    let program = ddpm(folder, args, "");
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", script, "sh", options])
        .arg(program.get_program())
        .args(program.get_args());
    let output = command.current_dir(folder).output().ok()?;
    let code = output.status.code().filter(|&code| code != 99)?;
    let is_program = code != 1 || text(&output).contains("error: ");
    is_program.then(|| (code, text(&output), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn a_full_or_read_only_disk_is_an_error_that_names_the_file() {
    let folder = folder();
    success(&mut train(folder.path(), &[], ""));
    let training = [TRAIN, &["disk/run", "--batch-size", "8", "--epochs", "6", "-q"]].concat();
    let sample = ["sample", "--model", "run/model", "-n", "5000", "--format", "idx", "-o", "disk/out", "-q"];
    // Pages of 4 kB, up to more than a training needs.
    let pages: Vec<usize> = (1..=40).step_by(size(1, 13)).collect();
    let sizes =
        pages.iter().map(|pages| (format!("size={}k", 4 * pages), ["No space left", "no storage space"]));
    let cases: Vec<_> = sizes.chain([("ro".to_owned(), ["Read-only file", "read-only file"])]).collect();
    let (mut refused, mut done, mut warned) = (0, 0, 0);
    for (options, reasons) in &cases {
        for args in [&training[..], &sample] {
            let Some((code, stderr, left)) = on_disk(folder.path(), options, args) else {
                println!(
                    "torture | disk full, read-only | a mount of the test's own | not measured: no mount namespaces"
                );
                return;
            };
            assert_eq!(left, "", "{options}: {stderr}");
            match code {
                0 if stderr.is_empty() => done += 1,
                0 => {
                    assert!(
                        stderr.starts_with("warning: ") && stderr.contains("disk/"),
                        "{options}: {stderr}"
                    );
                    warned += 1;
                }
                code => {
                    assert_eq!(code, 1, "{options}: {stderr}");
                    let is_clear = reasons.iter().any(|reason| stderr.contains(reason));
                    assert!(stderr.contains("error: disk/") && is_clear, "{options}: {stderr}");
                    refused += 1;
                }
            }
        }
    }
    println!(
        "torture | disk full, read-only | `train` and `sample` on {} file systems from 4 kB on, and a read-only one | \
         {refused} errors that name the file, {warned} warnings, {done} done; no temporary file left",
        pages.len()
    );
}

#[test]
fn a_file_system_without_locks_or_syncs_of_folders_is_a_warning() {
    for (fault, what, warning) in [
        ("no-lock", "no lock", "warning: run: cannot lock the folder"),
        ("no-sync", "no directory sync", "cannot sync the folder"),
    ] {
        let folder = folder();
        let stderr = success(&mut train(folder.path(), &[], fault));
        assert_eq!(stderr.matches(warning).count(), 1, "{fault}: {stderr}");
        assert!(trained(folder.path()) == uninterrupted().0, "{fault}");
        assert_eq!(temporary(folder.path()), [""; 0], "{fault}");
        println!(
            "torture | {what} | a training with a preloaded library | one warning, the same weights, nothing temporary left"
        );
    }
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_detected() {
    let folder = folder();
    success(&mut train(folder.path(), &[], ""));
    let checkpoint = folder.path().join(format!("run/checkpoints/step-{:08}", STEPS));
    let names = ["state.json", "state.safetensors"];
    let read = || Manifest::read_verified(&checkpoint, names).unwrap();
    assert!(read().is_some());
    let (mut count, mut bytes) = (0, 0);
    for name in [Manifest::NAME].iter().chain(&names) {
        let path = checkpoint.join(name);
        let content = fs::read(&path).unwrap();
        bytes += content.len();
        for bit in (0..8 * content.len()).step_by(size(1, 97)) {
            let mut flipped = content.clone();
            flipped[bit.div_euclid(8)] ^= 1 << bit.rem_euclid(8);
            fs::write(&path, flipped).unwrap();
            assert!(read().is_none(), "bit {bit} of {name}");
            count += 1;
        }
        fs::write(&path, content).unwrap();
    }
    println!(
        "torture | bit flips | {count} of the {} bits of a checkpoint with its manifest | {count} of {count} detected",
        8 * bytes
    );
}
