//! Refused input: the exit code and the message.

use std::{fs, path::Path};

#[cfg(unix)]
use assert_cmd::{Command, cargo::cargo_bin};
use tempfile::tempdir;

use crate::{WEIGHTS, fail, names, run, with_model, write_data};

/// Checks that a command fails with exit code 1, that its message is one line with all of `parts`, and that it leaves
/// no files.
pub(crate) fn refused(folder: &Path, args: &[&str], parts: &[&str]) {
    let before = names(folder);
    let error = fail(folder, 1, args);
    assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}");
    for part in parts {
        assert!(error.contains(part), "{args:?}: no `{part}` in {error}");
    }
    assert_eq!(names(folder), before, "{args:?} leaves files");
}

/// Checks that a command line is refused with exit code 2 and a message with all of `parts`.
pub(crate) fn usage(args: &[&str], parts: &[&str]) {
    let folder = tempdir().unwrap();
    let error = fail(folder.path(), 2, args);
    for part in parts {
        assert!(error.contains(part), "{args:?}: no `{part}` in {error}");
    }
    assert!(names(folder.path()).is_empty());
}

/// With an address space too small for the stacks of so many threads.
#[cfg(target_os = "linux")]
#[test]
fn threads_that_cannot_be_started_are_an_error_and_no_panic() {
    let script = r#"ulimit -v 1500000; exec "$0" info --threads 1024"#;
    let assert = Command::new("sh").args(["-c", script]).arg(cargo_bin!("ddpm-cli")).assert();
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(assert.get_output().status.code(), Some(1), "{error}");
    assert!(error.contains("does not start 2048 threads; pass a smaller --threads"), "{error}");
}

