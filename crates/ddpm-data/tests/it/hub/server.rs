//! A mock server on the loopback interface. It implements the part of the Hub's
//! protocol for downloads: `HEAD` and `GET` of `/REPO/resolve/REVISION/FILE`.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ddpm_data::HubConfig;
use tempfile::TempDir;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A failure of a `GET` after a successful `HEAD`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Status 500 with a short text.
    Status,
    /// The connection closes after half of the content.
    Truncated,
    /// The content has the right size but other bytes.
    Wrong,
    /// The content is longer than announced by the `HEAD`, without an end.
    Endless,
    /// The connection stays open, and nothing is sent.
    Silent,
    /// One byte of the content is sent after another, with pauses.
    Slow,
    /// A redirect to the same address.
    Loop,
    /// A redirect to the same path on the server at this port.
    Elsewhere(u16),
}

pub(crate) const FAULTS: [Fault; 3] = [Fault::Status, Fault::Truncated, Fault::Wrong];

struct Resource {
    content: Vec<u8>,
    /// The answer to a `HEAD`, and to a `GET`.
    said: [Said; 2],
    /// The failures of the next requests. Later requests succeed.
    faults: VecDeque<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
}

#[derive(Default)]
struct State {
    /// Keyed by `REPO/FILE`, where REPO begins with `datasets/` for data sets.
    resources: BTreeMap<String, Resource>,
    requests: Vec<Request>,
    forbidden: bool,
}

/// What the server says of a file.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) commit: &'static str,
    /// `None` for no header.
    pub(crate) etag: Option<String>,
    /// Whether a `HEAD` announces the size.
    pub(crate) size: bool,
}

/// The server and a cache folder for clients. Dropping it stops the server.
pub(crate) struct MockHub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(crate) cache: TempDir,
}

