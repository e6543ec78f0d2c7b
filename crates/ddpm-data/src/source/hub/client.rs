//! Requests to the Hub.
//!
//! Every wait has a limit: for the connection, for each write of a body, for the head of an answer, for each read of its
//! body, and for the speed of that body.

mod upload;

pub(super) use upload::Repeat;

use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{Method, StatusCode, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, http};

use crate::error::{Cause, Error, Result};

/// The characters of a revision that are escaped in an address.
pub(super) const REVISION: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The characters of a file name that are escaped in an address.
const FILE: &AsciiSet = &REVISION.remove(b'/');

/// The least number of bytes of a body that must arrive within each time-out.
const MIN_BYTES: usize = 1 << 14;
/// The largest number of redirects that a request follows.
const MAX_REDIRECTS: usize = 10;

pub(super) type Response = http::Response<Body>;

/// The HTTP client, with the address of the server and the access token.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    /// `Bearer TOKEN`.
    authorization: Option<String>,
    retries: usize,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(
        endpoint: &str,
        token: Option<&str>,
        retries: usize,
        timeout: Duration,
    ) -> Result<Self> {
        let is_address = endpoint.parse::<Uri>().is_ok_and(|uri| {
            uri.host().is_some()
                && matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.query().is_none()
        });
        if !is_address {
            return Err(Error::HubEndpoint { endpoint: endpoint.to_owned() });
        }
        let agent = Agent::config_builder()
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .http_status_as_error(false)
            // A redirect must not lead to a connection without TLS.
            .https_only(endpoint.starts_with("https:"))
            .max_redirects(0)
            .timeout_resolve(Some(timeout))
            .timeout_connect(Some(timeout))
            .timeout_send_request(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_per_read(Some(timeout))
            .timeout_per_write(Some(timeout))
            .build()
            .into();
        let authorization = token.map(|token| format!("Bearer {token}"));
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Ok(Self { agent, endpoint, authorization, retries, timeout })
    }

    /// The address of the server, without a final `/`.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether requests have an access token.
    pub(super) fn has_token(&self) -> bool {
        self.authorization.is_some()
    }

    /// The address of a file. `repository` is `OWNER/NAME`, after `datasets/` for a data set.
    pub(super) fn address(&self, repository: &str, revision: &str, file: &str) -> String {
        let (revision, file) = (utf8_percent_encode(revision, REVISION), utf8_percent_encode(file, FILE));
        format!("{}/{repository}/resolve/{revision}/{file}", self.endpoint)
    }

    /// The address of the list of all files of a repository.
    pub(super) fn tree_address(&self, repository: &str, revision: &str) -> String {
        let revision = utf8_percent_encode(revision, REVISION);
        // The list of a model is at `models/OWNER/NAME`, and only lists of data sets are read.
        format!("{}/api/{repository}/tree/{revision}?recursive=true", self.endpoint)
    }

    /// Asks for the head of a file. Follows redirects to a path on the same server only: the answer that refers to
    /// another server, where large files are stored, describes the file.
    pub(super) fn head(&self, address: &str) -> Result<Response, Cause> {
        self.send(&Method::HEAD, address)
    }

    /// Requests a file. Follows redirects.
    pub(super) fn get(&self, address: &str) -> Result<Response, Cause> {
        self.send(&Method::GET, address)
    }

    fn send(&self, method: &Method, address: &str) -> Result<Response, Cause> {
        let mut address = address.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.repeat(is_transient, || {
                let request = http::Request::builder().method(method).uri(&address);
                let request = request.header("Accept-Encoding", "identity");
                // Another server must not learn the token.
                let here = server(&address) == server(&self.endpoint);
                let request = match self.authorization.as_ref().filter(|_| here) {
                    Some(authorization) => request.header("Authorization", authorization),
                    None => request,
                };
                self.agent.run(request.body(())?)
            })?;
            if is_busy(response.status()) {
                return Err(self.refusal(&response).into());
            }
            let location = header(&response, "Location").filter(|_| response.status().is_redirection());
            address = match location {
                Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                    format!("{}{path}", server(&address))
                }
                Some(other) if *method == Method::GET => other.to_owned(),
                _ => return Ok(response),
            };
        }
        Err(format!("the server redirected the request more than {MAX_REDIRECTS} times").into())
    }

    /// Reads a body piece by piece. Stops after the piece with which it has more than `limit` bytes, and returns the
    /// number of bytes.
    pub(super) fn read(
        &self,
        body: Body,
        limit: u64,
        mut write: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Result<u64, Cause>> {
        let mut body = body.into_with_config().limit(u64::MAX).reader();
        let (mut total, mut piece) = (0, vec![0; 1 << 16]);
        let (mut started, mut recent) = (Instant::now(), 0);
        while total <= limit {
            let count = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Ok(Err(self.cause(ureq::Error::from(error)))),
            };
            write(&piece[..count])?;
            (total, recent) = (total + count as u64, recent + count);
            if recent >= MIN_BYTES {
                (started, recent) = (Instant::now(), 0);
            } else if started.elapsed() > self.timeout {
                return Ok(Err(self.cause(ureq::Error::Timeout(ureq::Timeout::RecvBody))));
            }
        }
        Ok(Ok(total))
    }

    /// Sends a request, and repeats it after a pause as long as `again` says so of its result.
    fn repeat(
        &self,
        again: impl Fn(&Result<Response, ureq::Error>) -> bool,
        mut send: impl FnMut() -> Result<Response, ureq::Error>,
    ) -> Result<Response, Cause> {
        let mut attempt = 0;
        loop {
            let answer = send();
            if attempt >= self.retries || !again(&answer) {
                return answer.map_err(|error| self.cause(error));
            }
            std::thread::sleep(Duration::from_secs(1 << attempt.min(5)));
            attempt += 1;
        }
    }

    /// The status of an answer that refuses a request, with the server's message.
    pub(super) fn refusal(&self, response: &Response) -> String {
        self.refusal_with(response.status(), header(response, "X-Error-Message").unwrap_or_default())
    }

    /// A text of a server without the token, which the server could repeat.
    pub(super) fn without_token(&self, text: &str) -> String {
        let token = self.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        token.map_or_else(|| text.to_owned(), |token| text.replace(token, "…"))
    }

    /// The status of an answer that refuses a request, with a message.
    fn refusal_with(&self, status: StatusCode, message: &str) -> String {
        let message = self.without_token(message);
        let separator = if message.is_empty() { "" } else { ": " };
        format!("the server answered {status}{separator}{message:.300}")
    }

    /// The text of an error of the client. Some of those errors repeat the text of their source.
    fn cause(&self, error: ureq::Error) -> Cause {
        match error {
            ureq::Error::Timeout(_) => format!(
                "the server sent too little for {} seconds (HF_HUB_DOWNLOAD_TIMEOUT sets this limit)",
                self.timeout.as_secs_f64()
            )
            .into(),
            error => error.to_string().into(),
        }
    }
}

/// Hides the token.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Whether the connection failed or the server is busy, so that another attempt may succeed.
fn is_transient(answer: &Result<Response, ureq::Error>) -> bool {
    match answer {
        Ok(response) => is_busy(response.status()),
        Err(error) => matches!(
            error,
            ureq::Error::Io(_)
                | ureq::Error::Timeout(_)
                | ureq::Error::HostNotFound
                | ureq::Error::ConnectionFailed
        ),
    }
}

fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 429)
}

/// The part `scheme://host:port` of an address.
fn server(address: &str) -> &str {
    let host = address.find("://").map_or(0, |scheme| scheme + 3);
    address[host..].find('/').map_or(address, |end| &address[..host + end])
}

/// The value of a header, if it is text.
pub(super) fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}