/// A common option that the command does not use.
#[test]
fn an_option_without_effect_is_a_warning() {
    let folder = with_model();
    let warnings = |args: &[&str]| {
        let assert = run(folder.path(), args);
        String::from_utf8(assert.get_output().stderr.clone()).unwrap()
    };
    let info = ["info", "--model", "model"];
    assert_eq!(
        warnings(&[&info[..], &["--seed", "3"]].concat()),
        "warning: --seed has no effect on `info`\n"
    );
    let data = ["data", "--data", "data", "--device", "cpu"];
    assert_eq!(warnings(&data), "warning: --device has no effect on `data`\n");
    assert_eq!(warnings(&info), "");
    let train = ["train", "--data", "data", "--epochs", "1", "--batch-size", "96", "-q", "--out-dir", "run"];
    for (field, reason) in [
        ("schedule.clip_sample_range=2", "schedule.clip_sample is false"),
        ("schedule.sample_max_value=2", "schedule.thresholding is false"),
        ("schedule.steps_offset=1", "schedule.timestep_spacing is not leading"),
    ] {
        let set = ["--overwrite", "--set", "schedule.clip_sample=false", "--set", field];
        let found = warnings(&[&train[..], &set].concat());
        assert_eq!(found, format!("warning: --set {field} has no effect: {reason}\n"));
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_the_message_names_the_expected_value() {
    usage(&[], &["sample", "train", "eval", "data", "info"]);
    usage(&["draw"], &["draw"]);
    usage(&["sample", "--frobnicate"], &["--frobnicate"]);
    usage(&["sample", "--device", "tpu"], &["`tpu`", "expected cpu, cuda, cuda:N or metal"]);
    usage(&["sample", "--device", "cuda:x"], &["`cuda:x`", "expected cpu, cuda, cuda:N or metal"]);
    for classes in ["", "3-", "a", "5-3", "1,,2", "256"] {
        usage(&["sample", "--classes", classes], &[classes, "expected classes such as 0-9 or 3,5,7"]);
    }
    for threads in ["0", "1025", "two"] {
        usage(&["info", "--threads", threads], &[threads, "expected 1 to 1024"]);
    }
    for shard in ["0/3", "4/3", "1", "1/0"] {
        usage(&["sample", "--shard", shard], &[shard, "expected I/K with I from 1 to K"]);
    }
    usage(&["sample", "--format", "bmp"], &["bmp", "png", "gif", "idx", "safetensors"]);
    usage(&["sample", "--sampler", "plms"], &["plms", "ddpm", "ddim"]);
    usage(&["sample", "--noise", "none", "--variance", "0.1"], &["--noise", "--variance"]);
    usage(&["sample", "--noise", "posterior"], &["posterior", "none"]);
    for variance in ["pink", "0.1,x", ""] {
        let expected = "expected fixed_small, fixed_large, zero or a number for each timestep";
        usage(&["sample", "--variance", variance], &[variance, expected]);
    }
    usage(&["sample", "--per-class", "2", "-n", "3"], &["--per-class", "--num-images"]);
    usage(&["sample", "-v", "-q"], &["--verbose", "--quiet"]);
    usage(&["sample", "--seed", "x"], &["--seed"]);
    usage(
        &["train", "--loss", "mse"],
        &["mse", "epsilon", "sample", "v_prediction", "min_snr", "clamped_snr"],
    );
    usage(&["train", "--preset", "slow"], &["slow", "standard", "quick", "best"]);
    usage(&["train", "--data", "hf://a/b"], &["hf://a/b", "expected hf://datasets/OWNER/NAME"]);
    usage(&["data", "--data", "hf://datasets/mnist"], &["hf://datasets/mnist", "hf://datasets/OWNER/NAME"]);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_this_build_lacks_names_the_feature() {
    let folder = tempdir().unwrap();
    refused(folder.path(), &["info", "--device", "cuda"], &["cuda", "--features cuda"]);
    refused(folder.path(), &["sample", "--device", "cuda:1"], &["`cuda:1`", "--features cuda"]);
    #[cfg(not(feature = "metal"))]
    refused(folder.path(), &["train", "--device", "metal"], &["metal", "--features metal"]);
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let folder = with_model();
    for command in ["sample", "eval", "info"] {
        let expected = ["nowhere", "no such model folder", "hf://OWNER/NAME", "built-in"];
        refused(folder.path(), &[command, "--model", "nowhere"], &expected);
    }
    refused(folder.path(), &["sample", "--model", "data"], &["model_index.json", "a model folder holds"]);
}

#[test]
fn a_malformed_address_of_the_hub_is_shown_with_the_right_form() {
    let folder = tempdir().unwrap();
    for address in ["hf://mnist", "hf://datasets/a/b", "hf://a/b@", "hf://../b", "hf://"] {
        let expected = [address, "expected hf://OWNER/NAME"];
        refused(folder.path(), &["sample", "--model", address], &expected);
    }
}

#[cfg(feature = "hub")]
#[test]
fn offline_a_model_of_the_hub_is_not_looked_for() {
    let folder = tempdir().unwrap();
    let error = fail(folder.path(), 1, &["sample", "--model", "hf://someone/something"]);
    assert!(error.contains("someone/something") && error.contains("HF_HUB_OFFLINE"), "{error}");
}

#[cfg(not(feature = "hub"))]
#[test]
fn an_address_of_the_hub_in_a_build_without_it_names_the_command_that_adds_it() {
    let folder = tempdir().unwrap();
    for (args, address) in [
        (["sample", "--model", "hf://someone/something@v1"], "hf://someone/something@v1"),
        (["data", "--data", "hf://datasets/someone/digits"], "hf://datasets/someone/digits"),
        (["train", "--data", "hf://datasets/someone/digits"], "hf://datasets/someone/digits"),
    ] {
        let expected = [
            address,
            "`cargo install --path crates/ddpm-cli --features hub`",
            "`cargo run --release -p ddpm-cli --features hub -- …`",
        ];
        refused(folder.path(), &args, &expected);
    }
}

#[test]
fn data_that_is_not_there_is_named() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    for command in ["data", "train"] {
        refused(folder.path(), &[command, "--data", "nowhere"], &["nowhere"]);
        let expected = ["empty", "train-images-idx3-ubyte"];
        refused(folder.path(), &[command, "--data", "empty"], &expected);
    }
    write_data(folder.path(), true);
    let labels = folder.path().join("data/train-labels-idx1-ubyte");
    fs::write(&labels, &fs::read(&labels).unwrap()[..50]).unwrap();
    refused(folder.path(), &["data", "--data", "data"], &["train-labels-idx1-ubyte", "50", "104"]);
}

/// Changes a file of a good model; every command that reads the model must then name the file.
fn spoilt(file: &str, spoil: impl FnOnce(Vec<u8>) -> Vec<u8>, parts: &[&str]) {
    let folder = with_model();
    let path = folder.path().join("model").join(file);
    fs::write(&path, spoil(fs::read(&path).unwrap())).unwrap();
    for command in ["sample", "eval", "info"] {
        refused(folder.path(), &[command, "--model", "model"], &[&[file], parts].concat());
    }
}

fn replace(from: &'static str, to: &'static str) -> impl FnOnce(Vec<u8>) -> Vec<u8> {
    move |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(from), "{text}");
        text.replace(from, to).into_bytes()
    }
}

