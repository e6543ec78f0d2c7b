//! A long training.

use crate::{IMAGES, Report, TRAIN, ddpm, folder, reports, size, success};

/// The largest values of some reports.
fn largest(reports: &[Report]) -> [usize; 2] {
    [reports.iter().map(|r| r.resident).max().unwrap(), reports.iter().map(|r| r.open_files).max().unwrap()]
}

/// The program reports after each step, when it has saved a checkpoint.
#[test]
fn memory_and_open_files_do_not_grow_with_the_steps() {
    let steps = size(20_000, 416);
    let folder = folder();
    let epochs = steps.div_euclid(IMAGES).to_string();
    let stderr = success(&mut ddpm(
        folder.path(),
        &[TRAIN, &["run", "--epochs", &epochs, "--batch-size", "1", "-v"]].concat(),
        "report",
    ));
    assert_eq!(stderr.matches("saved step ").count(), steps);
    let all = reports(stderr.split_once("saved step 1\n").unwrap().1);
    let (first, rest) = all.split_at(all.len().div_euclid(10));
    let ([memory, files], [later_memory, later_files]) = (largest(first), largest(rest));
    let growth = later_memory.saturating_sub(memory);
    assert!(growth < 8 << 10, "{growth} kB");
    assert!(later_files <= files, "{later_files} files, in the first tenth {files}");
    println!(
        "torture | long run | {steps} steps at tiny size, a checkpoint after each | after the first tenth: resident memory \
         {} MB, grown by {growth} kB; at most {later_files} open files, before {files}",
        later_memory >> 10
    );
}
