//! Single IDX files of images, with the labels beside them.

use std::fs;

use ddpm_data::idx::{encode_images, encode_labels};
use ddpm_data::{Dataset, Error};
use tempfile::{TempDir, tempdir};

use super::{SIZE, grey};
use crate::idx::gzip;

/// Writes files: images if the name has the word, else labels.
fn folder(names: &[&str]) -> TempDir {
    let folder = tempdir().unwrap();
    for name in names {
        let bytes = match name.contains("image") {
            true => encode_images(4, 5, &grey()).unwrap(),
            false => encode_labels(&[2, 0, 1]).unwrap(),
        };
        let bytes = if name.ends_with(".gz") { gzip(&bytes) } else { bytes };
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn labels_are_beside_the_images() {
    for names in [
        ["samples-images-idx3-ubyte", "samples-labels-idx1-ubyte"],
        ["a-b-images.idx3-ubyte", "a-b-labels.idx1-ubyte.gz"],
        ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"],
    ] {
        let folder = folder(&names);
        for path in [folder.path().join(names[0]), folder.path().to_owned()] {
            let set = Dataset::from_path(&path, SIZE).unwrap();
            assert_eq!((set.images(), set.labels()), (grey().as_slice(), Some([2, 0, 1].as_slice())));
            assert!(set.notes().is_empty());
        }
    }
}

#[test]
fn without_labels_a_note_says_which_file_is_missing() {
    for (names, note) in [
        (&["a-images-idx3-ubyte", "b-labels-idx1-ubyte"][..], "there is no a-labels-idx1-ubyte beside it"),
        (&["my-images", "my-labels-idx1-ubyte"], "its name does not end in -images-idx3-ubyte"),
    ] {
        let folder = folder(names);
        let set = Dataset::from_path(&folder.path().join(names[0]), SIZE).unwrap();
        assert_eq!((set.len(), set.labels()), (3, None));
        assert!(set.notes()[0].contains(note), "{:?}", set.notes());
    }
}

#[test]
fn one_of_several_files_must_be_named() {
    let names = ["t10k-images-idx3-ubyte", "train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
    let folder = folder(&names);
    let error = Dataset::from_path(folder.path(), SIZE).unwrap_err();
    let Error::Ambiguous { candidates, .. } = &error else { panic!("{error}") };
    assert_eq!(candidates.len(), 2);
    let train = Dataset::from_path(&folder.path().join(names[1]), SIZE).unwrap();
    assert_eq!(train.labels(), Some([2, 0, 1].as_slice()));
    fs::copy(folder.path().join(names[2]), folder.path().join("train-labels.idx1-ubyte")).unwrap();
    let error = Dataset::from_path(&folder.path().join(names[1]), SIZE).unwrap_err();
    assert!(matches!(&error, Error::SeveralFiles { files, .. } if files.len() == 2), "{error}");
    // The same file, compressed, is no second one.
    let twice = self::folder(&["a-images-idx3-ubyte", "a-images-idx3-ubyte.gz"]);
    assert_eq!(Dataset::from_path(twice.path(), SIZE).unwrap().len(), 3);
}

#[test]
fn images_of_another_size_and_files_of_labels_are_refused() {
    let folder = folder(&["a-images-idx3-ubyte", "a-labels-idx1-ubyte"]);
    let file = folder.path().join("a-images-idx3-ubyte");
    let error = Dataset::from_path(&file, [28, 28]).unwrap_err();
    assert!(
        error.to_string().ends_with("a-images-idx3-ubyte: images of 4x5 pixels, expected 28x28"),
        "{error}"
    );
    let error = Dataset::from_path(&folder.path().join("a-labels-idx1-ubyte"), SIZE).unwrap_err();
    assert!(matches!(error, Error::WrongKind { .. }), "{error}");
    fs::write(folder.path().join("a-labels-idx1-ubyte"), encode_labels(&[1]).unwrap()).unwrap();
    assert!(matches!(Dataset::from_path(&file, SIZE), Err(Error::CountMismatch { .. })));
}

/// As with `--data`: the files of EMNIST hold columns as rows.
#[test]
fn images_of_emnist_are_transposed() {
    let folder = folder(&["emnist-digits-test-images-idx3-ubyte"]);
    let set = Dataset::from_path(folder.path(), [5, 4]).unwrap();
    assert_eq!(set.images()[..5], [0, 31, 62, 93, 7]);
    assert!(set.notes()[0].contains("is transposed"), "{:?}", set.notes());
    let drawn = self::folder(&["emnist-digits-images-idx3-ubyte"]);
    assert_eq!(Dataset::from_path(drawn.path(), SIZE).unwrap().images(), grey());
}
