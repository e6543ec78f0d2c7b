//! Answers of a server that is not what it should be. Nothing outside of the cache changes, every wait ends, and nothing
//! beyond the announced size is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ddpm_data::{Error, Hub, HubAddress, HubConfig, HubFile};
use ddpm_files::sha256_hex;

use super::server::{COMMIT, Fault, MockHub, Said};

const PATH: &str = "some/model/weights";
const CONTENT: &[u8] = b"a file of the model";
const OTHER_COMMIT: &str = "1123456789abcdef0123456789abcdef01234567";

fn get(config: HubConfig) -> Result<HubFile, Error> {
    Hub::new(config)?.model_file("some", "model", None, "weights")
}

/// A folder with the file `victim` and a cache four folders deeper.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("a/b/c/cache");
    fs::create_dir_all(&cache).unwrap();
    fs::write(folder.path().join("victim"), "of the user").unwrap();
    (folder, cache)
}

/// All paths in a folder except those in its cache, sorted. Links are not followed.
fn outside(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() && entry.file_name() != "cache" {
                folders.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    paths.sort();
    paths
}

fn said(commit: &'static str, etag: Option<&str>) -> Said {
    Said { commit, etag: etag.map(str::to_owned), size: true }
}

#[test]
fn names_of_a_server_never_lead_out_of_the_cache() {
    let sha256 = sha256_hex(CONTENT);
    let names = ["../../victim", "../../../../../victim", "/etc/victim", "..", ".", "", "a/b", "a\\b", "a b"];
    let bad_etags = names.map(|name| said(COMMIT, Some(name)));
    let bad_commits = names.map(|name| said(name, Some(&sha256)));
    let good = || said(COMMIT, Some(&sha256));
    for bad in [&bad_etags[..], &bad_commits[..], &[said(COMMIT, None)]].concat() {
        // The server may answer two requests differently.
        for (answers, refused) in [([bad.clone(), good()], true), ([good(), bad.clone()], false)] {
            let (folder, cache) = folder();
            let before = outside(folder.path());
            let server = MockHub::start();
            server.serve_as(PATH, CONTENT.to_vec(), answers);
            let got = get(HubConfig { cache_dir: Some(cache.clone()), ..server.config() });
            match got {
                // The client uses the commit and the ETag of the `HEAD`.
                Ok(file) => assert_eq!((file.commit.as_str(), refused), (COMMIT, false), "{bad:?}"),
                Err(error) => {
                    assert!(refused && matches!(error, Error::OutOfRange { .. }), "{bad:?}: {error}");
                    assert!(error.to_string().contains("weights of some/model"), "{error}");
                    assert_eq!(server.take_gets(), 0);
                    assert_eq!(fs::read_dir(cache).unwrap().count(), 0, "{bad:?}");
                }
            }
            assert_eq!(outside(folder.path()), before, "{bad:?}");
            assert_eq!(fs::read_to_string(folder.path().join("victim")).unwrap(), "of the user");
        }
    }
}

#[test]
fn another_commit_than_the_requested_one_is_refused() {
    let server = MockHub::start();
    let answer = said(OTHER_COMMIT, Some("etag"));
    server.serve_as(PATH, CONTENT.to_vec(), [answer.clone(), answer]);
    let hub = Hub::new(server.config()).unwrap();
    let error = hub.model_file("some", "model", Some(COMMIT), "weights").unwrap_err();
    assert!(error.to_string().contains(OTHER_COMMIT), "{error}");
}

/// A damaged file of the cache is removed. If its link was made by another program, only the link is.
#[cfg(unix)]
#[test]
fn the_target_of_a_foreign_link_is_neither_removed_nor_written() {
    use std::os::unix::fs::symlink;

    let snapshot = format!("models--some--model/snapshots/{COMMIT}");
    // The target as seen from the snapshot, four folders below the cache.
    for target in ["../../../../../../../victim", "/victim", "../../blobs/../../../../../../victim"] {
        for link_folder in [false, true] {
            let (folder, cache) = folder();
            let server = MockHub::start();
            server.serve(PATH, CONTENT.to_vec());
            // The first two downloads are damaged, so that the client removes the file.
            server.fail(PATH, &[Fault::Wrong, Fault::Wrong, Fault::Wrong]);
            let victim = folder.path().join("victim");
            let target = target.replace("/victim", victim.to_str().unwrap());
            if link_folder {
                fs::create_dir_all(cache.join(&snapshot).parent().unwrap()).unwrap();
                symlink(folder.path(), cache.join(&snapshot)).unwrap();
                fs::write(folder.path().join("weights"), "of the user too").unwrap();
            } else {
                fs::create_dir_all(cache.join(&snapshot)).unwrap();
                symlink(&target, cache.join(&snapshot).join("weights")).unwrap();
            }
            let before = outside(folder.path());
            let config = HubConfig { cache_dir: Some(cache), ..server.config() };
            for _ in 0..3 {
                let _ = get(config.clone());
            }
            assert_eq!(outside(folder.path()), before, "{target}");
            assert_eq!(fs::read_to_string(victim).unwrap(), "of the user");
            if link_folder {
                let other = fs::read_to_string(folder.path().join("weights")).unwrap();
                assert_eq!(other, "of the user too");
            }
        }
    }
}

/// Parsing fails, so the client removes the file from the cache and downloads it again.
#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_parsed_is_removed_without_the_target_of_its_link() {
    let (folder, cache) = folder();
    let server = MockHub::start();
    server.serve_small("datasets/some/digits/train-images-idx3-ubyte", CONTENT.to_vec());
    let snapshot = cache.join(format!("datasets--some--digits/snapshots/{COMMIT}"));
    fs::create_dir_all(&snapshot).unwrap();
    let victim = folder.path().join("victim");
    std::os::unix::fs::symlink(&victim, snapshot.join("train-images-idx3-ubyte")).unwrap();
    let config = HubConfig { cache_dir: Some(cache), ..server.config() };
    let error =
        Hub::new(config).unwrap().dataset(&HubAddress::new("some", "digits", None).unwrap()).unwrap_err();
    assert!(!matches!(error, Error::NoHubDataSet { .. }), "{error}");
    assert_eq!(fs::read_to_string(victim).unwrap(), "of the user");
}

