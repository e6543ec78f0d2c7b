//! The recipe of a file that `sample` writes: what made it, in the file itself.
//!
//! A recipe is JSON in plain ASCII. A PNG has it as a text chunk, a GIF as a comment, a safetensors or parquet file in its
//! metadata, each under the name `ddpm`; IDX files, which have no place for it, have a file `OUT-recipe.json` beside them. A part of a
//! job always has this file, with the SHA-256 of the others, so it is also the manifest of the part.

mod gif;

pub(crate) use gif::with_comment;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use ddpm_files::{Manifest, check_keys};
use serde::{Deserialize, Serialize};

use crate::{args::is_option_of_recipe, output};

/// The name of a recipe in a file.
pub(crate) const KEY: &str = "ddpm";

/// What follows the name of IDX files.
pub(crate) const SUFFIX: &str = "-recipe.json";

/// The longest recipe that is read: as long as a list of variances for each of a thousand timesteps.
const LIMIT: u64 = 1 << 20;

/// What made a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    /// The version of `ddpm-cli`.
    pub(crate) version: String,
    /// The SHA-256 of the model with its guide.
    pub(crate) model_sha256: String,
    /// The indices of the first and of the last image.
    pub(crate) images: [usize; 2],
    /// The classes, in the order of the images; empty for a model without classes.
    pub(crate) classes: Vec<u32>,
    /// The number of steps.
    pub(crate) steps: usize,
    /// The SHA-256 of each file that the arguments name, besides the model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) files: BTreeMap<String, String>,
    /// The arguments of `ddpm-cli sample` that make the file again, without the name of the file.
    pub(crate) arguments: Vec<String>,
    /// The SHA-256 of each file of a part of a job (`--shard`): `images` and `labels`, or `tensors`. Empty otherwise.
    #[serde(default, skip_serializing_if = "Manifest::is_empty")]
    pub(crate) written: Manifest,
}

impl Recipe {
    /// The recipe as text, in ASCII.
    pub(crate) fn encode(&self) -> Result<String> {
        let json = serde_json::to_string(self)?;
        let mut text = String::with_capacity(json.len());
        for unit in json.encode_utf16() {
            match u8::try_from(unit).ok().filter(u8::is_ascii) {
                Some(byte) => text.push(byte.into()),
                None => text += &format!("\\u{unit:04x}"),
            }
        }
        Ok(text)
    }

