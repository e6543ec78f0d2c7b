//! The command line of `sample --like FILE`: the words of the user and the recipe of the file.

use std::ffi::OsString;

use clap::{ArgMatches, parser::ValueSource};

use super::sampling::REPLACED_BY_PLAN;
use crate::recipe::Recipe;

/// The words of a command line with those of a recipe whose options it does not replace.
pub(super) fn with_recipe(mut words: Vec<OsString>, matches: &ArgMatches, recipe: &Recipe) -> Vec<OsString> {
    let Some((_, matches)) = matches.subcommand() else { return words };
    let is_given = |option: &str| {
        let is_option = matches.try_contains_id(option).is_ok();
        is_option && matches.value_source(option) == Some(ValueSource::CommandLine)
    };
    for pair in recipe.arguments.chunks(2) {
        // The name by which clap knows the option.
        let option = pair[0].trim_start_matches("--").replace('-', "_");
        if !is_given(&option) && !replaced_by(&option).iter().any(|other| is_given(other)) {
            words.extend(pair.iter().map(OsString::from));
        }
    }
    words
}

/// The other options, each of which replaces this one.
fn replaced_by(option: &str) -> &'static [&'static str] {
    match option {
        "plan" => &REPLACED_BY_PLAN,
        "strength" => &["plan"],
        "strip" => &["interpolate"],
        "interpolate" => &["strip", "num_images", "shard", "shard_index", "noise_path"],
        "sampler" => &["plan", "variance", "noise", "eta"],
        "variance" => &["plan", "sampler", "noise", "eta", "steps", "timesteps"],
        "eta" => &["plan", "sampler", "variance", "noise"],
        "steps" => &["plan", "timesteps"],
        "timesteps" => &["plan", "steps"],
        "num_images" => &["per_class", "interpolate"],
        "shard" => &["interpolate", "shard_index"],
        "noise_path" => &["plan", "interpolate"],
        "per_class" => &["num_images"],
        "format" => &["out"],
        _ if REPLACED_BY_PLAN.contains(&option) => &["plan"],
        _ => &[],
    }
}
