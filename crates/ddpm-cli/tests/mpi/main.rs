//! Training by `mpirun` on one machine: 2 and 4 processes, lost and interrupted ones. It needs a build with the feature `mpi`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use assert_cmd::cargo::cargo_bin;
use ddpm_data::idx::{encode_images, encode_labels};
use ddpm_files::sha256_of_file;
use tempfile::TempDir;

const IMAGES: usize = 96;
const SIDE: usize = 4;

/// A tiny training with 3 steps of 32 images in an epoch.
const TRAIN: &str = "train --data data --network plain --set denoiser.network.width=16 --set denoiser.network.layers=1 \
    --set denoiser.network.embedding=4 --batch-size 32 --checkpoint-every 0 --threads 1 --json -v";

/// The options of a training of 18 steps, and of one that does not end.
const SHORT: &str = "--epochs 6";
const ENDLESS: &str = "--epochs 1000000";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let pixels: Vec<u8> = (0..IMAGES * SIDE * SIDE).map(|i| u8::try_from(i * 7919 % 251).unwrap()).collect();
    let labels: Vec<u8> = (0..IMAGES).map(|i| u8::from(i % 2 == 0)).collect();
    fs::write(data.join("train-images-idx3-ubyte"), encode_images(SIDE, SIDE, &pixels).unwrap()).unwrap();
    fs::write(data.join("train-labels-idx1-ubyte"), encode_labels(&labels).unwrap()).unwrap();
    folder
}

/// A call of the program, by this number of processes.
fn ddpm(folder: &Path, processes: usize, line: &str) -> Command {
    let mut command = Command::new("mpirun");
    command.current_dir(folder).args(["--bind-to", "none", "--oversubscribe", "-n", &processes.to_string()]);
    command.arg(cargo_bin("ddpm-cli")).args(line.split_whitespace());
    // A container's user is often root, which Open MPI warns of.
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    command
}

fn success(output: &Output) -> serde_json::Value {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{out}\n{err}");
    // One process prints, the others are silent.
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// The digest of the weights of a run.
fn digest(folder: &Path, run: &str) -> String {
    sha256_of_file(&folder.join(run).join("model/denoiser/diffusion_pytorch_model.safetensors")).unwrap()
}

#[test]
fn gradients_are_added_to_the_same_bits_again_and_nearly_to_those_of_one_process() {
    let folder = folder();
    let alone = Command::new(cargo_bin("ddpm-cli"))
        .current_dir(folder.path())
        .args(format!("{TRAIN} {SHORT} --out-dir alone").split_whitespace())
        .output()
        .unwrap();
    let alone = success(&alone);
    for processes in [1, 2, 4] {
        let run = |name: &str| {
            let line = format!("{TRAIN} {SHORT} --mpi --out-dir {name}-{processes}");
            success(&ddpm(folder.path(), processes, &line).output().unwrap())
        };
        let (first, _) = (run("first"), run("second"));
        let digests = ["first", "second"].map(|name| digest(folder.path(), &format!("{name}-{processes}")));
        assert_eq!(digests[0], digests[1], "{processes} processes");
        assert_eq!(first["world_size"], processes);
        let loss = |json: &serde_json::Value| json["train_loss"].as_f64().unwrap();
        assert!((loss(&first) / loss(&alone) - 1.0).abs() < 1e-4, "{first} {alone}");
        assert_eq!(digests[0] == digest(folder.path(), "alone"), processes == 1);
    }
}

/// Starts a training that does not end, and waits for this line of its output.
fn endless(folder: &Path, processes: usize, line: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let line_of_command = format!("{TRAIN} {ENDLESS} --mpi --out-dir run");
    let mut command = ddpm(folder, processes, &line_of_command);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut output = BufReader::new(child.stderr.take().unwrap());
    let mut found = String::new();
    while found.trim() != line {
        found.clear();
        assert!(output.read_line(&mut found).unwrap() > 0, "no line {line}");
    }
    (child, output)
}

/// The process of this rank of a training, from the environment that the launcher gave it.
fn process_of_rank(rank: usize, folder: &Path) -> String {
    let wanted = format!("OMPI_COMM_WORLD_RANK={rank}\0");
    let is_it = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let is_here =
            fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder.canonicalize().unwrap());
        is_here && String::from_utf8_lossy(&environment).contains(&wanted)
    };
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let process = processes.into_iter().find(|process| is_it(process)).unwrap();
    process.file_name().unwrap().to_str().unwrap().to_owned()
}

fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args([name, process]).status().unwrap().success());
}

#[test]
fn a_lost_process_ends_the_job_with_a_message_and_a_checkpoint_that_loads() {
    for rank in [0, 1] {
        let folder = folder();
        let (mut child, mut output) = endless(folder.path(), 2, "saved step 9");
        signal("-KILL", &process_of_rank(rank, folder.path()));
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(text.contains(&format!("process rank {rank}")) && text.contains("signal 9"), "{text}");
        let line = format!("{TRAIN} {ENDLESS} --mpi --out-dir run --resume");
        let mut resumed = ddpm(folder.path(), 2, &line);
        let mut resumed = resumed.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(resumed.stderr.take().unwrap()).lines().map(Result::unwrap);
        let step = |line: String| line.strip_prefix("resumed after step ")?.parse::<u64>().ok();
        assert!(lines.find_map(step).unwrap() >= 9);
        signal("-TERM", &process_of_rank(1, folder.path()));
        for line in lines {
            assert!(!line.contains("panic"), "{line}");
        }
        resumed.wait().unwrap();
    }
}

/// The signal reaches one process only; all of them stop after the same step, and process 0 saves.
#[test]
fn an_interrupted_process_stops_all_and_the_run_goes_on_to_the_same_weights() {
    let folder = folder();
    for (count, options) in [(2, ""), (4, "--sync-every 2")] {
        for rank in [0, 1] {
            let run = format!("run-{count}-{rank}");
            let line = format!("{TRAIN} {SHORT} {options} --mpi --out-dir");
            success(&ddpm(folder.path(), count, &format!("{line} whole-{count}-{rank}")).output().unwrap());
            let mut command = ddpm(folder.path(), count, &format!("{line} {run}"));
            let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
            assert!(lines.any(|line| line == "saved step 4" || line == "saved step 6"));
            signal("-TERM", &process_of_rank(rank, folder.path()));
            let rest: Vec<String> = lines.collect();
            // It may have ended already, since it is short.
            if !child.wait().unwrap().success() {
                let stopped = |line: &&String| line.contains("the training run was stopped after step");
                assert_eq!(rest.iter().filter(stopped).count(), 1, "{rest:?}");
                success(&ddpm(folder.path(), count, &format!("{line} {run} --resume")).output().unwrap());
            }
            assert_eq!(digest(folder.path(), &run), digest(folder.path(), &format!("whole-{count}-{rank}")));
        }
    }
}

#[test]
fn only_local_sgd_resumes_with_another_number_of_processes() {
    let folder = folder();
    for (options, resumes) in [("", false), ("--sync-every 2", true)] {
        let run = format!("run-{resumes}");
        let line = format!("{TRAIN} {SHORT} {options} --mpi --out-dir {run}");
        success(&ddpm(folder.path(), 2, &line).output().unwrap());
        let output = ddpm(folder.path(), 4, &format!("{line} --resume")).output().unwrap();
        if resumes {
            assert_eq!(success(&output)["world_size"], 4);
        } else {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains("was written by 2 processes, now 4"), "{text}");
        }
    }
}

/// Process 1 has other data: an error in all processes, not a wait for ever.
#[test]
fn processes_with_other_data_are_refused() {
    let (folder, other) = (folder(), folder());
    let images = other.path().join("data/train-images-idx3-ubyte");
    let mut bytes = fs::read(&images).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&images, bytes).unwrap();
    let program = cargo_bin("ddpm-cli");
    let mut command = Command::new("mpirun");
    command.current_dir(folder.path()).args(["--bind-to", "none", "--oversubscribe"]);
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    for (at, separator) in [(&folder, None), (&other, Some(":"))] {
        command.args(separator).args(["-n", "1", "--wdir"]).arg(at.path()).arg(&program);
        command.args(TRAIN.split_whitespace()).args(["--epochs", "6", "--mpi", "--out-dir", "run"]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let expected = "the process of rank 1 has another `training images (SHA-256)` than the process of rank 0";
    assert!(!output.status.success() && text.contains(expected), "{text}");
    assert!(!folder.path().join("run/checkpoints").exists() && !other.path().join("run").exists());
}
