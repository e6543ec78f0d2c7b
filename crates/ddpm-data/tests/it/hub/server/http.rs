//! Requests and answers as bytes.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use super::repository::Reply;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Reads a request; `None` if it ends too early.
    pub(super) fn read(stream: &TcpStream) -> std::io::Result<Option<Self>> {
        let mut input = BufReader::new(stream);
        let (mut first, mut headers) = (String::new(), Vec::new());
        input.read_line(&mut first)?;
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let header =
            |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = Vec::new();
        input.take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            return Ok(None);
        }
        let authorization = header("authorization");
        let mut words = first.split(' ').map(ToOwned::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(Some(Self { method, path, authorization, headers, body }))
    }
}

/// An answer as it is sent. The answer to a `HEAD` has no body.
pub(super) fn encode(request: &Request, (status, headers, body): Reply) -> Vec<u8> {
    let mut head =
        format!("HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let body = if request.method == "HEAD" { Vec::new() } else { body };
    [format!("{head}\r\n").into_bytes(), body].concat()
}
