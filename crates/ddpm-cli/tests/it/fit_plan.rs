//! `fit-plan`, and the plans and guides of `sample` and `eval`.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    WEIGHTS, json, keys, names,
    refusals::{refused, usage},
    run, stdout, with_model, with_unlabelled_model,
};

const FIT: [&str; 5] = ["fit-plan", "--model", "model", "-n", "30"];
const SAMPLE: [&str; 9] = ["sample", "--model", "model", "-n", "6", "--format", "idx", "-o", "out"];

fn pixels(folder: &Path, options: &[&str]) -> Vec<u8> {
    run(folder, &[&SAMPLE[..], options].concat());
    fs::read(folder.join("out-images-idx3-ubyte")).unwrap()
}

#[test]
fn a_plan_is_fitted_and_carried_out() {
    let folder = with_model();
    let result = json(folder.path(), &[&FIT[..], &["--steps", "3", "-o", "new/p.json"]].concat());
    assert_eq!(keys(&result), ["errors", "file", "images", "model", "seed", "timesteps"]);
    assert_eq!((&result["file"], &result["images"]), (&"new/p.json".into(), &30.into()));
    let timesteps = result["timesteps"].as_array().unwrap();
    assert!(timesteps.len() == 3 && timesteps[0] == 19, "{result}");
    let read = |path: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.path().join(path)).unwrap()).unwrap()
    };
    let plan = read("new/p.json");
    assert_eq!(keys(&plan), ["guidance", "model_sha256", "steps"]);
    assert!(plan["steps"].as_array().unwrap().iter().map(|step| &step["t"]).eq(timesteps));
    // With the timesteps that were found, the factors are the same, and so are the images.
    let list = timesteps.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    run(folder.path(), &[&FIT[..], &["--timesteps", &list]].concat());
    assert_eq!(read("plan.json"), plan);
    let images = pixels(folder.path(), &["--plan", "plan.json"]);
    assert!(images == pixels(folder.path(), &["--plan", "new/p.json", "--threads", "1"]));
    assert!(images != pixels(folder.path(), &["--sampler", "ddim", "--timesteps", &list]));
    assert!(images != pixels(folder.path(), &["--plan", "plan.json", "--seed", "2"]));
    let text = stdout(&run(folder.path(), &[&FIT[..], &["--timesteps", &list]].concat()));
    let row = format!("\n| 19 | {:.2} |\n", result["errors"][0].as_f64().unwrap());
    assert!(text.contains(&row), "{row} {text}");
}

#[test]
fn a_plan_has_the_guidance_with_which_it_was_fitted() {
    let folder = with_model();
    for (name, options) in [
        ("a", &["--guidance-scale", "2", "--guidance-interval", "4-16"][..]),
        ("b", &["--class-annealing", "9-15"]),
        ("c", &[]),
    ] {
        run(folder.path(), &[&FIT[..], &["--timesteps", "19,12,5", "-o", name], options].concat());
    }
    let images = ["a", "b", "c"].map(|name| pixels(folder.path(), &["--plan", name]));
    assert!(images[0] != images[1] && images[1] != images[2] && images[0] != images[2]);
    let eval = ["eval", "--model", "model", "--data", "data", "--features", "net", "--num-images", "12"];
    let eval = [&eval[..], &["--metrics", "accuracy", "--plan", "a"]].concat();
    let result = json(folder.path(), &eval);
    assert_eq!((&result["plan"], &result["guidance_scale"]), (&"a".into(), &2.0.into()));
    assert!(result["sampler"].is_null() && result["steps"] == 3);
    let text = stdout(&run(folder.path(), &eval));
    let command = "--features net --metrics accuracy --plan a --seed 1`";
    assert!(text.contains(command), "{text}");
}

#[test]
fn a_plan_of_another_model_and_files_that_are_no_plans_are_refused() {
    let folder = with_model();
    run(folder.path(), &[&FIT[..], &["--timesteps", "19,5"]].concat());
    let sample = ["sample", "--model", "model", "--plan", "plan.json"];
    run(folder.path(), &sample);
    // A bit of the last weight.
    let path = folder.path().join("model").join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    refused(
        folder.path(),
        &sample,
        &["plan.json: the plan was fitted to the model with SHA-256 ", "but this"],
    );
    fs::write(folder.path().join("plan.json"), "{}").unwrap();
    refused(folder.path(), &sample, &["plan.json: invalid JSON content", "missing field"]);
    fs::remove_file(folder.path().join("plan.json")).unwrap();
    refused(folder.path(), &sample, &["plan.json: cannot read the plan"]);
}

