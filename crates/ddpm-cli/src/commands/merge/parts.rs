//! The parts of a job: found, compared with each other and verified.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    args::{Format, Shard},
    commands::part::ArrayFiles,
    interrupt, output,
    progress::Progress,
    recipe::{self, Recipe},
};

/// The parts of a job that are there and whole.
pub(super) struct Parts {
    /// The recipe of the whole job, in the format of the parts.
    pub(super) recipe: Recipe,
    pub(super) format: Format,
    /// The number of parts of the job.
    pub(super) count: usize,
    /// The value of --out of each part, by its index from 0. A job may have many parts, so this is all that is kept of each.
    found: BTreeMap<usize, PathBuf>,
}

impl Parts {
    /// The parts in `paths`, which are files or folders. A part that is not whole is a warning.
    ///
    /// # Errors
    /// There is no part, parts are of different jobs, a part is there twice, or a file cannot be read.
    pub(super) fn find(paths: &[PathBuf], progress: &Progress) -> Result<Self> {
        let mut parts: Option<(Self, PathBuf)> = None;
        let recipes = recipes(paths)?;
        progress.start(0, recipes.len() as u64);
        for (path, is_named) in &recipes {
            interrupt::check()?;
            progress.add(1);
            fs::File::open(path).with_context(|| format!("{}: cannot read", path.display()))?;
            let recipe = match Recipe::read(path) {
                Ok(recipe) => recipe,
                Err(error) => {
                    output::warning(&format!("{error:#}; the part counts as missing"));
                    continue;
                }
            };
            let shard = recipe.shard().with_context(|| path.display().to_string())?;
            let (Some(shard), Some(format)) = (shard, recipe.format()) else {
                // A folder may hold other files of `sample`, such as the merged ones.
                ensure!(
                    !is_named,
                    "{}: is no part of a job, expected files of `sample --shard`",
                    path.display()
                );
                continue;
            };
            let whole = recipe.of_whole_job().with_context(|| path.display().to_string())?;
            let (parts, first) = parts.get_or_insert_with(|| {
                let parts =
                    Self { recipe: whole.clone(), format, count: shard.count(), found: BTreeMap::new() };
                (parts, path.clone())
            });
            let other_job = whole.difference(&parts.recipe).or_else(|| {
                let (found, expected) = (shard.count(), parts.count);
                (found != expected).then(|| format!("the number of parts is {found}, expected {expected}"))
            });
            if let Some(difference) = other_job {
                bail!("{}: is of another job than {}: {difference}", path.display(), first.display());
            }
            parts.add(path, shard, &recipe)?;
        }
        let list = || output::list(paths.iter().map(|path| path.display()));
        match parts {
            Some((parts, _)) => Ok(parts),
            None => bail!(
                "{}: no part of a job, expected files of `sample --shard` with their …{}",
                list(),
                recipe::SUFFIX
            ),
        }
    }

    /// Adds a part if it is whole.
    fn add(&mut self, path: &Path, shard: Shard, recipe: &Recipe) -> Result<()> {
        let files = self.files(out_of(path)?);
        let index = shard.array_index();
        if let Some(other) = self.found.get(&index) {
            let [first, last] = recipe.images;
            let is_same = matches!((fs::canonicalize(self.files(other.clone()).recipe()), fs::canonicalize(path)),
                (Ok(one), Ok(other)) if one == other);
            let how = if is_same { "is given twice" } else { "overlap" };
            bail!(
                "{} and {}: {how}: both are part {shard}, images {first} to {last}; expected each part once",
                self.files(other.clone()).recipe().display(),
                path.display()
            );
        }
        match files.damage(recipe)? {
            Some(damage) => {
                output::warning(&format!("{damage}; part {shard}, {index} counted from 0, is missing"))
            }
            None => drop(self.found.insert(index, files.out)),
        }
        Ok(())
    }

    fn files(&self, out: PathBuf) -> ArrayFiles {
        ArrayFiles { out, format: self.format, has_labels: self.has_labels() }
    }

    pub(super) fn has_labels(&self) -> bool {
        !self.recipe.classes.is_empty()
    }

    /// The number of images of the whole job.
    pub(super) fn len(&self) -> usize {
        self.recipe.images[1] + 1
    }

    /// The indices, from 0, of missing parts. A part without images does not count.
    pub(super) fn missing(&self) -> Vec<usize> {
        let shards = Shard::all(self.count).filter(|shard| !shard.range(self.len()).is_empty());
        shards.map(Shard::array_index).filter(|index| !self.found.contains_key(index)).collect()
    }

    /// The files of each part, in the order of the images.
    pub(super) fn iter(&self) -> impl Iterator<Item = ArrayFiles> {
        self.found.values().map(|out| self.files(out.clone()))
    }

    /// The files, recipe and images of each part, in the order of the images.
    ///
    /// # Errors
    /// A recipe cannot be read.
    pub(super) fn with_recipes(&self) -> impl Iterator<Item = Result<(ArrayFiles, Recipe, Range<usize>)>> {
        self.iter().map(|files| {
            let recipe = Recipe::read(&files.recipe())?;
            let [first, last] = recipe.images;
            Ok((files, recipe, first..last + 1))
        })
    }
}

/// The file with the recipe of each part, and whether the user has named the part itself.
fn recipes(paths: &[PathBuf]) -> Result<Vec<(PathBuf, bool)>> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let error = || format!("{}: cannot read the folder", path.display());
            let entries =
                fs::read_dir(path).with_context(error)?.collect::<Result<Vec<_>, _>>().with_context(error)?;
            let names = entries.into_iter().map(|entry| entry.file_name());
            let is_recipe = |name: &OsStr| name.to_str().is_some_and(|name| name.ends_with(recipe::SUFFIX));
            let mut names: Vec<_> = names.filter(|name| is_recipe(name)).collect();
            names.sort_unstable();
            found.extend(names.into_iter().map(|name| (path.join(name), false)));
        } else {
            found.push((recipe_of(path)?, true));
        }
    }
    Ok(found)
}

/// The file with the recipe of a part that is named by one of its files, or by the common start of their names.
fn recipe_of(path: &Path) -> Result<PathBuf> {
    let is_recipe = path.to_str().is_some_and(|name| name.ends_with(recipe::SUFFIX)) && path.is_file();
    let recipe = if is_recipe { Some(path.to_owned()) } else { recipe::sidecar(path) };
    let recipe = recipe.filter(|recipe| recipe.is_file());
    recipe.with_context(|| {
        format!(
            "{}: no folder, and no part of a job with a file …{} beside it, which `sample --shard` writes",
            path.display(),
            recipe::SUFFIX
        )
    })
}

/// The value of --out of a part, from the file with its recipe.
fn out_of(recipe: &Path) -> Result<PathBuf> {
    let out = recipe.to_str().and_then(|path| path.strip_suffix(recipe::SUFFIX));
    out.map(PathBuf::from).with_context(|| {
        format!("{}: expected a name in UTF-8 that ends in {}", recipe.display(), recipe::SUFFIX)
    })
}
