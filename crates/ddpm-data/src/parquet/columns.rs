//! The choice of the columns with images and labels.

use std::path::Path;

use parquet::basic::{ConvertedType, Type};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::error::{Error, Result};

/// The names of a label column, the most common one first.
const LABELS: [&str; 8] = ["label", "labels", "class", "target", "digit", "character", "category", "y"];
/// The largest number of columns that an error names.
const SHOWN: usize = 12;

/// A column that is read.
pub(super) struct Column {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) physical_type: Type,
}

/// The columns of images and labels, and the names of all columns.
pub(super) struct Columns {
    pub(super) image: Column,
    pub(super) label: Option<Column>,
    all: Vec<String>,
}

impl Columns {
    /// Finds the columns. They have the names of `previous`, the columns of an earlier file of the same split.
    pub(super) fn find(file: &Path, schema: &SchemaDescriptor, previous: Option<&Self>) -> Result<Self> {
        let schema = Schema { file, columns: schema.columns().iter().map(AsRef::as_ref).collect() };
        let image = match previous {
            Some(previous) => schema.named(&previous.image.name)?,
            None => schema.image()?,
        };
        let image = schema.checked(image, &[Type::BYTE_ARRAY], "the bytes of a PNG or JPEG")?;
        let label = match previous {
            Some(previous) => previous.label.as_ref().map(|label| schema.named(&label.name)).transpose()?,
            None => schema.label()?,
        };
        let integers = [Type::INT64, Type::INT32];
        let label = label.map(|index| schema.checked(index, &integers, "an integer of 32 or 64 bits"));
        Ok(Self { image, label: label.transpose()?, all: schema.names() })
    }

    /// What is not obvious about the choice.
    pub(super) fn note(&self, set: &str) -> Option<String> {
        match &self.label {
            Some(label) if label.name == LABELS[0] => None,
            Some(label) => Some(format!("{set}: the labels are from the column {}", label.name)),
            None if self.all.len() <= 2 => None,
            None => Some(format!(
                "{set}: no column has a name for labels, such as `label`: {}",
                self.all.join(", ")
            )),
        }
    }
}

/// The columns of a file.
struct Schema<'a> {
    file: &'a Path,
    columns: Vec<&'a ColumnDescriptor>,
}

impl Schema<'_> {
    fn named(&self, name: &str) -> Result<usize> {
        self.position(|column| column.path().string() == name).ok_or_else(|| self.missing(name))
    }

    fn position(&self, is_wanted: impl Fn(&ColumnDescriptor) -> bool) -> Option<usize> {
        self.columns.iter().position(|column| is_wanted(column))
    }

    /// The only column for which `is_wanted` holds.
    fn only(&self, is_wanted: impl Fn(&ColumnDescriptor) -> bool) -> Option<usize> {
        let mut wanted = (0..self.columns.len()).filter(|&index| is_wanted(self.columns[index]));
        wanted.next().filter(|_| wanted.next().is_none())
    }

    /// `image.bytes`, as the Hub stores images, or `image`, or the only column that may hold images.
    fn image(&self) -> Result<usize> {
        let is_text = |column: &ColumnDescriptor| column.converted_type() == ConvertedType::UTF8;
        let is_binary = |column: &ColumnDescriptor| {
            column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0 && !is_text(column)
        };
        self.position(|column| column.path().string() == "image.bytes")
            .or_else(|| self.position(|column| column.path().string() == "image"))
            .or_else(|| self.only(|column| is_binary(column) && column.path().string().ends_with(".bytes")))
            .or_else(|| self.only(is_binary))
            // A column of another type, which an error names.
            .or_else(|| {
                self.position(|column| column.path().parts().first().is_some_and(|part| part == "image"))
            })
            .ok_or_else(|| self.missing("image"))
    }

    /// The column with one of the usual names, or the only one with such a word in its name.
    fn label(&self) -> Result<Option<usize>> {
        let name = |column: &ColumnDescriptor| {
            column.path().parts().first().map(|name| name.to_ascii_lowercase()).unwrap_or_default()
        };
        if let Some(index) = LABELS.iter().find_map(|label| self.position(|column| name(column) == *label)) {
            return Ok(Some(index));
        }
        let similar =
            |column: &ColumnDescriptor| ["label", "class"].iter().any(|word| name(column).contains(word));
        let names: Vec<_> = self
            .columns
            .iter()
            .filter(|column| similar(column))
            .map(|column| column.path().string())
            .collect();
        if names.len() > 1 {
            return Err(Error::SeveralLabels { file: self.file.to_owned(), columns: names });
        }
        Ok(self.only(similar))
    }

    /// The column, if it has one of these types.
    fn checked(&self, index: usize, types: &[Type], expected: &'static str) -> Result<Column> {
        let found = self.columns[index];
        let (name, physical_type) = (found.path().string(), found.physical_type());
        if types.contains(&physical_type) && found.max_rep_level() == 0 {
            return Ok(Column { index, name, physical_type });
        }
        let list = if found.max_rep_level() == 0 { "" } else { "a list of " };
        let found = format!("{list}{physical_type}");
        Err(Error::Column { file: self.file.to_owned(), column: name, found, expected })
    }

    fn missing(&self, column: &str) -> Error {
        Error::NoColumn { file: self.file.to_owned(), column: column.to_owned(), columns: self.names() }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.columns.iter().take(SHOWN).map(|column| column.path().string()).collect();
        if self.columns.len() > SHOWN {
            names.push("…".to_owned());
        }
        names
    }
}
