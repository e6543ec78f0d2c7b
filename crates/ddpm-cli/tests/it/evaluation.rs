//! `eval`: metrics of generated images beside those of real ones. `likelihood`: its terms.

use std::fs;

use serde_json::Value;

use tempfile::TempDir;

use crate::{
    CLASSES, SIDE, TEST, fail, json, keys, labels, names, pixels, run, stdout, with_model,
    with_unlabelled_model, write_split,
};

/// The number of training and test images in the folder `large`. They are as those of `data`, and enough for a Fréchet
/// distance from the net's 128 features.
pub(crate) const LARGE: usize = 150;
/// The number of generated images.
const NUMBER: usize = 135;
const EVAL: [&str; 9] =
    ["eval", "--model", "model", "--data", "large", "--features", "net", "--num-images", "135"];

/// Adds the data set `large` to a folder.
pub(crate) fn with_large(folder: TempDir, labelled: bool) -> TempDir {
    let data = folder.path().join("large");
    fs::create_dir(&data).unwrap();
    for split in ["train", "t10k"] {
        write_split(&data, split, [SIDE, SIDE], &pixels(LARGE), labelled.then(|| labels(LARGE)));
    }
    folder
}

#[test]
fn eval_has_the_documented_keys_and_each_metric_has_a_floor() {
    let folder = with_large(with_model(), true);
    let result = json(folder.path(), &EVAL);
    let expected = [
        "accuracy",
        "class_accuracy",
        "class_accuracy_by_class",
        "class_annealing",
        "classes",
        "compute",
        "data",
        "distinct_samples",
        "diversity",
        "epsilon_scale",
        "eta",
        "feature_net",
        "features_sha256",
        "frechet",
        "guidance_interval",
        "guidance_scale",
        "guide",
        "guide_interval",
        "guide_scale",
        "kernel",
        "manifold",
        "memorisation",
        "missing",
        "model",
        "noise_path",
        "plan",
        "real_accuracy",
        "sampler",
        "samples",
        "seed",
        "steps",
        "subset_images",
        "test_images",
        "timesteps",
        "train_images",
        "variance",
    ];
    assert_eq!(keys(&result), expected);
    assert_eq!((&result["samples"], &result["seed"]), (&NUMBER.into(), &1.into()));
    assert_eq!((&result["train_images"], &result["test_images"]), (&LARGE.into(), &NUMBER.into()));
    assert_eq!((&result["model"], &result["sampler"]), (&"model".into(), &"dpmpp-2m-sde".into()));
    assert_eq!((&result["steps"], &result["guidance_scale"]), (&20.into(), &1.5.into()));
    let digest = result["features_sha256"].as_str().unwrap();
    assert_eq!(result["feature_net"], format!("the feature net {}", &digest[..12]));
    let values = [
        ("frechet", "distance"),
        ("kernel", "mean"),
        ("manifold", "precision"),
        ("accuracy", "overall"),
        ("diversity", "overall"),
        ("memorisation", "distance"),
    ];
    for (metric, value) in values {
        let metric = &result[metric];
        assert!(!metric[value].is_null() && !metric["floor"][value].is_null(), "{metric}");
    }
    assert!(result["frechet"]["ratio"].as_f64().unwrap() > 1.0);
    assert_eq!(result["class_accuracy"], result["accuracy"]["overall"]);
    assert_eq!(result["real_accuracy"], 1.0, "bars at three heights are told apart");
    assert_eq!(result["memorisation"]["closest"].as_array().unwrap().len(), 10);
    assert_eq!(json(folder.path(), &[&EVAL[..], &["--threads", "1"]].concat()), result, "the same each time");
    let two = json(folder.path(), &[&EVAL[..], &["--metrics", "kernel,accuracy"]].concat());
    assert_eq!((&two["kernel"], &two["accuracy"]), (&result["kernel"], &result["accuracy"]));
    assert!(["frechet", "manifold", "diversity", "memorisation"].iter().all(|metric| two[metric].is_null()));
}

