//! `classify`: its report, and the input that it refuses.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::{CLASSES, TEST, fail, json, keys, run, stdout, with_model, with_unlabelled_model};

const CLASSIFY: [&str; 7] = ["classify", "--model", "model", "--data", "data", "--num-noise", "20,50"];

#[test]
fn the_classifier_has_the_documented_keys_and_its_noise_samples_are_nested() {
    let folder = with_model();
    let result = json(folder.path(), &CLASSIFY);
    assert_eq!(keys(&result), ["images", "model", "results", "seed", "weighting"]);
    assert_eq!((&result["images"], &result["weighting"]), (&TEST.into(), &"min_snr".into()));
    let results = result["results"].as_array().unwrap();
    let counts: Vec<&Value> = results.iter().map(|result| &result["num_noise"]).collect();
    assert_eq!(counts, [20, 50]);
    let accuracy = |result: &Value| result["overall"].as_f64().unwrap();
    for result in results {
        assert_eq!(keys(result), ["by_class", "num_noise", "overall", "standard_error"]);
        let parts: Vec<f64> =
            result["by_class"].as_array().unwrap().iter().map(|part| part.as_f64().unwrap()).collect();
        assert_eq!(parts.len(), CLASSES);
        let mean = parts.iter().sum::<f64>() / CLASSES as f64;
        assert!((mean - accuracy(result)).abs() < 1e-12, "classes of the same size: {result}");
        assert!(accuracy(result) > 0.9, "bars at three heights are told apart: {result}");
    }
    // 20 noise samples are the first 20 of 50, on any number of threads.
    let fewer = json(folder.path(), &[&CLASSIFY[..6], &["20", "--threads", "1"]].concat());
    assert_eq!(fewer["results"].as_array().unwrap()[..], results[..1]);

    let text = stdout(&run(folder.path(), &CLASSIFY));
    let command = "`ddpm-cli classify --model model --data data --num-images 24 --num-noise 20,50 --weighting min_snr \
                   --seed 1`";
    assert!(text.starts_with(command), "{text}");
    for result in results {
        let error = result["standard_error"].as_f64().unwrap();
        let row = format!("\n| {} | {:.4} | {error:.4} | ", result["num_noise"], accuracy(result));
        assert!(text.contains(&row), "{row} {text}");
    }
}

/// The test images are not in its training set, and it was not trained to classify.
#[test]
fn the_built_in_model_knows_digits_and_the_weight_matters() {
    let folder = tempdir().unwrap();
    let accuracy = |weight: &str| {
        let options = ["--num-images", "60", "--num-noise", "20", "--weighting", weight];
        let result = json(folder.path(), &[&["classify"][..], &options].concat());
        assert_eq!((&result["weighting"], &result["images"]), (&weight.into(), &60.into()));
        result["results"][0]["overall"].as_f64().unwrap()
    };
    let (best, bound) = (accuracy("min_snr"), accuracy("bound"));
    assert!(best > 0.85 && (0.3..0.8).contains(&bound), "{best} {bound}");
}

#[test]
fn what_cannot_be_classified_is_refused() {
    let folder = with_model();
    let refused = |options: &[&str], parts: [&str; 2]| {
        let error = fail(folder.path(), 2, &[&["classify"], options].concat());
        assert!(parts.iter().all(|part| error.contains(part)), "{options:?}: {error}");
    };
    refused(&["--steps", "5"], ["--steps", "unexpected"]);
    refused(&["--num-noise", "0"], ["0", "1..=100000"]);
    refused(&["--num-images", "1"], ["1", "2.."]);
    refused(&["--weighting", "none"], ["none", "min_snr"]);
    for file in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::remove_file(folder.path().join("data").join(file)).unwrap();
    }
    let error = fail(folder.path(), 1, &CLASSIFY);
    assert!(error.contains("no test images"), "{error}");
    let error = fail(with_unlabelled_model().path(), 1, &CLASSIFY);
    assert!(error.contains("the model has no classes"), "{error}");
}
