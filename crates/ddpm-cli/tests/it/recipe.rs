//! The recipe in each file of `sample`: `info FILE` and `sample --like FILE`.

use std::fs;

use crate::{fail, json, names, refusals::refused, run, stdout, with_model};

/// Options of each kind that a recipe must keep.
const OPTIONS: [&[&str]; 6] = [
    &[],
    &["--sampler", "ddim", "--eta", "0.5", "--steps", "7", "--classes", "2,0", "--seed", "12"],
    &[
        "--variance",
        "fixed_large",
        "--timesteps",
        "19,9,3",
        "--guidance-scale",
        "3",
        "--guidance-interval",
        "2-12",
    ],
    &["--noise", "none", "-n", "10", "--shard", "2/3"],
    &["--guide", "model", "--guide-scale", "2", "--guide-interval", "1-9", "--epsilon-scale", "1.1"],
    &["--class-annealing", "3-9", "--per-class", "1", "--compute", "bf16"],
];

fn files(format: &str) -> &'static [&'static str] {
    match format {
        "png" => &["a.png"],
        "gif" => &["a.gif"],
        "apng" => &["a.apng"],
        "safetensors" => &["a.safetensors"],
        _ => &["a-images-idx3-ubyte", "a-labels-idx1-ubyte", "a-recipe.json"],
    }
}

#[test]
fn a_file_of_each_format_is_made_again_byte_for_byte() {
    let folder = with_model();
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    for (format, options) in ["png", "gif", "apng", "safetensors", "idx"]
        .into_iter()
        .flat_map(|format| OPTIONS.map(|o| (format, o)))
    {
        let out = if format == "idx" { "a".to_owned() } else { format!("a.{format}") };
        run(
            folder.path(),
            &[&["sample", "--model", "model", "--format", format, "-o", &out], options].concat(),
        );
        let first: Vec<_> = files(format).iter().map(|name| read(name)).collect();
        for like in files(format) {
            let other = out.replacen('a', "b", 1);
            // The recipe's format does not count beside --out, and the output of idx has no extension.
            run(folder.path(), &["sample", "--like", like, "-o", &other, "--format", format]);
            for (name, first) in std::iter::zip(files(format), &first) {
                assert!(read(&name.replacen('a', "b", 1)) == *first, "{name} like {like}, {options:?}");
            }
        }
        // The command that `info` prints makes the file, too.
        let command =
            json(folder.path(), &["info", files(format)[0]])["command"].as_str().unwrap().to_owned();
        let words: Vec<&str> = command.split(' ').skip(1).chain(["-o", "c"]).collect();
        run(folder.path(), &words);
        let again = if format == "idx" { "c-images-idx3-ubyte" } else { "c" };
        assert!(read(again) == first[0], "{command}");
    }
}

#[test]
fn options_of_the_command_line_replace_those_of_the_recipe() {
    let folder = with_model();
    let sample = |options: &[&str]| {
        run(folder.path(), &[&["sample", "-o", "b.png"], options].concat());
        json(folder.path(), &["info", "b.png"])["arguments"].as_array().unwrap().clone()
    };
    let base = ["--model", "model", "--variance", "0.1,0", "--steps", "2", "--seed", "9"];
    run(folder.path(), &[&["sample", "-o", "a.png"], &base[..]].concat());
    for (more, same) in [
        (
            &["--seed", "4"][..],
            &["--model", "model", "--variance", "0.1,0", "--steps", "2", "--seed", "4"][..],
        ),
        (&["--noise", "none"], &["--model", "model", "--noise", "none", "--steps", "2", "--seed", "9"]),
        (
            &["--timesteps", "9,4"],
            &["--model", "model", "--sampler", "ddpm", "--timesteps", "9,4", "--seed", "9"],
        ),
        (&["--sampler", "unipc"], &["--model", "model", "--sampler", "unipc", "--steps", "2", "--seed", "9"]),
        (&["--eta", "0.5"], &["--model", "model", "--eta", "0.5", "--steps", "2", "--seed", "9"]),
        (
            &["-n", "4"],
            &["--model", "model", "--variance", "0.1,0", "--steps", "2", "--seed", "9", "-n", "4"],
        ),
    ] {
        assert_eq!(sample(&[&["--like", "a.png"], more].concat()), sample(same), "{more:?}");
    }
    run(folder.path(), &["fit-plan", "--model", "model", "--timesteps", "19,5", "-n", "20"]);
    assert_eq!(
        sample(&["--like", "a.png", "--plan", "plan.json"]),
        sample(&["--model", "model", "--plan", "plan.json", "--seed", "9"])
    );
}

