//! Bytes of files: JSON and safetensors.

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Tensor};
use safetensors::{
    serialize,
    tensor::{Metadata, TensorInfo, TensorView},
};
use serde::Serialize;

use crate::{Error, Result};

/// The type in which weights are stored. In memory they are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum WeightType {
    /// Exact.
    #[default]
    F32,
    /// Half the size, with a relative error of 2⁻¹¹ in each weight.
    F16,
}

/// Indented JSON that ends with a new line. `path` is for messages.
///
/// # Errors
///
/// If the value cannot be written as JSON.
pub fn encode_json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Refuses weights that are NaN or infinite, or become so in the type in which they are stored. `path` and `name` are
/// for messages.
pub(crate) fn check_finite(path: &Path, name: &str, values: &[f32], stored: WeightType) -> Result<()> {
    let (is_finite, expected): (fn(f32) -> bool, _) = match stored {
        WeightType::F32 => (f32::is_finite, "a finite number"),
        WeightType::F16 => {
            (|x| half::f16::from_f32(x).is_finite(), "a magnitude of at most 65504, the largest of f16")
        }
    };
    match values.iter().position(|&x| !is_finite(x)) {
        Some(position) => {
            let (path, name, found) = (path.to_owned(), name.to_owned(), values[position]);
            Err(Error::WeightValue { path, name, position, found, expected })
        }
        None => Ok(()),
    }
}

/// Tensors in the safetensors format, in the order of their names, so that the same tensors give the same
/// bytes. `path` is for messages.
///
/// # Errors
///
/// If a tensor cannot be read from its device, or holds a number that is not finite in the stored type.
pub(crate) fn encode_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
    stored: WeightType,
) -> Result<Vec<u8>> {
    let error = |source| Error::Safetensors { path: path.to_owned(), source };
    let mut data = BTreeMap::new();
    for (name, tensor) in tensors {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        check_finite(path, name, &values, stored)?;
        let (dtype, bytes): (_, Vec<u8>) = match stored {
            WeightType::F32 => {
                (safetensors::Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            WeightType::F16 => {
                let half = values.iter().map(|&x| half::f16::from_f32(x));
                (safetensors::Dtype::F16, half.flat_map(half::f16::to_le_bytes).collect())
            }
        };
        data.insert(name, (dtype, tensor.dims().to_vec(), bytes));
    }
    let views = data
        .iter()
        .map(|(name, (dtype, shape, bytes))| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(error)?;
    serialize(views, None).map_err(error)
}

/// The beginning of a safetensors file whose tensors follow one after another, for files that are not in memory
/// as a whole: each has a name, a type, a shape and its first and last byte. `path` is for messages.
///
/// # Errors
///
/// If the tensors do not follow one after another.
pub fn safetensors_header(path: &Path, tensors: Vec<(String, TensorInfo)>) -> Result<Vec<u8>> {
    let metadata = Metadata::new(None, tensors)
        .map_err(|source| Error::Safetensors { path: path.to_owned(), source })?;
    let mut json =
        serde_json::to_vec(&metadata).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}
