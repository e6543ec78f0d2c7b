//! Failed downloads, and the state of the cache after them.

use std::fs;

use ddpm_data::{Error, Hub, HubAddress, HubConfig, HubFile, idx};

use super::server::{FAULTS, Fault, MockHub};
use crate::check_causes;

const PATH: &str = "some/model/weights";
const CONTENT: &[u8] = b"a file of the model, long enough to be cut in half";

fn server() -> MockHub {
    let server = MockHub::start();
    server.serve(PATH, CONTENT.to_vec());
    server
}

fn get(config: HubConfig) -> Result<HubFile, Error> {
    Hub::new(config)?.model_file("some", "model", None, "weights")
}

fn check(file: Result<HubFile, Error>) {
    assert_eq!(fs::read(file.unwrap().path).unwrap(), CONTENT);
}

#[test]
fn one_failure_is_repaired_by_a_second_download() {
    for fault in FAULTS {
        let server = server();
        server.fail(PATH, &[fault]);
        check(get(server.config()));
        assert_eq!(server.take_gets(), 2, "{fault:?}");
        check(get(server.config()));
        assert_eq!(server.take_gets(), 0, "{fault:?}");
    }
}

#[test]
fn after_two_failures_the_cache_holds_no_damaged_file() {
    for first in FAULTS {
        for second in FAULTS {
            let server = server();
            server.fail(PATH, &[first, second]);
            let error = get(server.config()).unwrap_err();
            assert_eq!(server.take_gets(), 2, "{first:?}, {second:?}");
            match (second, &error) {
                (Fault::Truncated | Fault::Status, Error::HubRequest { repo, file, .. }) => {
                    assert_eq!((repo.as_str(), file.as_str()), ("some/model", "weights"));
                }
                (Fault::Wrong, Error::Checksum { file, found, expected }) => {
                    for part in [file.to_str().unwrap(), found, expected] {
                        assert!(error.to_string().contains(part), "{error}");
                    }
                    assert!(file.ends_with("weights"), "{error}");
                }
                _ => panic!("{first:?}, {second:?}: {error}"),
            }
            // The damaged file is neither used offline nor online.
            let offline = HubConfig { offline: true, ..server.config() };
            assert!(matches!(get(offline), Err(Error::NotCached { .. })), "{first:?}, {second:?}");
            check(get(server.config()));
            assert_eq!(server.take_gets(), 1, "{first:?}, {second:?}");
        }
    }
}

#[test]
fn small_files_are_verified_by_their_size() {
    let server = MockHub::start();
    server.serve_small(PATH, CONTENT.to_vec());
    server.fail(PATH, &[Fault::Status]);
    check(get(server.config()));
    assert_eq!(server.take_gets(), 2);

    let server = MockHub::start();
    server.serve_small(PATH, CONTENT.to_vec());
    server.fail(PATH, &[Fault::Status, Fault::Status]);
    let error = get(server.config()).unwrap_err();
    assert!(matches!(error, Error::HubRequest { .. }), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("500"), "{error}");
    check(get(server.config()));
}

#[test]
fn small_files_are_downloaded_again_if_they_cannot_be_parsed() {
    let path = "datasets/some/digits/train-images-idx3-ubyte";
    let load = |server: &MockHub| {
        Hub::new(server.config()).unwrap().dataset(&HubAddress::new("some", "digits", None).unwrap())
    };
    let server = MockHub::start();
    server.serve_small(path, idx::encode_images(1, 1, &[1, 2, 3]).unwrap());
    server.fail(path, &[Fault::Wrong]);
    assert_eq!(load(&server).unwrap().train().images(), [1, 2, 3]);

    let server = MockHub::start();
    server.serve_small(path, idx::encode_images(1, 1, &[1, 2, 3]).unwrap());
    server.fail(path, &[Fault::Wrong, Fault::Wrong]);
    let error = load(&server).unwrap_err();
    assert!(matches!(error, Error::NotIdx { .. }), "{error}");
    assert_eq!(load(&server).unwrap().train().images(), [1, 2, 3]);
}

#[test]
fn a_file_with_the_right_digest_is_not_downloaded_again_if_it_cannot_be_parsed() {
    let server = MockHub::start();
    server.serve("datasets/some/digits/train-images-idx3-ubyte", CONTENT.to_vec());
    let error = Hub::new(server.config())
        .unwrap()
        .dataset(&HubAddress::new("some", "digits", None).unwrap())
        .unwrap_err();
    assert!(matches!(error, Error::NotIdx { .. }), "{error}");
    assert_eq!(server.take_gets(), 1);
}

#[test]
fn a_damaged_file_in_the_cache_is_repaired() {
    let server = server();
    let file = get(server.config()).unwrap();
    fs::write(&file.path, "damaged").unwrap();
    server.take_requests();
    check(get(server.config()));
    assert_eq!(server.take_gets(), 1);
}

#[test]
fn offline_no_request_is_sent() {
    let server = server();
    check(get(server.config()));
    server.take_requests();
    let offline = HubConfig { offline: true, ..server.config() };
    check(get(offline));
    assert_eq!(server.take_requests(), []);
}

#[test]
fn offline_the_error_names_the_missing_file_and_how_to_get_it() {
    let server = server();
    let error = get(HubConfig { offline: true, ..server.config() }).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }));
    let cache = server.cache.path().to_str().unwrap();
    for part in ["weights of some/model at revision main", cache, "HF_HUB_OFFLINE"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let hub = Hub::new(HubConfig { offline: true, ..server.config() }).unwrap();
    let error = hub.dataset(&HubAddress::new("some", "digits", None).unwrap()).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
    assert!(error.to_string().contains("some/digits"), "{error}");
    assert_eq!(server.take_requests(), []);
}

#[test]
fn offline_a_damaged_file_is_an_error() {
    let server = server();
    let file = get(server.config()).unwrap();
    fs::write(&file.path, "damaged").unwrap();
    let error = get(HubConfig { offline: true, ..server.config() }).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
}

#[test]
fn without_a_server_a_cached_file_is_read_and_another_request_fails() {
    let server = server();
    check(get(server.config()));
    // The dropped server has closed its port.
    let gone = MockHub::start().config().endpoint;
    check(get(HubConfig { endpoint: gone.clone(), ..server.config() }));
    let empty = tempfile::tempdir().unwrap();
    let error = get(HubConfig { retries: 0, ..HubConfig::new(gone, empty.path()) }).unwrap_err();
    assert!(matches!(error, Error::HubRequest { .. }));
    assert_eq!(error.to_string(), "cannot download weights of some/model");
    check_causes(&error);
}
