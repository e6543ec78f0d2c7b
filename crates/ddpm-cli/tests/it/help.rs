//! `--help`, and which output goes to which stream.

use tempfile::tempdir;

use crate::{ddpm, json, run, stdout, with_model, write_data};

const COMMON: [&str; 8] = [
    "--device",
    "--threads",
    "--seed",
    "--json",
    "-v, --verbose",
    "-q, --quiet",
    "-h, --help",
    "[default: cpu]",
];
const SAMPLING: [&str; 19] = [
    "--model",
    "--classes",
    "--sampler",
    "dpmpp-2m-sde",
    "--steps",
    "--timesteps",
    "--noise",
    "--variance",
    "--eta",
    "--epsilon-scale",
    "--compute",
    "--noise-path",
    "--plan <FILE>",
    "--guidance-scale <W>",
    "--guidance-interval",
    "--guide <DIR",
    "--guide-scale",
    "--guide-interval",
    "--class-annealing",
];

#[test]
fn every_command_explains_each_of_its_options() {
    let folder = tempdir().unwrap();
    let own: [(&str, &[&str]); 17] = [
        (
            "sample",
            &[
                "--per-class",
                "-n, --num-images",
                "--shard <I/K>",
                "--shard-index <I|env:NAME>",
                "--shards <K>",
                "--skip-verified",
                "--format",
                "-o, --out",
                "hf://OWNER/NAME",
                "safetensors",
            ],
        ),
        (
            "train",
            &[
                "--data",
                "--preset",
                "-o, --out-dir",
                "--resume",
                "--overwrite",
                "--guide",
                "--dtype",
                "--epochs",
                "--batch-size",
                "--learning-rate",
                "--parameterization",
                "--network",
                "--loss",
                "standard",
                "min_snr",
                "v_prediction",
                "runs/train",
                "hf://datasets/OWNER/NAME",
            ],
        ),
        ("merge", &["<PART>", "-o, --out", "--format", "idx", "safetensors", "parquet"]),
        ("average", &["<RUN>", "--sigma-rel", "--step", "-o, --out-dir", "--dtype", "f16"]),
        (
            "eval",
            &[
                "--images <DIR|FILE>",
                ".npz",
                "--data",
                "-n, --num-images",
                "--metrics",
                "frechet",
                "memorisation",
                "--features",
                "-o, --out-dir",
                "hf://datasets/OWNER/NAME",
            ],
        ),
        ("likelihood", &["--model", "--data", "-n, --num-images", "built-in"]),
        ("classify", &["--model", "--data", "-n, --num-images", "--num-noise", "--weighting", "min_snr"]),
        (
            "fit-plan",
            &[
                "--model",
                "--steps",
                "--timesteps",
                "-n, --num-images",
                "-o, --out",
                "--guidance-scale <W>",
                "--guide",
                "--class-annealing",
            ],
        ),
        ("train-features", &["--data", "-o, --out-dir", "--epochs", "hf://datasets/OWNER/NAME"]),
        ("data", &["--data", "-o, --out", "hf://datasets/OWNER/NAME"]),
        (
            "export",
            &[
                "--data",
                "--split",
                "--images <DIR|FILE>",
                "--to <FORMAT>",
                "npz",
                "safetensors",
                "png-folder",
                "-o, --out",
                "hf://datasets/OWNER/NAME",
            ],
        ),
        ("import", &["<DIR|FILE>", "--test", "--size", "-o, --out-dir"]),
        ("info", &["--model", "hf://OWNER/NAME"]),
        (
            "push",
            &["<RUN>", "hf://OWNER/NAME", "--revision", "--private", "--license", "--message", "--dry-run"],
        ),
        ("pull", &["hf://OWNER/NAME", "--revision", "-o, --out-dir"]),
        ("bench", &["--model", "--only", "train-128", "--rounds", "--peak", "hf://OWNER/NAME"]),
        ("serve", &["--model", "--listen <HOST[:PORT]>", "[default: 127.0.0.1:8000]", "--run <DIR>"]),
    ];
    for (command, own) in own {
        for flag in ["--help", "-h"] {
            let help = stdout(&run(folder.path(), &[command, flag]));
            let sampling = if matches!(command, "sample" | "eval") { &SAMPLING[..] } else { &[] };
            for word in [own, sampling, &COMMON].concat() {
                assert!(help.contains(word), "{command} {flag} does not mention {word}: {help}");
            }
        }
    }
}

