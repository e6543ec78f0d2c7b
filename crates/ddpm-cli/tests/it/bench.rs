//! `bench`: the fields of its report, without absolute speeds.

use serde_json::Value;

use crate::{fail, json, keys, run, stdout, with_model, with_unlabelled_model};

#[test]
fn every_kind_of_work_is_measured() {
    let folder = with_model();
    let arguments = ["bench", "--model", "model", "--only", "train-16,sample-2", "--rounds", "2"];
    let report = json(folder.path(), &[&arguments[..], &["--threads", "2"]].concat());
    let expected = [
        "device",
        "model",
        "parameters",
        "peak_gflop_per_second",
        "results",
        "rounds",
        "steps",
        "threads",
        "version",
    ];
    assert_eq!(keys(&report), expected);
    assert_eq!((&report["device"], &report["model"]), (&"cpu".into(), &"model".into()));
    assert_eq!((&report["threads"], &report["steps"], &report["rounds"]), (&2.into(), &20.into(), &2.into()));
    assert_eq!(report["peak_gflop_per_second"], Value::Null);
    let info = json(folder.path(), &["info", "--model", "model"]);
    assert_eq!(report["parameters"], info["parameters"]);
    let results = report["results"].as_array().unwrap();
    let works: Vec<&Value> = results.iter().map(|result| &result["work"]).collect();
    assert_eq!(works, ["train-16", "sample-2"]);
    for result in results {
        let expected =
            ["flop_per_image", "gflop_per_second", "images_per_second", "results_images_per_second", "work"];
        assert_eq!(keys(result), expected);
        assert_eq!(result["results_images_per_second"], Value::Null);
        let number = |key: &str| result[key].as_f64().unwrap();
        let gflop = number("images_per_second") * number("flop_per_image") / 1e9;
        assert!(gflop > 0.0 && (number("gflop_per_second") / gflop - 1.0).abs() < 1e-9, "{result}");
    }
    let flop = |result: usize| results[result]["flop_per_image"].as_u64().unwrap();
    assert!(flop(1).is_multiple_of(20) && flop(1) > flop(0), "20 passes against about three: {results:?}");
}

#[test]
fn speeds_are_shares_of_the_peak() {
    let folder = with_unlabelled_model();
    let arguments = ["bench", "--model", "model", "--only", "sample-3", "--rounds", "1", "--peak"];
    let report = json(folder.path(), &arguments);
    assert!(report["peak_gflop_per_second"].as_f64().unwrap() > 0.0);
    let text = stdout(&run(folder.path(), &arguments));
    for part in ["sample-3", "images/s", "GFLOP/s", "% of the peak", "multiply-adds"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_architecture_is_that_of_the_built_in_model_unless_another_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let report = json(folder.path(), &["bench", "--only", "train-1", "--rounds", "1"]);
    let text = stdout(&run(folder.path(), &["bench", "--only", "sample-1", "--rounds", "1"]));
    assert!(text.contains("× results/ (") && text.contains("The machine of results/: "), "{text}");
    let info = json(folder.path(), &["info"]);
    assert_eq!((&report["model"], &report["parameters"]), (&"built-in".into(), &info["parameters"]));
    let error = fail(folder.path(), 2, &["bench", "--only", "train-0"]);
    assert!(error.contains("train-0") && error.contains("train-B or sample-N"), "{error}");
    assert!(fail(folder.path(), 2, &["bench", "--rounds", "0"]).contains("1..=1000"));
}