#[test]
fn a_download_ends_at_the_announced_size() {
    for small in [true, false] {
        let server = MockHub::start();
        match small {
            true => server.serve_small(PATH, CONTENT.to_vec()),
            false => server.serve(PATH, CONTENT.to_vec()),
        }
        server.fail(PATH, &[Fault::Endless, Fault::Endless]);
        let error = get(server.config()).unwrap_err();
        assert!(matches!(error, Error::DownloadSize { expected: 19, .. }), "{error}");
        let blobs = server.cache.path().join("models--some--model/blobs");
        assert_eq!(fs::read_dir(blobs).map_or(0, Iterator::count), 0);
    }
}

#[test]
fn a_download_without_an_announced_size_ends_too() {
    let server = MockHub::start();
    let answer = Said { size: false, ..said(COMMIT, Some("etag")) };
    server.serve_as(PATH, CONTENT.to_vec(), [answer.clone(), answer]);
    assert_eq!(fs::read(get(server.config()).unwrap().path).unwrap(), CONTENT);
    fs::remove_dir_all(server.cache.path().join("models--some--model")).unwrap();
    server.fail(PATH, &[Fault::Endless, Fault::Endless]);
    let error = get(server.config()).unwrap_err();
    assert!(matches!(&error, Error::OutOfRange { .. }) && error.to_string().contains("67108864"), "{error}");
    let blobs = server.cache.path().join("models--some--model/blobs");
    assert_eq!(fs::read_dir(blobs).map_or(0, Iterator::count), 0);
}