/// A schedule for 1000 timesteps that is used with 20: it is valid, but probably a mistake.
#[test]
fn a_schedule_that_does_not_end_in_noise_is_warned_of() {
    let folder = with_model();
    let path = folder.path().join("model/scheduler/scheduler_config.json");
    fs::write(&path, replace("0.7", "0.02")(fs::read(&path).unwrap())).unwrap();
    let assert = run(folder.path(), &["info", "--model", "model"]);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(
        stderr.starts_with("warning: model: alphas_cumprod is 0.809 ") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn a_file_of_a_model_that_is_broken_is_named() {
    spoilt(WEIGHTS, |bytes| bytes[..bytes.len() - 4].to_vec(), &[]);
    spoilt(WEIGHTS, |_| Vec::new(), &[]);
    spoilt("model_index.json", replace("DdpmPipeline", "OtherPipeline"), &["OtherPipeline"]);
    spoilt("denoiser/config.json", replace("\"rows\"", "\"row\""), &["row"]);
    spoilt("scheduler/scheduler_config.json", replace("0.7", "1.7"), &["beta_end", "1.7"]);
}

#[test]
fn a_file_of_a_model_with_a_number_out_of_range_is_named() {
    spoilt("denoiser/config.json", replace("\"rows\": 8", "\"rows\": 800"), &["`rows` is 800", "1 to 64"]);
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_named_the_same_each_time() {
    let folder = with_model();
    let path = folder.path().join("model/denoiser/config.json");
    fs::write(&path, replace("\"rows\": 8", "\"rows\": 9")(fs::read(&path).unwrap())).unwrap();
    // Six patches of 32 numbers instead of four. The weight in the message must be the same in each run.
    let messages: Vec<String> =
        (0..6).map(|_| fail(folder.path(), 1, &["info", "--model", "model"])).collect();
    assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
    assert!(messages[0].contains(WEIGHTS) && messages[0].contains("128") && messages[0].contains("192"));
}

#[test]
fn a_missing_file_of_a_model_is_named() {
    for file in ddpm_model::ModelFiles::REQUIRED {
        let folder = with_model();
        fs::remove_file(folder.path().join("model").join(file)).unwrap();
        refused(folder.path(), &["info", "--model", "model"], &[file]);
    }
}

#[test]
fn a_class_out_of_range_names_the_range() {
    let folder = with_model();
    for command in ["sample", "eval"] {
        for classes in ["7", "0-5"] {
            let args = [command, "--model", "model", "--data", "data", "--classes", classes];
            let args = if command == "sample" { [&args[..3], &args[5..]].concat() } else { args.to_vec() };
            refused(folder.path(), &args, &["classes 0 to 2"]);
        }
    }
}

/// The model uses the index after the last class for "no class".
#[test]
fn the_class_after_the_last_one_is_out_of_range_too() {
    let folder = with_model();
    refused(folder.path(), &["sample", "--model", "model", "--classes", "3"], &["class 3", "0 to 2"]);
}

#[test]
fn numbers_that_do_not_work_are_named_with_their_range() {
    let folder = with_model();
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--steps", "0"], &["num_inference_steps is 0", "expected 1 to 20"]),
        (&["--steps", "21"], &["num_inference_steps is 21", "expected 1 to 20"]),
        (&["--sampler", "ddim", "--eta", "1.5"], &["eta is 1.5", "0", "1"]),
        (&["--sampler", "ddim", "--eta", "nan"], &["eta is NaN"]),
        (&["-n", "0"], &["no images", "-n"]),
        (&["--per-class", "0"], &["no images", "--per-class"]),
        (&["-n", "1", "--shard", "1/2"], &["no images", "--shard"]),
        (&["--format", "png", "-n", "5000"], &["5000 images do not fit", "--format idx"]),
        (&["--format", "gif", "-n", "2001"], &["2001 images do not fit", "--format idx"]),
    ];
    for (options, parts) in cases {
        refused(folder.path(), &[&["sample", "--model", "model"], options].concat(), parts);
    }
}

#[test]
fn guidance_that_is_no_number_is_refused() {
    let folder = with_model();
    for guidance in ["nan", "inf"] {
        let args = ["sample", "--model", "model", "-n", "1", "--guidance-scale", guidance];
        refused(folder.path(), &args, &["guidance"]);
    }
}

/// An interval beyond the schedule holds none of its timesteps: guidance would silently be off.
#[test]
fn a_guidance_interval_beyond_the_schedule_is_refused() {
    let folder = with_model();
    for interval in ["5-20", "20-30"] {
        let args = ["sample", "--model", "model", "-n", "1", "--guidance-interval", interval];
        let message = format!("the guidance interval is {interval}, expected timesteps from 0 to 19");
        refused(folder.path(), &args, &[&message]);
    }
}

/// NaN in the weights would otherwise become grey level 0: black pictures with exit code 0.
#[test]
fn a_model_with_nan_in_its_weights_is_refused() {
    let folder = with_model();
    let path = folder.path().join("model").join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    for command in [&["sample", "-n", "1"][..], &["info"]] {
        let parts = ["diffusion_pytorch_model.safetensors", "is NaN at position", "expected a finite number"];
        refused(folder.path(), &[command, &["--model", "model"]].concat(), &parts);
    }
}

#[test]
fn a_number_of_images_that_exceeds_memory_is_refused() {
    let folder = with_model();
    let jobs = [
        ["sample", "-n", "18446744073709551615"],
        ["sample", "-n", "4611686018427387904"],
        ["sample", "--per-class", "6148914691236517206"],
    ];
    for job in jobs {
        refused(folder.path(), &[&job[..], &["--model", "model", "--format", "idx"]].concat(), &["images"]);
    }
    for samples in ["0", "1000001", "6148914691236517206"] {
        usage(&["eval", "--num-images", samples], &[samples, "1..=1000000"]);
    }
}

#[test]
fn options_of_another_sampler_are_refused() {
    let folder = with_model();
    let sample = ["sample", "--model", "model"];
    let eval = ["eval", "--model", "model", "--data", "data", "--features", "net"];
    for command in [&sample[..], &eval] {
        for options in [
            ["--sampler", "ddim", "--noise", "none"],
            ["--sampler", "ddim", "--variance", "0.1"],
            ["--sampler", "ddpm", "--eta", "0.5"],
        ] {
            let name = options[2][2..].replace("noise", "variance");
            let message = format!("{name} is an option of the sampler");
            refused(folder.path(), &[command, &options].concat(), &[&message]);
        }
        refused(
            folder.path(),
            &[command, &["--variance", "0.1,0.2"]].concat(),
            &["2 values of variances", "20"],
        );
        refused(
            folder.path(),
            &[command, &["--steps", "2", "--variance=0.1,-0.2"]].concat(),
            &["variance", "-0.2", "0 or more"],
        );
    }
}

#[test]
fn timesteps_that_do_not_descend_or_are_too_large_are_named() {
    let folder = with_model();
    for (list, parts) in [("20", ["20", "below 20"]), ("5,5", ["timesteps[1]", "is 5"])] {
        refused(folder.path(), &["sample", "--model", "model", "--timesteps", list], &parts);
    }
    usage(&["sample", "--timesteps", "19,x"], &["'x'", "--timesteps"]);
    usage(&["sample", "--timesteps", "19", "--steps", "1"], &["--timesteps", "--steps"]);
    usage(&["sample", "--guidance-interval", "9-5"], &["`9-5`", "expected FIRST-LAST"]);
}

#[test]
fn likelihood_takes_no_options_of_sampling_and_needs_test_images() {
    for option in [["--steps", "5"], ["--guidance-scale", "1"], ["--sampler", "ddim"], ["--variance", "0.1"]]
    {
        usage(&[&["likelihood"][..], &option].concat(), &["unexpected argument", option[0]]);
    }
    usage(&["likelihood", "--num-images", "1"], &["1", "2.."]);
    let folder = with_model();
    for file in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::remove_file(folder.path().join("data").join(file)).unwrap();
    }
    let likelihood = ["likelihood", "--model", "model", "--data", "data"];
    refused(folder.path(), &likelihood, &["no test images"]);
}

#[test]
fn training_options_that_do_not_work_are_named() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    for (option, value, parts) in [
        ("--epochs", "0", ["`epochs` is 0", "expected 1"]),
        ("--batch-size", "0", ["batch_size is 0", "expected 1 to 96"]),
        (
            "--batch-size",
            "97",
            ["batch_size is 97", "expected 1 to 96, the number of images; pass another --batch-size"],
        ),
        ("--learning-rate", "0", ["`learning_rate` is 0", "above 0"]),
        ("--learning-rate", "nan", ["`learning_rate` is NaN", "above 0"]),
    ] {
        refused(folder.path(), &["train", "--data", "data", "--out-dir", "run", option, value], &parts);
    }
}

