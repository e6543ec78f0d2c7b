//! Files and folders that are complete, or not there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{AtomicFile, replace_dir, temporary_beside, write_atomic};

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_and_nothing_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/file.txt");
    write_atomic(&path, b"old").unwrap();
    write_atomic(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken");
    fs::create_dir(&path).unwrap();
    let error = write_atomic(&path, b"x").unwrap_err().to_string();
    assert!(error.contains("taken") && error.contains("no regular file"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
#[cfg(unix)]
fn a_device_is_not_replaced_by_a_file() {
    assert!(write_atomic("/dev/null".as_ref(), b"x").is_err());
}

#[test]
fn a_file_written_piece_by_piece_is_not_there_before_it_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "old").unwrap();
    let mut file = AtomicFile::create(&path).unwrap();
    for _ in 0..100_000 {
        file.append(b"piece").unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), b"old");
    file.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"piece".repeat(100_000));
    assert_eq!(names(folder.path()).len(), 1);
}

#[test]
fn a_file_that_is_not_committed_leaves_neither_itself_nor_its_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/file");
    for _ in 0..2 {
        AtomicFile::create(&path).unwrap().append(b"x").unwrap();
        assert!(names(folder.path()).is_empty());
    }
    fs::create_dir(folder.path().join("a")).unwrap();
    drop(AtomicFile::create(&path).unwrap());
    assert!(names(&folder.path().join("a")).is_empty(), "a folder that was there stays");
    let file = AtomicFile::create(&path).unwrap();
    fs::write(folder.path().join("a/b/other"), "").unwrap();
    drop(file);
    assert_eq!(names(&folder.path().join("a/b")), [PathBuf::from("other")]);
}

/// Two files, complete but for their place.
fn two_files(paths: &[PathBuf; 2]) -> [AtomicFile; 2] {
    paths.each_ref().map(|path| {
        let mut file = AtomicFile::create(path).unwrap();
        file.append(b"x").unwrap();
        file
    })
}

#[test]
fn files_that_belong_together_are_written_together() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["new/one", "new/deeper/two"].map(|path| folder.path().join(path));
    let files = two_files(&paths);
    // Only after both are open does it turn out that the second cannot take its place.
    fs::create_dir(&paths[1]).unwrap();
    let error = AtomicFile::commit_all(files).unwrap_err().to_string();
    assert!(error.contains("two: cannot write"), "{error}");
    assert_eq!(names(&folder.path().join("new")), [PathBuf::from("deeper")]);
    fs::remove_dir(&paths[1]).unwrap();
    AtomicFile::commit_all(two_files(&paths)).unwrap();
    assert!(paths.iter().all(|path| fs::read(path).unwrap() == b"x"));
    assert_eq!(names(&folder.path().join("new")).len(), 2);
}

#[test]
#[cfg(unix)]
fn a_file_in_its_place_is_taken_back_if_the_next_one_fails() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["new/one", "new/deeper/two"].map(|path| folder.path().join(path));
    let files = two_files(&paths);
    fs::rename(folder.path().join("new/deeper"), folder.path().join("moved")).unwrap();
    let error = AtomicFile::commit_all(files).unwrap_err().to_string();
    assert!(error.contains("two: cannot write"), "{error}");
    assert_eq!(names(folder.path()), [PathBuf::from("moved")]);
}

/// A device that is full, in the place of the temporary file.
#[test]
#[cfg(target_os = "linux")]
fn an_error_of_writing_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let full = || {
        let mut file = AtomicFile::create(folder.path().join("file")).unwrap();
        file.file = std::io::BufWriter::new(fs::File::create("/dev/full").unwrap());
        file
    };
    let error = full().append(&[0; 1 << 20]).unwrap_err().to_string();
    assert!(error.contains("file: cannot write: No space left"), "{error}");
    let mut buffered = full();
    buffered.append(b"x").unwrap();
    let error = buffered.commit().unwrap_err().to_string();
    assert!(error.contains("file: cannot write: No space left"), "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_folder_takes_the_place_of_another_and_spares_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    for name in ["model", "model.old", "model.tmp"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("old"), "").unwrap();
    }
    let from = temporary_beside(&to).unwrap();
    fs::write(from.path().join("new"), "").unwrap();
    replace_dir(from, &to).unwrap();
    let expected = ["model", "model.old", "model.tmp"].map(PathBuf::from);
    assert_eq!(names(folder.path()), expected);
    assert!(to.join("new").exists() && !to.join("old").exists());
}
