//! Tests of atomic writing of folders.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{AtomicDir, check_writable, create_dir_all, remove_temporary};
use crate::{Error, Result, disk, write_atomic};

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_replaces_another_and_its_siblings_stay() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    for name in ["model", "model.old", "model.tmp"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("old"), "").unwrap();
    }
    let new = AtomicDir::create(&to).unwrap();
    new.write("new", b"").unwrap();
    new.commit().unwrap();
    let expected = ["model", "model.old", "model.tmp"].map(PathBuf::from);
    assert_eq!(names(folder.path()), expected);
    assert!(to.join("new").exists() && !to.join("old").exists());
}

#[test]
fn many_files_are_synced_before_the_folder_has_its_name() {
    let outer = tempfile::tempdir().unwrap();
    let to = outer.path().join("images");
    let write = |fails: fn(usize, &str) -> bool| {
        let files = (0..3_u8).map(|n| Ok((format!("{}/{n}.png", n % 2).into(), vec![n])));
        let work = || -> Result<()> {
            let new = AtomicDir::create(&to)?;
            new.write_many(files)?;
            new.commit()
        };
        disk::record(fails, work)
    };
    let (result, calls) = write(|_, call| call == "sync_file_system");
    assert!(matches!(result, Err(Error::Write { path, .. }) if path == to));
    assert!(names(outer.path()).is_empty() && !calls.iter().any(|(call, _)| *call == "rename"));
    let (result, calls) = write(|_, _| false);
    result.unwrap();
    let at = |name: &str| calls.iter().rposition(|(call, _)| *call == name).unwrap();
    assert!(at("sync_file_system") < at("rename"), "{calls:?}");
    assert_eq!(
        (names(&to.join("0")), names(&to.join("1"))),
        (vec!["0.png".into(), "2.png".into()], vec!["1.png".into()])
    );
    assert_eq!(fs::read(to.join("0/2.png")).unwrap(), [2]);
}

/// The error of an item ends the work, and nothing is left.
#[test]
fn many_files_end_with_the_first_that_cannot_be_made() {
    let outer = tempfile::tempdir().unwrap();
    let new = AtomicDir::create(outer.path().join("images")).unwrap();
    let missing = Error::Read { path: "image".into(), source: std::io::ErrorKind::NotFound.into() };
    let error = new.write_many([Ok(("a".into(), vec![1])), Err(missing)]).unwrap_err();
    assert!(matches!(error, Error::Read { .. }));
    drop(new);
    assert!(names(outer.path()).is_empty());
}

/// Replaces an old folder with a new one. Calls for which `fails` returns true fail. Returns the result and the
/// number of calls.
fn replace(to: &Path, fails: impl Fn(usize, &str) -> bool + 'static) -> (Result<()>, usize) {
    fs::create_dir(to).unwrap();
    fs::write(to.join("weights"), "old").unwrap();
    let new = AtomicDir::create(to).unwrap();
    new.write("weights", b"new").unwrap();
    let (result, calls) = disk::record(fails, || new.commit());
    (result, calls.len())
}

fn weights(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join("weights")).ok()
}

/// Either one call fails, or it and all later ones, so that no call can be undone.
#[test]
fn the_old_or_the_new_folder_is_complete_whatever_fails() {
    let outer = tempfile::tempdir().unwrap();
    let (result, calls) = replace(&outer.path().join("all"), |_, _| false);
    result.unwrap();
    assert_eq!(calls, 2);
    let mut faults = 0;
    for first in 0..calls {
        for last in [first, usize::MAX] {
            faults += 1;
            let outer = tempfile::tempdir().unwrap();
            let to = outer.path().join("model");
            let (result, _) = replace(&to, move |call, _| (first..=last).contains(&call));
            let error = result.unwrap_err();
            assert!(error.to_string().contains("model: cannot "), "{error}");
            let kept = kept(&error, outer.path());
            assert_eq!(kept, first == 1, "{first} to {last}: {error}");
            assert_eq!(weights(&to).as_deref(), Some(if kept { "new" } else { "old" }), "{first} to {last}");
            assert_eq!(names(outer.path()).len(), 1 + usize::from(kept), "{first} to {last}");
        }
    }
    println!(
        "torture | torn writes | an error at every call of a swap of folders, alone or with all later ones | {faults} of \
         {faults}: the complete old or the complete new folder, or an error that names the kept one"
    );
}

