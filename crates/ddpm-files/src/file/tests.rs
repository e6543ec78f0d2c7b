//! Tests of atomic writing of files.

use std::{error::Error as _, fs, path::PathBuf};

use super::{AtomicFile, write_atomic};
use crate::{Error, disk, folder::tests::names};

#[test]
fn a_file_is_replaced_and_no_other_file_remains() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/file.txt");
    write_atomic(&path, b"old").unwrap();
    write_atomic(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn the_error_names_a_file_that_cannot_be_written_and_no_file_remains() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken");
    fs::create_dir(&path).unwrap();
    let error = write_atomic(&path, b"x").unwrap_err().to_string();
    assert!(error.contains("taken") && error.contains("not a regular file"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
#[cfg(unix)]
fn a_device_is_not_replaced_by_a_file() {
    assert!(write_atomic("/dev/null".as_ref(), b"x").is_err());
}

#[test]
fn a_file_written_in_pieces_appears_when_it_is_committed() {
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
fn a_file_without_commit_is_removed_with_its_new_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/file");
    for _ in 0..2 {
        AtomicFile::create(&path).unwrap().append(b"x").unwrap();
        assert!(names(folder.path()).is_empty());
    }
    fs::create_dir(folder.path().join("a")).unwrap();
    drop(AtomicFile::create(&path).unwrap());
    assert!(names(&folder.path().join("a")).is_empty(), "an existing folder stays");
    let file = AtomicFile::create(&path).unwrap();
    fs::write(folder.path().join("a/b/other"), "").unwrap();
    drop(file);
    assert_eq!(names(&folder.path().join("a/b")), [PathBuf::from("other")]);
}

/// Two complete files that are not yet renamed.
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
    // The path of the second file becomes a folder after both files are open.
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
fn a_new_file_is_removed_if_the_next_one_fails() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["new/one", "new/deeper/two"].map(|path| folder.path().join(path));
    let files = two_files(&paths);
    fs::rename(folder.path().join("new/deeper"), folder.path().join("moved")).unwrap();
    let error = AtomicFile::commit_all(files).unwrap_err().to_string();
    assert!(error.contains("two: cannot write"), "{error}");
    assert_eq!(names(folder.path()), [PathBuf::from("moved")]);
}

/// The device /dev/full takes the place of the temporary file.
#[test]
#[cfg(target_os = "linux")]
fn a_write_error_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let full = || {
        let mut file = AtomicFile::create(folder.path().join("file")).unwrap();
        file.file = std::io::BufWriter::new(fs::File::create("/dev/full").unwrap());
        file
    };
    let check = |error: Error| {
        let (text, source) = (error.to_string(), error.source().unwrap().to_string());
        assert!(text.ends_with("file: cannot write") && source.contains("No space left"), "{text}: {source}");
    };
    check(full().append(&[0; 1 << 20]).unwrap_err());
    let mut buffered = full();
    buffered.append(b"x").unwrap();
    check(buffered.commit().unwrap_err());
    assert!(names(folder.path()).is_empty());
}

/// A crash between two renames leaves one file without the other, so no other call may come between them.
#[test]
fn files_that_belong_together_are_renamed_without_other_calls_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["one", "deeper/two"].map(|path| folder.path().join(path));
    let files = two_files(&paths);
    let (result, calls) = disk::record(|_, _| false, || AtomicFile::commit_all(files));
    result.unwrap();
    let [one, two] = paths;
    let (root, deeper) = (folder.path().to_owned(), folder.path().join("deeper"));
    let expected = [
        ("sync_file", one.clone()),
        ("sync_file", two.clone()),
        ("rename", one),
        ("rename", two),
        ("sync_dir", root),
        ("sync_dir", deeper),
    ];
    assert_eq!(calls, expected);
}

#[test]
fn new_files_are_removed_whichever_call_fails() {
    for failing in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["new/one", "new/deeper/two"].map(|path| folder.path().join(path));
        let files = two_files(&paths);
        let (result, _) = disk::record(move |call, _| call == failing, || AtomicFile::commit_all(files));
        let error = result.unwrap_err().to_string();
        assert!(error.contains("new") && error.ends_with("cannot write"), "{failing}: {error}");
        assert!(names(folder.path()).is_empty(), "{failing}");
    }
}

#[test]
fn the_parent_of_each_new_folder_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let path = root.join("a/b/file");
    let (result, calls) = disk::record(|_, _| false, || write_atomic(&path, b"x"));
    result.unwrap();
    let expected = [
        ("create_dir", root.join("a")),
        ("sync_dir", root.clone()),
        ("create_dir", root.join("a/b")),
        ("sync_dir", root.join("a")),
        ("sync_file", path.clone()),
        ("rename", path),
        ("sync_dir", root.join("a/b")),
    ];
    assert_eq!(calls, expected);
}
