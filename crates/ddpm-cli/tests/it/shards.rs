//! Parts of a job: indices from 0 and from 1, and `--skip-verified`.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{ddpm, fail, json, names, refusals::refused, run, with_model};

/// A job of ten images, without its part, format and output.
pub(crate) const JOB: [&str; 7] = ["sample", "--model", "model", "-n", "10", "--steps", "2"];

/// Makes part `index`, from 0, of `count` parts of [`JOB`], with further options.
fn part(folder: &Path, out: &str, index: usize, count: usize, more: &[&str]) -> Value {
    let (index, count) = (index.to_string(), count.to_string());
    let array = ["--shard-index", &index, "--shards", &count, "-o", out, "-q"];
    json(folder, &[&JOB[..], &array, more].concat())
}

/// The files of a part in a format; the recipe comes last.
pub(crate) fn files(format: &str, out: &str) -> Vec<String> {
    match format {
        "idx" => ["-images-idx3-ubyte", "-labels-idx1-ubyte", "-recipe.json"]
            .map(|end| format!("{out}{end}"))
            .into(),
        _ => vec![out.to_owned(), format!("{out}-recipe.json")],
    }
}

#[test]
fn shards_counted_from_0_and_from_1_are_the_same_files() {
    let folder = with_model();
    let read = |name: &String| fs::read(folder.path().join(name)).unwrap();
    for format in ["idx", "safetensors"] {
        for index in 0..3 {
            let shard = format!("{}/3", index + 1);
            run(folder.path(), &[&JOB[..], &["--shard", &shard, "--format", format, "-o", "a"]].concat());
            let ones: Vec<_> = files(format, "a").iter().map(read).collect();
            part(folder.path(), "a", index, 3, &["--format", format]);
            let zeros: Vec<_> = files(format, "a").iter().map(read).collect();
            let from_environment =
                ["--shard-index", "env:ARRAY_INDEX", "--shards", "3", "--format", format, "-o", "a"];
            let mut command = ddpm(folder.path(), &[&JOB[..], &from_environment].concat());
            command.env("ARRAY_INDEX", index.to_string()).assert().success();
            let variables: Vec<_> = files(format, "a").iter().map(read).collect();
            assert!(ones == zeros && ones == variables, "{format} {index}");
            // The recipe has the value and not the variable.
            let command =
                json(folder.path(), &["info", "a-recipe.json"])["command"].as_str().unwrap().to_owned();
            assert!(
                command.contains(&format!("--shard {shard} ")) && !command.contains("index"),
                "{command}"
            );
            for like in files(format, "a") {
                run(folder.path(), &["sample", "--like", &like, "--format", format, "-o", "b"]);
                let again: Vec<_> = files(format, "b").iter().map(read).collect();
                assert!(again == ones, "{format} {index} like {like}");
            }
        }
        // Another part like this one.
        run(
            folder.path(),
            &["sample", "--like", "a", "--shard-index", "0", "--shards", "3", "--format", format, "-o", "b"],
        );
        part(folder.path(), "a", 0, 3, &["--format", format]);
        assert!(read(&files(format, "a")[0]) == read(&files(format, "b")[0]), "{format}");
    }
}

#[test]
fn an_environment_variable_is_read_only_if_the_option_names_it() {
    let folder = with_model();
    let array = ["--format", "safetensors", "-o", "a", "--shards", "4", "--shard-index"];
    let with = |index: &str, value: Option<&str>| {
        let mut command = ddpm(folder.path(), &[&JOB[..], &array, &[index]].concat());
        command.env_remove("ARRAY_INDEX").env("SLURM_ARRAY_TASK_ID", "2").env("JOB_COMPLETION_INDEX", "3");
        if let Some(value) = value {
            command.env("ARRAY_INDEX", value);
        }
        command.assert()
    };
    for (value, found) in [
        (None, "ARRAY_INDEX is not set"),
        (Some(""), "ARRAY_INDEX is ``"),
        (Some("one"), "ARRAY_INDEX is `one`"),
        (Some("-1"), "ARRAY_INDEX is `-1`"),
        (Some("4"), "ARRAY_INDEX is `4`"),
    ] {
        let assert = with("env:ARRAY_INDEX", value).code(2);
        let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        let expected =
            format!("--shard-index env:ARRAY_INDEX: {found}, expected a number from 0 to 3 (--shards 4)");
        assert!(error.contains(&expected), "{error}");
    }
    with("0", Some("2")).success();
    let recipe = json(folder.path(), &["info", "a"]);
    assert_eq!(recipe["images"], Value::from(vec![0, 1]), "no other variable counts");
    with("env:ARRAY_INDEX", Some("1")).success();
    assert_eq!(json(folder.path(), &["info", "a"])["images"], Value::from(vec![2, 4]));
    for (options, parts) in [
        (&["--shard-index", "4", "--shards", "4"][..], &["--shard-index is 4", "0 to 3"][..]),
        (&["--shard-index", "slurm", "--shards", "4"], &["`slurm`", "env:NAME"]),
        (&["--shard-index", "1"], &["--shards"]),
        (&["--shards", "4"], &["--shard-index"]),
        (&["--shard-index", "1", "--shards", "4", "--shard", "2/4"], &["--shard-index", "--shard "]),
        (&["--shard-index", "1", "--shards", "0"], &["0", "1..=1000000"]),
        (&["--shard-index", "0", "--shards", "2", "--interpolate", "3"], &["--interpolate"]),
        (&["--skip-verified"], &["--skip-verified is for a part", "--shard-index"]),
    ] {
        let error = fail(folder.path(), 2, &[&["sample", "--model", "model"], options].concat());
        assert!(parts.iter().all(|part| error.contains(part)), "{options:?}: {error}");
    }
}

