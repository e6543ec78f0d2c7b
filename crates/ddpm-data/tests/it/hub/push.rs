//! Pushes: what they send, and what the repository then has.

use std::path::PathBuf;

use ddpm_data::{Error, HubAddress, HubConfig, PushFile, PushOptions, Pushed, fetch_model, push_model};

use super::server::{FORBIDDEN, MockHub, TOKEN};

pub(super) const ID: &str = "me/digits";

pub(super) fn config(server: &MockHub) -> HubConfig {
    HubConfig { token: Some(TOKEN.to_owned()), ..server.config() }
}

pub(super) fn address(text: &str) -> HubAddress {
    HubAddress::model(text).unwrap()
}

pub(super) fn file(name: &str, bytes: impl Into<Vec<u8>>) -> PushFile {
    PushFile { name: name.to_owned(), bytes: bytes.into() }
}

/// A text, an empty file, two large files, and a third one with the content of the first.
pub(super) fn files() -> Vec<PushFile> {
    vec![
        file("README.md", "# Digits\n"),
        file("denoiser/config.json", ""),
        file("denoiser/model.safetensors", vec![7; 5000]),
        file("samples.png", [0, 1, 2].repeat(100)),
        file("guide/model.safetensors", vec![7; 5000]),
    ]
}

pub(super) fn options() -> PushOptions {
    PushOptions { private: false, message: "First \"push\"".to_owned() }
}

pub(super) fn push(config: &HubConfig, files: &[PushFile]) -> Result<Pushed, Error> {
    push_model(&address("hf://me/digits"), files, &options(), config, |_, _, _| {})
}

/// The methods and paths of the requests since the last call.
fn requests(server: &MockHub) -> Vec<String> {
    server.take_requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
}

#[test]
fn a_push_creates_a_repository_that_has_the_files() {
    let server = MockHub::start();
    let pushed = push(&config(&server), &files()).unwrap();
    assert!(pushed.url.ends_with("/me/digits") && pushed.url.starts_with("http://127.0.0.1:"), "{pushed:?}");
    let (message, found) = server.newest(ID, "main").unwrap();
    assert_eq!(message, "First \"push\"");
    for file in files() {
        let entry = &found[&file.name];
        assert_eq!(entry.bytes, file.bytes, "{}", file.name);
        assert_eq!(
            entry.large,
            file.name.ends_with("safetensors") || file.name.ends_with("png"),
            "{}",
            file.name
        );
    }
    assert_eq!(found.len(), files().len() + 1, "the file of the new repository stays");
    // Two large files have the same content.
    assert_eq!(server.counts(ID), Some((2, 2, false)));
    let methods = requests(&server);
    assert!(methods[0].starts_with("GET /api/models/me/digits/revision/main"), "{methods:?}");
    assert!(methods.last().unwrap().starts_with("POST /api/models/me/digits/commit/main"), "{methods:?}");
}

#[test]
fn only_changed_files_are_sent() {
    let server = MockHub::start();
    let config = config(&server);
    let first = push(&config, &files()).unwrap();
    requests(&server);
    let again = push(&config, &files()).unwrap();
    assert_eq!(again, Pushed { changed: Vec::new(), ..first.clone() });
    assert_eq!(requests(&server).len(), 2, "the state and the comparison");
    let mut changed = files();
    changed[0].bytes.extend(b"More.\n");
    changed[2].bytes[0] = 8;
    let third = push(&config, &changed).unwrap();
    assert_eq!(third.changed, ["README.md", "denoiser/model.safetensors"]);
    assert_ne!(third.commit, first.commit);
    let sent = server.take_requests();
    let commit = String::from_utf8(sent.last().unwrap().body.clone()).unwrap();
    assert_eq!(commit.lines().count(), 3, "{commit}");
    assert_eq!(sent.iter().filter(|request| request.method == "PUT").count(), 1);
    let (_, found) = server.newest(ID, "main").unwrap();
    assert!(changed.iter().all(|file| found[&file.name].bytes == file.bytes));
}

#[test]
fn a_pushed_model_is_fetched_with_the_same_bytes() {
    let server = MockHub::start();
    let pushed = push(&config(&server), &files()).unwrap();
    let (files, address) = (files(), address("hf://me/digits"));
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let fetched = fetch_model(&address, &names, &server.config()).unwrap();
    assert_eq!(fetched.address.revision(), Some(pushed.commit.as_str()));
    for (file, path) in files.iter().zip(fetched.paths) {
        assert_eq!(std::fs::read(path).unwrap(), file.bytes, "{}", file.name);
    }
}

#[test]
fn large_files_are_sent_in_parts_if_the_server_wants_them() {
    // 5000 bytes: a last part that is shorter, parts of equal size, more than nine parts, and one part.
    for part in [2048, 1000, 400, 8192] {
        let server = MockHub::start();
        server.want_parts(part);
        let mut seen = Vec::new();
        let to = address("hf://me/digits");
        push_model(&to, &files(), &options(), &config(&server), |name, sent, total| {
            seen.push((name.to_owned(), sent, total));
        })
        .unwrap();
        let (_, found) = server.newest(ID, "main").unwrap();
        assert!(files().iter().all(|file| found[&file.name].bytes == file.bytes), "{part}");
        assert!(
            seen.is_sorted_by_key(|(_, sent, _)| *sent) && seen.iter().all(|(_, _, total)| *total == 5300)
        );
        assert_eq!(seen.last().unwrap().1, 5300, "{part}");
    }
}

