//! `eval`: class accuracy by the nearest training image.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{CLASSES, SIDE, TEST, TRAIN, fail, json, keys, labels, pixels, run, stdout, with_model};

const EVAL: [&str; 7] = ["eval", "--model", "model", "--data", "data", "--per-class", "6"];

/// The class of the nearest training image of each image in an IDX file.
fn nearest(folder: &Path, file: &str) -> Vec<usize> {
    let bytes = fs::read(folder.join(file)).unwrap();
    let (train, labels) = (pixels(TRAIN), labels(TRAIN));
    let distance = |a: &[u8], b: &[u8]| -> i32 {
        std::iter::zip(a, b).map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
    };
    let class = |image: &[u8]| {
        let nearest = std::iter::zip(train.chunks(SIDE * SIDE), &labels);
        nearest.min_by_key(|(other, _)| distance(image, other)).map(|(_, &label)| usize::from(label)).unwrap()
    };
    bytes[16..].chunks(SIDE * SIDE).map(class).collect()
}

#[test]
fn eval_has_the_documented_keys() {
    let folder = with_model();
    let result = json(folder.path(), &EVAL);
    let expected = [
        "class_accuracy",
        "class_accuracy_by_class",
        "guidance",
        "model",
        "real_accuracy",
        "ruler",
        "samples",
        "seed",
    ];
    assert_eq!(keys(&result), expected);
    assert_eq!((&result["samples"], &result["seed"]), (&(6 * CLASSES).into(), &1.into()));
    assert_eq!(result["model"], "model");
    assert_eq!(result["real_accuracy"], 1.0, "bars at three heights are told apart");
    assert_eq!(json(folder.path(), &EVAL), result, "the same each time");
}

#[test]
fn eval_judges_the_images_that_sample_draws() {
    let folder = with_model();
    let result = json(folder.path(), &EVAL);
    let sample = ["sample", "--model", "model", "--per-class", "6", "--format", "idx", "-o", "drawn"];
    run(folder.path(), &sample);
    let found = nearest(folder.path(), "drawn-images-idx3-ubyte");
    let mut right = [0_u32; CLASSES];
    for (image, found) in found.into_iter().enumerate() {
        let class = image.div_euclid(6);
        right[class] += u32::from(found == class);
    }
    let by_class: Vec<Value> = right.iter().map(|&right| (f64::from(right) / 6.0).into()).collect();
    assert_eq!(result["class_accuracy_by_class"], Value::from(by_class));
    let overall = f64::from(right.iter().sum::<u32>()) / 18.0;
    assert_eq!(result["class_accuracy"], overall);
}

#[test]
fn a_class_without_images_has_no_accuracy() {
    let folder = with_model();
    let result = json(folder.path(), &[&EVAL[..], &["--classes", "0,2"]].concat());
    assert_eq!(result["samples"], 12);
    let by_class = result["class_accuracy_by_class"].as_array().unwrap();
    let known: Vec<bool> = by_class.iter().map(Value::is_number).collect();
    assert_eq!(known, [true, false, true]);
}

#[test]
fn the_text_says_the_same() {
    let folder = with_model();
    let result = json(folder.path(), &EVAL);
    let text = stdout(&run(folder.path(), &EVAL));
    let accuracy = format!("class accuracy {:.3} of 18 images", result["class_accuracy"].as_f64().unwrap());
    assert!(text.contains(&accuracy) && text.contains("real test images: 1.000"), "{text}");
    assert_eq!(text.matches("\n  class ").count(), CLASSES, "{text}");
}

#[test]
fn without_a_test_set_there_is_no_accuracy_of_real_images() {
    let folder = with_model();
    for file in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::remove_file(folder.path().join("data").join(file)).unwrap();
    }
    let result = json(folder.path(), &EVAL);
    assert!(result["real_accuracy"].is_null() && result["class_accuracy"].is_number());
}

#[test]
fn data_that_does_not_fit_the_model_is_refused_with_both_descriptions() {
    let folder = with_model();
    let error = fail(folder.path(), 1, &["eval", "--model", "model"]);
    assert!(error.contains("8×8 images of 3 classes"), "{error}");
    assert!(error.contains("MNIST has 28×28 images of 10 classes"), "{error}");
    fs::remove_file(folder.path().join("data/train-labels-idx1-ubyte")).unwrap();
    fs::remove_file(folder.path().join("data/t10k-labels-idx1-ubyte")).unwrap();
    let error = fail(folder.path(), 1, &EVAL);
    assert!(error.contains("data has 8×8 images of 0 classes"), "{error}");
}

#[test]
fn no_images_have_no_accuracy() {
    let folder = with_model();
    let error = fail(folder.path(), 1, &["eval", "--model", "model", "--data", "data", "--per-class", "0"]);
    assert!(error.contains("--per-class"), "{error}");
}

const LIKELIHOOD: [&str; 6] = ["eval", "--model", "model", "--data", "data", "--likelihood"];

/// The bound is a sum of its terms, the optimal variances give the smallest KL terms, and any list of the best
/// timesteps is one that `sample` takes.
#[test]
fn the_likelihood_is_a_sum_of_terms_and_its_best_timesteps_can_be_sampled() {
    let folder = with_model();
    let result = json(folder.path(), &LIKELIHOOD);
    let expected =
        ["best_timesteps", "bound", "images", "model", "rate_distortion", "seed", "training_images"];
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
    assert!(kl("optimal") < kl("posterior") && kl("optimal") < kl("beta"));
    let best = result["best_timesteps"].as_array().unwrap();
    assert_eq!(best.len(), 20);
    let list =
        |i: usize| best[i]["timesteps"].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>();
    let three = list(2).join(",");
    assert_eq!(list(2).len(), 3);
    run(folder.path(), &["sample", "--model", "model", "--timesteps", &three, "-n", "2"]);
    // The same images again, whatever the number of threads.
    let one = json(folder.path(), &[&LIKELIHOOD[..], &["--threads", "1"]].concat());
    assert_eq!(one, result);
    let text = stdout(&run(folder.path(), &LIKELIHOOD));
    assert!(text.contains("| **bound** |") && text.contains("| t = 0, decoder |"), "{text}");
    assert!(text.contains(&format!("| {three} |")), "{text}");
}
