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
fn images_of_emnist_are_transposed_and_a_note_says_so() {
    let pixels = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16];
    for (prefix, size, expected) in
        [("emnist-letters-", (3, 2), [1, 4, 2, 5, 3, 6, 11, 14, 12, 15, 13, 16]), ("digits-", (2, 3), pixels)]
    {
        let folder = folder(&[]);
        let file = folder.path().join(format!("{prefix}train-images-idx3-ubyte"));
        fs::write(file, idx::encode_images(2, 3, &pixels).unwrap()).unwrap();
        let splits = Splits::from_folder(folder.path()).unwrap();
        assert_eq!((splits.train().rows(), splits.train().cols()), size);
        assert_eq!(splits.train().images(), expected);
        assert_eq!(
            splits.notes().iter().any(|note| note.contains("transposed")),
            prefix == "emnist-letters-"
        );
    }
}

#[test]
fn one_of_several_data_sets_is_chosen_by_its_prefix_or_by_a_file() {
    let folder = folder(&[
        ("emnist-digits-train-images-idx3-ubyte", 1),
        ("emnist-letters-train-images-idx3-ubyte.gz", 2),
        ("emnist-letters-test-images-idx3-ubyte", 3),
    ]);
    let error = Splits::from_folder(folder.path()).unwrap_err();
    let Error::Ambiguous { candidates, .. } = &error else { panic!("{error}") };
    let paths = ["emnist-digits", "emnist-letters"].map(|prefix| folder.path().join(prefix));
    assert_eq!(candidates, &paths.clone().map(|path| path.display().to_string()));
    for (path, level) in std::iter::zip(&paths, [1, 2]) {
        assert_eq!(Splits::from_folder(path).unwrap().train().images(), [level, level]);
    }
    let file = folder.path().join("emnist-letters-test-images-idx3-ubyte");
    assert_eq!(Splits::from_folder(&file).unwrap().name(), "emnist-letters");
    assert!(matches!(Splits::from_folder(&folder.path().join("emnist")), Err(Error::NoSource { .. })));
}

/// Writes the files of [`folder`] to a folder below.
fn below(folder: &TempDir, path: &str, files: &[(&str, u8)]) {
    let source = self::folder(files);
    fs::create_dir_all(folder.path().join(path)).unwrap();
    for (name, _) in files {
        fs::copy(source.path().join(name), folder.path().join(path).join(name)).unwrap();
    }
}