#[test]
fn the_token_is_not_shown() {
    let server = MockHub::start();
    let hub = Hub::new(HubConfig { token: Some("secret".to_owned()), ..server.config() }).unwrap();
    assert!(!format!("{hub:?}").contains("secret"));
}

#[test]
fn a_silent_or_slow_server_and_endless_redirects_are_errors() {
    for fault in [Fault::Silent, Fault::Slow, Fault::Loop] {
        let server = MockHub::start();
        server.serve(PATH, vec![b'x'; 1 << 20]);
        // Each redirect is a request.
        server.fail(PATH, &[fault; 40]);
        let config = HubConfig { timeout: Duration::from_millis(200), ..server.config() };
        let error = get(config).unwrap_err();
        assert!(matches!(error, Error::HubRequest { .. }), "{fault:?}: {error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        let expected = if matches!(fault, Fault::Loop) { "redirect" } else { "HF_HUB_DOWNLOAD_TIMEOUT" };
        assert!(cause.contains(expected), "{fault:?}: {cause}");
    }
}

#[test]
fn the_token_is_not_sent_to_another_server() {
    let (server, storage) = (MockHub::start(), MockHub::start());
    for mock in [&server, &storage] {
        mock.serve(PATH, CONTENT.to_vec());
    }
    server.fail(PATH, &[Fault::Loop, Fault::Elsewhere(storage.port())]);
    let file = get(HubConfig { token: Some("secret".to_owned()), ..server.config() }).unwrap();
    assert_eq!(fs::read(file.path).unwrap(), CONTENT);
    let authorizations = |mock: &MockHub| -> Vec<_> {
        mock.take_requests().into_iter().map(|request| request.authorization).collect()
    };
    // The head, the redirect to itself, the redirect to the storage.
    assert_eq!(authorizations(&server), vec![Some("Bearer secret".to_owned()); 3]);
    assert_eq!(authorizations(&storage), [None]);
}

/// Root may write everywhere, so the cache is a folder whose parent is a file.
#[test]
fn a_cache_that_cannot_be_written_is_an_error_that_names_it_and_a_way_out() {
    let server = MockHub::start();
    server.serve(PATH, CONTENT.to_vec());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let cache = folder.path().join("file/cache");
    let error = get(HubConfig { cache_dir: Some(cache.clone()), ..server.config() }).unwrap_err();
    assert!(matches!(error, Error::CacheNotWritable { .. }), "{error}");
    for part in [cache.to_str().unwrap(), "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// In place of a read-only file system: folders whose names are taken by files, so that nothing can be created in them.
#[test]
fn a_full_cache_that_cannot_be_written_is_read_online() {
    let server = MockHub::start();
    server.serve(PATH, CONTENT.to_vec());
    let file = get(server.config()).unwrap();
    server.take_requests();
    let refs = server.cache.path().join("models--some--model/refs");
    fs::remove_dir_all(&refs).unwrap();
    fs::write(&refs, "").unwrap();
    assert_eq!(get(server.config()).unwrap(), file);
    assert_eq!(server.take_gets(), 0);
}

#[test]
fn the_cache_has_the_layout_of_the_python_client() {
    let server = MockHub::start();
    server.serve("some/model/denoiser/config.json", CONTENT.to_vec());
    let hub = Hub::new(server.config()).unwrap();
    let file = hub.model_file("some", "model", None, "denoiser/config.json").unwrap();
    let repository = server.cache.path().join("models--some--model");
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    let path = repository.join(format!("snapshots/{COMMIT}/denoiser/config.json"));
    assert_eq!(file.path, path);
    if cfg!(unix) {
        let link = fs::read_link(path).unwrap();
        assert_eq!(link, Path::new("../../../blobs").join(sha256_hex(CONTENT)));
        assert_eq!(fs::read_dir(repository.join("blobs")).unwrap().count(), 1);
    }
}