#[test]
fn the_recipe_says_what_made_the_file() {
    let folder = with_model();
    run(folder.path(), &["sample", "--model", "model", "-n", "10", "--shard", "2/2", "-o", "it's.gif"]);
    let recipe = json(folder.path(), &["info", "it's.gif"]);
    let model = json(folder.path(), &["info", "--model", "model"]);
    assert_eq!(recipe["model_sha256"], model["model_sha256"]);
    assert_eq!((&recipe["images"], &recipe["classes"]), (&vec![5, 9].into(), &vec![0, 1, 2].into()));
    assert_eq!((&recipe["steps"], &recipe["version"]), (&20.into(), &env!("CARGO_PKG_VERSION").into()));
    let text = stdout(&run(folder.path(), &["info", "it's.gif"]));
    assert!(text.contains("5 to 9 of the seed") && text.contains("--sampler dpmpp-2m-sde"), "{text}");
    // Another model in its place is said.
    let train = ["train", "--data", "data", "--epochs", "1", "--batch-size", "16", "-o", "other", "-q"];
    run(folder.path(), &train);
    fs::remove_dir_all(folder.path().join("model")).unwrap();
    fs::rename(folder.path().join("other/model"), folder.path().join("model")).unwrap();
    let assert = run(folder.path(), &["sample", "--like", "it's.gif", "-o", "b.gif"]);
    let warning = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(warning.contains("it's.gif was made with a model of SHA-256 "), "{warning}");
}

#[test]
fn files_without_a_recipe_and_damaged_ones_are_refused() {
    let folder = with_model();
    run(folder.path(), &["sample", "--model", "model", "-n", "3", "-o", "a.gif"]);
    let gif = fs::read(folder.path().join("a.gif")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    run(folder.path(), &["data", "--data", "data", "-o", "data.png"]);
    write("text.txt", b"hello");
    write("empty", b"");
    write("cut.gif", &gif[..gif.len() - 40]);
    write("wrong.gif", b"GIF89a\x01\0\x01\0\0\0\0\x99");
    write("long.safetensors", &[&u64::MAX.to_le_bytes()[..], b"{"].concat());
    write("array.json", b"{\"version\": 1}");
    let with = |arguments: &str| {
        format!(
            "{{\"version\":\"0\",\"model_sha256\":\"\",\"images\":[0,1],\"classes\":[],\"steps\":1,\"arguments\":[{arguments}]}}"
        )
    };
    write("out.json", with("\"--seed\",\"1\",\"--out\",\"a.gif\"").as_bytes());
    write("odd.json", with("\"--seed\"").as_bytes());
    for (name, part) in [
        ("data.png", "data.png has no recipe"),
        ("text.txt", "text.txt has no recipe"),
        ("empty", "empty has no recipe"),
        ("cut.gif", "cut.gif: cannot read its recipe"),
        ("wrong.gif", "wrong.gif: cannot read its recipe: a block of type 0x99"),
        (
            "long.safetensors",
            "long.safetensors: cannot read its recipe: a header of 18446744073709551615 bytes",
        ),
        ("array.json", "array.json: its recipe is not one of this program"),
        ("out.json", "out.json: its recipe has `--out a.gif`, expected an option of sampling"),
        ("odd.json", "odd.json: its recipe has `--seed`, expected an option of sampling"),
        ("none.png", "none.png: cannot read its recipe"),
    ] {
        refused(folder.path(), &["info", name], &[part]);
        refused(folder.path(), &["sample", "--like", name], &[part]);
    }
    let before = names(folder.path());
    fail(folder.path(), 2, &["info", "a.gif", "--model", "model"]);
    assert_eq!(names(folder.path()), before);
}
