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
    write_atomic(&new.path().join("new"), b"").unwrap();
    new.commit().unwrap();
    let expected = ["model", "model.old", "model.tmp"].map(PathBuf::from);
    assert_eq!(names(folder.path()), expected);
    assert!(to.join("new").exists() && !to.join("old").exists());
}

/// Replaces an old folder with a new one. Calls for which `fails` returns true fail. Returns the result and the
/// number of calls.
fn replace(to: &Path, fails: impl Fn(usize, &str) -> bool + 'static) -> (Result<()>, usize) {
    fs::create_dir(to).unwrap();
    fs::write(to.join("weights"), "old").unwrap();
    let new = AtomicDir::create(to).unwrap();
    write_atomic(&new.path().join("weights"), b"new").unwrap();
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
    assert_eq!(calls, 3);
    for first in 0..calls {
        for last in [first, usize::MAX] {
            let outer = tempfile::tempdir().unwrap();
            let to = outer.path().join("model");
            let (result, _) = replace(&to, move |call, _| (first..=last).contains(&call));
            let error = result.unwrap_err();
            assert!(error.to_string().contains("model: cannot "), "{error}");
            let kept = match &error {
                Error::Replace { old, .. } => {
                    assert!(error.to_string().contains(&old.display().to_string()), "{error}");
                    assert!(old.starts_with(outer.path()));
                    assert_eq!(weights(old).as_deref(), Some("old"));
                    true
                }
                _ => false,
            };
            assert_eq!(kept, first == 2 || (first, last) == (1, usize::MAX), "{first} to {last}: {error}");
            let expected = match (first, kept) {
                (0, _) | (1, false) => Some("old"),
                (1, true) => None,
                _ => Some("new"),
            };
            assert_eq!(weights(&to).as_deref(), expected, "{first} to {last}");
            // No other folder remains, and `remove_temporary` does not remove the old folder.
            let left = names(outer.path()).len();
            assert_eq!(left, usize::from(kept) + usize::from(expected.is_some()), "{first} to {last}");
            remove_temporary(outer.path()).unwrap();
            assert_eq!(names(outer.path()).len(), left);
        }
    }
}

#[test]
fn a_folder_without_commit_is_removed_with_its_new_parents() {
    let outer = tempfile::tempdir().unwrap();
    let new = AtomicDir::create(outer.path().join("a/b/model")).unwrap();
    write_atomic(&new.path().join("weights"), b"new").unwrap();
    drop(new);
    assert!(names(outer.path()).is_empty());
}

#[test]
#[cfg(unix)]
fn a_link_to_a_folder_is_replaced_and_the_folder_stays() {
    let outer = tempfile::tempdir().unwrap();
    let (to, elsewhere) = (outer.path().join("model"), outer.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("weights"), "old").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &to).unwrap();
    let new = AtomicDir::create(&to).unwrap();
    write_atomic(&new.path().join("weights"), b"new").unwrap();
    new.commit().unwrap();
    assert_eq!((weights(&to).as_deref(), weights(&elsewhere).as_deref()), (Some("new"), Some("old")));
    assert_eq!(names(outer.path()).len(), 2);
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
    check_writable(&folder, "net", || false).unwrap();
    fs::create_dir(&folder).unwrap();
    check_writable(&folder, "net", || false).unwrap();
    fs::write(folder.join("thesis.txt"), "").unwrap();
    check_writable(&folder, "net", || true).unwrap();
    let error = check_writable(&folder, "net", || false).unwrap_err().to_string();
    assert!(
        error.ends_with("net: cannot write: exists and holds no net; expected a new or empty folder"),
        "{error}"
    );
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