/// This test computes the nearest training image of each generated image again, and checks the picture of the closest
/// pairs.
#[test]
fn eval_measures_the_images_of_sample_and_shows_the_closest_pairs() {
    let folder = with_large(with_model(), true);
    let result = json(folder.path(), &[&EVAL[..], &["-o", "out/pictures"]].concat());
    run(folder.path(), &["sample", "--model", "model", "-n", "135", "--format", "idx", "-o", "drawn"]);
    let drawn = fs::read(folder.path().join("drawn-images-idx3-ubyte")).unwrap();
    let (drawn, train) = (&drawn[16..], pixels(LARGE));
    let squared = |a: &[u8], b: &[u8]| -> f64 {
        std::iter::zip(a, b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
    };
    let nearest = drawn.chunks(SIDE * SIDE).enumerate().map(|(number, image)| {
        let distances = train.chunks(SIDE * SIDE).map(|other| (squared(image, other) / 64.0).sqrt());
        let (at, distance) = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        (number, at, distance)
    });
    let mut nearest: Vec<_> = nearest.collect();
    let mean = nearest.iter().map(|(.., distance)| distance).sum::<f64>() / NUMBER as f64;
    assert!((result["memorisation"]["distance"].as_f64().unwrap() - mean).abs() < 1e-9);
    nearest.sort_by(|a, b| a.2.total_cmp(&b.2));
    let (number, at, _) = nearest[0];
    let first = &result["memorisation"]["closest"][0];
    assert_eq!((&first["generated"], &first["train"]), (&number.into(), &at.into()));

    let out = folder.path().join("out/pictures");
    assert_eq!(names(&out), ["closest-pairs.png", "quality.md", "quality.svg"]);
    let picture = image::open(out.join("closest-pairs.png")).unwrap().into_luma8();
    assert_eq!(picture.dimensions(), (24 + 10 * 88 + 9 * 4, 24 + 28 + 2 * 88 + 4));
    let shown = |row: usize, pixel: usize| {
        let (x, y) = (pixel.rem_euclid(SIDE), pixel.div_euclid(SIDE));
        let at = |n: usize, start: usize| u32::try_from(start + 11 * n).unwrap();
        picture.get_pixel(at(x, 12), at(y, 12 + 28 + row * 92)).0[0]
    };
    let tile = |images: &[u8], number: usize| images[number * SIDE * SIDE..][..SIDE * SIDE].to_vec();
    assert!((0..SIDE * SIDE).map(|pixel| shown(0, pixel)).eq(tile(drawn, number)));
    assert!((0..SIDE * SIDE).map(|pixel| shown(1, pixel)).eq(tile(&train, at)));

    let plot = fs::read_to_string(out.join("quality.svg")).unwrap();
    for text in ["Class accuracy", "real test images", "training images", "generated, class 2"] {
        assert!(plot.contains(text), "{text}");
    }
    // Each image is a point. The legend has one point for each class and one for training images.
    assert_eq!(plot.matches("<circle").count(), LARGE + NUMBER + CLASSES + 1);
}

#[test]
fn a_class_without_images_has_no_metrics() {
    let folder = with_large(with_model(), true);
    let result = json(folder.path(), &[&EVAL[..], &["--classes", "0,2"]].concat());
    assert_eq!((&result["samples"], &result["train_images"]), (&NUMBER.into(), &100.into()));
    for by_class in [&result["accuracy"], &result["accuracy"]["floor"], &result["diversity"]] {
        let known: Vec<bool> =
            by_class["by_class"].as_array().unwrap().iter().map(Value::is_number).collect();
        assert_eq!(known, [true, false, true]);
    }
}

#[test]
fn the_table_says_the_same() {
    let folder = with_large(with_model(), true);
    let result = json(folder.path(), &EVAL);
    let text = stdout(&run(folder.path(), &EVAL));
    let number = |value: &Value| value.as_f64().unwrap();
    let frechet = &result["frechet"];
    let row = format!(
        "\n| Fréchet distance, 135 images | {:.2} | {:.2} | {:.2} |\n",
        number(&frechet["distance"]),
        number(&frechet["floor"]["distance"]),
        number(&frechet["ratio"])
    );
    assert!(text.contains(&row), "{row} {text}");
    let accuracy = format!("\n| class accuracy | {:.4} ± ", number(&result["class_accuracy"]));
    assert!(text.contains(&accuracy) && text.contains(" | 1.0000 ± 0.0000 | "), "{text}");
    let command = "`ddpm-cli eval --model model --data large --num-images 135 --features net --sampler dpmpp-2m-sde --guidance-scale 1.5 \
                   --seed 1`";
    assert!(text.starts_with(command), "{text}");
    assert!(text.contains(result["features_sha256"].as_str().unwrap()));
    assert_eq!(
        text.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()).count(),
        3
    );
}

#[test]
fn without_a_test_set_there_is_no_floor() {
    let folder = with_large(with_model(), true);
    for file in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::remove_file(folder.path().join("large").join(file)).unwrap();
    }
    let result = json(folder.path(), &[&EVAL[..], &["-o", "out"]].concat());
    assert!(result["real_accuracy"].is_null() && result["class_accuracy"].is_number());
    assert!(result["test_images"].is_null() && result["frechet"]["floor"].is_null());
    let text = stdout(&run(folder.path(), &EVAL));
    assert!(text.contains("there are no test images, so there is no floor"), "{text}");
}

