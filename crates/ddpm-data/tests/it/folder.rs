//! Folders of IDX files.

use std::fs;
use std::path::Path;

use ddpm_data::{Error, HubConfig, Source, Splits, idx};
use tempfile::TempDir;

use crate::idx::gzip;

/// A folder of IDX files. A file of images holds two images of 1×1 with the given
/// grey level. A file of labels holds the labels 0 and the given value.
fn folder(files: &[(&str, u8)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files {
        let bytes = if name.contains("images") {
            idx::encode_images(1, 1, &[*value; 2]).unwrap()
        } else {
            idx::encode_labels(&[0, *value]).unwrap()
        };
        let bytes = if name.ends_with(".gz") { gzip(&bytes) } else { bytes };
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn common_names_in_every_spelling() {
    for [dash, test] in [["-", "t10k"], [".", "t10k"], ["-", "test"]] {
        for end in ["", ".gz"] {
            let folder = folder(&[
                (&format!("train-images{dash}idx3-ubyte{end}"), 1),
                (&format!("train-labels{dash}idx1-ubyte{end}"), 2),
                (&format!("{test}-images{dash}idx3-ubyte{end}"), 3),
                (&format!("{test}-labels{dash}idx1-ubyte{end}"), 4),
            ]);
            let splits = Splits::from_folder(folder.path()).unwrap();
            assert_eq!(splits.train().images(), [1, 1]);
            assert_eq!(splits.train().labels(), Some([0, 2].as_slice()));
            assert_eq!(splits.test().unwrap().images(), [3, 3]);
            assert_eq!(splits.test().unwrap().labels(), Some([0, 4].as_slice()));
            assert_eq!(splits.train().classes(), Some(5));
            let name = folder.path().file_name().unwrap().to_str().unwrap();
            assert_eq!(splits.name(), name);
            assert_eq!(splits.train().name(), format!("{name}/train"));
        }
    }
}

#[test]
fn labels_and_test_set_are_optional() {
    let folder = folder(&[("train-images-idx3-ubyte", 1), ("README", 0)]);
    let source: Source = folder.path().to_str().unwrap().parse().unwrap();
    let splits = source.load(&HubConfig::new("http://127.0.0.1:9", "unused")).unwrap();
    assert!(splits.test().is_none());
    assert_eq!(splits.train().classes(), None);
}

#[test]
fn prefix_of_emnist() {
    let folder = folder(&[
        ("emnist-balanced-train-images-idx3-ubyte.gz", 1),
        ("emnist-balanced-train-labels-idx1-ubyte.gz", 46),
        ("emnist-balanced-test-images-idx3-ubyte.gz", 2),
        ("emnist-balanced-test-labels-idx1-ubyte.gz", 3),
    ]);
    let splits = Splits::from_folder(folder.path()).unwrap();
    assert_eq!(splits.name(), "emnist-balanced");
    assert_eq!(splits.train().classes(), Some(47));
    assert_eq!(splits.test().unwrap().images(), [2, 2]);
}

#[test]
fn two_prefixes_are_ambiguous() {
    let folder = folder(&[
        ("emnist-digits-train-images-idx3-ubyte", 1),
        ("emnist-letters-train-images-idx3-ubyte", 2),
    ]);
    let error = Splits::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Ambiguous { .. }));
    for part in ["emnist-digits", "emnist-letters", folder.path().to_str().unwrap()] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn files_without_a_prefix_take_precedence() {
    let folder = folder(&[("a-train-images-idx3-ubyte", 1), ("train-images-idx3-ubyte", 2)]);
    assert_eq!(Splits::from_folder(folder.path()).unwrap().train().images(), [2, 2]);
}

#[test]
fn uncompressed_files_take_precedence_over_compressed_ones() {
    let folder = folder(&[("train-images-idx3-ubyte.gz", 1), ("train-images-idx3-ubyte", 2)]);
    assert_eq!(Splits::from_folder(folder.path()).unwrap().train().images(), [2, 2]);
}

#[test]
fn two_files_for_the_same_images_are_ambiguous() {
    let folder = folder(&[
        ("train-images-idx3-ubyte", 1),
        ("t10k-images-idx3-ubyte", 1),
        ("test-images-idx3-ubyte.gz", 1),
    ]);
    let error = Splits::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Ambiguous { .. }));
    assert!(error.to_string().contains("t10k-images-idx3-ubyte, test-images-idx3-ubyte.gz"), "{error}");
}

#[test]
fn without_a_data_set_the_error_names_the_expected_files() {
    let folder = folder(&[("t10k-images-idx3-ubyte", 1)]);
    let error = Splits::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NoDataSet { .. }));
    for part in [folder.path().to_str().unwrap(), "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", ".gz"]
    {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn the_error_names_a_missing_folder() {
    let error = Splits::from_folder(Path::new("no/such/folder")).unwrap_err();
    assert!(matches!(error, Error::Read { .. }));
    assert_eq!(error.to_string(), "cannot read no/such/folder");
}

#[test]
fn the_error_names_a_malformed_file() {
    let folder = folder(&[("train-images-idx3-ubyte", 1), ("train-labels-idx1-ubyte", 1)]);
    let labels = folder.path().join("train-labels-idx1-ubyte");
    fs::write(&labels, [0, 0, 8, 1, 0, 0, 0, 9]).unwrap();
    let error = Splits::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Short { .. }));
    assert!(error.to_string().starts_with(labels.to_str().unwrap()), "{error}");
}
