//! The card of a model on the Hub: the card of its folder, with what a reader elsewhere needs.

use ddpm_data::HubAddress;
use ddpm_model::Denoiser;

use super::{FROM, GUIDE, TITLE, USE, kind};

/// The picture that the card shows, a file beside it.
pub(in crate::commands) const PICTURE: &str = "samples.png";

/// What the card is made of.
pub(in crate::commands) struct OnHub<'a> {
    pub(in crate::commands) denoiser: &'a Denoiser,
    /// The address, without `hf://`.
    pub(in crate::commands) address: &'a HubAddress,
    /// The identifier of the licence.
    pub(in crate::commands) license: Option<&'a str>,
    /// The card of the model folder.
    pub(in crate::commands) local: Option<&'a str>,
    /// The table of `eval`.
    pub(in crate::commands) quality: Option<&'a str>,
    /// The configuration of the training, as TOML.
    pub(in crate::commands) config: Option<&'a str>,
}

impl OnHub<'_> {
    /// The text of the card. A card of the folder that has a header for the Hub already is left as it is.
    pub(in crate::commands) fn text(&self) -> String {
        let own = self.local.unwrap_or_default();
        if own.starts_with("---\n") || own.starts_with("---\r\n") {
            return own.to_owned();
        }
        let body = if own.trim().is_empty() { self.default_body() } else { own.trim().replace(USE, "") };
        // The picture stands below the heading.
        let (heading, rest) = match body.split_once('\n') {
            Some((first, rest)) if first.starts_with("# ") => (first, rest),
            _ => (TITLE, body.as_str()),
        };
        let sections = [Some(self.usage()), self.metrics(), self.training(), Some(self.licence())];
        let text = format!(
            "{header}{heading}\n\n![Images that the model has drawn]({PICTURE})\n\n{rest}\n\n{sections}\n",
            header = self.header(),
            rest = rest.trim(),
            sections = sections.into_iter().flatten().collect::<Vec<_>>().join("\n\n"),
        );
        without_folders(&text)
    }

    /// The metadata, which the Hub's search reads. All values have only characters that need no quotes in YAML.
    fn header(&self) -> String {
        let mut lines = vec!["---".to_owned()];
        lines.extend(self.license.map(|license| format!("license: {license}")));
        lines.push("library_name: ddpm".to_owned());
        if self.classes() == 0 {
            lines.push("pipeline_tag: unconditional-image-generation".to_owned());
        }
        if let Some(dataset) = self.dataset() {
            lines.extend(["datasets:".to_owned(), format!("- {dataset}")]);
        }
        lines.push("tags:".to_owned());
        let tags = ["ddpm", "diffusion", "image-generation"].into_iter();
        let tags = tags.chain((self.classes() > 0).then_some("class-conditional"));
        let tags = tags.chain((self.data_name() == Some("MNIST")).then_some("mnist"));
        lines.extend(tags.map(|tag| format!("- {tag}")));
        lines.push("---\n\n".to_owned());
        lines.join("\n")
    }

    fn usage(&self) -> String {
        let (address, name) = (self.address, self.address.name());
        format!(
            "## Use\n\n\
             ```sh\n\
             ddpm-cli sample --model hf://{address}\n\
             ddpm-cli pull hf://{address}    # the files, as the folder {name}\n\
             ```\n\n\
             `ddpm-cli` is the program of the Rust project ddpm, built with its feature `hub`. `ddpm-cli info {PICTURE}` prints \
             the command that made the picture."
        )
    }

    /// The table of `eval`, with the address in place of the model's folder.
    fn metrics(&self) -> Option<String> {
        let quality = self.quality?.trim();
        let model =
            quality.strip_prefix("`ddpm-cli eval --model ").and_then(|rest| rest.split_once(" --data "));
        let quality = match model {
            Some((_, rest)) => format!("`ddpm-cli eval --model hf://{} --data {rest}", self.address),
            None => quality.to_owned(),
        };
        Some(format!("## Metrics\n\n{quality}"))
    }

    /// The command and the configuration that train the model again.
    fn training(&self) -> Option<String> {
        let data = match (self.dataset(), self.data_name()) {
            (_, Some("MNIST")) => String::new(),
            (Some(dataset), _) => format!(" --data hf://datasets/{dataset}"),
            (None, _) => " --data DATA".to_owned(),
        };
        let row = |name: &str| {
            let mut lines = self.local?.lines();
            lines.find_map(|line| line.strip_prefix(&format!("| {name} | "))?.strip_suffix(" |"))
        };
        // A configuration does not say from which weights a run starts, and `train` takes one or the other.
        if row(FROM).is_some() {
            return None;
        }
        let guide = row(GUIDE).map_or(String::new(), |guide| format!(" --guide {guide}"));
        Some(format!(
            "## Train it again\n\n\
             ```sh\n\
             ddpm-cli train --config config.toml{data}{guide}\n\
             ```\n\n\
             with this file as `config.toml`:\n\n\
             ```toml\n\
             {}\n\
             ```",
            self.config?.trim()
        ))
    }

    fn licence(&self) -> String {
        let text = match self.license {
            Some(license) => format!("`{license}`, for the weights and this card."),
            None => "The author has named none.".to_owned(),
        };
        format!("## Licence\n\n{text}")
    }

    fn default_body(&self) -> String {
        let timesteps = self.denoiser.schedule().betas().len();
        format!("{TITLE}\n\n{}", kind(self.denoiser.config(), timesteps))
    }

    fn classes(&self) -> usize {
        self.denoiser.config().num_classes
    }

    /// The name of the data set in the heading of the folder's card.
    fn data_name(&self) -> Option<&str> {
        self.local?.lines().next()?.strip_prefix(TITLE)?.strip_prefix(" of ").map(str::trim)
    }

    /// The data set on the Hub, if it is from there. MNIST is the same as the one there.
    fn dataset(&self) -> Option<String> {
        match self.data_name()? {
            "MNIST" => Some("ylecun/mnist".to_owned()),
            name => {
                // Only data sets of the Hub have a `/` in their names.
                let (owner, name) = name.split_once('/')?;
                Some(HubAddress::new(owner, name, None).ok()?.to_string())
            }
        }
    }
}

/// A text whose absolute paths are cut to their last part: a card is public, and they name folders of this machine.
fn without_folders(text: &str) -> String {
    let short = |word: &str| {
        // In a configuration, a path is quoted.
        let (quote, path) = word.split_at(usize::from(word.starts_with('"')));
        match path.rsplit_once('/') {
            Some((folder, name)) if folder.starts_with('/') && !name.is_empty() => format!("{quote}{name}"),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(short).collect::<Vec<_>>().join(" ");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::without_folders;

    #[test]
    fn absolute_paths_are_cut_and_addresses_are_not() {
        for (text, expected) in [
            ("| guide | /home/a/runs/guide |", "| guide | guide |"),
            ("--data /a/data --features net/x\n`x` hf://a/b", "--data data --features net/x\n`x` hf://a/b"),
            ("data = \"/home/a/data\"\ndata = \"data/b\"", "data = \"data\"\ndata = \"data/b\""),
            ("1 / 2, n/N, /", "1 / 2, n/N, /"),
        ] {
            assert_eq!(without_folders(text), expected);
        }
    }
}
