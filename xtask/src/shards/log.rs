//! What came of the processes of a job: the lines that `deploy/test/ddpm-cli` writes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The lines, each a word and what it is about.
#[derive(Debug)]
pub(super) struct Log(Vec<(String, String)>);

impl Log {
    /// The head of the table.
    pub(super) const HEADER: &'static str = "| job | order of the runs | killed | cut | missing at the first merge | made again \
        | skipped | merged |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n";

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let line = |line: &str| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.to_owned()));
        Ok(Self(text.lines().filter_map(line).collect()))
    }

    /// What the lines with a word are about, in their order.
    fn of(&self, word: &str) -> Vec<&str> {
        self.0.iter().filter(|(found, _)| found == word).map(|(_, rest)| rest.as_str()).collect()
    }

    /// The parts that were made after a kill or a damage.
    fn made_again(&self) -> Vec<&str> {
        let is_fault = |(word, _): &(String, String)| word == "killed" || word == "damaged";
        let again = self.0.iter().enumerate().filter(|(at, (word, part))| {
            word == "made" && self.0[..*at].iter().any(|line| is_fault(line) && line.1 == *part)
        });
        again.map(|(_, (_, part))| part.as_str()).collect()
    }

    /// Checks that the faults have happened, and that nothing else was made twice.
    pub(super) fn check(&self, killed: &[String], damaged: &str, parts: usize) -> Result<()> {
        let sorted = |mut list: Vec<&str>| {
            list.sort_unstable();
            list.join(",")
        };
        let expected = sorted(killed.iter().map(String::as_str).collect());
        let found = sorted(self.of("killed"));
        ensure!(found == expected, "the parts {found} were killed, expected {expected}");
        let cut = self.of("damaged").join(",");
        ensure!(cut == damaged, "the parts {cut} were damaged, expected {damaged}");
        ensure!(self.of("failed").is_empty(), "the parts {:?} failed", self.of("failed"));
        let missing = self.of("missing");
        ensure!(missing.len() == 1, "{} merges failed, expected one", missing.len());
        let expected = sorted(killed.iter().map(String::as_str).chain([damaged]).collect());
        let again = sorted(self.made_again());
        ensure!(again == expected, "the parts {again} were made again, expected {expected}");
        let made = self.of("made").len();
        ensure!(made == parts + 1, "{made} parts were made, expected {parts}, and the damaged one again");
        Ok(())
    }

    /// A row of the table.
    pub(super) fn row(&self, title: &str) -> String {
        let runs = self.0.iter().filter(|(word, _)| ["killed", "made", "skipped"].contains(&word.as_str()));
        let list = |parts: Vec<&str>| if parts.is_empty() { "none".to_owned() } else { parts.join(", ") };
        let cells = [
            list(runs.map(|(_, part)| part.as_str()).collect()),
            list(self.of("killed")),
            list(self.of("damaged")),
            self.of("missing")
                .iter()
                .map(|array| format!("`--array={array}`"))
                .collect::<Vec<_>>()
                .join(", "),
            list(self.made_again()),
            list(self.of("skipped")),
            "equal to one run".to_owned(),
        ];
        format!("| {title} | {} |\n", cells.join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> Log {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("log"), text).unwrap();
        Log::read(&folder.path().join("log")).unwrap()
    }

    #[test]
    fn faults_that_did_not_happen_and_parts_made_in_vain_are_found() {
        let killed = ["2".to_owned()];
        let good = "killed 2\nmade 0\nmade 1\ndamaged 1\nmissing 1-2\nmade 1\nskipped 0\nmade 2\n";
        log(good).check(&killed, "1", 3).unwrap();
        let row = log(good).row("Slurm");
        assert_eq!(
            row,
            "| Slurm | 2, 0, 1, 1, 0, 2 | 2 | 1 | `--array=1-2` | 1, 2 | 0 | equal to one run |\n"
        );
        for (from, to, part) in [
            ("killed 2\n", "", "were killed"),
            ("damaged 1\n", "", "were damaged"),
            ("skipped 0\n", "made 0\n", "5 parts were made, expected 3"),
            ("missing 1-2\n", "", "0 merges failed"),
            ("made 2\n", "", "made again"),
            ("skipped 0", "failed 0", "failed"),
        ] {
            let error = log(&good.replacen(from, to, 1)).check(&killed, "1", 3).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
