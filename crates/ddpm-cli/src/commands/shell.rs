//! `ddpm-cli completions` and `ddpm-cli man`: what belongs to the program in a shell.

use anyhow::Result;
use clap_complete::generate;
use clap_mangen::Man;
use ddpm_files::write_atomic;

use crate::{
    args::{Args, Common, Completions, Man as ManOptions},
    output,
};

/// The name of the program.
const NAME: &str = "ddpm-cli";

/// Prints the completions of a shell.
pub(crate) fn completions(options: &Completions) -> Result<()> {
    let mut text = Vec::new();
    generate(options.shell, &mut Args::options(), NAME, &mut text);
    // clap_complete 4.6.11 writes the name of a program with a hyphen in two ways in the script for bash.
    output::text(&String::from_utf8(text)?.replace("ddpm__subcmd__cli", "ddpm__cli"))
}

/// Writes a page of the manual for the program and for each command.
pub(crate) fn man(options: &ManOptions, common: &Common) -> Result<()> {
    let mut command = Args::options();
    command.build();
    let mut pages = vec![(NAME.to_owned(), command.clone())];
    for subcommand in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("{NAME}-{}", subcommand.get_name());
        pages.push((name, subcommand.clone()));
    }
    let mut written = Vec::new();
    for (name, command) in pages {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        let path = options.folder.join(format!("{name}.1"));
        write_atomic(&path, &page)?;
        written.push(path.display().to_string());
    }
    output::result(common, &serde_json::json!({ "files": written }), &written.join("\n"))
}