#[test]
fn a_part_that_is_whole_is_skipped_and_any_other_is_made_again() {
    let folder = with_model();
    let path = |name: &str| folder.path().join(name);
    for format in ["idx", "safetensors"] {
        let make = || part(folder.path(), "a", 1, 3, &["--format", format, "--skip-verified"]);
        assert_eq!(make()["skipped"], false, "there is nothing yet");
        let files = files(format, "a");
        let first: Vec<_> = files.iter().map(|name| fs::read(path(name)).unwrap()).collect();
        let times = || {
            files.iter().map(|name| fs::metadata(path(name)).unwrap().modified().unwrap()).collect::<Vec<_>>()
        };
        let before = times();
        let skipped = make();
        assert_eq!((&skipped["skipped"], &skipped["images"]), (&true.into(), &3.into()));
        assert_eq!(skipped["files"].as_array().unwrap().len(), files.len());
        assert_eq!(times(), before, "no file is written");
        let text = run(
            folder.path(),
            &[&JOB[..], &["--shard", "2/3", "--format", format, "-o", "a", "--skip-verified"]].concat(),
        );
        assert!(crate::stdout(&text).contains("3 images are there and verified, skipped"));
        for (name, content) in std::iter::zip(&files, &first) {
            let mut flipped = content.clone();
            let middle = flipped.len() - 3;
            flipped[middle] ^= 1;
            for damage in [None, Some(&content[..content.len() - 1]), Some(&[]), Some(&flipped)] {
                match damage {
                    Some(bytes) => fs::write(path(name), bytes).unwrap(),
                    None => fs::remove_file(path(name)).unwrap(),
                }
                let array = ["--shard", "2/3", "--format", format, "-o", "a", "--skip-verified"];
                let assert = run(folder.path(), &[&JOB[..], &array, &["--json"]].concat());
                let output: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
                assert_eq!(output["skipped"], false, "{name}");
                let warning = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
                assert!(warning.contains("the part is made again") && warning.contains(name), "{warning}");
                let again: Vec<_> = files.iter().map(|name| fs::read(path(name)).unwrap()).collect();
                assert!(again == first, "{name}");
            }
        }
        for name in files {
            fs::remove_file(path(&name)).unwrap();
        }
    }
    assert!(names(folder.path()).iter().all(|name| !name.starts_with(".tmp-")));
}

#[test]
fn the_output_of_another_command_is_not_replaced_by_a_part() {
    let folder = with_model();
    let path = |name: &str| folder.path().join(name);
    for format in ["idx", "safetensors"] {
        let array = ["--shard", "2/3", "--format", format, "-o", "a"];
        run(folder.path(), &[&JOB[..], &array].concat());
        let before: Vec<_> = files(format, "a").iter().map(|name| fs::read(path(name)).unwrap()).collect();
        let recipe = String::from_utf8(before[before.len() - 1].clone()).unwrap();
        let refused = |arguments: &[&str], part: &str| {
            let arguments = [arguments, &array[2..], &["--skip-verified"]].concat();
            refused(
                folder.path(),
                &arguments,
                &["a: the output of another command is there", part, "--skip-verified to replace"],
            );
        };
        let shard = ["--shard", "2/3"];
        refused(&[&JOB[..], &shard, &["--seed", "2"]].concat(), "--seed is 1, expected 2");
        refused(&[&JOB[..], &["--shard", "1/3"]].concat(), "--shard is 2/3, expected 1/3");
        refused(&[&JOB[..6], &["3"], &shard].concat(), "--steps is 2, expected 3");
        // Another version, another model.
        for (from, to, part) in [
            (
                format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION")),
                "\"version\":\"0.0.1\"",
                "the version is 0.0.1",
            ),
            ("\"model_sha256\":\"".to_owned(), "\"model_sha256\":\"0", "the SHA-256 of the model is 0"),
        ] {
            let changed = recipe.replacen(&from, to, 1);
            assert_ne!(changed, recipe);
            fs::write(path("a-recipe.json"), changed).unwrap();
            refused(&[&JOB[..], &shard].concat(), part);
        }
        fs::write(path("a-recipe.json"), &recipe).unwrap();
        let after: Vec<_> = files(format, "a").iter().map(|name| fs::read(path(name)).unwrap()).collect();
        assert!(after == before, "nothing was replaced");
        // Without the option it is replaced, as every output of `sample`.
        run(folder.path(), &[&JOB[..], &array, &["--seed", "2"]].concat());
        assert_ne!(fs::read(path("a-recipe.json")).unwrap(), recipe.as_bytes());
    }
    // A whole job in its place.
    run(folder.path(), &[&JOB[..], &["-o", "b.safetensors"]].concat());
    let arguments = [&JOB[..], &["-o", "b.safetensors", "--shard", "1/2", "--skip-verified"]].concat();
    refused(folder.path(), &arguments, &["b.safetensors", "--shard is not given, expected 1/2"]);
    let arguments = [&JOB[..], &["-o", "b.png", "--shard", "1/2", "--skip-verified"]].concat();
    refused(folder.path(), &arguments, &["--skip-verified is for the formats idx and safetensors", "png"]);
}

/// A file knows more about itself than a file beside it, which an older one of the same name has left.
#[test]
fn an_older_recipe_beside_a_file_does_not_count() {
    let folder = with_model();
    run(folder.path(), &[&JOB[..], &["--shard", "1/2", "-o", "a.safetensors"]].concat());
    run(folder.path(), &[&JOB[..], &["--seed", "5", "-o", "a.safetensors"]].concat());
    assert!(folder.path().join("a.safetensors-recipe.json").exists());
    let command = json(folder.path(), &["info", "a.safetensors"])["command"].to_string();
    assert!(command.contains("--seed 5") && !command.contains("--shard"), "{command}");
}