#[test]
fn files_beside_folders_of_their_names_are_read() {
    // Kaggle's archive of MNIST.
    let mut files = vec![];
    for split in ["train", "t10k"] {
        files.extend([(format!("{split}-images.idx3-ubyte"), 1), (format!("{split}-labels.idx1-ubyte"), 4)]);
    }
    let files: Vec<_> = files.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let folder = folder(&files);
    let nested = [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ];
    for name in nested {
        below(&folder, name, &[(name, 9)]);
    }
    let check = |level| {
        let splits = Splits::from_folder(folder.path()).unwrap();
        assert_eq!(
            (splits.train().images(), splits.test().unwrap().images()),
            (&[level; 2][..], &[level; 2][..])
        );
        assert_eq!(splits.test().unwrap().labels().unwrap().len(), 2);
    };
    check(1);
    for (name, _) in files {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    check(9);
}

#[test]
fn the_only_data_set_below_a_folder_is_read() {
    let folder = folder(&[]);
    // The folders of torchvision.
    below(&folder, "MNIST/raw", &[("train-images-idx3-ubyte", 3), ("train-labels-idx1-ubyte", 1)]);
    assert_eq!(Splits::from_folder(folder.path()).unwrap().train().labels(), Some([0, 1].as_slice()));
    below(&folder, "FashionMNIST/raw", &[("train-images-idx3-ubyte", 4)]);
    let error = Splits::from_folder(folder.path()).unwrap_err();
    let Error::Ambiguous { candidates, .. } = &error else { panic!("{error}") };
    for (path, level) in std::iter::zip(candidates, [4, 3]) {
        assert_eq!(Splits::from_folder(Path::new(path)).unwrap().train().images(), [level; 2]);
    }
}

#[test]
fn labels_of_qmnist_are_read() {
    let folder = folder(&[("qmnist-train-images-idx3-ubyte", 1)]);
    let numbers = [0xc02, 2, 8, 6, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    fs::write(folder.path().join("qmnist-train-labels-idx2-int.gz"), gzip(&crate::idx::header(&numbers)))
        .unwrap();
    assert_eq!(Splits::from_folder(folder.path()).unwrap().train().labels(), Some([6, 9].as_slice()));
}

#[test]
fn a_file_with_a_slightly_wrong_name_is_an_error_that_names_it() {
    let images = ("train-images-idx3-ubyte", 1);
    let labels = ("train-labels-idx1-ubyte", 1);
    for (files, found, missing) in [
        (&[images, ("train-label-idx1-ubyte", 1)][..], "train-label-idx1-ubyte", "train-labels-idx1-ubyte"),
        (
            &[images, ("train-labels.idx1-ubyte.txt", 1)],
            "train-labels.idx1-ubyte.txt",
            "train-labels-idx1-ubyte",
        ),
        (&[images, ("Train_Labels.csv", 1)], "Train_Labels.csv", "train-labels-idx1-ubyte"),
        (
            &[images, ("mnist-train-labels-idx1-ubyte", 1)],
            "mnist-train-labels-idx1-ubyte",
            "train-labels-idx1-ubyte",
        ),
        (&[images, labels, ("t10k-image-idx3-ubyte", 1)], "t10k-image-idx3-ubyte", "t10k-images-idx3-ubyte"),
        (
            &[images, labels, ("test-labels-idx1-ubyte", 1)],
            "test-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
        ),
    ] {
        let folder = folder(files);
        let error = Splits::from_folder(folder.path()).unwrap_err();
        let path = |name| folder.path().join(name);
        assert!(
            matches!(&error, Error::Unread { file, missing: m } if *file == path(found) && *m == path(missing)),
            "{error}"
        );
    }
    let other = folder(&[images, ("README.md", 1), ("emnist-mapping.txt", 1)]);
    assert!(Splits::from_folder(other.path()).is_ok());
    let labelled = folder(&[images, labels, ("train-labels.csv", 1)]);
    assert!(Splits::from_folder(labelled.path()).is_ok());
}

#[test]
fn labels_of_minus_one_stand_for_no_label() {
    for (labels, images, read) in [
        (&[-1, 7][..], &[2][..], Some(&[7][..])),
        (&[-1, -1], &[1, 2], None),
        (&[4, 5], &[1, 2], Some(&[4, 5])),
    ] {
        let folder = folder(&[]);
        let path = |name| folder.path().join(name);
        fs::write(path("train-images-idx3-ubyte"), idx::encode_images(1, 1, &[1, 2]).unwrap()).unwrap();
        let bytes = labels.iter().flat_map(|label: &i32| label.to_be_bytes());
        let file = crate::idx::header(&[0xc01, 2]).into_iter().chain(bytes).collect::<Vec<_>>();
        fs::write(path("train-labels-idx1-int"), file).unwrap();
        let splits = Splits::from_folder(folder.path()).unwrap();
        assert_eq!((splits.train().images(), splits.train().labels()), (images, read));
        assert_eq!(splits.notes().len(), usize::from(labels.contains(&-1)), "{:?}", splits.notes());
    }
}

#[test]
fn a_source_has_no_classes_without_images() {
    let folder = folder(&[
        ("train-images-idx3-ubyte", 1),
        ("train-labels-idx1-ubyte", 9),
        ("test-images-idx3-ubyte", 1),
        ("test-labels-idx1-ubyte", 4),
    ]);
    let source: Source = folder.path().to_str().unwrap().parse().unwrap();
    let splits = source.load(&HubConfig::new("http://127.0.0.1:9", "unused")).unwrap();
    let labels =
        |splits: &Splits| [splits.train(), splits.test().unwrap()].map(|set| set.labels().unwrap().to_vec());
    assert_eq!(splits.class_labels(), Some([0, 4, 9].as_slice()));
    assert_eq!(labels(&splits), [[0, 2], [0, 1]]);
    assert_eq!(splits.test().unwrap().classes(), Some(3));
    let note = &splits.notes()[0];
    assert!(note.contains("from class 0 on, are 0, 4, 9;"), "{note}");
    // The number of classes of a model, whose classes are the labels.
    let splits = splits.with_classes(10).unwrap();
    assert_eq!((splits.class_labels(), splits.train().classes()), (None, Some(10)));
    assert!(splits.notes().is_empty());
    assert_eq!(labels(&splits), [[0, 9], [0, 4]]);
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_feature_the_error_names_it_for_parquet_files() {
    let folder = folder(&[]);
    fs::create_dir_all(folder.path().join("default/train")).unwrap();
    fs::write(folder.path().join("default/train/0000.parquet"), "PAR1").unwrap();
    let error = Splits::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, Error::ParquetFeature { .. }));
    assert!(error.to_string().contains("feature `hub`"), "{error}");
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
    assert!(matches!(error, Error::SeveralFiles { .. }));
    assert!(error.to_string().contains("t10k-images-idx3-ubyte, test-images-idx3-ubyte.gz"), "{error}");
}

#[test]
fn without_a_data_set_the_error_names_the_expected_files() {
    let folder = folder(&[("t10k-images-idx3-ubyte", 1)]);
    let error = Splits::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NoDataSet { .. }));
    for part in [
        folder.path().to_str().unwrap(),
        "but t10k-images-idx3-ubyte",
        "train-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        ".gz",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn without_a_folder_the_error_says_what_a_data_set_is() {
    for (path, hint) in [("no/such/folder", "hf://datasets/OWNER/NAME"), ("~/mnist", "`~` in quotes")] {
        let error = Splits::from_folder(Path::new(path)).unwrap_err();
        assert!(matches!(error, Error::NoSource { .. }));
        assert!(error.to_string().starts_with(&format!("{path}: no such folder")), "{error}");
        assert!(error.to_string().contains(hint), "{error}");
    }
    let folder = folder(&[]);
    let file = folder.path().join("mnist.zip");
    fs::write(&file, b"PK\x03\x04").unwrap();
    let error = Splits::from_folder(&file).unwrap_err();
    assert!(matches!(&error, Error::NotAFolder { found, .. } if found.contains("ZIP archive")), "{error}");
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