impl MockHub {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    // The server ignores a client that closes the connection.
                    let _ = stream.and_then(|stream| answer(&stream, &state));
                }
            }
        });
        Self { address, state, stop, thread: Some(thread), cache: tempfile::tempdir().unwrap() }
    }

    /// Serves a file as a large one, whose ETag is its SHA-256.
    pub(crate) fn serve(&self, path: &str, content: Vec<u8>) {
        let etag = ddpm_files::sha256_hex(&content);
        self.serve_with_etag(path, content, &etag);
    }

    /// Serves a file as a small one, whose ETag is a git object name and not a SHA-256.
    pub(crate) fn serve_small(&self, path: &str, content: Vec<u8>) {
        self.serve_with_etag(path, content, "89abcdef0123456789abcdef0123456789abcdef");
    }

    fn serve_with_etag(&self, path: &str, content: Vec<u8>, etag: &str) {
        let said = Said { commit: COMMIT, etag: Some(etag.to_owned()), size: true };
        self.serve_as(path, content, [said.clone(), said]);
    }

    /// Serves a file with these answers to a `HEAD` and to a `GET`.
    pub(crate) fn serve_as(&self, path: &str, content: Vec<u8>, said: [Said; 2]) {
        let resource = Resource { content, said, faults: VecDeque::new() };
        self.state.lock().unwrap().resources.insert(path.to_owned(), resource);
    }

    /// Makes the next `GET`s of the file fail with these faults.
    pub(crate) fn fail(&self, path: &str, faults: &[Fault]) {
        self.state.lock().unwrap().resources.get_mut(path).unwrap().faults = faults.iter().copied().collect();
    }

    /// Makes the server answer every request with status 401.
    pub(crate) fn forbid(&self) {
        self.state.lock().unwrap().forbidden = true;
    }

    /// A client configuration for this server, without retries.
    pub(crate) fn config(&self) -> HubConfig {
        HubConfig { retries: 0, ..HubConfig::new(format!("http://{}", self.address), self.cache.path()) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the requests since the last call.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Returns the number of `GET`s since the last call.
    pub(crate) fn take_gets(&self) -> usize {
        self.take_requests().iter().filter(|request| request.method == "GET").count()
    }
}

impl Drop for MockHub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // The thread waits for a connection; this one wakes it up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let mut lines = BufReader::new(stream).take(1 << 16).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut authorization = None;
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut words = first.split(' ').map(ToOwned::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (response, then) = state.lock().unwrap().respond(Request { method, path, authorization });
    stream.write_all(&response)?;
    stream.flush()?;
    // Each of these ends when the client closes the connection.
    match then {
        Some(Fault::Endless) => loop {
            stream.write_all(&[b'x'; 1 << 16])?;
        },
        Some(Fault::Slow) => loop {
            std::thread::sleep(Duration::from_millis(1));
            stream.write_all(b"x")?;
        },
        Some(Fault::Silent) => stream.read(&mut [0]).map(|_| ()),
        _ => Ok(()),
    }
}

impl State {
    /// The list of files of a repository, if that is what a request asks for and there are any.
    fn list(&self, path: &str) -> Option<String> {
        let (repo, revision) = path.strip_prefix("/api/")?.split_once("/tree/")?;
        let known = [COMMIT, "main"].into_iter().any(|known| revision == format!("{known}?recursive=true"));
        let files = self.resources.keys().filter_map(|file| file.strip_prefix(&format!("{repo}/")));
        let files: Vec<String> = files.map(|file| format!(r#"{{"type":"file","path":"{file}"}}"#)).collect();
        (known && !files.is_empty())
            .then(|| format!(r#"[{{"type":"directory","path":"data"}},{}]"#, files.join(",")))
    }

    /// The answer to a request, and what follows it.
    fn respond(&mut self, request: Request) -> (Vec<u8>, Option<Fault>) {
        let is_get = request.method == "GET";
        if let Some(list) = self.list(&request.path).filter(|_| !self.forbidden) {
            self.requests.push(request);
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", list.len());
            return (format!("{head}{list}").into_bytes(), None);
        }
        let resource = request.path.strip_prefix('/').and_then(|path| {
            let (repo, rest) = path.split_once("/resolve/")?;
            let (revision, file) = rest.split_once('/')?;
            let known = [COMMIT, "main"].contains(&revision);
            self.resources.get_mut(&format!("{repo}/{file}")).filter(|_| known)
        });
        let path = request.path.clone();
        self.requests.push(request);
        let head = |status: &str, said: Option<&Said>, len: usize| {
            let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
            if len != usize::MAX && said.is_none_or(|said| said.size) {
                head += &format!("Content-Length: {len}\r\n");
            }
            if let Some(said) = said {
                head += &format!("X-Repo-Commit: {}\r\n", said.commit);
            }
            if let Some(etag) = said.and_then(|said| said.etag.as_ref()) {
                head += &format!("ETag: \"{etag}\"\r\n");
            }
            head += "\r\n";
            head.into_bytes()
        };
        let Some(resource) = resource.filter(|_| !self.forbidden) else {
            let status = if self.forbidden { "401 Unauthorized" } else { "404 Not Found" };
            return (head(status, Some(&Said { commit: COMMIT, etag: None, size: true }), 0), None);
        };
        let len = resource.content.len();
        let said = Some(&resource.said[usize::from(is_get)]);
        let ok = head("200 OK", said, len);
        if !is_get {
            return (ok, None);
        }
        let redirect = |to: String| {
            let head = "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: ";
            format!("{head}{to}\r\n\r\n").into_bytes()
        };
        let fault = resource.faults.pop_front();
        let response = match fault {
            None => [ok, resource.content.clone()].concat(),
            Some(Fault::Status) => [head("500 Internal Server Error", None, 4), b"oops".to_vec()].concat(),
            Some(Fault::Truncated) => [&ok, &resource.content[..len.div_euclid(2)]].concat(),
            Some(Fault::Wrong) => [ok, vec![b'?'; len]].concat(),
            Some(Fault::Endless | Fault::Slow) => head("200 OK", said, usize::MAX),
            Some(Fault::Silent) => Vec::new(),
            Some(Fault::Loop) => redirect(path),
            Some(Fault::Elsewhere(port)) => redirect(format!("http://127.0.0.1:{port}{path}")),
        };
        (response, fault)
    }
}
