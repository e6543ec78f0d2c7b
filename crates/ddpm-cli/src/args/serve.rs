//! The arguments of `serve`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// The model: a folder, hf://OWNER/NAME, or the built-in MNIST model
    #[arg(long, value_name = "DIR|hf://OWNER/NAME", default_value = "built-in")]
    pub(crate) model: String,
    /// The address and the port at which the page is served; port 0 takes a free one. Requests that name another host are
    /// refused. An address other than 127.0.0.1 shows the page to other machines
    #[arg(long, value_name = "HOST[:PORT]", default_value = "127.0.0.1:8000")]
    pub(crate) listen: String,
    /// The folder of a training run to watch live. The page can also sample from its model
    #[arg(long, value_name = "DIR")]
    pub(crate) run: Option<PathBuf>,
}
