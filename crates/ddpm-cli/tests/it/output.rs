//! Where output goes, and the characters that reach the terminal.

use std::fs;

use tempfile::tempdir;

use crate::{
    fail, json, names,
    refusals::{refused, usage},
    run, stdout, with_model, write_data,
};

#[test]
fn a_dash_is_no_file_name() {
    for command in ["sample", "data", "train", "eval", "train-features"] {
        usage(&[command, "-o", "-"], &["/dev/stdout", "./-"]);
    }
}

#[test]
fn the_extension_chooses_the_format() {
    let folder = with_model();
    let sample = ["sample", "--model", "model", "-n", "1", "--steps", "2", "-q", "-o"];
    for (out, start) in [("a.png", &b"\x89PNG"[..]), ("a.gif", b"GIF89a"), ("a", b"\x89PNG")] {
        run(folder.path(), &[&sample[..], &[out]].concat());
        assert!(fs::read(folder.path().join(out)).unwrap().starts_with(start), "{out}");
    }
    run(folder.path(), &[&sample[..], &["a.safetensors"]].concat());
    let file = fs::read(folder.path().join("a.safetensors")).unwrap();
    assert!(safetensors::SafeTensors::deserialize(&file).is_ok());
}

#[test]
fn an_extension_that_does_not_fit_is_refused_and_nothing_is_written() {
    let folder = with_model();
    let sample = ["sample", "--model", "model", "-n", "1"];
    for (options, parts) in [
        (&["-o", "a.jpg"][..], &["a.jpg", ".png, .gif, .apng or .safetensors", "--format"][..]),
        (&["-o", "a.gif", "--format", "png"], &["a.gif", "--format png"]),
        (&["-o", "a.jpg", "--format", "png"], &["a.jpg", "--format png"]),
        (&["-o", "a.png", "--format", "idx"], &["a.png", "--format idx"]),
    ] {
        refused(folder.path(), &[&sample[..], options].concat(), parts);
    }
    refused(folder.path(), &["data", "--data", "data", "-o", "data.jpg"], &["data.jpg", ".png"]);
    refused(folder.path(), &["data", "--data", "data", "-o", "data.gif"], &["PNG", ".png"]);
}

#[cfg(target_os = "linux")]
#[test]
fn standard_output_can_be_named_as_a_file() {
    let folder = with_model();
    run(folder.path(), &["sample", "--model", "model", "-n", "1", "-q", "-o", "file.png"]);
    let sample = ["sample", "--model", "model", "-n", "1", "-q", "--format", "png", "-o", "/dev/stdout"];
    let output = run(folder.path(), &sample).get_output().stdout.clone();
    assert!(output == fs::read(folder.path().join("file.png")).unwrap());
    assert!(fs::symlink_metadata("/dev/stdout").unwrap().is_symlink());
}

#[cfg(unix)]
#[test]
fn output_through_a_link_replaces_its_target() {
    let folder = with_model();
    let (link, target) = (folder.path().join("link.png"), folder.path().join("target.png"));
    fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink("target.png", &link).unwrap();
    run(folder.path(), &["sample", "--model", "model", "-n", "1", "-q", "-o", "link.png"]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read(target).unwrap().starts_with(b"\x89PNG"));
}

/// With -v each part of the work prints a line, so one line means that no work was done.
#[test]
fn output_that_cannot_be_written_is_found_before_the_work() {
    let folder = with_model();
    fs::write(folder.path().join("file"), "").unwrap();
    fs::create_dir_all(folder.path().join("run/model")).unwrap();
    fs::write(folder.path().join("run/model/net.py"), "of a project").unwrap();
    let data = ["--data", "data", "-o"];
    for (command, out, named) in [
        (&["train-features", "-v", "--epochs", "1"][..], "file/net", "file/net"),
        (&["train-features", "-v", "--epochs", "1"], "data", "data"),
        (&["eval", "-v", "--model", "model", "-n", "10", "--features", "net"], "file/eval", "file/eval"),
        (&["train", "--batch-size", "16", "--epochs", "1"], "file/run", "file/run"),
        (&["train", "--batch-size", "16", "--epochs", "1"], "run", "run/model"),
        (&["train", "--batch-size", "16", "--epochs", "1", "--overwrite"], "run", "run/model"),
    ] {
        if command[0] == "eval" {
            run(folder.path(), &["train-features", "--data", "data", "--epochs", "1", "-q", "-o", "net"]);
        }
        let error = fail(folder.path(), 1, &[command, &data, &[out]].concat());
        assert!(error.contains(named), "{error}");
        for work in ["\nstep ", "sampling:"] {
            assert!(!error.contains(work), "{command:?}: {error}");
        }
    }
    assert_eq!(names(&folder.path().join("run")), ["model"]);
}

