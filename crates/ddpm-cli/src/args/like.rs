//! The command line of `sample --like FILE`: the words of the user and the recipe of the file.

use std::ffi::OsString;

use clap::{ArgMatches, parser::ValueSource};

use crate::recipe::Recipe;

/// The options that a fitted plan replaces.
const OF_PLAN: [&str; 12] = [
    "sampler",
    "steps",
    "timesteps",
    "variance",
    "noise",
    "eta",
    "epsilon-scale",
    "guidance-scale",
    "guidance-interval",
    "class-annealing",
    "guide-scale",
    "noise-path",
];

/// The words of a command line with those of a recipe whose options it does not replace.
pub(super) fn with_recipe(mut words: Vec<OsString>, matches: &ArgMatches, recipe: &Recipe) -> Vec<OsString> {
    let Some((_, matches)) = matches.subcommand() else { return words };
    let is_given = |option: &str| {
        let source = matches.try_get_raw(&option.replace('-', "_")).ok().flatten();
        source.is_some() && matches.value_source(&option.replace('-', "_")) == Some(ValueSource::CommandLine)
    };
    for pair in recipe.arguments.chunks(2) {
        let option = pair[0].trim_start_matches("--");
        if !is_given(option) && !replaced_by(option).iter().any(|other| is_given(other)) {
            words.extend(pair.iter().map(OsString::from));
        }
    }
    words
}

/// The options, each of which replaces this one.
fn replaced_by(option: &str) -> &'static [&'static str] {
    match option {
        "plan" => &OF_PLAN,
        "sampler" => &["plan", "variance", "noise", "eta"],
        "variance" => &["plan", "sampler", "noise", "eta", "steps", "timesteps"],
        "eta" => &["plan", "sampler", "variance", "noise"],
        "steps" | "timesteps" => &["plan", "steps", "timesteps"],
        "num-images" | "per-class" => &["num-images", "per-class"],
        "format" => &["out"],
        _ if OF_PLAN.contains(&option) || option == "guide-interval" => &["plan"],
        _ => &[],
    }
}
