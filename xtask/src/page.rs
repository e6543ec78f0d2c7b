//! `cargo xtask page`: uses the page of `ddpm-cli serve` in a browser.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// Use the page of `serve` in headless Chromium, and write screenshots to results/page. Installs Chromium from Debian and
/// playwright-core from npm.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Install nothing: Chromium and playwright-core are already there.
    #[arg(long)]
    installed: bool,
}

/// The folder of the browser's test.
const FOLDER: &str = "interop/page";

/// A server, which ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Trains a small model, so that the page has a run to watch, and runs the test.
pub(crate) fn run(arguments: &Arguments, workspace: &Workspace) -> Result<()> {
    let folder = workspace.root().join(FOLDER);
    if !arguments.installed {
        process::run(&mut Command::new(folder.join("install.sh")))?;
    }
    let binary = workspace.build_cli(&[])?;
    let ddpm = |line: &str| {
        let mut command = Command::new(&binary);
        command.current_dir(workspace.root()).args(line.split(' '));
        command
    };
    process::run(&mut ddpm("train --preset quick --epochs 1 --out-dir runs/page --overwrite --quiet"))?;
    let mut serve = ddpm("serve --listen 127.0.0.1:0 --run runs/page");
    let shown = process::show(&serve);
    let server = serve.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let mut server = Server(server);
    let output = server.0.stdout.take().context("the server has no output")?;
    let mut address = String::new();
    BufReader::new(output).read_line(&mut address)?;
    let pictures = workspace.root().join("results/page");
    fs::create_dir_all(&pictures)?;
    let mut test = Command::new("node");
    test.current_dir(folder).arg("test.js").arg(address.trim()).args([&binary, &pictures]);
    process::run(&mut test)?;
    process::print("The page works; screenshots are in results/page.")
}