#[test]
fn options_that_a_plan_has_and_wrong_numbers_are_refused() {
    for option in [
        ["--sampler", "ddim"],
        ["--steps", "5"],
        ["--timesteps", "19,5"],
        ["--variance", "zero"],
        ["--noise", "none"],
        ["--eta", "0.5"],
        ["--epsilon-scale", "1.01"],
        ["--guidance-scale", "2"],
        ["--guidance-interval", "5-9"],
        ["--class-annealing", "5-9"],
        ["--guide-scale", "2"],
        ["--guide-interval", "5-9"],
    ] {
        usage(&[&["sample", "--plan", "plan.json"][..], &option].concat(), &["--plan", option[0]]);
    }
    usage(&["fit-plan"], &["--steps"]);
    usage(&["fit-plan", "--steps", "0"], &["--steps"]);
    usage(&["fit-plan", "--steps", "5", "--timesteps", "19,5"], &["--timesteps"]);
    usage(&["fit-plan", "--steps", "5", "-n", "0"], &["--num-images"]);
    let folder = with_model();
    let cases: [(&[&str], &str); 4] = [
        (&["--steps", "21"], "the number of steps is 21, expected 1 to 20"),
        (&["--timesteps", "19,20"], "timesteps[0] is 20"),
        (&["--timesteps", "19,5", "--guidance-interval", "5-20"], "the guidance interval is 5-20"),
        (&["--timesteps", "19,5", "-o", "model"], "model"),
    ];
    for (options, message) in cases {
        refused(folder.path(), &[&FIT[..], options].concat(), &[message]);
    }
    let sample = ["sample", "--model", "model", "--epsilon-scale"];
    for scale in ["0", "-1", "nan"] {
        refused(folder.path(), &[&sample[..], &[scale]].concat(), &["epsilon scale is", "a positive number"]);
    }
    let anneal = ["sample", "--model", "model", "--class-annealing", "5-20"];
    refused(folder.path(), &anneal, &["the annealing interval is 5-20, expected timesteps from 0 to 19"]);
}

#[test]
fn a_guide_changes_the_images_and_must_fit() {
    let folder = with_model();
    let train = ["train", "--data", "data", "--epochs", "1", "--batch-size", "16", "--out-dir", "weak", "-q"];
    run(folder.path(), &train);
    // After so few steps of training the two models hardly differ.
    let much = ["--guide", "weak/model", "--guide-scale", "1000"];
    let (alone, guided) = (pixels(folder.path(), &[]), pixels(folder.path(), &much));
    assert!(guided != alone);
    assert!(guided != pixels(folder.path(), &[&much[..], &["--guide-interval", "0-3"]].concat()));
    // A scale of 1 is no guidance, and a model guides itself in no direction.
    assert!(pixels(folder.path(), &["--guide", "weak/model", "--guide-scale", "1"]) == alone);
    assert!(pixels(folder.path(), &["--guide", "model", "--guide-scale", "3"]) == alone);
    // A guide that was given to `train` is a part of the model.
    let train =
        [&train[..7], &["--out-dir", "guided", "-q", "--guide", "weak/model", "--seed", "2"]].concat();
    run(folder.path(), &train);
    let of = |options: &[&str]| {
        let sample = ["sample", "--model", "guided/model", "--format", "idx", "-o", "other"];
        run(folder.path(), &[&sample[..], options].concat());
        fs::read(folder.path().join("other-images-idx3-ubyte")).unwrap()
    };
    let own = of(&["--guide-scale", "1000"]);
    assert!(own == of(&much) && own != of(&["--guide-scale", "1"]));
    // A plan belongs to the model with its guide.
    let fit = [&FIT[..], &["--timesteps", "19,5", "--guide", "weak/model"]].concat();
    run(folder.path(), &fit);
    pixels(folder.path(), &["--plan", "plan.json", "--guide", "weak/model"]);
    refused(
        folder.path(),
        &["sample", "--model", "model", "--plan", "plan.json"],
        &["the plan was fitted to the model with SHA-256", "guide"],
    );
    let sample = ["sample", "--model", "model", "--guide"];
    refused(
        folder.path(),
        &[&sample[..], &["built-in"]].concat(),
        &["--guide built-in: the image size of the guide is 28×28, expected 8×8, as in the model"],
    );
    let other = with_unlabelled_model();
    let path = other.path().join("model").display().to_string();
    refused(
        folder.path(),
        &[&sample[..], &[&path]].concat(),
        &["the number of classes of the guide is 0, expected 3"],
    );
    refused(folder.path(), &[&sample[..], &["none"]].concat(), &["none: no such model folder"]);
    refused(
        folder.path(),
        &["sample", "--model", "model", "--guide-scale", "2"],
        &["guidance 2 by a guide needs a model with a guide"],
    );
    refused(
        folder.path(),
        &["train", "--data", "data", "--guide", "built-in", "--out-dir", "other"],
        &["--guide built-in: the image size of the guide is 28×28, expected 8×8, as in the model"],
    );
    assert!(!folder.path().join("other").exists());
    assert!(names(folder.path()).contains(&"weak".to_owned()));
}
