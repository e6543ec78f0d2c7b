//! The parts of a job that `--shard` makes: their files, what their recipes have in common, and whether they are whole.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use ddpm_files::Manifest;

use super::{
    arrays::{IDX_IMAGES, IDX_LABELS, with_suffix},
    job,
};
use crate::{
    args::{Format, Shard},
    output,
    recipe::{self, Recipe},
};

/// The options that a part has and the whole job has not, or has with another value.
const SHARD: &str = "--shard";
const FORMAT: &str = "--format";

/// The files of `sample` with a format of arrays.
#[derive(Clone, Debug)]
pub(super) struct ArrayFiles {
    /// The value of --out.
    pub(super) out: PathBuf,
    pub(super) format: Format,
    pub(super) has_labels: bool,
}

impl ArrayFiles {
    /// The file that holds the recipe and, of a part, the SHA-256 of the others.
    pub(super) fn recipe(&self) -> PathBuf {
        with_suffix(&self.out, recipe::SUFFIX)
    }

    /// The file of the images.
    pub(super) fn images(&self) -> PathBuf {
        if self.format == Format::Idx { with_suffix(&self.out, IDX_IMAGES) } else { self.out.clone() }
    }

    /// The file that holds labels only.
    pub(super) fn labels(&self) -> Option<PathBuf> {
        (self.format == Format::Idx && self.has_labels).then(|| with_suffix(&self.out, IDX_LABELS))
    }

    /// The files of images and labels, each with its key among the digests. A key is not a file name, so that a part can be
    /// renamed.
    pub(super) fn arrays(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let images = if self.format == Format::Idx { "images" } else { "tensors" };
        [(images, self.images())].into_iter().chain(self.labels().map(|labels| ("labels", labels)))
    }

    /// What is wrong with the files, by the digests of their recipe; `None` if they are whole.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn damage(&self, recipe: &Recipe) -> Result<Option<String>> {
        let found: Vec<&str> = recipe.written.names().collect();
        if !self.arrays().map(|(name, _)| name).eq(found.iter().copied()) {
            let expected: Vec<_> = self.arrays().map(|(name, _)| name).collect();
            let found = if found.is_empty() { "no file".to_owned() } else { found.join(", ") };
            return Ok(Some(format!(
                "{} has the SHA-256 of {found}, expected {}",
                self.recipe().display(),
                expected.join(", ")
            )));
        }
        let path = |name: &str| match self.labels() {
            Some(labels) if name == "labels" => labels,
            _ => self.images(),
        };
        Ok(recipe.written.damage(path)?.map(|damage| damage.to_string()))
    }
}

impl Recipe {
    /// The value of an option.
    fn argument(&self, option: &str) -> Option<&str> {
        let mut pairs = self.arguments.chunks_exact(2);
        pairs.find(|pair| pair[0] == option).map(|pair| pair[1].as_str())
    }

    /// The part of a job that the files hold; `None` if they hold a whole job.
    ///
    /// # Errors
    /// The value of --shard is not valid.
    pub(crate) fn shard(&self) -> Result<Option<Shard>> {
        let shard = self.argument(SHARD).map(|text| text.parse().map_err(anyhow::Error::msg));
        shard.transpose()
    }

    /// The format of the files; `None` if it is a picture.
    pub(crate) fn format(&self) -> Option<Format> {
        let name = self.argument(FORMAT)?;
        [Format::Idx, Format::Safetensors].into_iter().find(|format| output::name(format) == name)
    }

    /// The number of images of the job, over all its parts.
    fn job_len(&self) -> Result<usize> {
        let number = |text: &str| text.parse().with_context(|| format!("{text} is no number of images"));
        job::checked_len(match (self.argument("--num-images"), self.argument("--per-class")) {
            (Some(text), _) => number(text)?,
            (None, Some(text)) => job::len_per_class(&self.classes, number(text)?),
            (None, None) => bail!("the recipe has no --num-images and no --per-class"),
        })
    }

    /// The recipe of the same command without --shard.
    ///
    /// # Errors
    /// The recipe has no --shard, or its images are not those of its part.
    pub(crate) fn of_whole_job(&self) -> Result<Self> {
        let shard = self.shard()?.context("it is not a part of a job")?;
        let len = self.job_len()?;
        let (range, [first, last]) = (shard.range(len), self.images);
        ensure!(
            (range.start, range.end) == (first, last.saturating_add(1)) && first <= last,
            "the images are {first} to {last}, expected {} to {} for part {shard} of {len} images",
            range.start,
            range.end.saturating_sub(1)
        );
        let pairs = self.arguments.chunks_exact(2).filter(|pair| pair[0] != SHARD);
        Ok(Self {
            images: [0, len - 1],
            arguments: pairs.flatten().cloned().collect(),
            written: Manifest::default(),
            ..self.clone()
        })
    }