#[test]
fn a_number_of_epochs_that_cannot_be_counted_is_refused() {
    let folder = tempdir().unwrap();
    write_data(folder.path(), true);
    let args = ["train", "--data", "data", "--out-dir", "run", "--epochs", "18446744073709551615"];
    refused(folder.path(), &args, &["epochs"]);
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_leaves_nothing() {
    let folder = with_model();
    fs::write(folder.path().join("file"), "").unwrap();
    fs::create_dir(folder.path().join("taken")).unwrap();
    for format in ["png", "gif", "safetensors"] {
        let sample = ["sample", "--model", "model", "-n", "1", "--format", format, "-o"];
        for out in ["file/out", "taken"] {
            refused(folder.path(), &[&sample[..], &[out]].concat(), &[out, "cannot write"]);
        }
    }
    let sample = ["sample", "--model", "model", "-n", "1", "--format", "idx", "-o", "file/out"];
    refused(folder.path(), &sample, &["file/out-images-idx3-ubyte", "cannot write"]);
    refused(folder.path(), &["data", "--data", "data", "-o", "file/data.png"], &["file/data.png"]);
    let train = ["train", "--data", "data", "--batch-size", "16", "--out-dir", "file/run"];
    refused(folder.path(), &train, &["file/run"]);
    assert!(names(&folder.path().join("taken")).is_empty());
}

/// Images and labels are written together or not at all.
#[test]
fn images_are_not_written_if_their_labels_cannot_be() {
    let folder = with_model();
    let sample = ["sample", "--model", "model", "-n", "1", "--format", "idx", "-o", "out"];
    fs::create_dir(folder.path().join("out-labels-idx1-ubyte")).unwrap();
    let expected = ["out-labels-idx1-ubyte", "cannot write"];
    refused(folder.path(), &sample, &expected);
    let images = folder.path().join("out-images-idx3-ubyte");
    fs::write(&images, "old").unwrap();
    refused(folder.path(), &sample, &expected);
    assert_eq!(fs::read(images).unwrap(), b"old");
}

#[test]
fn a_job_that_fails_while_its_files_are_open_leaves_neither_them_nor_their_folder() {
    let folder = with_model();
    for format in ["idx", "safetensors"] {
        let sample = ["sample", "--model", "model", "--format", format, "-o", "new/folder/out"];
        refused(folder.path(), &[&sample[..], &["--steps", "21"]].concat(), &["num_inference_steps is 21"]);
    }
}

/// A limit on the size of files simulates a disk that becomes full during writing.
#[cfg(unix)]
#[test]
fn a_disk_that_becomes_full_is_an_error_with_the_file_name_and_no_file_remains() {
    let folder = with_model();
    let before = names(folder.path());
    for (format, file) in [("idx", "new/out-images-idx3-ubyte"), ("safetensors", "new/out")] {
        let sample = ["sample", "--model", "model", "-n", "1100", "--steps", "1", "--format", format];
        // The limit is 32 or 64 KiB, depending on the shell; the file has 70 KiB. The shell ignores the signal, so
        // that a write beyond the limit is an error.
        let script = r#"trap '' XFSZ; ulimit -f 64; exec "$0" "$@" -o new/out"#;
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(cargo_bin!("ddpm-cli")).args(sample).current_dir(folder.path());
        let assert = command.assert().code(1);
        let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(error.starts_with(&format!("error: {file}: cannot write: ")), "{error}");
        assert!(error.lines().count() == 1 && !error.contains(".tmp-"), "{error}");
        assert_eq!(names(folder.path()), before, "{format}");
    }
}

#[test]
fn a_setting_that_does_not_exist_or_fit_is_refused_before_training() {
    let folder = with_model();
    for (set, parts) in [
        ("ema=0.5", &["--set ema=0.5", "there is no option `ema`"][..]),
        ("denoiser.network.layers=3", &["there is no option `denoiser.network.layers`"]),
        ("=3", &["--set =3", "there is no option ``"]),
        ("ema_decay", &["--set ema_decay", "expected NAME=VALUE"]),
        ("epochs=many", &["--set epochs=many", "invalid type: string \"many\", expected u64"]),
        ("epochs=1.5", &["--set epochs=1.5", "expected u64"]),
        ("epochs=-1", &["--set epochs=-1", "expected u64"]),
        ("epochs=", &["--set epochs=", "expected u64"]),
        ("ema_decay=null", &["--set ema_decay=null", "expected f64"]),
        ("denoiser=3", &["--set denoiser=3", "DenoiserConfig"]),
        // The type is right, and the value is out of range.
        ("random_shift=65", &["`random_shift` is 65", "expected 0 to 64"]),
        ("denoiser.rows=65", &["`rows` is 65", "expected 1 to 64"]),
    ] {
        refused(folder.path(), &["train", "--data", "data", "--out-dir", "run", "--set", set], parts);
    }
    usage(&["train", "--set"], &["--set"]);
}
