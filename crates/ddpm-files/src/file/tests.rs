//! Tests of atomic writing of files.

use std::{
    error::Error as _,
    fs,
    path::{Path, PathBuf},
};

use super::{AtomicFile, write_atomic};
use crate::{
    Error, disk,
    folder::{temporary_dir, tests::names},
};

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
    assert!(error.ends_with("taken: cannot write"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Devices, and links to them: `/dev/stdout` is a link to an open file of the process.
#[test]
#[cfg(target_os = "linux")]
fn a_device_is_written_and_stays() {
    use std::os::unix::fs::{FileTypeExt, symlink};

    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    symlink("/dev/null", &link).unwrap();
    for path in [&link, Path::new("/dev/null")] {
        write_atomic(path, b"x").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let error = write_atomic("/dev/full".as_ref(), b"x").unwrap_err();
    assert_eq!(error.to_string(), "/dev/full: cannot write");
}

#[test]
#[cfg(target_os = "linux")]
fn a_pipe_and_an_open_file_are_written_directly() {
    use std::{io::Read, os::fd::AsRawFd};

    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut open = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut open, b"before ").unwrap();
    for (fd, folder) in [(writer.as_raw_fd(), "/dev/fd"), (open.as_raw_fd(), "/proc/self/fd")] {
        write_atomic(&Path::new(folder).join(fd.to_string()), b"content").unwrap();
    }
    drop(writer);
    let mut piped = String::new();
    reader.read_to_string(&mut piped).unwrap();
    assert_eq!(piped, "content");
    // An open file that the shell has redirected with `>>`.
    let mut appended = String::new();
    std::io::Seek::rewind(&mut open).unwrap();
    open.read_to_string(&mut appended).unwrap();
    assert_eq!(appended, "before content");
}

#[test]
#[cfg(unix)]
fn a_link_stays_and_its_target_is_replaced() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    fs::create_dir(path("elsewhere")).unwrap();
    // A link to a link, relative to its own folder; at first the target does not exist.
    symlink("elsewhere/second", path("first")).unwrap();
    symlink("file", path("elsewhere/second")).unwrap();
    for content in ["new", "newer"] {
        write_atomic(&path("first"), content.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(path("elsewhere/file")).unwrap(), content);
        assert!(fs::symlink_metadata(path("first")).unwrap().is_symlink());
        assert_eq!(names(&path("elsewhere")), ["file", "second"].map(PathBuf::from));
        assert_eq!(names(folder.path()).len(), 2);
    }
    symlink("loop", path("loop")).unwrap();
    let error = write_atomic(&path("loop"), b"x").unwrap_err();
    assert!(error.to_string().ends_with("loop: cannot write"), "{error}");
}

#[test]
#[cfg(unix)]
fn a_new_file_has_the_usual_permissions() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    fs::write(folder.path().join("usual"), "").unwrap();
    write_atomic(&folder.path().join("atomic"), b"").unwrap();
    assert_eq!(mode("atomic"), mode("usual"));
}

#[test]
#[cfg(unix)]
fn an_error_does_not_name_a_temporary_path() {
    let long = PathBuf::from("a".repeat(5000)).join("file");
    for error in
        [super::new_file("x".as_ref(), &long).unwrap_err(), temporary_dir("x".as_ref(), &long).unwrap_err()]
    {
        assert!(!error.to_string().contains("aaa"), "{error}");
    }
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

/// Existing files "one" and "two" and the calls that replace them, of which those from `first` to `last` fail.
fn replace_two(first: usize, last: usize) -> (tempfile::TempDir, crate::Result<()>, Vec<disk::Call>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["one", "two"].map(|name| folder.path().join(name));
    let files = two_files(&paths);
    for path in &paths {
        fs::write(path, "old").unwrap();
    }
    let fails = move |call, _: &str| (first..=last).contains(&call);
    let (result, calls) = disk::record(fails, || AtomicFile::commit_all(files));
    (folder, result, calls)
}

/// The first file is moved aside first and comes back last: a crash leaves no mixture of old and new files.
#[test]
fn the_first_of_several_files_is_missing_while_they_are_replaced() {
    let (folder, result, calls) = replace_two(usize::MAX, usize::MAX);
    result.unwrap();
    let names: Vec<_> = calls.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["sync_file", "sync_file", "rename", "rename", "rename", "rename", "sync_dir"]);
    let name = |call: usize| calls[call].1.file_name().unwrap().to_str().unwrap();
    assert!(name(2).starts_with("one.old-") && name(3).starts_with("two.old-"), "{calls:?}");
    assert_eq!([&calls[4].1, &calls[5].1], [&folder.path().join("two"), &folder.path().join("one")]);
    for name in ["one", "two"] {
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), b"x");
    }
    assert_eq!(crate::folder::tests::names(folder.path()).len(), 2);
}

#[test]
fn all_or_none_of_several_files_are_replaced_whichever_call_fails() {
    let mut faults = 0;
    for first in 0..7 {
        for last in [first, usize::MAX] {
            faults += 1;
            let (folder, result, _) = replace_two(first, last);
            let content = |name: &str| fs::read(folder.path().join(name)).ok();
            match result {
                // A folder that cannot be synced is a warning.
                Ok(()) => {
                    assert_eq!(first, 6);
                    assert_eq!([content("one"), content("two")], [Some(b"x".to_vec()), Some(b"x".to_vec())]);
                }
                // Nothing can be moved back: the error names the old content.
                Err(Error::Replace { old, .. }) => {
                    assert_eq!(last, usize::MAX);
                    assert_eq!(fs::read(old).unwrap(), b"old");
                }
                Err(error) => {
                    assert!(error.to_string().ends_with(": cannot write"), "{error}");
                    assert_eq!(
                        [content("one"), content("two")],
                        [Some(b"old".to_vec()), Some(b"old".to_vec())],
                        "{first} to {last}"
                    );
                    assert_eq!(names(folder.path()).len(), 2, "{first} to {last}");
                }
            }
        }
    }
    println!(
        "torture | torn writes | an error at every call of a commit of two files, alone or with all later ones | {faults} \
         of {faults}: both old or both new files, or an error that names the kept ones"
    );
}

#[test]
fn new_files_are_removed_whichever_call_fails() {
    for failing in 0..4 {
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
