//! Connection settings for the Hub.

use std::fmt;
use std::path::PathBuf;

const ENDPOINT: &str = "https://huggingface.co";

/// Connection settings for the Hub. Only [`from_env`](Self::from_env) reads
/// environment variables, except that the HTTP client reads the proxy variables.
#[derive(Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// URL of the server.
    pub endpoint: String,
    /// The cache folder for downloads, in the layout of the Hub's Python client.
    /// With `None`, `Hub::new` fails.
    pub cache_dir: Option<PathBuf>,
    /// The access token that is sent with each request. With `None` the token is
    /// read from `token_file`.
    pub token: Option<String>,
    /// A file with the access token. `Hub::new` reads it if `token` is `None` and
    /// `offline` is false. With `None`, or if the file is missing or empty, access
    /// is anonymous.
    pub token_file: Option<PathBuf>,
    /// Whether to read from the cache only and send no request.
    pub offline: bool,
    /// The maximum number of repetitions of a request if the server is busy or the
    /// connection fails.
    pub retries: usize,
}

impl HubConfig {
    /// Anonymous and online access with 3 retries.
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

    /// Reads environment variables, in the same way as the Hub's Python client. It
    /// reads no file.
    ///
    /// | variable | meaning |
    /// | --- | --- |
    /// | `HF_ENDPOINT` | URL of the server |
    /// | `HF_HUB_CACHE`, else `HF_HOME`/hub, else `XDG_CACHE_HOME`/huggingface/hub, else ~/.cache/huggingface/hub | the cache folder |
    /// | `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else the file `HF_HOME`/token | the access token, unless `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set |
    /// | `HF_HUB_OFFLINE` | `1`, `true`, `yes` or `on`: read from the cache only |
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
        let user_cache = || {
            let home = || path("HOME").or_else(|| path("USERPROFILE"));
            path("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))
        };
        let hf_home = path("HF_HOME").or_else(|| Some(user_cache()?.join("huggingface")));
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

/// Hides the token.
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
    fn more_specific_variables_take_precedence() {
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
    fn the_path_of_the_token_file_is_set_but_the_file_is_not_read() {
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
