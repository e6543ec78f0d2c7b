//! Runs the tests of the unpacked packages.

use std::collections::BTreeMap;
use std::fs::{self, File};

use anyhow::{Context, Result, bail, ensure};

use super::packages::unpacked_cargo;
use super::published::Published;
use super::{FOLDER, row};
use crate::process;
use crate::rows::Row;
use crate::workspace::Workspace;

/// Numbers of tests.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: usize,
    ignored: usize,
}

/// Runs the tests, and returns a row for each package.
pub(super) fn run(workspace: &Workspace, published: &[Published]) -> Result<Vec<Row>> {
    let path = workspace.root().join(FOLDER).join("tests.log");
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut cargo = unpacked_cargo(workspace, "test", published);
    // Both streams in one file: the names of the test programs are on standard error, the results on standard output. The
    // tests of the Hub's client use a server on this machine, which a proxy cannot reach.
    cargo.stdout(log.try_clone()?).stderr(log).env("NO_PROXY", "127.0.0.1");
    process::say(&format!("$ {} > {}", process::show(&cargo), path.display()));
    let result = process::run(&mut cargo);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if let Err(error) = result {
        let lines: Vec<_> = text.lines().collect();
        bail!(
            "{error:#}; the end of {}:\n{}",
            path.display(),
            lines[lines.len().saturating_sub(40)..].join("\n")
        );
    }
    let found = counts(&text);
    let of_package = |published: &Published| {
        let counts = found.get(&published.name.replace('-', "_"));
        let has_tests = published.name != "ddpm-mnist";
        ensure!(
            counts.is_some_and(|counts| counts.passed > 0) || !has_tests,
            "{}: no test of {} ran",
            path.display(),
            published.name
        );
        let text = counts.map_or("0 passed".to_owned(), |counts| match counts.ignored {
            0 => format!("{} passed", counts.passed),
            ignored => format!("{} passed, {ignored} ignored", counts.passed),
        });
        Ok(row(&format!("tests of `{}`", published.name), "from the unpacked package", text))
    };
    published.iter().map(of_package).collect()
}

/// The numbers of tests of each crate in the output of `cargo test`.
fn counts(text: &str) -> BTreeMap<String, Counts> {
    let (mut found, mut current) = (BTreeMap::<String, Counts>::new(), None);
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("Doc-tests ") {
            current = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("Running ") {
            current = crate_of(rest).or(current);
        } else if let (Some(result), Some(name)) = (line.strip_prefix("test result: ok. "), &current) {
            let counts = found.entry(name.clone()).or_default();
            counts.passed += number_before(result, " passed");
            counts.ignored += number_before(result, " ignored");
        }
    }
    found
}

/// The crate of the unit tests `unittests src/lib.rs (FOLDER/deps/NAME-HASH)`. The integration tests of a crate follow its
/// unit tests; their programs do not have its name.
fn crate_of(running: &str) -> Option<String> {
    let path = running.strip_prefix("unittests src/lib.rs (")?.strip_suffix(')')?;
    let (name, _hash) = path.rsplit(['/', '\\']).next()?.rsplit_once('-')?;
    Some(name.to_owned())
}

/// The number before this word.
fn number_before(result: &str, word: &str) -> usize {
    let number = result.split(';').find_map(|part| part.trim().strip_suffix(word.trim_start()));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_and_documentation_tests_count_for_their_crate() {
        let text = "     Running unittests src/lib.rs (/w/target/debug/deps/ddpm_core-0123456789abcdef)\n\
            test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            \x20    Running tests/it/main.rs (/w/target/debug/deps/it-0123456789abcdef)\n\
            test result: ok. 30 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            \x20    Running unittests src/lib.rs (/w/target/debug/deps/ddpm_data-0123456789abcdef)\n\
            test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            \x20  Doc-tests ddpm_core\n\
            test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let expected = [("ddpm_core", 42, 1), ("ddpm_data", 2, 0)]
            .map(|(name, passed, ignored)| (name.to_owned(), Counts { passed, ignored }));
        assert_eq!(counts(text), BTreeMap::from(expected));
    }
}