/// Whether the error names the old folder, which is then complete.
fn kept(error: &Error, outer: &Path) -> bool {
    let Error::Replace { old, .. } = error else { return false };
    assert!(error.to_string().contains(&old.display().to_string()), "{error}");
    assert!(old.starts_with(outer));
    assert_eq!(weights(old).as_deref(), Some("old"));
    true
}

/// On a file system that cannot exchange folders, the old one is moved aside.
#[test]
fn moved_aside_the_old_or_the_new_folder_is_complete_whatever_fails() {
    let faults = [(0, 0), (0, 9), (1, 1), (1, 9), (9, 9)];
    for (first, last) in faults {
        let outer = tempfile::tempdir().unwrap();
        let (to, from) = (outer.path().join("model"), outer.path().join("new"));
        for (folder, content) in [(&to, "old"), (&from, "new")] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("weights"), content).unwrap();
        }
        let new = super::temporary_dir(".tmp-".as_ref(), outer.path()).unwrap();
        fs::rename(&from, new.path()).unwrap();
        let (result, _) = disk::record(
            move |call, _| (first..=last).contains(&call),
            || super::move_aside(new, &to).map(|(sibling, _)| drop(sibling)),
        );
        let expected = match result {
            Ok(()) => Some("new"),
            Err(error) if kept(&error, outer.path()) => None,
            Err(_) => Some("old"),
        };
        assert_eq!(weights(&to).as_deref(), expected, "{first} to {last}");
        assert_eq!(expected.is_none(), (first, last) == (1, 9));
        assert_eq!(expected == Some("new"), first == 9);
        assert_eq!(names(outer.path()).len(), 1);
        // `remove_temporary` does not remove the old folder.
        remove_temporary(outer.path()).unwrap();
        assert_eq!(names(outer.path()).len(), 1);
    }
    let count = faults.len() - 1;
    println!(
        "torture | torn writes | an error at every call of a swap of folders that the file system cannot exchange | {count} of \
         {count}: the complete old or the complete new folder, or an error that names the kept one"
    );
}

#[test]
fn a_folder_without_commit_is_removed_with_its_new_parents() {
    let outer = tempfile::tempdir().unwrap();
    let new = AtomicDir::create(outer.path().join("a/b/model")).unwrap();
    new.write("weights", b"new").unwrap();
    drop(new);
    assert!(names(outer.path()).is_empty());
}

#[test]
#[cfg(unix)]
fn a_link_to_a_folder_stays_and_the_folder_is_replaced() {
    let outer = tempfile::tempdir().unwrap();
    let (to, elsewhere) = (outer.path().join("model"), outer.path().join("elsewhere"));
    std::os::unix::fs::symlink("elsewhere", &to).unwrap();
    for content in ["new", "newer"] {
        let new = AtomicDir::create(&to).unwrap();
        new.write("weights", content.as_bytes()).unwrap();
        new.commit().unwrap();
        assert_eq!(weights(&elsewhere).as_deref(), Some(content));
        assert!(fs::symlink_metadata(&to).unwrap().is_symlink());
        assert_eq!(names(outer.path()).len(), 2);
    }
}

#[test]
fn new_ancestors_are_synced_or_removed() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().to_owned();
    let folder = root.join("a/b");
    for failing in 0..4 {
        let (result, calls) = disk::record(move |call, _| call == failing, || create_dir_all(&folder));
        assert!(matches!(result, Err(Error::Write { path, .. }) if path == folder));
        assert_eq!(calls.len(), failing + 1);
        assert!(names(&root).is_empty());
    }
    let (result, calls) = disk::record(|_, _| false, || create_dir_all(&folder));
    result.unwrap();
    let expected = [
        ("create_dir", root.join("a")),
        ("sync_dir", root.clone()),
        ("create_dir", folder.clone()),
        ("sync_dir", root.join("a")),
    ];
    assert_eq!(calls, expected);
    create_dir_all(&folder).unwrap();
    create_dir_all(&folder.join("../c/../d")).unwrap();
    assert_eq!(names(&root.join("a")), ["b", "c", "d"].map(PathBuf::from));
    write_atomic(&root.join("file"), b"").unwrap();
    for path in [root.join("file"), root.join("file/below")] {
        assert!(matches!(create_dir_all(&path), Err(Error::Write { path: named, .. }) if named == path));
    }
}

