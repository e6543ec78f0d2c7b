//! Encoding of JSON and safetensors files.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use candle_core::{DType, Tensor};
use safetensors::{
    serialize,
    tensor::{Metadata, TensorInfo, TensorView},
};
use serde::Serialize;

use crate::{Error, Result};

/// The number type of a weights file. In memory, weights are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum WeightType {
    /// 32-bit floats: exact.
    #[default]
    F32,
    /// 16-bit floats: half the size, with a relative error of at most 2⁻¹¹ for weights in f16's normal range.
    F16,
}

/// Encodes a value as indented JSON with a final newline. `path` is used in error messages only.
///
/// # Errors
///
/// If the value cannot be represented in JSON.
pub fn encode_json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(Error::json(path))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Returns an error if a weight is not finite after conversion to the stored type. `path` and `name` are used in the
/// error message only.
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

/// Encodes tensors in the safetensors format, sorted by name, so that equal tensors give equal bytes. `path` is used
/// in error messages only.
///
/// # Errors
///
/// If a tensor cannot be copied from its device, or holds a number that is not finite in the stored type.
pub fn encode_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
    stored: WeightType,
) -> Result<Vec<u8>> {
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
        .map_err(Error::safetensors(path))?;
    serialize(views, None).map_err(Error::safetensors(path))
}

/// Encodes the header of a safetensors file, for a file that is written in parts. `metadata` is text by name. Each tensor
/// has a name, a type, a shape and a byte range. `path` is used in error messages only.
///
/// # Errors
///
/// If the byte ranges are not contiguous from 0, or do not fit the types and shapes.
pub fn safetensors_header(
    path: &Path,
    metadata: Option<HashMap<String, String>>,
    tensors: Vec<(String, TensorInfo)>,
) -> Result<Vec<u8>> {
    let metadata = Metadata::new(metadata, tensors).map_err(Error::safetensors(path))?;
    let mut json = serde_json::to_vec(&metadata).map_err(Error::json(path))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}