#[test]
fn the_program_lists_its_commands_and_its_exit_codes() {
    let folder = tempdir().unwrap();
    let help = stdout(&run(folder.path(), &["--help"]));
    for word in [
        "sample",
        "train",
        "average",
        "eval",
        "likelihood",
        "classify",
        "fit-plan",
        "train-features",
        "data",
        "export",
        "import",
        "info",
        "bench",
        "push",
        "pull",
        "serve",
        "Exit codes: 0 done, 1 failed, 2 wrong command line",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let version = stdout(&run(folder.path(), &["--version"]));
    assert_eq!(version.trim(), format!("ddpm-cli {}", env!("CARGO_PKG_VERSION")));
}

/// Commands on an existing model and an existing data set.
const COMMANDS: [&[&str]; 8] = [
    &["sample", "--model", "model", "-n", "2"],
    &["train", "--data", "data", "--epochs", "1", "--batch-size", "96", "--out-dir", "run", "--overwrite"],
    &["eval", "--model", "model", "--data", "data", "--features", "net", "--num-images", "12"],
    &["fit-plan", "--model", "model", "--steps", "2", "-n", "12"],
    &["data", "--data", "data"],
    &["export", "--images", "data/t10k-images-idx3-ubyte", "--to", "npz", "-o", "t10k.npz"],
    &["info", "--model", "model"],
    &["bench", "--model", "model", "--only", "sample-2", "--rounds", "1"],
];

#[test]
fn quiet_commands_print_nothing() {
    let folder = with_model();
    for command in COMMANDS {
        let assert = run(folder.path(), &[command, &["-q"]].concat());
        assert!(assert.get_output().stdout.is_empty(), "{command:?}");
        assert!(assert.get_output().stderr.is_empty(), "{command:?}");
    }
}

#[test]
fn commands_print_on_standard_output_and_not_on_standard_error() {
    let folder = with_model();
    for command in COMMANDS {
        let assert = run(folder.path(), command);
        assert!(!assert.get_output().stdout.is_empty(), "{command:?}");
        let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        // Without a terminal, training prints a line for each evaluation.
        let expected = if command[0] == "train" { "epoch 1: loss " } else { "" };
        assert!(stderr.starts_with(expected) && stderr.is_empty() == expected.is_empty(), "{stderr}");
    }
}

/// The helper `json` checks that the output is one line and one object.
#[test]
fn json_is_one_object_on_standard_output_whether_quiet_or_verbose() {
    let folder = with_model();
    for command in COMMANDS {
        for flag in [&[][..], &["-q"], &["-v"]] {
            json(folder.path(), &[command, flag].concat());
        }
    }
}

#[test]
fn verbose_commands_print_more_on_standard_error() {
    let folder = with_model();
    for command in &COMMANDS[..2] {
        let assert = run(folder.path(), &[command, &["-v"][..]].concat());
        let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(error.contains("seed: 1"), "{command:?}: {error}");
    }
}

#[test]
fn common_options_may_stand_before_the_command() {
    let folder = with_model();
    let file = |args: &[&str]| {
        run(folder.path(), args);
        std::fs::read(folder.path().join("out.png")).unwrap()
    };
    let sample = ["sample", "--model", "model", "-n", "2", "-o", "out.png"];
    let before = file(&[&["--seed", "5", "-q"], &sample[..]].concat());
    assert!(before == file(&[&sample[..], &["--seed", "5", "-q"]].concat()));
    assert!(before != file(&sample));
}

/// A reader such as `head` may close the pipe before the result is written.
#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_a_failure_and_no_panic() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(ddpm(folder.path(), &[]).get_program());
    let output = command.args(["data", "--data", "data"]).current_dir(folder.path()).stdout(full).output();
    let output = output.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot write to standard output"), "{error}");
}