#[test]
fn only_an_empty_folder_or_one_of_the_same_kind_may_be_replaced() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("net");
    let check = |is_net: bool| check_writable(&folder, "net", || is_net, &["a", "b/c"]);
    check(false).unwrap();
    fs::create_dir(&folder).unwrap();
    check(false).unwrap();
    fs::create_dir(folder.join("b")).unwrap();
    for name in ["a", "b/c", ".DS_Store", "b/.DS_Store"] {
        fs::write(folder.join(name), "").unwrap();
    }
    check(true).unwrap();
    let error = check(false).unwrap_err().to_string();
    assert!(
        error.ends_with("net: cannot write: exists and holds no net; expected a new or empty folder"),
        "{error}"
    );
    // What a user has added would be lost.
    for name in ["thesis.txt", "b/thesis.txt", ".git"] {
        fs::write(folder.join(name), "").unwrap();
        let error = check(true).unwrap_err();
        assert!(matches!(&error, Error::Extra { path, .. } if *path == folder.join(name)), "{error}");
        fs::remove_file(folder.join(name)).unwrap();
    }
    fs::create_dir(folder.join(".git")).unwrap();
    assert!(matches!(check(true), Err(Error::Extra { .. })));
    // It cannot be written: a file is in the way.
    let below = folder.join("a/net");
    let error = check_writable(&below, "net", || false, &[]).unwrap_err();
    assert!(matches!(&error, Error::Write { path, .. } if *path == below), "{error}");
    assert_eq!(names(outer.path()).len(), 1);
}

#[test]
fn errors_name_the_final_path_of_a_file_in_a_new_folder() {
    let outer = tempfile::tempdir().unwrap();
    let to = outer.path().join("model");
    let new = AtomicDir::create(&to).unwrap();
    new.write("a", b"").unwrap();
    let error = new.write("a/b", b"").unwrap_err();
    assert!(matches!(&error, Error::Write { path, .. } if *path == to.join("a/b")), "{error}");
    assert_eq!(new.file("c/d").unwrap().path(), to.join("c/d"));
}

#[test]
fn only_temporary_files_and_folders_are_removed() {
    let outer = tempfile::tempdir().unwrap();
    for name in [".tmp-a1b2c3", "step-7", "step-7.old-a1b2c3"] {
        fs::create_dir(outer.path().join(name)).unwrap();
        fs::write(outer.path().join(name).join("file"), "").unwrap();
    }
    let kept = [".tmp-", ".tmp-a1b2c", ".tmp-a1b2c34", ".tmp-mine.x", "tmp-a1b2c3"];
    for name in [".tmp-A1b2C3"].iter().chain(&kept) {
        fs::write(outer.path().join(name), "").unwrap();
    }
    remove_temporary(outer.path()).unwrap();
    let mut expected = [&kept[..], &["step-7", "step-7.old-a1b2c3"]].concat();
    expected.sort_unstable();
    assert_eq!(names(outer.path()), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
    assert!(matches!(remove_temporary(&outer.path().join("none")), Err(Error::Read { .. })));
}

/// Two programs that begin and end in one new folder: neither removes it while the other one needs it.
#[test]
fn a_new_folder_that_another_program_removes_is_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let work = || {
        for _ in 0..300 {
            drop(AtomicDir::create(folder.path().join("new/run/model")).unwrap());
            drop(crate::AtomicFile::create(folder.path().join("new/run/file")).unwrap());
        }
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work), scope.spawn(work)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    // A folder may stay if both have used it, but it is empty.
    let left = std::fs::read_dir(folder.path().join("new/run")).into_iter().flatten().count();
    assert_eq!(left, 0);
}