    /// Reads the recipe of a file of `sample`.
    ///
    /// # Errors
    /// The file cannot be read, is of another kind or has no recipe.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = text_of(path).with_context(|| format!("{name}: cannot read its recipe"))?;
        let Some(text) = text else {
            bail!("{name} has no recipe; expected a PNG, GIF, IDX or safetensors file of `ddpm-cli sample`");
        };
        let recipe: Self = check_keys(text.as_bytes())
            .and_then(|()| serde_json::from_str(&text))
            .with_context(|| format!("{name}: its recipe is not one of this program"))?;
        for pair in recipe.arguments.chunks(2) {
            let found = pair.join(" ");
            let is_option = pair.len() == 2 && is_option_of_recipe(&pair[0]);
            ensure!(
                is_option,
                "{name}: its recipe has `{found}`, expected an option of sampling and its value"
            );
        }
        Ok(recipe)
    }

    /// The command that makes the file again.
    pub(crate) fn command(&self) -> String {
        let words = ["ddpm-cli", "sample"].into_iter().chain(self.arguments.iter().map(String::as_str));
        words.map(quoted).collect::<Vec<_>>().join(" ")
    }

    /// Warns if the model, or a file that the arguments name, is not the one that made the file. `new` is the recipe of the
    /// file that will be made.
    pub(crate) fn check_same_inputs(&self, path: &Path, new: &Self) {
        let warn = |input: &str, before: &str, now: &str| {
            output::warning(&format!(
                "{} was made with {input} of SHA-256 {before}, and this one has {now}, so the images will differ",
                path.display(),
            ));
        };
        if new.model_sha256 != self.model_sha256 {
            warn("a model", &self.model_sha256, &new.model_sha256);
        }
        for (name, before) in &self.files {
            if let Some(now) = new.files.get(name).filter(|now| *now != before) {
                warn(&format!("a file {name}"), before, now);
            }
        }
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@=+%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The text of the recipe of a file; `None` if the file is of a known kind without one, or of no known kind.
fn text_of(path: &Path) -> Result<Option<String>> {
    let sidecar = sidecar(path).filter(|sidecar| sidecar.is_file());
    let beside = || sidecar.as_deref().map(json_file).transpose();
    if sidecar.is_some() && !path.is_file() {
        return beside();
    }
    let mut file = BufReader::new(File::open(path)?);
    let mut start = Vec::new();
    file.by_ref().take(9).read_to_end(&mut start)?;
    let file = BufReader::new(File::open(path)?);
    // What a file holds itself counts: a file beside it may be of an older one of the same name.
    match start.as_slice() {
        [0, 0, 8, ..] => beside(),
        [0x89, b'P', b'N', b'G', ..] => {
            let reader = png::Decoder::new(file).read_info()?;
            let texts = &reader.info().uncompressed_latin1_text;
            Ok(texts.iter().find(|text| text.keyword == KEY).map(|text| text.text.clone()))
        }
        [b'G', b'I', b'F', ..] => Ok(gif::comment(file)?),
        [_, _, _, _, _, _, _, _, b'{'] => safetensors_metadata(file),
        [b'{', ..] => json_file(path).map(Some),
        [b'P', b'A', b'R', b'1', ..] => parquet_metadata(path),
        _ => beside(),
    }
}

/// The text of a file that is a recipe itself.
fn json_file(path: &Path) -> Result<String> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    ensure!(length <= LIMIT, "a file of {length} bytes, expected at most {LIMIT}");
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// The file beside IDX files with this name, or with this name as their common part.
pub(crate) fn sidecar(path: &Path) -> Option<std::path::PathBuf> {
    let name = path.file_name()?.to_str()?;
    let common = ["-images-idx3-ubyte", "-labels-idx1-ubyte"].iter().find_map(|end| name.strip_suffix(end));
    Some(path.with_file_name(format!("{}{SUFFIX}", common.unwrap_or(name))))
}

fn safetensors_metadata(mut file: impl Read) -> Result<Option<String>> {
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    ensure!(length <= LIMIT, "a header of {length} bytes, expected at most {LIMIT}");
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    let header: serde_json::Value = serde_json::from_slice(&header)?;
    Ok(header["__metadata__"][KEY].as_str().map(str::to_owned))
}

#[cfg(feature = "hub")]
fn parquet_metadata(path: &Path) -> Result<Option<String>> {
    Ok(ddpm_data::parquet::metadata_value(path, KEY)?)
}

#[cfg(not(feature = "hub"))]
fn parquet_metadata(path: &Path) -> Result<Option<String>> {
    Err(ddpm_data::Error::ParquetFeature { path: path.to_owned() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_ascii_and_comes_back() {
        let recipe = Recipe {
            version: "0.1.0".to_owned(),
            model_sha256: "ab".to_owned(),
            images: [3, 7],
            classes: vec![3, 5],
            steps: 20,
            files: BTreeMap::from([("plan ü.json".to_owned(), "cd".to_owned())]),
            arguments: ["--model", "Ziffern ü/😀 it's", "--seed", "7"].map(str::to_owned).to_vec(),
            written: Manifest::default(),
        };
        let text = recipe.encode().unwrap();
        assert!(text.is_ascii());
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
        assert_eq!(recipe.command(), r"ddpm-cli sample --model 'Ziffern ü/😀 it'\''s' --seed 7");
    }
}
