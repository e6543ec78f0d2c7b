//! Malformed parquet files. Each error names the file, and the row where one is wrong.

use ddpm_data::{Error, Hub};

use super::parquet_file::{Row, empty_file, file, grey};
use super::server::MockHub;
use crate::check_causes;

const FILE: &str = "data/train-00000-of-00001.parquet";

/// The error of loading a data set with this file as training set.
fn error(bytes: Vec<u8>) -> Error {
    let server = MockHub::start();
    server.serve(&format!("datasets/some/set/{FILE}"), bytes);
    let error = Hub::new(server.config()).unwrap().dataset("some", "set", None).unwrap_err();
    assert!(error.to_string().contains(FILE), "{error}");
    check_causes(&error);
    error
}

fn rows(count: usize) -> Vec<Row> {
    (0..count).map(|_| (Some(grey(2, 2, &[1, 2, 3, 4])), Some(1))).collect()
}

#[test]
fn not_a_parquet_file() {
    assert!(matches!(error(b"not a parquet file".to_vec()), Error::Parquet { .. }));
}

#[test]
fn damaged_parquet_file() {
    let mut bytes = file(&rows(4));
    // The header of the first page, after the magic number.
    bytes[4..20].fill(0xff);
    assert!(matches!(error(bytes), Error::Parquet { .. }));
}

#[test]
fn no_rows() {
    assert!(matches!(error(file(&[])), Error::Empty { .. }));
}

#[test]
fn missing_image_column() {
    let error = error(empty_file("message schema { optional int64 label; }"));
    assert!(
        matches!(&error, Error::Column { column: "image.bytes", found, .. } if found == "missing"),
        "{error}"
    );
}

#[test]
fn image_column_of_another_type() {
    let schema = "message schema { optional group image { optional int32 bytes; } }";
    let error = error(empty_file(schema));
    assert!(
        matches!(&error, Error::Column { column: "image.bytes", found, .. } if found == "INT32"),
        "{error}"
    );
}

#[test]
fn label_column_of_another_type() {
    for (label, expected) in
        [("optional binary label", "BYTE_ARRAY"), ("repeated int64 label", "a list of INT64")]
    {
        let schema =
            format!("message schema {{ optional group image {{ optional binary bytes; }} {label}; }}");
        let error = error(empty_file(&schema));
        assert!(
            matches!(&error, Error::Column { column: "label", found, .. } if found == expected),
            "{error}"
        );
    }
}

#[test]
fn null_image() {
    let mut rows = rows(5);
    rows[3].0 = None;
    assert!(matches!(error(file(&rows)), Error::Null { row: 3, column: "image.bytes", .. }));
}

#[test]
fn null_label() {
    let mut rows = rows(5);
    rows[4].1 = None;
    assert!(matches!(error(file(&rows)), Error::Null { row: 4, column: "label", .. }));
}

#[test]
fn image_that_is_no_png() {
    let mut rows = rows(5);
    rows[3].0 = Some(b"GIF89a".to_vec());
    let error = error(file(&rows));
    assert!(matches!(error, Error::Png { row: 3, .. }));
    assert!(error.to_string().contains("row 3"), "{error}");
}

#[test]
fn image_of_another_size() {
    let mut rows = rows(5);
    rows[4].0 = Some(grey(2, 3, &[0; 6]));
    let error = error(file(&rows));
    assert!(matches!(error, Error::ImageSize { row: 4, found: [2, 3], .. }));
    assert!(error.to_string().contains("row 4 is 2x3, expected 2x2"), "{error}");
}

#[test]
fn label_out_of_range() {
    for label in [-1, 256, i64::MAX] {
        let mut rows = rows(3);
        rows[2].1 = Some(label);
        let error = error(file(&rows));
        assert!(matches!(error, Error::LabelOutOfRange { index: 2, label: l, .. } if l == label), "{error}");
    }
}

#[test]
fn image_above_the_size_limit() {
    let mut rows = rows(1);
    rows[0].0 = Some(grey(1, 5000, &[0; 5000]));
    assert!(matches!(error(file(&rows)), Error::Png { row: 0, .. }));
}
