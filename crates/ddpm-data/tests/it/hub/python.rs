//! The mock of the Hub and the Hub's Python client: both clients find nothing to change in what the other one has pushed.
//!
//! ```sh
//! DDPM_PYTHON=venv/bin/python cargo test -p ddpm-data --features hub python_client -- --ignored
//! ```

use std::fs;
use std::process::Command;

use ddpm_data::push_model;

use super::push::{address, config, files, options, push};
use super::server::{MockHub, TOKEN};

/// Pushes the folder as `me/python`, and again, which makes no commit, and over `me/digits`, which this client has pushed.
const SCRIPT: &str = r#"
import os, pathlib, sys
from huggingface_hub import HfApi, hf_hub_download

endpoint, token, folder, cache = sys.argv[1:]
api = HfApi(endpoint=endpoint, token=token)
for _ in range(2):
    api.create_repo("me/python", private=True, exist_ok=True)
first = api.upload_folder(repo_id="me/python", folder_path=folder, commit_message="from Python")
assert api.upload_folder(repo_id="me/python", folder_path=folder).oid == first.oid
before = api.model_info("me/digits").sha
assert api.upload_folder(repo_id="me/digits", folder_path=folder).oid == before
for path in pathlib.Path(folder).rglob("*.*"):
    name = str(path.relative_to(folder))
    found = hf_hub_download("me/digits", name, endpoint=endpoint, token=token, cache_dir=cache)
    assert pathlib.Path(found).read_bytes() == path.read_bytes(), name
"#;

#[test]
#[ignore = "needs DDPM_PYTHON, a Python with huggingface_hub 2.4"]
fn the_python_client_and_this_one_find_nothing_to_change() {
    let python = std::env::var_os("DDPM_PYTHON").expect("DDPM_PYTHON is a Python with huggingface_hub");
    for part in [None, Some(1000)] {
        let (server, folder) = (MockHub::start(), tempfile::tempdir().unwrap());
        let storage = server.start_storage();
        if let Some(size) = part {
            server.want_parts(size);
        }
        let data = folder.path().join("data");
        for file in files() {
            let path = data.join(&file.name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &file.bytes).unwrap();
        }
        push(&config(&server), &files()).unwrap();
        let output = Command::new(&python)
            .args(["-c", SCRIPT, &server.config().endpoint, TOKEN])
            .args([&data, &folder.path().join("cache")])
            .envs([("HF_HUB_DISABLE_XET", "1"), ("NO_PROXY", "127.0.0.1")])
            .env("HF_HOME", folder.path().join("home"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(server.newest("me/python", "main").unwrap().0, "from Python");
        let to = address("hf://me/python");
        let pushed = push_model(&to, &files(), &options(), &config(&server), |_, _, _| {}).unwrap();
        assert_eq!(pushed.changed, [""; 0]);
        assert!(!storage.take_requests().is_empty());
    }
}
