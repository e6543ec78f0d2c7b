//! Requests with a body.

use std::io::{self, Read};

use serde_json::Value;
use ureq::http::{self, Method};
use ureq::{Error, SendBody};

use super::{Client, Response, header, is_transient, server};
use crate::error::Cause;

/// The largest part of a refusal that is read, in bytes.
const MAX_REFUSAL: u64 = 1 << 14;

/// Headers that describe the request itself. An answer cannot choose them for another request.
const OWN_HEADERS: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "expect"];

/// When a request is sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source::hub) enum Repeat {
    /// If the connection fails or the server is busy: the request has the same effect however often it is sent.
    Idempotent,
    /// Only if the server has surely done nothing: there was no connection, or it refused one request too many.
    Unsent,
}

/// A body that tells how much of it was read.
struct Counted<'a> {
    rest: &'a [u8],
    sent: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.rest.read(buffer)?;
        self.sent += count as u64;
        (self.progress)(self.sent);
        Ok(count)
    }
}

impl Client {
    /// Posts a body. Only the Hub itself gets the token, unless the headers have another permission.
    pub(in crate::source::hub) fn post(
        &self,
        address: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        repeat: Repeat,
    ) -> Result<Response, Cause> {
        let here = server(address) == server(self.endpoint())
            && headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        let authorization =
            self.authorization.as_deref().filter(|_| here).map(|value| ("Authorization", value));
        let headers: Vec<_> = headers.iter().copied().chain(authorization).collect();
        self.upload(&Method::POST, address, &headers, body, repeat, &mut |_| {})
    }

    /// Posts a body to an address that an answer has given and that is signed, without a token.
    pub(in crate::source::hub) fn post_signed(
        &self,
        address: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Cause> {
        self.upload(&Method::POST, address, headers, body, Repeat::Idempotent, &mut |_| {})
    }

    /// Stores a body at an address that an answer has given and that is signed, with the headers that the answer has given, and no token.
    /// Calls `progress` with the number of bytes sent, which begins at 0 again if the request is repeated.
    pub(in crate::source::hub) fn put(
        &self,
        address: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Response, Cause> {
        self.upload(&Method::PUT, address, headers, body, Repeat::Idempotent, progress)
    }

    fn upload(
        &self,
        method: &Method,
        address: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        repeat: Repeat,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Response, Cause> {
        let again = match repeat {
            Repeat::Idempotent => is_transient,
            Repeat::Unsent => was_not_sent,
        };
        self.repeat(again, || {
            let mut request = http::Request::builder().method(method).uri(address);
            // With its length, the body is sent as it is: storage servers refuse a body in chunks.
            request = request.header("Content-Length", body.len()).header("Accept-Encoding", "identity");
            for (name, value) in headers {
                if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                    continue;
                }
                request = request.header(*name, *value);
            }
            let mut counted = Counted { rest: body, sent: 0, progress: &mut *progress };
            self.agent.run(request.body(SendBody::from_reader(&mut counted))?)
        })
    }

    /// The status of an answer that refuses a request, with the server's message from a header or from the body.
    pub(in crate::source::hub) fn refused(&self, response: Response) -> Cause {
        if header(&response, "X-Error-Message").is_some() {
            return self.refusal(&response).into();
        }
        let (status, mut body) = (response.status(), Vec::new());
        // What has arrived is shown, also if the rest does not come.
        drop(self.read(response.into_body(), MAX_REFUSAL, |piece| {
            body.extend_from_slice(piece);
            Ok(())
        }));
        self.refusal_with(status, &message(&body)).into()
    }
}

/// The message in the body of a refusal: the Hub answers `{"error": …}`, its Git LFS `{"message": …}`, and a storage server
/// XML.
fn message(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let found = ["/error", "/message", "/errors/0/message"].iter().find_map(|at| json.pointer(at)?.as_str());
    found.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned)
}

fn was_not_sent(answer: &Result<Response, Error>) -> bool {
    match answer {
        Ok(response) => response.status().as_u16() == 429,
        Err(Error::Io(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Err(error) => matches!(error, Error::HostNotFound | Error::ConnectionFailed),
    }
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn the_message_of_a_refusal_is_found_in_each_form() {
        for (body, expected) in [
            (r#"{"error": "too big"}"#, "too big"),
            (r#"{"message": "too big", "x": 1}"#, "too big"),
            (r#"{"errors": [{"message": "too big"}]}"#, "too big"),
            ("<Error><Code>EntityTooLarge</Code></Error>\n", "<Error><Code>EntityTooLarge</Code></Error>"),
            (r#"{"other": 1}"#, r#"{"other": 1}"#),
            ("", ""),
        ] {
            assert_eq!(message(body.as_bytes()), expected);
        }
    }
}