    /// The recipe of the same images in another format.
    pub(crate) fn in_format(&self, format: Format) -> Self {
        let mut recipe = self.clone();
        for pair in recipe.arguments.chunks_exact_mut(2).filter(|pair| pair[0] == FORMAT) {
            pair[1] = output::name(&format);
        }
        recipe
    }

    /// In what this recipe is another one than `expected`, the digests aside; `None` if it is the same.
    pub(crate) fn difference(&self, expected: &Self) -> Option<String> {
        let of = |recipe: &Self| {
            let mut values = vec![
                ("the version".to_owned(), recipe.version.clone()),
                ("the SHA-256 of the model".to_owned(), recipe.model_sha256.clone()),
            ];
            values.extend(recipe.arguments.chunks(2).map(|pair| (pair[0].clone(), pair[1..].join(" "))));
            values.extend(
                recipe.files.iter().map(|(name, sha256)| (format!("the SHA-256 of {name}"), sha256.clone())),
            );
            values.extend([
                ("the images".to_owned(), format!("{:?}", recipe.images)),
                ("the classes".to_owned(), output::list(&recipe.classes)),
                ("the number of steps".to_owned(), recipe.steps.to_string()),
            ]);
            values
        };
        let (found, expected) = (of(self), of(expected));
        let value = |values: &[(String, String)], name: &str| {
            values
                .iter()
                .find(|(other, _)| other == name)
                .map_or("not given".to_owned(), |(_, value)| value.clone())
        };
        let mut names = expected.iter().chain(&found).map(|(name, _)| name);
        names.find_map(|name| {
            let (found, expected) = (value(&found, name), value(&expected, name));
            (found != expected).then(|| format!("{name} is {found}, expected {expected}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(arguments: &str, images: [usize; 2]) -> Recipe {
        Recipe {
            version: "0.1.0".to_owned(),
            model_sha256: "ab".to_owned(),
            images,
            classes: vec![0, 1],
            steps: 20,
            files: [].into(),
            arguments: arguments.split(' ').map(str::to_owned).collect(),
            written: Manifest::default(),
        }
    }

    #[test]
    fn the_whole_job_is_the_command_without_its_part() {
        let whole = recipe("--per-class 5 --seed 1 --format idx", [0, 9]);
        for (part, images) in [("1/3", [0, 2]), ("2/3", [3, 5]), ("3/3", [6, 9])] {
            let part = recipe(&format!("--per-class 5 --shard {part} --seed 1 --format idx"), images);
            assert_eq!(part.of_whole_job().unwrap(), whole);
        }
        let other = recipe("--per-class 5 --shard 1/3 --seed 1 --format idx", [0, 3]).of_whole_job();
        let error = other.unwrap_err().to_string();
        assert_eq!(error, "the images are 0 to 3, expected 0 to 2 for part 1/3 of 10 images");
        assert!(whole.of_whole_job().is_err(), "no part");
        assert_eq!(whole.in_format(Format::Safetensors).format(), Some(Format::Safetensors));
    }

    #[test]
    fn a_difference_names_what_was_found_and_expected() {
        let one = recipe("--seed 1 --steps 5", [0, 9]);
        assert_eq!(one.difference(&one), None);
        for (other, text) in [
            (recipe("--seed 2 --steps 5", [0, 9]), "--seed is 2, expected 1"),
            (recipe("--seed 1", [0, 9]), "--steps is not given, expected 5"),
            (recipe("--seed 1 --steps 5 --eta 1", [0, 9]), "--eta is 1, expected not given"),
            (recipe("--seed 1 --steps 5", [1, 9]), "the images is [1, 9], expected [0, 9]"),
            (Recipe { version: "0.2.0".to_owned(), ..one.clone() }, "the version is 0.2.0, expected 0.1.0"),
            (
                Recipe { model_sha256: "cd".to_owned(), ..one.clone() },
                "the SHA-256 of the model is cd, expected ab",
            ),
        ] {
            assert_eq!(other.difference(&one).unwrap(), text);
        }
    }
}
