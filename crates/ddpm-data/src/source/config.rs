//! How the Hub is reached.

use std::fmt;
use std::path::PathBuf;

const ENDPOINT: &str = "https://huggingface.co";

/// How the Hub is reached. Nothing else in this crate reads the environment
/// (the HTTP client takes a proxy from it).
#[derive(Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// Address of the server.
    pub endpoint: String,
    /// The folder that downloads are kept in, in the layout that the Hub's other
    /// clients share.
    pub cache_dir: Option<PathBuf>,
    /// Sent with each request; `None` means the content of `token_file`.
    pub token: Option<String>,
    /// A file with the token, which `Hub::new` reads unless `offline` is set.
    /// `None`, or a file that is missing or empty, means anonymous access.
    pub token_file: Option<PathBuf>,
    /// Whether to use the cache alone.
    pub offline: bool,
    /// How often a request is repeated when the server is busy or the connection
    /// fails.
    pub retries: usize,
}

impl HubConfig {
    /// Anonymous and online.
    #[must_use]
    pub fn new(endpoint: impl Into<String>, cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.into(),
            cache_dir: Some(cache_dir.into()),
            token: None,
            token_file: None,
            offline: false,
            retries: 3,
        }
    }

    /// Reads the environment, by the rules of the Hub's own Python client, and no
    /// file:
    ///
    /// | variable | meaning |
    /// | --- | --- |
    /// | `HF_ENDPOINT` | the server |
    /// | `HF_HUB_CACHE`, else `HF_HOME`/hub, else `XDG_CACHE_HOME`/huggingface/hub, else ~/.cache/huggingface/hub | the cache |
    /// | `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else the file `HF_HOME`/token | the token, unless `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set |
    /// | `HF_HUB_OFFLINE` | `1`, `true`, `yes` or `on`: use the cache alone |
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let is_set = |name: &str| {
            let value = variable(name).unwrap_or_default().to_ascii_lowercase();
            matches!(value.as_str(), "1" | "true" | "yes" | "on")
        };
        let caches = || {
            let home = || path("HOME").or_else(|| path("USERPROFILE"));
            path("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))
        };
        let hf_home = path("HF_HOME").or_else(|| Some(caches()?.join("huggingface")));
        let token_file = || path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")));
        let implicit_token = !is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
            cache_dir: path("HF_HUB_CACHE").or_else(|| Some(hf_home.as_ref()?.join("hub"))),
            token: variable("HF_TOKEN").filter(|_| implicit_token),
            token_file: token_file().filter(|_| implicit_token),
            offline: is_set("HF_HUB_OFFLINE"),
            retries: 3,
        }
    }
}

/// Does not show the token.
impl fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("token_file", &self.token_file)
            .field("offline", &self.offline)
            .field("retries", &self.retries)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        HubConfig::from_variables(|name| {
            let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
            Some((*value).to_owned())
        })
    }

    fn cache(variables: &[(&str, &str)]) -> Option<PathBuf> {
        config(variables).cache_dir
    }

    #[test]
    fn nearer_variables_win_over_farther_ones() {
        let path = |text| Some(PathBuf::from(text));
        assert_eq!(cache(&[]), None);
        assert_eq!(cache(&[("HOME", "/h")]), path("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), path("/x/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/f")]), path("/f/hub"));
        assert_eq!(cache(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), path("/c"));
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HUB_CACHE", "")]), path("/h/.cache/huggingface/hub"));
    }

    #[test]
    fn endpoint_and_offline_mode_are_read() {
        assert_eq!(config(&[]).endpoint, "https://huggingface.co");
        assert_eq!(config(&[("HF_ENDPOINT", "http://mirror")]).endpoint, "http://mirror");
        for (value, offline) in [("1", true), ("ON", true), ("True", true), ("0", false), ("", false)] {
            assert_eq!(config(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[test]
    fn the_nearest_token_file_is_named_but_not_read() {
        let file = |variables: &[(&str, &str)]| config(variables).token_file;
        assert_eq!(file(&[]), None);
        assert_eq!(file(&[("HF_HOME", "/f")]), Some("/f/token".into()));
        assert_eq!(file(&[("HF_HOME", "/f"), ("HF_TOKEN_PATH", "/t")]), Some("/t".into()));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "from-file").unwrap();
        assert_eq!(config(&[("HF_HOME", folder.path().to_str().unwrap())]).token, None);
    }

    #[test]
    fn the_token_of_the_environment_is_not_shown_and_can_be_disabled() {
        let variables = [("HF_HOME", "/f"), ("HF_TOKEN", "secret")];
        let enabled = config(&variables);
        assert_eq!(enabled.token.as_deref(), Some("secret"));
        assert!(!format!("{enabled:?}").contains("secret"));
        let disabled = config(&[&variables[..], &[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]].concat());
        assert_eq!((disabled.token, disabled.token_file), (None, None));
    }
}
