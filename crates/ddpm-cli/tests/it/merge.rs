//! `merge`: the parts of a job in one file.

use std::{fs, path::Path};

use serde_json::{Value, json as value};

use crate::{
    ddpm, fail, json, names,
    refusals::refused,
    run,
    shards::{JOB, files},
    stdout, with_model, with_unlabelled_model,
};

/// Makes the parts of a job, with names that do not sort as the parts do.
fn parts(folder: &Path, job: &[&str], format: &str, count: usize) {
    for index in 1..=count {
        let (shard, out) = (format!("{index}/{count}"), format!("parts/p{}", (index * 7) % 11));
        run(folder, &[job, &["--shard", &shard, "--format", format, "-o", &out, "-q"]].concat());
    }
}

/// The files of an output, the recipe of safetensors aside, which is inside.
fn read(folder: &Path, format: &str, out: &str) -> Vec<Vec<u8>> {
    let mut files = files(format, out);
    if format == "safetensors" {
        files.truncate(1);
    }
    files.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
}

#[test]
fn merged_parts_are_the_files_of_one_run_byte_for_byte() {
    for folder in [with_model(), with_unlabelled_model()] {
        let folder = folder.path();
        let labelled = json(folder, &["info", "--model", "model"])["denoiser"]["num_classes"] != 0;
        let jobs =
            [&JOB[..], &["sample", "--model", "model", "--per-class", "4", "--steps", "3", "--seed", "9"]];
        for job in jobs {
            for of_parts in ["idx", "safetensors"] {
                parts(folder, job, of_parts, 4);
                for format in ["idx", "safetensors"] {
                    run(folder, &[job, &["--format", format, "-o", "whole"]].concat());
                    let merged = json(folder, &["merge", "parts", "--format", format, "-o", "merged"]);
                    let read = |out: &str| -> Vec<Vec<u8>> {
                        let mut names = files(format, out);
                        names.retain(|name| labelled || !name.contains("labels"));
                        names.truncate(if format == "idx" { 3 } else { 1 });
                        names.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
                    };
                    assert!(read("whole") == read("merged"), "{job:?}: {of_parts} to {format}");
                    assert_eq!(merged["parts"], 4);
                }
                fs::remove_dir_all(folder.join("parts")).unwrap();
            }
        }
    }
}

#[test]
fn the_order_and_the_names_of_the_parts_do_not_matter() {
    let folder = with_model();
    let folder = folder.path();
    for format in ["idx", "safetensors"] {
        run(folder, &[&JOB[..], &["--format", format, "-o", "whole"]].concat());
        parts(folder, &JOB, format, 3);
        let names = files(format, "");
        // Parts 1, 2, 3 are p7, p3, p10; each is named by another of its files, or by the start of their names.
        let named =
            ["parts/p10", &format!("parts/p7{}", names[0]), &format!("parts/p3{}", names[names.len() - 1])];
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            run(
                folder,
                &[&["merge", "--format", format, "-o", "merged"], &order.map(|at| named[at])[..]].concat(),
            );
            assert!(read(folder, format, "whole") == read(folder, format, "merged"), "{format} {order:?}");
        }
        fs::remove_dir_all(folder.join("parts")).unwrap();
    }
}

#[test]
fn the_merged_file_is_one_of_sample() {
    let folder = with_model();
    let folder = folder.path();
    parts(folder, &JOB, "idx", 3);
    // Merged into the folder of the parts, where another merge does not take the result for a part.
    for _ in 0..2 {
        run(folder, &["merge", "parts", "-o", "parts/train"]);
    }
    let recipe = json(folder, &["info", "parts/train-images-idx3-ubyte"]);
    assert_eq!(recipe["images"], value!([0, 9]));
    assert!(recipe["written"].is_null() && !recipe["command"].to_string().contains("--shard"));
    run(folder, &["sample", "--like", "parts/train", "--format", "idx", "-o", "again"]);
    assert!(read(folder, "idx", "again") == read(folder, "idx", "parts/train"));
    run(folder, &["merge", "parts", "-o", "set/train"]);
    let data = json(folder, &["data", "--data", "set"]);
    assert_eq!(data["train"], 10, "{data}");
}