#[test]
fn without_classes_the_rest_is_measured() {
    let folder = with_large(with_unlabelled_model(), false);
    let result = json(folder.path(), &[&EVAL[..], &["-o", "out"]].concat());
    assert!(result["accuracy"].is_null() && result["class_accuracy"].is_null());
    assert!(result["frechet"]["distance"].is_number() && result["manifold"]["recall"]["mean"].is_number());
    assert!(result["diversity"]["overall"].is_number());
    assert_eq!(names(&folder.path().join("out")), ["closest-pairs.png", "quality.md", "quality.svg"]);
    let text = stdout(&run(folder.path(), &EVAL));
    assert!(text.contains("| diversity, in units") && !text.contains("| class "), "{text}");
    let error = fail(folder.path(), 1, &[&EVAL[..], &["--metrics", "accuracy"]].concat());
    assert!(error.contains("no classes"), "{error}");
}

#[test]
fn other_data_than_mnist_needs_a_feature_net_of_its_own() {
    let folder = with_model();
    let error = fail(folder.path(), 1, &["eval", "--model", "model", "--data", "data"]);
    assert!(error.contains("`ddpm-cli train-features --data data -o features`"), "{error}");
    let (labelled, unlabelled) = (with_model(), with_unlabelled_model());
    let net = unlabelled.path().join("net").display().to_string();
    let args = ["eval", "--model", "model", "--data", "data", "--features", &net, "--num-images", "18"];
    let result = json(labelled.path(), &args);
    assert!(result["accuracy"].is_null() && result["kernel"]["mean"].is_number(), "{result}");
    // 18 images and 96 training images are fewer than the 128 features.
    assert!(result["frechet"].is_null(), "{result}");
    let error = fail(labelled.path(), 1, &[&args[..], &["--metrics", "accuracy"]].concat());
    assert!(error.contains("without labels"), "{error}");
}

#[test]
fn data_that_does_not_fit_the_model_is_refused_with_both_descriptions() {
    let folder = with_model();
    let error = fail(folder.path(), 1, &["eval", "--model", "model"]);
    assert!(error.contains("8×8 images of 3 classes"), "{error}");
    assert!(error.contains("MNIST/train has 28×28 images of 10 classes"), "{error}");
    fs::remove_file(folder.path().join("data/train-labels-idx1-ubyte")).unwrap();
    fs::remove_file(folder.path().join("data/t10k-labels-idx1-ubyte")).unwrap();
    let args = ["eval", "--model", "model", "--data", "data", "--features", "net"];
    let error = fail(folder.path(), 1, &args);
    assert!(error.contains("data/train has 8×8 images of 0 classes"), "{error}");
}

const LIKELIHOOD: [&str; 5] = ["likelihood", "--model", "model", "--data", "data"];

/// The bound is the sum of its terms, the optimal variances give the smallest KL terms, and `sample` accepts every list
/// of best timesteps.
#[test]
fn the_likelihood_is_a_sum_of_terms_and_sample_accepts_its_timesteps_and_variances() {
    let folder = with_model();
    let result = json(folder.path(), &LIKELIHOOD);
    let expected = [
        "best_timesteps",
        "bound",
        "images",
        "model",
        "optimal_variances",
        "rate_distortion",
        "seed",
        "training_images",
    ];
    assert_eq!(keys(&result), expected);
    assert_eq!(result["images"], TEST);
    let mean = |bound: &Value, key: &str| bound[key]["mean"].as_f64().unwrap();
    let kl = |kind: &str| {
        let bound = &result["bound"][kind];
        let steps = bound["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 20, "{kind}");
        let terms: Vec<f64> = steps.iter().map(|step| mean(step, "bits_per_dim")).collect();
        let sum = mean(bound, "prior_bits_per_dim") + terms.iter().sum::<f64>();
        assert!((sum - mean(bound, "total_bits_per_dim")).abs() < 1e-9 * sum, "{kind}");
        assert!(terms.iter().all(|&term| term >= 0.0), "{kind}");
        terms[..19].iter().sum::<f64>()
    };
    assert!(kl("optimal") < kl("fixed_small") && kl("optimal") < kl("fixed_large"));
    let best = result["best_timesteps"].as_array().unwrap();
    assert_eq!(best.len(), 20);
    let list =
        |i: usize| best[i]["timesteps"].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>();
    let three = list(2).join(",");
    assert_eq!(list(2).len(), 3);
    run(folder.path(), &["sample", "--model", "model", "--timesteps", &three, "-n", "2"]);
    let variances = result["optimal_variances"].as_array().unwrap();
    assert_eq!(variances.len(), 20);
    let variances = variances.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    run(folder.path(), &["sample", "--model", "model", "--variance", &variances, "-n", "2"]);
    // The result does not depend on the number of threads.
    let one = json(folder.path(), &[&LIKELIHOOD[..], &["--threads", "1"]].concat());
    assert_eq!(one, result);
    let text = stdout(&run(folder.path(), &LIKELIHOOD));
    assert!(text.contains("| **bound** |") && text.contains("| t = 0, decoder |"), "{text}");
    assert!(text.contains(&format!("| {three} |")), "{text}");
}
