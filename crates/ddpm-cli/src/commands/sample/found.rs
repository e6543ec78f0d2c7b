//! The output of a part of a job that is there before the part is made: `--skip-verified`.

use std::{fs, io};

use anyhow::{Context, Result, bail};

use crate::{commands::part::ArrayFiles, recipe::Recipe};

/// What is there.
pub(super) enum Found {
    Nothing,
    /// Half-written or damaged output, with the reason.
    Damaged(String),
    /// The output of the same recipe, with the digests that it lists.
    Whole,
}

/// Looks at the output of an earlier run of the command with this recipe.
///
/// # Errors
/// It is of another recipe, or cannot be read.
pub(super) fn find(files: &ArrayFiles, recipe: &Recipe) -> Result<Found> {
    let path = files.recipe();
    match fs::File::open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let array = files.arrays().map(|(_, path)| path).find(|path| path.exists());
            let Some(array) = array else { return Ok(Found::Nothing) };
            // A safetensors file of a whole job has its recipe inside only.
            if let Ok(found) = Recipe::read(&array) {
                check_same(&found, recipe, files)?;
            }
            return Ok(Found::Damaged(format!("{} does not exist", path.display())));
        }
        Err(error) => return Err(error).with_context(|| format!("{}: cannot read", path.display())),
    }
    let found = match Recipe::read(&path) {
        Ok(found) => found,
        Err(error) => return Ok(Found::Damaged(format!("{error:#}"))),
    };
    check_same(&found, recipe, files)?;
    Ok(files.damage(&found)?.map_or(Found::Whole, Found::Damaged))
}

fn check_same(found: &Recipe, recipe: &Recipe, files: &ArrayFiles) -> Result<()> {
    match found.difference(recipe) {
        Some(difference) => bail!(
            "{}: the output of another command is there: {difference}; move it away, choose another --out, or leave out \
             --skip-verified to replace it",
            files.out.display()
        ),
        None => Ok(()),
    }
}