#[test]
fn missing_and_damaged_parts_are_an_array_expression_and_nothing_is_written() {
    let folder = with_model();
    let folder = folder.path();
    for format in ["idx", "safetensors"] {
        for index in 0..10 {
            let (index, out) = (index.to_string(), format!("parts/{index}"));
            let array = ["--shard-index", &index, "--shards", "10", "--format", format, "-o", &out, "-q"];
            run(folder, &[&JOB[..], &array].concat());
        }
        let remove = |name: &str| fs::remove_file(folder.join("parts").join(name)).unwrap();
        let array_of = |index: usize| format!("parts/{}", files(format, &index.to_string())[0]);
        let path = |index: usize| folder.join(array_of(index));
        // Missing, without a recipe, with a damaged recipe, without images, cut, with a flipped bit.
        files(format, "1").iter().for_each(|name| remove(name));
        remove("3-recipe.json");
        fs::write(folder.join("parts/4-recipe.json"), "{\"version\":").unwrap();
        fs::remove_file(path(5)).unwrap();
        let mut bytes = fs::read(path(7)).unwrap();
        fs::write(path(7), &bytes[..bytes.len() - 1]).unwrap();
        bytes = fs::read(path(9)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path(9), bytes).unwrap();
        let before = names(folder);
        for quiet in [&[][..], &["-q"]] {
            let assert =
                ddpm(folder, &[&["merge", "parts", "-o", "merged"], quiet].concat()).assert().code(1);
            assert_eq!(stdout(&assert), "--array=1,3-5,7,9\n");
            let error = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
            let expected =
                "6 of 10 parts are missing or damaged, counted from 0: 1,3-5,7,9; nothing was written";
            assert!(error.contains(expected), "{error}");
            let damaged = [array_of(5), array_of(7), array_of(9), "parts/4-recipe.json".to_owned()];
            assert!(damaged.iter().all(|name| error.contains(name)), "{error}");
        }
        let assert = ddpm(folder, &["merge", "parts", "-o", "merged", "--json"]).assert().code(1);
        let printed: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
        assert_eq!(printed, value!({ "array": "1,3-5,7,9", "missing": [1, 3, 4, 5, 7, 9], "parts": 10 }));
        assert_eq!(names(folder), before, "nothing was written");
        // What is missing is made, what is there is skipped, and the parts are whole.
        for index in 0..10 {
            let (index, out) = (index.to_string(), format!("parts/{index}"));
            let array = [
                "--shard-index",
                &index,
                "--shards",
                "10",
                "--format",
                format,
                "-o",
                &out,
                "--skip-verified",
            ];
            let skipped = json(folder, &[&JOB[..], &array].concat())["skipped"].as_bool().unwrap();
            assert_eq!(skipped, !["1", "3", "4", "5", "7", "9"].contains(&&*index), "{index}");
        }
        run(folder, &[&JOB[..], &["--format", format, "-o", "whole"]].concat());
        run(folder, &["merge", "parts", "--format", format, "-o", "merged"]);
        assert!(read(folder, format, "whole") == read(folder, format, "merged"));
        fs::remove_dir_all(folder.join("parts")).unwrap();
        for name in files(format, "merged").iter().filter(|name| folder.join(name).exists()) {
            fs::remove_file(folder.join(name)).unwrap();
        }
    }
}

/// With more parts than images some are empty; `sample` refuses them, and they are not missing.
#[test]
fn parts_without_images_are_not_missing() {
    let folder = with_model();
    let folder = folder.path();
    let job = ["sample", "--model", "model", "-n", "2", "--steps", "2"];
    for shard in ["2/3", "3/3"] {
        let out = format!("parts/{}", &shard[..1]);
        run(folder, &[&job[..], &["--shard", shard, "--format", "idx", "-o", &out]].concat());
    }
    run(folder, &[&job[..], &["--format", "idx", "-o", "whole"]].concat());
    run(folder, &["merge", "parts", "-o", "merged"]);
    assert!(read(folder, "idx", "whole") == read(folder, "idx", "merged"));
}

