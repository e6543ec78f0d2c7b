//! A mock server on the loopback interface. It implements the part of the Hub's
//! protocol for downloads, `HEAD` and `GET` of `/REPO/resolve/REVISION/FILE`, and
//! the part for pushes to repositories that it keeps in memory.
//!
//! The tests of other crates use it too, by its path.

mod answers;
mod http;
mod repository;

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ddpm_data::HubConfig;
use tempfile::TempDir;

pub(crate) use http::Request;
use repository::Repositories;
pub(crate) use repository::{Entry, FORBIDDEN, TOKEN};

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

/// A failure of a request of a push.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PushFault {
    /// This status and body, and nothing is done.
    Status(u16, &'static str),
    /// Status 200 with a body that is not JSON, and nothing is done.
    Rubbish,
    /// This JSON, and nothing is done.
    Json(&'static str),
    /// The request is carried out, and the connection closes after half of the answer.
    Truncated,
    /// The request is carried out, and the connection closes without an answer.
    Lost,
    /// Nothing is done, and the connection closes without an answer.
    Dropped,
    /// Nothing is done, and the connection stays open.
    Silent,
}

struct Resource {
    content: Vec<u8>,
    /// The answer to a `HEAD`, and to a `GET`.
    said: [Said; 2],
    /// The failures of the next requests. Later requests succeed.
    faults: VecDeque<Fault>,
}

#[derive(Default)]
struct State {
    /// Keyed by `REPO/FILE`, where REPO begins with `datasets/` for data sets.
    resources: BTreeMap<String, Resource>,
    repositories: Repositories,
    /// The failures of the next requests whose method and path contain a text.
    push_faults: VecDeque<(String, PushFault)>,
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
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(crate) cache: TempDir,
}

impl MockHub {
    pub(crate) fn start() -> Self {
        let hub = Self::start_with(Arc::default());
        let mut state = hub.state.lock().unwrap();
        state.repositories.here = format!("http://{}", hub.address);
        state.repositories.storage = state.repositories.here.clone();
        drop(state);
        hub
    }

    /// Starts another server, which from now on stores the large files.
    pub(crate) fn start_storage(&self) -> Self {
        let storage = Self::start_with(Arc::clone(&self.state));
        self.state.lock().unwrap().repositories.storage = format!("http://{}", storage.address);
        storage
    }

    fn start_with(state: Arc<Mutex<State>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = std::thread::spawn({
            let (state, stop, requests) = (Arc::clone(&state), Arc::clone(&stop), Arc::clone(&requests));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    // The server ignores a client that closes the connection.
                    let _ = stream.and_then(|stream| answer(&stream, &state, &requests));
                }
            }
        });
        let cache = tempfile::tempdir().unwrap();
        Self { address, state, requests, stop, thread: Some(thread), cache }
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

    /// Makes the next requests fail whose method and path contain a text.
    pub(crate) fn fail_push(&self, part: &str, faults: &[PushFault]) {
        let faults = faults.iter().map(|fault| (part.to_owned(), *fault));
        self.state.lock().unwrap().push_faults.extend(faults);
    }

    /// Makes the server want large files in parts of this size.
    pub(crate) fn want_parts(&self, size: usize) {
        self.state.lock().unwrap().repositories.part = Some(size);
    }

    /// Creates a model repository.
    pub(crate) fn create(&self, id: &str, private: bool) {
        self.state.lock().unwrap().repositories.create(id, private);
    }

    /// The message and the files of the newest commit of a branch.
    pub(crate) fn newest(&self, id: &str, branch: &str) -> Option<(String, BTreeMap<String, Entry>)> {
        self.state.lock().unwrap().repositories.newest(id, branch)
    }

    /// Adds a commit with this file to the branch `main`, as another user.
    pub(crate) fn replace(&self, id: &str, file: &str, bytes: &[u8]) {
        self.state.lock().unwrap().repositories.replace(id, file, bytes);
    }

    /// The number of commits and of large files of a model repository, and whether it is private; `None` if the repository does not exist.
    pub(crate) fn counts(&self, id: &str) -> Option<(usize, usize, bool)> {
        self.state.lock().unwrap().repositories.counts(id)
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
        std::mem::take(&mut self.requests.lock().unwrap())
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

fn answer(mut stream: &TcpStream, state: &Mutex<State>, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let Some(request) = Request::read(stream)? else { return Ok(()) };
    log.lock().unwrap().push(request.clone());
    let (response, then) = state.lock().unwrap().respond(request);
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
