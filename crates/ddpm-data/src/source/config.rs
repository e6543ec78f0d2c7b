//! Connection settings for the Hub.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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
    /// The longest wait for a connection, for an answer, and for the next bytes of a
    /// file.
    pub timeout: Duration,
}

const TIMEOUT: Duration = Duration::from_secs(30);

impl HubConfig {
    /// Anonymous and online access with 3 retries and a time-out of 30 seconds.
    #[must_use]
    pub fn new(endpoint: impl Into<String>, cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.into(),
            cache_dir: Some(cache_dir.into()),
            token: None,
            token_file: None,
            offline: false,
            retries: 3,
            timeout: TIMEOUT,
        }
    }

    /// Reads environment variables, in the same way as the Hub's Python client. It
    /// reads no file.
    ///
    /// | variable | meaning |
    /// | --- | --- |
    /// | `HF_ENDPOINT` | URL of the server |
    /// | `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `HF_HOME`/hub, else `XDG_CACHE_HOME`/huggingface/hub, else ~/.cache/huggingface/hub | the cache folder |
    /// | `HF_TOKEN`, else `HUGGING_FACE_HUB_TOKEN`, else the file `HF_TOKEN_PATH`, else the file `HF_HOME`/token | the access token, unless `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set |
    /// | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | `1`, `true`, `yes` or `on`: read from the cache only |
    /// | `HF_HUB_DOWNLOAD_TIMEOUT` | the time-out in seconds |
    ///
    /// A path that begins with `~/` is one in the home folder.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable_os = |name: &str| variable(name).filter(|value| !value.is_empty());
        let variable = |name: &str| variable_os(name)?.into_string().ok();
        let home = || variable_os("HOME").or_else(|| variable_os("USERPROFILE")).map(PathBuf::from);
        let path = |name: &str| {
            let path = PathBuf::from(variable_os(name)?);
            Some(match (path.strip_prefix("~"), home()) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => path,
            })
        };
        let is_set = |name: &str| {
            let value = variable(name).unwrap_or_default().to_ascii_lowercase();
            matches!(value.as_str(), "1" | "true" | "yes" | "on")
        };
        let user_cache = || path("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")));
        let hf_home = path("HF_HOME").or_else(|| Some(user_cache()?.join("huggingface")));
        let token_file = || path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")));
        let cache = || path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let seconds = |name: &str| variable(name)?.trim().parse().ok();
        let timeout =
            seconds("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let implicit_token = !is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
            cache_dir: cache().or_else(|| Some(hf_home.as_ref()?.join("hub"))),
            token: ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
                .into_iter()
                .filter(|_| implicit_token)
                .filter_map(variable)
                .find(|token| !token.trim().is_empty()),
            token_file: token_file().filter(|_| implicit_token),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
            retries: 3,
            timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT),
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
            .field("timeout", &self.timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        HubConfig::from_variables(|name| {
            let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
            Some((*value).into())
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
        let old = ("HUGGINGFACE_HUB_CACHE", "/o");
        assert_eq!(cache(&[("HF_HOME", "/f"), old]), path("/o"));
        assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), old]), path("/c"));
    }

    #[test]
    fn a_tilde_is_the_home_folder_in_every_path() {
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            assert_eq!(cache(&[("HOME", "/h"), (name, "~/x")]), Some("/h/x".into()), "{name}");
        }
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~")]), Some("/h/hub".into()));
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "~/c")]), Some("/h/c/huggingface/hub".into()));
        let token = config(&[("HOME", "/h"), ("HF_TOKEN_PATH", "~/t")]).token_file;
        assert_eq!(token, Some("/h/t".into()));
        // A folder whose name only begins with a tilde.
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~x")]), Some("~x/hub".into()));
    }

    #[test]
    fn the_time_out_is_read() {
        let timeout = |value: &str| config(&[("HF_HUB_DOWNLOAD_TIMEOUT", value)]).timeout;
        assert_eq!(timeout("2.5"), Duration::from_millis(2500));
        for wrong in ["", "0", "-1", "x", "inf"] {
            assert_eq!(timeout(wrong), TIMEOUT, "{wrong}");
        }
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
