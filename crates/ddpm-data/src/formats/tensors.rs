//! A safetensors file.

use std::borrow::Cow;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::arrays::{self, Array, Arrays, Element, Header, Kind};
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// The longest header of the format, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Whether a file starts as a safetensors file does: the length of the header, little-endian, and its first character.
pub(super) fn is_start(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    length.is_some_and(|length| length <= MAX_HEADER) && bytes.get(8) == Some(&b'{')
}

/// Reads the images of a safetensors file, and their labels if it has them.
pub(super) fn read(file: &Path, bytes: &[u8], size: Option<[usize; 2]>) -> Result<Dataset> {
    let mut tensors =
        Tensors { file, tensors: SafeTensors::deserialize(bytes).map_err(|error| wrong(file, &error))? };
    arrays::dataset(file, &mut tensors, size)
}

struct Tensors<'a> {
    file: &'a Path,
    tensors: SafeTensors<'a>,
}

impl Arrays for Tensors<'_> {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.tensors.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    fn read(&mut self, name: &str, check: &dyn Fn(&Header) -> Result<()>) -> Result<Array<'_>> {
        let tensor = self.tensors.tensor(name).map_err(|error| wrong(self.file, &error))?;
        let header = Header { element: element(tensor.dtype()), shape: tensor.shape().to_vec() };
        check(&header)?;
        Ok(Array { header, data: Cow::Borrowed(tensor.data()) })
    }
}

/// As text only: an error of the library repeats the text of its source.
fn wrong(file: &Path, error: &safetensors::SafeTensorError) -> Error {
    Error::Safetensors { file: file.to_owned(), source: error.to_string().into() }
}

fn element(dtype: Dtype) -> Element {
    let (kind, width, name) = match dtype {
        Dtype::U8 => (Kind::Unsigned, 1, "uint8"),
        Dtype::U16 => (Kind::Unsigned, 2, "uint16"),
        Dtype::U32 => (Kind::Unsigned, 4, "uint32"),
        Dtype::U64 => (Kind::Unsigned, 8, "uint64"),
        Dtype::I8 => (Kind::Signed, 1, "int8"),
        Dtype::I16 => (Kind::Signed, 2, "int16"),
        Dtype::I32 => (Kind::Signed, 4, "int32"),
        Dtype::I64 => (Kind::Signed, 8, "int64"),
        Dtype::F32 => (Kind::Float, 4, "float32"),
        Dtype::F64 => (Kind::Float, 8, "float64"),
        other => {
            return Element { kind: Kind::Other, width: 1, is_big_endian: false, name: other.to_string() };
        }
    };
    Element { kind, width, is_big_endian: false, name: name.to_owned() }
}
