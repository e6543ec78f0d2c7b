//! Downloads of data sets: the files, their revision, the requests and the token.

use std::process::Command;

use ddpm_data::{Dataset, Error, Hub, HubAddress, HubConfig, Source, Splits, fetch_model, idx};

use super::parquet_file::{Row, file, grey, grey_as_rgb};
use super::server::{COMMIT, MockHub};
use crate::check_causes;
use crate::idx::gzip;

fn images(grey_level: u8, count: usize) -> Vec<u8> {
    idx::encode_images(2, 2, &vec![grey_level; 4 * count]).unwrap()
}

/// Serves `datasets/some/digits` as IDX files: three training images, one test image.
fn serve_idx(server: &MockHub) {
    server.serve("datasets/some/digits/train-images-idx3-ubyte.gz", gzip(&images(10, 3)));
    server.serve(
        "datasets/some/digits/train-labels-idx1-ubyte.gz",
        gzip(&idx::encode_labels(&[0, 6, 1]).unwrap()),
    );
    server.serve("datasets/some/digits/t10k-images-idx3-ubyte", images(20, 1));
    server.serve("datasets/some/digits/t10k-labels-idx1-ubyte", idx::encode_labels(&[2]).unwrap());
}

fn check_idx(splits: &Splits) {
    assert_eq!(splits.name(), "some/digits");
    assert_eq!(splits.commit(), Some(COMMIT));
    assert_eq!(splits.train().images(), [10; 12]);
    // The labels 0, 1, 2 and 6 occur.
    assert_eq!(splits.train().labels(), Some([0, 3, 1].as_slice()));
    assert_eq!(splits.test().unwrap().images(), [20; 4]);
    assert_eq!(splits.test().unwrap().name(), "some/digits/test");
    assert_eq!(splits.test().unwrap().classes(), Some(4));
}

fn load(config: &HubConfig, source: &str) -> Result<Splits, Error> {
    source.parse::<Source>()?.load(config)
}

#[test]
fn idx_files_are_downloaded_once() {
    let server = MockHub::start();
    serve_idx(&server);
    check_idx(&load(&server.config(), "hf://datasets/some/digits").unwrap());
    assert_eq!(server.take_gets(), 4);
    check_idx(&load(&server.config(), "hf://datasets/some/digits").unwrap());
    assert_eq!(server.take_gets(), 0);
}

#[test]
fn parquet_files_are_downloaded_once() {
    for folder in ["letters", "data"] {
        let server = MockHub::start();
        let row = |level: u8, label| -> Row { (Some(grey(1, 3, &[level, 0, 255])), Some(label)) };
        let train = [row(1, 4), row(2, 0), row(3, 9)];
        server.serve(&format!("datasets/some/letters/{folder}/train-00000-of-00001.parquet"), file(&train));
        // Conversion to grey does not change an RGB image whose channels are equal.
        let test: [Row; 2] = [(Some(grey_as_rgb(1, 3, &[5, 6, 7])), Some(3)), row(8, 1)];
        server.serve(&format!("datasets/some/letters/{folder}/test-00000-of-00001.parquet"), file(&test));
        for gets in [2, 0] {
            let splits = load(&server.config(), "hf://datasets/some/letters").unwrap();
            assert_eq!(server.take_gets(), gets);
            let (train, test) = (splits.train(), splits.test().unwrap());
            assert_eq!((train.len(), train.rows(), train.cols()), (3, 1, 3));
            assert_eq!(train.images(), [1, 0, 255, 2, 0, 255, 3, 0, 255]);
            assert_eq!(splits.class_labels(), Some([0, 1, 3, 4, 9].as_slice()));
            assert_eq!(train.labels(), Some([3, 0, 4].as_slice()));
            assert_eq!(test.images(), [5, 6, 7, 8, 0, 255]);
            assert_eq!((train.classes(), test.classes()), (Some(5), Some(5)));
            assert_eq!(splits.commit(), Some(COMMIT));
        }
    }
}

