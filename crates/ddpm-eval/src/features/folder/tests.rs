//! Round trips, and errors that name the file and the invalid value.

use std::path::PathBuf;

use tempfile::{TempDir, tempdir};

use super::*;
use crate::features::{Task, net::tests::untrained};

const PIXELS: [u8; 80] = [100; 80];

fn saved() -> (TempDir, PathBuf, FeatureNet) {
    let outer = tempdir().unwrap();
    let folder = outer.path().join("net");
    let net = untrained(5, 8, Task::Classes { num_classes: 3 });
    net.save(&folder, "A card.\n").unwrap();
    (outer, folder, net)
}

/// The text of the error and its sources, joined by ": ".
fn load_error(folder: &Path) -> String {
    let error = FeatureNet::load(folder, &Device::Cpu).unwrap_err();
    let first: &dyn std::error::Error = &error;
    let chain = std::iter::successors(Some(first), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn edit(folder: &Path, from: &str, to: &str) {
    let path = folder.join(CONFIG);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from}: {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

/// Replaces the weights and updates the digest.
fn put_weights(folder: &Path, bytes: &[u8]) {
    let old = sha256_hex(&fs::read(folder.join(WEIGHTS)).unwrap());
    fs::write(folder.join(WEIGHTS), bytes).unwrap();
    edit(folder, &old, &sha256_hex(bytes));
}

#[test]
fn save_and_load_give_the_same_net() {
    let (_outer, folder, net) = saved();
    let again = FeatureNet::load(&folder, &Device::Cpu).unwrap();
    assert_eq!((again.config(), again.digest()), (net.config(), net.digest()));
    let features = |net: &FeatureNet| net.features(&PIXELS).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(features(&again), features(&net));
    assert_eq!(fs::read_to_string(folder.join(CARD)).unwrap(), "A card.\n");
    // The digest is the plain SHA-256 of the file.
    assert_eq!(sha256_hex(&fs::read(folder.join(WEIGHTS)).unwrap()), net.digest());
    assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn changed_weights_are_refused_with_both_digests() {
    let (_outer, folder, net) = saved();
    let path = folder.join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let expected =
        format!("{}: SHA-256 is {}, expected {}", path.display(), sha256_hex(&bytes), net.digest());
    assert_eq!(load_error(&folder), expected);
}

#[test]
fn a_missing_file_is_named() {
    for name in [CONFIG, WEIGHTS] {
        let (_outer, folder, _) = saved();
        fs::remove_file(folder.join(name)).unwrap();
        let error = load_error(&folder);
        assert!(error.starts_with(&folder.join(name).display().to_string()), "{error}");
        assert!(error.contains("a feature net holds config.json and features.safetensors"), "{error}");
    }
}

#[test]
fn an_invalid_configuration_is_refused() {
    for (from, to, expected) in [
        ("\"rows\": 5", "\"rows\": 65", "config.json: rows is 65, expected 1 to 64"),
        ("\"num_classes\": 3", "\"num_classes\": 63", "config.json: num_classes is 63, expected 2 to 62"),
        ("\"kernel\": 3", "\"kernel\": 2", "config.json: kernel is 2, expected an odd number from 1 to 15"),
        ("\"rows\"", "\"lines\"", "config.json: invalid JSON content: unknown field `lines`"),
        ("\"classes\"", "\"colours\"", "config.json: invalid JSON content: unknown variant `colours`"),
        (
            "\"num_classes\": 3",
            "\"num_classes\": 4",
            "features.safetensors: tensor `logits.weight` is F16 [3, 6], expected F16 [4, 6]",
        ),
    ] {
        let (_outer, folder, _) = saved();
        edit(&folder, from, to);
        let error = load_error(&folder);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn weights_of_another_net_are_refused() {
    let weights = |count: usize, dtype: DType| {
        let net = untrained(5, 8, Task::Classes { num_classes: 3 });
        let all = net.config().parameters().into_iter().chain([("more".to_owned(), vec![2])]).take(count);
        let all = all.map(|(name, shape)| (name, Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()));
        safetensors::serialize(all, None).unwrap()
    };
    for (bytes, expected) in [
        (weights(5, DType::F16), "no tensor `logits.bias`, expected one of shape [3]"),
        (weights(7, DType::F16), "unexpected tensor `more`"),
        (weights(6, DType::F32), "tensor `conv.0.weight` is F32 [4, 9], expected F16 [4, 9]"),
        (b"no safetensors".to_vec(), "features.safetensors: invalid safetensors file"),
    ] {
        let (_outer, folder, _) = saved();
        put_weights(&folder, &bytes);
        let error = load_error(&folder);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_folder_with_other_content_is_not_changed() {
    let (outer, folder, net) = saved();
    net.save(&folder, "Another card.\n").unwrap();
    assert_eq!(fs::read_to_string(folder.join(CARD)).unwrap(), "Another card.\n");
    fs::write(folder.join(CONFIG), "{}").unwrap();
    let error = net.save(&folder, "").unwrap_err().to_string();
    assert!(error.contains("exists and holds no feature net"), "{error}");
    assert_eq!(fs::read_to_string(folder.join(CONFIG)).unwrap(), "{}");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1, "nothing is left behind");
}