/// A limit on the size of files simulates a disk that becomes full. The folder of an unfinished checkpoint is removed, so
/// its temporary path would tell the user nothing.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_written_is_named_by_its_final_path() {
    let folder = with_model();
    let script = r#"trap '' XFSZ; ulimit -f 64; exec "$0" "$@""#;
    let mut command = assert_cmd::Command::new("sh");
    command.args(["-c", script]).arg(assert_cmd::cargo::cargo_bin!("ddpm-cli")).current_dir(folder.path());
    command.args([
        "train",
        "--data",
        "data",
        "--batch-size",
        "96",
        "--epochs",
        "1",
        "-q",
        "--out-dir",
        "run",
    ]);
    let assert = command.assert().code(1);
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    let named = "error: run/checkpoints/step-00000001/state.safetensors: cannot write: ";
    assert!(error.starts_with(named) && error.lines().count() == 1, "{error}");
    assert_eq!(names(&folder.path().join("run")), [".lock", "metrics.jsonl"]);
}

#[test]
fn a_schedule_that_a_model_cannot_store_is_found_before_training() {
    let folder = with_model();
    let train = ["train", "--data", "data", "--batch-size", "16", "--out-dir", "run", "--set"];
    for variance in ["learned_range", r#"{"per_step":[0.1]}"#] {
        let set = format!("schedule.variance_type={variance}");
        refused(folder.path(), &[&train[..], &[&set]].concat(), &["variance"]);
    }
    let doubled = r#"denoiser.network={"kind":"plain","kind":"plain"}"#;
    refused(folder.path(), &[&train[..], &[doubled]].concat(), &["key \"kind\"", "twice"]);
}

#[test]
fn a_negative_number_is_a_value_and_no_option() {
    for (args, named) in [
        (&["sample", "--threads", "-1"][..], "--threads"),
        (&["sample", "-n", "-5"], "--num-images"),
        (&["sample", "--seed", "-1"], "--seed"),
        (&["bench", "--rounds", "-1"], "--rounds"),
    ] {
        usage(args, &[named, "invalid value"]);
    }
    let folder = with_model();
    let sample = ["sample", "--model", "model", "-n", "1", "--sampler", "ddim"];
    run(folder.path(), &[&sample[..], &["--guidance-scale", "-1"]].concat());
    let error = fail(folder.path(), 1, &[&sample[..], &["--eta", "-0.5"]].concat());
    assert!(error.contains("eta is -0.5"), "{error}");
}

/// The name of a folder with the sequence that clears a terminal.
#[cfg(unix)]
#[test]
fn control_characters_of_names_do_not_reach_the_terminal() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let name = "\u{1b}[2J\u{9b}31m\u{202e}";
    fs::rename(folder.path().join("data"), folder.path().join(name)).unwrap();
    let shown = r"\u001b[2J\u009b31m\u202e";
    let text = stdout(&run(folder.path(), &["data", "--data", name]));
    assert!(text.contains(shown) && text.lines().count() > 5, "{text:?}");
    let line = stdout(&run(folder.path(), &["data", "--data", name, "--json"]));
    assert!(line.contains(shown), "{line:?}");
    assert_eq!(json(folder.path(), &["data", "--data", name])["source"], name);
    let error = fail(folder.path(), 1, &["sample", "--model", name, "-v"]);
    assert!(error.contains(shown), "{error:?}");
    for output in [text, line, error] {
        assert!(!output.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{output:?}");
    }
}