#[test]
fn only_the_hub_gets_the_token_and_the_storage_the_headers_of_the_answer() {
    for part in [None, Some(1000)] {
        let server = MockHub::start();
        let storage = server.start_storage();
        if let Some(size) = part {
            server.want_parts(size);
        }
        push(&config(&server), &files()).unwrap();
        let (hub, others) = (server.take_requests(), storage.take_requests());
        let with_token = format!("Bearer {TOKEN}");
        for request in hub {
            let is_signed = request.path.contains("signature");
            let expected = (!is_signed).then_some(&with_token);
            assert_eq!(request.authorization.as_ref(), expected, "{}", request.path);
        }
        assert!(others.len() >= 2 && others.iter().all(|request| request.method == "PUT"));
        for request in others {
            let shown = format!("{:?}{}", request.headers, request.path);
            assert!(!shown.contains(TOKEN) && request.authorization.is_none(), "{shown}");
            let given = request.headers.contains(&("x-storage".to_owned(), "given".to_owned()));
            assert_eq!(given, part.is_none(), "{shown}");
        }
        assert_eq!(server.counts(ID), Some((2, 2, false)));
    }
}

#[test]
fn a_branch_is_made_from_main_and_main_stays() {
    let server = MockHub::start();
    push(&config(&server), &files()[..1]).unwrap();
    let before = server.newest(ID, "main");
    for branch in ["v2", "try/other"] {
        let to = address(&format!("hf://me/digits@{branch}"));
        let pushed = push_model(&to, &files(), &options(), &config(&server), |_, _, _| {}).unwrap();
        assert_eq!(pushed.changed.len(), files().len() - 1, "README.md is there from main");
        assert_eq!(server.newest(ID, branch).unwrap().1.len(), files().len() + 1);
        assert_eq!(server.newest(ID, "main"), before);
    }
    // In a repository that does not exist either.
    let to = address("hf://me/new@v2");
    push_model(&to, &files(), &options(), &config(&server), |_, _, _| {}).unwrap();
    assert_eq!(server.newest("me/new", "v2").unwrap().1.len(), files().len() + 1);
    assert_eq!(server.newest("me/new", "main").unwrap().1.len(), 1);
}

#[test]
fn a_private_push_never_goes_to_a_public_repository() {
    let server = MockHub::start();
    let private = PushOptions { private: true, ..options() };
    let push = |id: &str| {
        push_model(&address(&format!("hf://{id}")), &files(), &private, &config(&server), |_, _, _| {})
    };
    push("me/new").unwrap();
    assert_eq!(server.counts("me/new"), Some((2, 2, true)));
    server.create("me/public", false);
    server.create("me/secret", true);
    push("me/secret").unwrap();
    server.take_requests();
    let error = push("me/public").unwrap_err();
    assert!(matches!(&error, Error::NotPrivate { repo } if repo == "me/public"), "{error}");
    assert_eq!(requests(&server), ["GET /api/models/me/public/revision/main"]);
    // Somebody creates a public one between the two requests, so that the creation is answered with 409.
    server.fail_push("GET /api/models/me/public", &[super::server::PushFault::Status(404, "")]);
    assert!(matches!(push("me/public"), Err(Error::NotPrivate { .. })));
    assert_eq!(server.counts("me/public"), Some((1, 0, false)));
}

#[test]
fn what_cannot_be_pushed_is_refused_before_a_request() {
    let server = MockHub::start();
    let config = config(&server);
    let none = HubConfig { token: None, ..config.clone() };
    let in_file = HubConfig { token_file: Some(PathBuf::from("no/token")), ..none.clone() };
    let offline = HubConfig { offline: true, ..config.clone() };
    for (config, expected) in [
        (&none, &["me/digits", "HF_TOKEN", "/settings/tokens", "may write"][..]),
        (&in_file, &["HF_TOKEN", "no/token"]),
        (&offline, &["me/digits", "offline", "HF_HUB_OFFLINE"]),
    ] {
        let error = push(config, &files()).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
    for name in ["../x", "/x", "a//b", "a\\b", ""] {
        let error = push(&config, &[file(name, "")]).unwrap_err();
        assert!(matches!(error, Error::BadAddress { .. }), "{name}: {error}");
    }
    let to = address(&format!("hf://me/digits@{}", "0a".repeat(20)));
    let error = push_model(&to, &files(), &options(), &config, |_, _, _| {}).unwrap_err();
    assert!(error.to_string().contains("expected a branch"), "{error}");
    assert_eq!(requests(&server), [""; 0]);
    let to = address(&format!("hf://{FORBIDDEN}/digits"));
    let error = push_model(&to, &files(), &options(), &config, |_, _, _| {}).unwrap_err();
    assert!(matches!(error, Error::PushAccess { .. }), "{error}");
    assert_eq!(server.counts("others/digits"), None);
}