#[test]
fn parts_that_do_not_belong_together_are_refused_with_the_names_of_their_files() {
    let folder = with_model();
    let folder = folder.path();
    parts(folder, &JOB, "idx", 3);
    let make = |out: &str, options: &[&str]| {
        run(folder, &[&JOB[..], &["--format", "idx", "-o", out, "-q"], options].concat());
    };
    make("others/seed", &["--shard", "1/3", "--seed", "2"]);
    make("others/count", &["--shard", "1/4"]);
    make("others/twin", &["--shard", "1/3"]);
    make("others/whole", &[]);
    run(folder, &[&JOB[..], &["--shard", "1/3", "-o", "others/tensors.safetensors"]].concat());
    let train = ["train", "--data", "data", "--epochs", "1", "--batch-size", "16", "-o", "other", "-q"];
    run(folder, &train);
    fs::rename(folder.join("model"), folder.join("first")).unwrap();
    fs::rename(folder.join("other/model"), folder.join("model")).unwrap();
    make("others/model", &["--shard", "1/3"]);
    let recipe = fs::read_to_string(folder.join("parts/p7-recipe.json")).unwrap();
    for (name, from, to) in [
        ("version", format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION")), "\"version\":\"0.0.1\""),
        ("range", "\"images\":[0,2]".to_owned(), "\"images\":[0,3]"),
        ("shard", "\"1/3\"".to_owned(), "\"7/3\""),
        ("names", "\"images\":\"".to_owned(), "\"../p7\":\""),
    ] {
        assert!(recipe.contains(&from), "{recipe}");
        fs::write(folder.join(format!("others/{name}-recipe.json")), recipe.replacen(&from, to, 1)).unwrap();
    }
    for (part, expected) in [
        (
            "seed",
            &[
                "others/seed-recipe.json: is of another job than parts/p10-recipe.json",
                "--seed is 2, expected 1",
            ][..],
        ),
        (
            "count",
            &["others/count-recipe.json", "parts/p10-recipe.json", "the number of parts is 4, expected 3"],
        ),
        ("model", &["others/model-recipe.json", "parts/p10-recipe.json", "the SHA-256 of the model is "]),
        ("version", &["others/version-recipe.json", "the version is 0.0.1, expected "]),
        (
            "tensors.safetensors",
            &["others/tensors.safetensors-recipe.json", "--format is safetensors, expected idx"],
        ),
        ("twin", &["parts/p7-recipe.json and others/twin-recipe.json: overlap", "part 1/3, images 0 to 2"]),
        ("whole", &["others/whole-recipe.json: is no part of a job"]),
        (
            "range",
            &["others/range-recipe.json", "the images are 0 to 3, expected 0 to 2 for part 1/3 of 10 images"],
        ),
        ("shard", &["others/shard-recipe.json", "`7/3`"]),
        ("none", &["others/none", "no part of a job"]),
    ] {
        refused(folder, &["merge", "parts", &format!("others/{part}"), "-o", "merged"], expected);
    }
    // A list of files that a part does not have counts as damage, and no such file is read.
    fs::remove_file(folder.join("parts/p7-recipe.json")).unwrap();
    let assert =
        ddpm(folder, &["merge", "parts", "others/names-recipe.json", "-o", "merged"]).assert().code(1);
    assert_eq!(stdout(&assert), "--array=0\n");
    fs::write(folder.join("parts/p7-recipe.json"), recipe).unwrap();
    refused(
        folder,
        &["merge", "parts", "parts/p3", "-o", "merged"],
        &["parts/p3-recipe.json and parts/p3-recipe.json: is given twice"],
    );
    fs::create_dir(folder.join("empty")).unwrap();
    refused(folder, &["merge", "empty", "-o", "merged"], &["empty: no part of a job"]);
    refused(
        folder,
        &["merge", "parts", "-o", "parts/p3"],
        &["parts/p3-images-idx3-ubyte: is a file of a part"],
    );
    refused(
        folder,
        &["merge", "parts", "-o", "merged.png"],
        &["merged.png", ".safetensors, .parquet or --format idx"],
    );
    fail(folder, 2, &["merge", "-o", "merged"]);
    fail(folder, 2, &["merge", "parts"]);
    assert!(names(folder).iter().all(|name| !name.starts_with("merged") && !name.starts_with(".tmp-")));
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_feature_the_error_names_it() {
    let folder = with_model();
    parts(folder.path(), &JOB, "idx", 2);
    let merge = ["merge", "parts", "-o", "merged.parquet"];
    refused(
        folder.path(),
        &merge,
        &["merged.parquet", "neither reads nor writes parquet files", "--features hub"],
    );
}

#[cfg(feature = "hub")]
#[test]
fn a_parquet_file_is_read_as_a_data_set() {
    let folder = with_model();
    let folder = folder.path();
    for format in ["idx", "safetensors"] {
        parts(folder, &JOB, format, 3);
        run(folder, &["merge", "parts", "-o", "set/train-00000-of-00001.parquet"]);
        run(folder, &["export", "--data", "set", "--split", "train", "--to", "idx", "-o", "exported"]);
        run(folder, &[&JOB[..], &["--format", "idx", "-o", "whole"]].concat());
        let without_recipe = |out: &str| {
            let names = files("idx", out);
            names[..2].iter().map(|name| fs::read(folder.join(name)).unwrap()).collect::<Vec<_>>()
        };
        assert!(without_recipe("whole") == without_recipe("exported"));
        // The recipe names the same images in the format of the parts.
        let recipe = json(folder, &["info", "set/train-00000-of-00001.parquet"]);
        assert_eq!(recipe["images"], value!([0, 9]));
        assert!(
            recipe["command"].as_str().unwrap().ends_with(&format!("--seed 1 --format {format}")),
            "{recipe}"
        );
        fs::remove_dir_all(folder.join("parts")).unwrap();
        for name in &files("idx", "exported")[..2] {
            fs::remove_file(folder.join(name)).unwrap();
        }
    }
}
