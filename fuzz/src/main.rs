//! Runs one target under libFuzzer: the target whose name is in the environment variable `DDPM_FUZZ_TARGET`. If
//! `DDPM_FUZZ_SEEDS` names a folder, it writes the seeds of each target to `FOLDER/TARGET/` instead, and prints the names of
//! the targets. `cargo xtask fuzz` builds and starts this program.

#![no_main]

use std::{env, fs, io, io::Write, path::Path, process, sync::OnceLock};

use ddpm_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        if let Some(folder) = env::var_os("DDPM_FUZZ_SEEDS") {
            process::exit(i32::from(write_seeds(Path::new(&folder)).is_err()));
        }
        let name = env::var("DDPM_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|target| target.name == name);
        let found = found.unwrap_or_else(|| panic!("DDPM_FUZZ_TARGET is {name:?}, expected the name of a target"));
        TARGET.get_or_init(|| found);
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            // An error is a success.
            drop((target.run)(bytes));
        }
    }
);

fn write_seeds(folder: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
        writeln!(out, "{}", target.name)?;
    }
    Ok(())
}