/// Repositories whose files have other names than the usual ones are read by the list of their files: converted data sets,
/// several parts, configurations, a validation set. Offline the files in the cache are the list.
#[test]
fn every_layout_of_the_hub_is_read_by_the_list_of_files() {
    let row = |level: u8, label| -> Row { (Some(grey(1, 3, &[level, 0, 255])), Some(label)) };
    for (train, test) in [
        (vec!["default/train/0000.parquet"], "default/test/0000.parquet"),
        (
            vec!["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
            "data/test-00000-of-00001.parquet",
        ),
        (vec!["plain/train-00000-of-00001-0f3b.parquet"], "plain/validation-00000-of-00001-0f3b.parquet"),
        (vec!["train.parquet"], "test.parquet"),
    ] {
        let server = MockHub::start();
        let serve = |file: &str, content| server.serve(&format!("datasets/some/letters/{file}"), content);
        for (number, name) in std::iter::zip(1.., &train) {
            serve(name, file(&[row(number, 0), row(number + 10, 1)]));
        }
        serve(test, file(&[row(7, 1)]));
        for offline in [false, true] {
            let config = HubConfig { offline, ..server.config() };
            let splits = load(&config, "hf://datasets/some/letters").unwrap();
            assert_eq!(
                (splits.train().len(), splits.test().unwrap().len()),
                (2 * train.len(), 1),
                "{train:?}"
            );
            assert_eq!(splits.test().unwrap().images(), [7, 0, 255]);
            assert_eq!((splits.name(), splits.commit()), ("some/letters", Some(COMMIT)));
        }
    }
}

#[test]
fn one_of_several_configurations_is_chosen_by_the_address() {
    let server = MockHub::start();
    let row = |level: u8| -> Row { (Some(grey(1, 3, &[level, 0, 255])), Some(0)) };
    for (config, level) in [("balanced", 3), ("letters", 5)] {
        server.serve(&format!("datasets/some/emnist/{config}/train/0000.parquet"), file(&[row(level)]));
    }
    let config = server.config();
    let refused = load(&config, "hf://datasets/some/emnist").unwrap_err().to_string();
    let both = "choose one: hf://datasets/some/emnist/balanced, hf://datasets/some/emnist/letters";
    assert!(refused.contains(both), "{refused}");
    let splits = load(&config, "hf://datasets/some/emnist/letters").unwrap();
    assert_eq!(splits.train().images(), [5, 0, 255]);
    let refused = load(&config, "hf://datasets/some/emnist/digits@main").unwrap_err();
    assert!(matches!(refused, Error::Ambiguous { .. }), "{refused}");
    server.serve("datasets/some/parts/train-00000-of-00003.parquet", file(&[row(1)]));
    let refused = load(&config, "hf://datasets/some/parts").unwrap_err().to_string();
    assert!(refused.contains("found 1 of the 3 parquet files of the split train"), "{refused}");
    server.serve("datasets/some/text/corpus.csv", b"a,b".to_vec());
    let refused = load(&config, "hf://datasets/some/text").unwrap_err();
    assert!(matches!(refused, Error::NoHubDataSet { .. }), "{refused}");
}

#[test]
fn labels_and_test_set_are_optional() {
    let server = MockHub::start();
    server.serve("datasets/some/digits/train-images.idx3-ubyte", images(1, 2));
    for offline in [false, true] {
        let config = HubConfig { offline, ..server.config() };
        let splits = load(&config, "hf://datasets/some/digits").unwrap();
        assert_eq!((splits.train().classes(), splits.train().len()), (None, 2));
        assert!(splits.test().is_none());
    }
}

#[test]
fn all_files_are_read_from_the_commit_of_the_first_file() {
    let server = MockHub::start();
    serve_idx(&server);
    load(&server.config(), "hf://datasets/some/digits").unwrap();
    let requests = server.take_requests();
    let found = requests.iter().position(|request| request.method == "GET").unwrap();
    assert!(requests[..found].iter().all(|request| request.path.contains("/resolve/main/")));
    assert!(requests.len() > found + 1);
    assert!(requests[found..].iter().all(|request| request.path.contains(COMMIT)));
}

#[test]
fn a_commit_is_requested_and_needs_no_request_when_cached() {
    let server = MockHub::start();
    server.serve("some/model/config.json", b"{}".to_vec());
    let get = || Hub::new(server.config()).unwrap().model_file("some", "model", Some(COMMIT), "config.json");
    let file = get().unwrap();
    assert_eq!(std::fs::read(&file.path).unwrap(), b"{}");
    assert_eq!(file.commit, COMMIT);
    let requests = server.take_requests();
    assert!(
        requests.iter().all(|request| request.path == format!("/some/model/resolve/{COMMIT}/config.json"))
    );
    assert_eq!(requests.len(), 2);
    assert_eq!(get().unwrap(), file);
    assert_eq!(server.take_requests(), []);
}

#[test]
fn all_files_of_a_model_are_of_the_commit_of_the_first() {
    let server = MockHub::start();
    let files = ["model_index.json", "denoiser/config.json", "scheduler/scheduler_config.json"];
    for file in files {
        server.serve(&format!("some/model/{file}"), file.as_bytes().to_vec());
    }
    let address = HubAddress::model("hf://some/model").unwrap();
    let fetched = fetch_model(&address, &files, &server.config()).unwrap();
    assert_eq!(fetched.address.revision(), Some(COMMIT));
    let contents = fetched.paths.iter().map(|path| std::fs::read_to_string(path).unwrap());
    assert!(contents.eq(files));
    for request in server.take_requests() {
        let first = request.path.ends_with(files[0]) && request.method == "HEAD";
        let revision = if first { "main" } else { COMMIT };
        assert!(request.path.starts_with(&format!("/some/model/resolve/{revision}/")), "{request:?}");
    }
    let error = fetch_model(&address, &["other.json"], &server.config()).unwrap_err();
    assert!(matches!(error, Error::NotOnHub { .. }), "{error}");
}

#[test]
fn the_error_names_a_missing_file_and_its_repository() {
    let server = MockHub::start();
    let hub = Hub::new(server.config()).unwrap();
    let error = hub.model_file("some", "model", None, "denoiser/config.json").unwrap_err();
    assert!(matches!(error, Error::NotOnHub { .. }));
    assert_eq!(error.to_string(), "some/model has no file denoiser/config.json at revision main");
}

#[test]
fn without_a_data_set_the_error_names_the_expected_files() {
    let server = MockHub::start();
    let error = load(&server.config(), "hf://datasets/some/digits@v1").unwrap_err();
    assert!(matches!(error, Error::NoHubDataSet { .. }));
    let files = ["digits/train-00000-of-00001.parquet", "train-images-idx3-ubyte.gz"];
    for part in ["some/digits at revision v1", files[0], files[1]] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn refused_access_is_another_error_than_a_missing_file() {
    let server = MockHub::start();
    server.forbid();
    let error = load(&server.config(), "hf://datasets/some/digits").unwrap_err();
    assert!(matches!(error, Error::HubAccess { .. }), "{error}");
    assert!(error.to_string().contains("some/digits"), "{error}");
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    check_causes(&error);
}

#[test]
fn unsafe_paths_and_names_are_refused_without_a_request() {
    let server = MockHub::start();
    let hub = Hub::new(server.config()).unwrap();
    for (owner, name, revision, file) in [
        ("some", "model", None, "../config.json"),
        ("some", "model", None, "/etc/passwd"),
        ("some", "model", None, ""),
        ("..", "model", None, "config.json"),
        ("some", "mo/del", None, "config.json"),
        ("some", "model", Some("../x"), "config.json"),
    ] {
        let error = hub.model_file(owner, name, revision, file).unwrap_err();
        assert!(matches!(error, Error::BadAddress { .. }), "{error}");
    }
    assert_eq!(server.take_requests(), []);
}

#[test]
fn token_is_sent() {
    let server = MockHub::start();
    serve_idx(&server);
    let config = HubConfig { token: Some("secret".to_owned()), ..server.config() };
    load(&config, "hf://datasets/some/digits").unwrap();
    let requests = server.take_requests();
    assert!(requests.iter().all(|request| request.authorization.as_deref() == Some("Bearer secret")));
    assert!(requests.iter().any(|request| request.method == "GET"));
}

#[test]
fn token_file_is_read_by_the_client_and_not_by_the_configuration() {
    let server = MockHub::start();
    serve_idx(&server);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let config = HubConfig { token_file: Some(file.clone()), ..server.config() };
    let sent = |config: &HubConfig| {
        load(config, "hf://datasets/some/digits").unwrap();
        let requests = server.take_requests();
        assert!(requests.iter().all(|request| request.authorization == requests[0].authorization));
        requests[0].authorization.clone()
    };
    assert_eq!(sent(&config), None);
    // The configuration is the same, the file is new.
    std::fs::write(&file, "from-file\n").unwrap();
    assert_eq!(sent(&config).as_deref(), Some("Bearer from-file"));
    let both = HubConfig { token: Some("secret".to_owned()), ..config.clone() };
    assert_eq!(sent(&both).as_deref(), Some("Bearer secret"));
    std::fs::write(&file, " \n").unwrap();
    assert_eq!(sent(&config), None);
}

#[test]
fn white_space_around_a_token_is_not_part_of_it_and_other_characters_are_an_error() {
    let server = MockHub::start();
    serve_idx(&server);
    let config = |token: &str| HubConfig { token: Some(token.to_owned()), ..server.config() };
    for token in ["secret\n", "secret\r\n", " secret\t"] {
        load(&config(token), "hf://datasets/some/digits").unwrap();
        let requests = server.take_requests();
        assert!(requests.iter().all(|request| request.authorization.as_deref() == Some("Bearer secret")));
    }
    for token in ["sec\nret", "sec ret", "secr\u{e9}t", "sec\u{1b}ret"] {
        let error = Hub::new(config(token)).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
        assert!(error.to_string().contains("HF_TOKEN") && !error.to_string().contains("sec"), "{error}");
    }
    assert_eq!(server.take_requests(), []);
}

/// Setting a variable would affect the other tests of this process, so the test runs
/// again in a child process.
#[test]
fn without_a_token_none_is_sent_even_if_the_environment_has_one() {
    if std::env::var_os("HF_TOKEN").is_some_and(|token| token == "of-the-environment") {
        let server = MockHub::start();
        serve_idx(&server);
        load(&server.config(), "hf://datasets/some/digits").unwrap();
        let requests = server.take_requests();
        assert!(!requests.is_empty());
        assert!(requests.iter().all(|request| request.authorization.is_none()));
        // `from_env` does read the variable.
        let from_env = HubConfig::from_env().token;
        assert_eq!(from_env.as_deref(), Some("of-the-environment"));
        return;
    }
    let name = "hub::datasets::without_a_token_none_is_sent_even_if_the_environment_has_one";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env("HF_TOKEN", "of-the-environment")
        .env_remove("HF_HUB_DISABLE_IMPLICIT_TOKEN")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
fn no_cache_folder_and_bad_endpoints_are_errors() {
    let config = HubConfig { cache_dir: None, ..HubConfig::new("http://127.0.0.1:9", "") };
    assert!(matches!(Hub::new(config), Err(Error::NoCacheFolder)));
    for wrong in ["not an address", "mirror", "ftp://mirror", "http://", "https://mirror?x=1", ""] {
        let error = Hub::new(HubConfig::new(wrong, "cache")).unwrap_err();
        assert!(matches!(error, Error::HubEndpoint { .. }), "{error}");
        assert!(error.to_string().contains(wrong) && error.to_string().contains("https://"), "{error}");
    }
}

fn as_parquet(set: &Dataset) -> Vec<u8> {
    let images = set.images().chunks_exact(set.image_size());
    let rows = images
        .zip(set.labels().unwrap())
        .map(|(pixels, &label)| -> Row { (Some(grey(28, 28, pixels)), Some(label.into())) });
    file(&rows.collect::<Vec<_>>())
}

#[test]
fn mnist_of_the_hub_equals_the_built_in_one() {
    let server = MockHub::start();
    let mnist = Splits::mnist().unwrap();
    let (train, test) = (as_parquet(mnist.train()), as_parquet(mnist.test().unwrap()));
    server.serve("datasets/ylecun/mnist/mnist/train-00000-of-00001.parquet", train);
    server.serve("datasets/ylecun/mnist/mnist/test-00000-of-00001.parquet", test);
    let splits = load(&server.config(), "hf://datasets/ylecun/mnist").unwrap();
    assert_eq!(splits.train().images_sha256(), mnist.train().images_sha256());
    assert_eq!(splits.test().unwrap().labels(), mnist.test().unwrap().labels());
}

#[test]
fn other_content_in_the_repository_of_mnist_is_refused() {
    let server = MockHub::start();
    let mnist = Dataset::mnist_test().unwrap();
    // MNIST's test set in the place of its training set.
    let test = as_parquet(&mnist);
    server.serve("datasets/ylecun/mnist/mnist/train-00000-of-00001.parquet", test.clone());
    server.serve("datasets/ylecun/mnist/mnist/test-00000-of-00001.parquet", test);
    let error = load(&server.config(), "hf://datasets/ylecun/mnist").unwrap_err();
    assert!(matches!(&error, Error::Checksum { found, .. } if found == mnist.images_sha256()), "{error}");
    assert!(error.to_string().contains("train-00000-of-00001.parquet"), "{error}");
    // Another repository may have any content.
    server.serve("datasets/some/mnist/data/train-00000-of-00001.parquet", as_parquet(&mnist));
    assert!(load(&server.config(), "hf://datasets/some/mnist").is_ok());
}
