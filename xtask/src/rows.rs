//! Rows of a table that other programs print.

use serde::Serialize;

/// A row of a table of checks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) claim: String,
    pub(crate) measure: String,
    pub(crate) result: String,
}

/// The rows in an output: lines `MARK | CLAIM | MEASURE | RESULT`. The test harness may write the name of the test before a
/// row, on the same line.
pub(crate) fn printed_rows(mark: &str, output: &str) -> Vec<Row> {
    let start = format!("{mark} | ");
    let row = |line: &str| {
        let (_, row) = line.split_once(&start)?;
        let mut cells = row.split(" | ").map(|cell| cell.trim().to_owned());
        Some(Row { claim: cells.next()?, measure: cells.next()?, result: cells.next()? })
    };
    output.lines().filter_map(row).collect()
}

/// The rows as a Markdown table with this heading in the first column.
pub(crate) fn markdown(heading: &str, rows: &[Row]) -> String {
    let rows =
        rows.iter().map(|Row { claim, measure, result }| format!("| {claim} | {measure} | {result} |\n"));
    format!("| {heading} | measure | result |\n| --- | --- | --- |\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_beside_the_names_of_tests() {
        let output = "running 2 tests\ntest a::b ... torture | kill −9 | 6 instants | 6 of 6\nok\n\
            torture | truncation | every prefix | 100 %\ntest torture ... ok\n";
        let rows = printed_rows("torture", output);
        let cells: Vec<_> = rows.iter().map(|row| [&*row.claim, &*row.measure, &*row.result]).collect();
        assert_eq!(cells, [["kill −9", "6 instants", "6 of 6"], ["truncation", "every prefix", "100 %"]]);
        assert_eq!(printed_rows("interop", output), []);
        let table = markdown("claim", &rows);
        assert!(table.starts_with("| claim | measure | result |\n| --- |"), "{table}");
        assert!(table.ends_with("| truncation | every prefix | 100 % |\n"), "{table}");
    }
}
