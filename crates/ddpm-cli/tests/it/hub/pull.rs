//! Copies of models of the Hub.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use super::{online, push::files, run_online, server::MockHub, with_run};
use crate::{collect, ddpm, names, run, stdout};

/// The files of a folder.
fn read(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    collect(folder, Path::new(""), &mut found);
    found.into_iter().map(|(path, bytes)| (path.to_str().unwrap().to_owned(), bytes)).collect()
}

/// A server with the model of a run as `me/digits`.
fn pushed() -> (MockHub, tempfile::TempDir) {
    let (server, folder) = (MockHub::start(), with_run());
    run_online(&server, folder.path(), &["push", "run", "hf://me/digits"]);
    (server, folder)
}

#[test]
fn a_pulled_model_has_the_same_bytes_and_works_offline() {
    let (server, folder) = pushed();
    let told = stdout(&run_online(&server, folder.path(), &["pull", "hf://me/digits", "--json"]));
    let told: Value = serde_json::from_str(&told).unwrap();
    let (pulled, found) = (read(&folder.path().join("digits")), files(&server, "main"));
    assert_eq!(pulled.len(), 5);
    assert!(pulled.iter().all(|(name, bytes)| found[name].bytes == *bytes));
    let bytes: usize = pulled.values().map(Vec::len).sum();
    assert_eq!((&told["model"], &told["bytes"]), (&"digits".into(), &bytes.into()));
    assert_eq!(told["commit"].as_str().unwrap().len(), 40);
    // Again, in place of the first copy.
    run_online(&server, folder.path(), &["pull", "hf://me/digits"]);
    // A push of the copy changes nothing.
    let again = stdout(&run_online(&server, folder.path(), &["push", "digits", "hf://me/digits"]));
    assert!(again.contains("nothing to do"), "{again}");
    drop(server);
    // The helper of other tests: offline.
    for revision in ["main", told["commit"].as_str().unwrap()] {
        run(folder.path(), &["pull", "hf://me/digits", "--revision", revision, "-o", "new/copy"]);
        assert!(read(&folder.path().join("new/copy")) == pulled);
    }
    run(folder.path(), &["sample", "--model", "digits", "-n", "2", "-q"]);
}

#[test]
fn the_files_of_a_guide_are_pushed_and_pulled() {
    let (server, folder) = (MockHub::start(), with_run());
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/models/mnist");
    run_online(&server, folder.path(), &["push", built_in.to_str().unwrap(), "hf://me/digits"]);
    let card = String::from_utf8(files(&server, "main")["README.md"].bytes.clone()).unwrap();
    assert!(card.contains("datasets:\n- ylecun/mnist\n") && card.contains("- mnist\n"), "{card}");
    run_online(&server, folder.path(), &["pull", "hf://me/digits"]);
    let (pulled, mut expected) = (read(&folder.path().join("digits")), read(&built_in));
    expected.insert("README.md".to_owned(), card.into_bytes());
    assert!(pulled == expected, "{:?}", pulled.keys());
    assert!(pulled.contains_key("guide/config.json"));
}

#[test]
fn a_revision_is_pulled() {
    let (server, folder) = pushed();
    run_online(&server, folder.path(), &["push", "run", "hf://me/digits@v2", "--license", "mit"]);
    for (args, has_licence) in [
        (&["hf://me/digits@v2"][..], true),
        (&["hf://me/digits", "--revision", "v2"], true),
        (&["hf://me/digits"], false),
    ] {
        run_online(&server, folder.path(), &[&["pull"], args].concat());
        let card = fs::read_to_string(folder.path().join("digits/README.md")).unwrap();
        assert_eq!(card.contains("license: mit"), has_licence, "{args:?}");
    }
}

#[test]
fn what_is_no_model_is_neither_replaced_nor_written() {
    let (server, folder) = pushed();
    server.take_requests();
    let path = folder.path();
    fs::write(path.join("digits"), "a file").unwrap();
    for (out, expected) in [("digits", "digits"), ("data", "holds no model"), ("run", "holds no model")] {
        let before = names(path);
        let assert = online(&server, path, &["pull", "hf://me/digits", "-o", out]).assert().code(1);
        let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(error.contains(expected), "{error}");
        assert_eq!(names(path), before);
    }
    // A model with a file of the user.
    fs::write(path.join("model/notes.txt"), "mine").unwrap();
    let assert = online(&server, path, &["pull", "hf://me/digits", "-o", "model"]).assert().code(1);
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(error.contains("notes.txt"), "{error}");
    assert!(server.take_requests().is_empty());
    // Repositories without a model, and none.
    server.create("me/empty", false);
    for (from, expected) in [
        ("hf://me/empty", "me/empty has no file model_index.json"),
        ("hf://me/none", "me/none has no file model_index.json"),
        ("hf://me/digits@v9", "me/digits has no file model_index.json at revision v9"),
    ] {
        let assert = online(&server, path, &["pull", from, "-o", "new"]).assert().code(1);
        let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(error.contains(expected), "{error}");
        assert!(!path.join("new").exists());
    }
    let assert = ddpm(path, &["pull", "hf://me/other", "-o", "new"]).assert().code(1);
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(error.contains("offline mode is on") && !path.join("new").exists(), "{error}");
}

/// A model whose weights do not fit its configuration is downloaded, and then refused.
#[test]
fn a_model_that_cannot_be_read_is_not_written() {
    let (server, folder) = pushed();
    let config = folder.path().join("run/model/denoiser/config.json");
    let text = fs::read_to_string(&config).unwrap().replace("\"num_classes\": 3", "\"num_classes\": 4");
    server.replace("me/digits", "denoiser/config.json", text.as_bytes());
    let assert = online(&server, folder.path(), &["pull", "hf://me/digits"]).assert().code(1);
    let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(error.contains("hf://me/digits/denoiser/diffusion_pytorch_model.safetensors"), "{error}");
    assert!(!folder.path().join("digits").exists());
}
