//! `report`: a run as one HTML file.

use std::{fs, path::Path};

use crate::{LABELLED, evaluation::with_large, json, names, refusals::refused, run, with_model};

/// The finished run in a folder, with the data set and the feature net.
fn write_run(folder: &Path) {
    for (path, bytes) in &LABELLED.files {
        let path = folder.join("run").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_report_has_curves_pictures_metrics_and_the_configuration_in_one_file() {
    let folder = with_large(with_model(), true);
    let path = folder.path();
    write_run(path);
    let options = ["report", "run", "--data", "large", "--features", "net", "-n", "135"];
    let result = json(path, &options);
    assert_eq!(result["file"], "run/report.html");
    assert_eq!(result["measured"], true);
    let html = fs::read_to_string(path.join("run/report.html")).unwrap();
    for part in [
        "<h1>run</h1>",
        "training images",
        "Learning rate",
        "Gradient norm",
        "Images per second",
        "alt=\"epoch 2\"",
        "The images after this number of steps",
        "ddpm-cli eval --model run/model --data large --num-images 135",
        "<td>recall, k = 3</td>",
        "The generated images nearest to a training image",
        "batch_size = 16",
        "ddpm-cli train --config run/config.toml -o run",
    ] {
        assert!(html.contains(part), "{part}");
    }
    // Nothing is fetched: all pictures are in the file.
    let images: Vec<&str> = html.split("<img src=\"").skip(1).collect();
    assert!(images.len() >= 4 && images.iter().all(|image| image.starts_with("data:image/png;base64,")));
    assert!(!html.contains("href=") && !html.contains("@import") && !html.contains("url("));
    let again = fs::read(path.join("run/report.html")).unwrap();
    json(path, &options);
    assert!(fs::read(path.join("run/report.html")).unwrap() == again, "the same run gives the same file");
}

#[test]
fn a_run_without_a_model_is_described_without_metrics() {
    let folder = with_model();
    let path = folder.path();
    write_run(path);
    fs::remove_dir_all(path.join("run/model")).unwrap();
    fs::remove_dir_all(path.join("run/previews")).unwrap();
    fs::remove_file(path.join("run/config.toml")).unwrap();
    run(path, &["report", "run", "-o", "short.html"]);
    let html = fs::read_to_string(path.join("short.html")).unwrap();
    assert!(html.contains("The run has no model yet") && html.contains("The run has no config.toml"));
    assert!(!html.contains("<img"));
}

#[test]
fn a_folder_without_a_log_is_refused_and_no_file_is_written() {
    let folder = with_model();
    let path = folder.path();
    fs::create_dir(path.join("empty")).unwrap();
    let before = names(path);
    refused(path, &["report", "empty", "-o", "a.html"], &["empty", "metrics.jsonl"]);
    refused(path, &["report", "none", "-o", "a.html"], &["none", "metrics.jsonl"]);
    write_run(path);
    fs::write(path.join("run/metrics.jsonl"), "hello\n").unwrap();
    refused(path, &["report", "run", "-o", "a.html"], &["metrics.jsonl is not a training log"]);
    fs::write(path.join("run/metrics.jsonl"), "").unwrap();
    refused(path, &["report", "run", "-o", "a.html"], &["the log of the run is empty"]);
    fs::remove_dir_all(path.join("run")).unwrap();
    assert_eq!(names(path), before);
}
