//! `serve`: the answers of a running server.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use tempfile::TempDir;

use crate::{SIDE, fail, run, stdout, with_model, with_unlabelled_model};

/// A running server, which ends with this value.
struct Server {
    child: Child,
    /// HOST:PORT.
    address: String,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The status, the head and the body of an answer.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Server {
    fn start(folder: TempDir, args: &[&str]) -> Self {
        let mut command = Command::new(cargo_bin!("ddpm-cli"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(args).current_dir(folder.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().strip_suffix('/').unwrap().to_owned();
        Self { child, address, folder }
    }

    fn of_model() -> Self {
        Self::start(with_model(), &["--model", "model"])
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn send(&self, request: &str) -> Answer {
        sent(&self.address, request)
    }

    fn get(&self, path: &str) -> Answer {
        get(&self.address, path)
    }
}

fn get(address: &str, path: &str) -> Answer {
    sent(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// Sends a request and reads the answer to its end.
fn sent(address: &str, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = bytes.split_off(end + 4);
    let body = if head.contains("transfer-encoding: chunked") { unchunked(&body) } else { body };
    Answer { status, head, body }
}

/// The content of a body in chunks.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        content.extend(&body[end + 2..end + 2 + length]);
        body = &body[end + 4 + length..];
    }
    content
}

/// The names and the JSON of server-sent events.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let text = answer.text();
    let parsed = text.split("\n\n").filter(|event| !event.trim().is_empty()).map(|event| {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        (field("event:").to_owned(), serde_json::from_str(field("data:")).unwrap())
    });
    parsed.collect()
}

/// Half of an image of 8×8 pixels is white, and the other half is to be painted.
fn drawing_and_mask() -> (String, String) {
    let levels = format!("{}{}", "_".repeat(21) + "_", "A".repeat(21));
    // 32 bytes are 43 characters, 8 bytes are 11.
    assert_eq!(levels.len(), 43);
    (levels, "AAAAAP____8".to_owned())
}

#[test]
fn the_page_is_served_with_headers_that_let_it_load_nothing_else() {
    let server = Server::of_model();
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(
        page.head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
        "{}",
        page.head
    );
    assert!(page.head.contains("text/html"));
    let html = page.text();
    for name in
        ["style.css", "main.js", "state.js", "run.js", "player.js", "drawing.js", "training.js", "icon.svg"]
    {
        let file = server.get(&format!("/{name}"));
        assert!(file.status == 200 && !file.body.is_empty(), "{name}");
        assert!(
            !file.text().replace("http://www.w3.org/2000/svg", "").contains("://"),
            "{name} names an address"
        );
    }
    assert!(!html.contains("://") && !html.contains("<script>") && !html.contains("style="), "{html}");
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.get("/../Cargo.toml").status, 404);
}

#[test]
fn a_picture_is_the_file_of_sample_byte_for_byte() {
    let server = Server::of_model();
    for (query, options) in [
        ("num-images=4&seed=3", "-n 4 --seed 3"),
        ("per-class=2&classes=2,0&seed=7", "--per-class 2 --classes 2,0 --seed 7"),
        ("num-images=3&sampler=ddim&eta=0.5&steps=5", "-n 3 --sampler ddim --eta 0.5 --steps 5"),
        ("num-images=3&sampler=heun&guidance-scale=3", "-n 3 --sampler heun --guidance-scale 3"),
        ("num-images=2&variance=zero&noise-path=brownian", "-n 2 --variance zero --noise-path brownian"),
    ] {
        let picture = server.get(&format!("/api/picture?{query}"));
        assert_eq!(picture.status, 200, "{}", picture.text());
        let words = ["sample", "--model", "model", "-q", "-o", "out.png"];
        run(server.path(), &[&words[..], &options.split(' ').collect::<Vec<_>>()].concat());
        assert!(picture.body == fs::read(server.path().join("out.png")).unwrap(), "{query}");
        fs::write(server.path().join("served.png"), &picture.body).unwrap();
        let command =
            server.get(&format!("/api/command?{query}")).json()["command"].as_str().unwrap().to_owned();
        assert!(stdout(&run(server.path(), &["info", "served.png"])).contains(&command), "{command}");
    }
}

/// The last step of each stream is compared with the same request alone, which the other test compares with `sample`.
#[test]
fn two_hundred_clients_at_once_get_the_images_that_each_gets_alone() {
    let server = Server::of_model();
    let query = |client: usize| {
        let sampler = ["ddpm", "ddim", "dpmpp-2m-sde", "unipc"][client % 4];
        let steps = 5 + client % 16;
        format!("/api/run?seed={client}&num-images={}&sampler={sampler}&steps={steps}", 1 + client % 3)
    };
    let address: Arc<str> = server.address.as_str().into();
    let started = Instant::now();
    let clients: Vec<_> = (0..200)
        .map(|client| {
            let address = address.clone();
            thread::spawn(move || get(&address, &query(client)))
        })
        .collect();
    let answers: Vec<Answer> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    for (client, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let found = events(answer);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.first(), Some(&"start"));
        assert_eq!(names.last(), Some(&"end"));
        assert_eq!(names.len(), 5 + client % 16 + 2);
        if client % 20 == 0 {
            assert!(found == events(&server.get(&query(client))), "{client}");
        }
    }
}

#[test]
fn a_drawing_keeps_its_known_pixels_and_gives_its_files() {
    let server = Server::of_model();
    let (drawing, mask) = drawing_and_mask();
    let query = format!("num-images=2&drawing={drawing}&mask={mask}");
    let found = events(&server.get(&format!("/api/run?{query}")));
    let (_, step) = &found[found.len() - 2];
    let start = step["x_t"].as_str().unwrap();
    // 32 white pixels are 42 characters and a part of the next one.
    assert!(start.starts_with(&"/".repeat(42)), "{start}");
    let command = server.get(&format!("/api/command?{query}")).json()["command"].as_str().unwrap().to_owned();
    assert!(command.contains("--from drawing.png --mask mask.png"), "{command}");
    let strength = events(&server.get(&format!("/api/run?num-images=1&drawing={drawing}&strength=0.3")));
    assert_eq!(strength.len(), 6 + 2);
    for (path, white) in
        [(format!("/api/drawing?drawing={drawing}"), true), (format!("/api/mask?mask={mask}"), false)]
    {
        let png = server.get(&path).body;
        let name = if white { "drawing.png" } else { "mask.png" };
        fs::write(server.path().join(name), &png).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; SIDE * SIDE];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!((pixels[0] == 255, pixels[SIDE * SIDE - 1] == 255), (white, !white), "{path}");
    }
    // The command gives the same file as the page, with these two files.
    let words: Vec<&str> = command.split(' ').skip(1).chain(["-q", "-o", "again.png"]).collect();
    run(server.path(), &words);
    let again = fs::read(server.path().join("again.png")).unwrap();
    assert!(server.get(&format!("/api/picture?{query}")).body == again, "{command}");
    let classes = server.get(&format!("/api/classify?drawing={drawing}")).json();
    assert_eq!(classes["errors"].as_array().unwrap().len(), 3, "{classes}");
}

#[test]
fn a_wrong_request_is_refused_with_its_value() {
    let server = Server::of_model();
    let (drawing, _) = drawing_and_mask();
    for (path, status, message) in [
        ("/api/run?sampler=best".to_owned(), 400, "'best'"),
        ("/api/run?steps=99".to_owned(), 400, "99, expected 1 to 20"),
        ("/api/run?classes=7".to_owned(), 400, "class 7"),
        ("/api/run?seed=-1".to_owned(), 400, "'-1'"),
        ("/api/run?num-images=101".to_owned(), 400, "101 images are too many"),
        ("/api/run?num-images=20000000".to_owned(), 400, "20000000 images are too many"),
        ("/api/run?guidance-scale=nan".to_owned(), 400, "NaN"),
        ("/api/run?model=/etc".to_owned(), 400, "`model` is no option"),
        ("/api/run?plan=/etc/passwd".to_owned(), 400, "`plan` is no option"),
        ("/api/run?out=x".to_owned(), 400, "`out` is no option"),
        ("/api/run?of=other".to_owned(), 400, "`other`"),
        ("/api/run?of=run".to_owned(), 400, "--run"),
        ("/api/run?drawing=AAA".to_owned(), 400, "`drawing` is AAA… of 2 bytes, expected 32"),
        ("/api/run?drawing=%2B%2B".to_owned(), 400, "base64url"),
        (format!("/api/run?drawing={drawing}&mask=A"), 400, "`mask`"),
        (format!("/api/run?drawing={drawing}&strength=2"), 400, "strength is 2"),
        (format!("/api/run?drawing={drawing}&strength=x"), 400, "`x`"),
        ("/api/run?strength=0.5".to_owned(), 400, "need a `drawing`"),
        ("/api/classify".to_owned(), 400, "no `drawing`"),
        ("/api/training".to_owned(), 400, "--run"),
    ] {
        let answer = server.get(&path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(text.contains(message), "{path}: {text}");
    }
}

#[test]
fn other_hosts_other_pages_and_bodies_are_refused() {
    let server = Server::of_model();
    let address = &server.address;
    for (head, status) in [
        ("Host: evil.example".to_owned(), 403),
        (format!("Host: {address}\r\nHost: {address}"), 403),
        ("Accept: */*".to_owned(), 403),
        (format!("Host: {address}\r\nOrigin: http://evil.example"), 403),
        (format!("Host: {address}\r\nOrigin: null"), 403),
        (format!("Host: {address}\r\nOrigin: http://{address}"), 200),
        (format!("Host: {address}\r\nContent-Length: 1000000000"), 413),
        (format!("Host: {address}\r\nTransfer-Encoding: chunked"), 413),
        (format!("Host: {address}\r\nX-Long: {}", "x".repeat(1 << 17)), 431),
    ] {
        let request = format!("GET /api/model HTTP/1.1\r\n{head}\r\nConnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(address).unwrap();
        // The server may close the connection before it has read everything.
        drop(stream.write_all(request.as_bytes()));
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        let found = String::from_utf8_lossy(&start).into_owned();
        assert_eq!(found, format!("HTTP/1.1 {status}"), "{}", &head[..head.len().min(60)]);
    }
    let post = format!("POST /api/run HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    assert_eq!(server.send(&post).status, 405);
}

/// A client that leaves frees its place: far more than there are places leave in turn.
#[test]
fn clients_that_leave_in_the_middle_are_forgotten() {
    let server = Server::of_model();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        let request = format!("GET /api/run?num-images=100 HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        let found = String::from_utf8_lossy(&start);
        assert!(found.ends_with("200") || found.ends_with("503"), "{found}");
    }
    let started = Instant::now();
    while server.get("/api/run?num-images=1").status != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "the places are not free again");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_run_folder_is_watched_while_it_grows_and_its_model_samples() {
    let folder = with_model();
    fs::create_dir_all(folder.path().join("run/previews")).unwrap();
    let server = Server::start(folder, &["--model", "model", "--run", "run"]);
    let record = |step: u64| {
        format!(
            "{{\"kind\":\"train\",\"step\":{step},\"epoch\":1.0,\"images\":5,\"loss\":0.5,\"learning_rate\":0.1,\
             \"images_per_second\":1.0,\"seconds\":1.0}}\n"
        )
    };
    let log = server.path().join("run/metrics.jsonl");
    fs::write(&log, record(1)).unwrap();
    assert_eq!(server.get("/api/run?of=run").status, 400);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /api/training HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut wait_for = |words: &str| {
        let found = lines.by_ref().map(Result::unwrap).find(|line| line.contains(words));
        assert!(found.is_some(), "{words}");
    };
    wait_for("\"step\":1");
    // A line that is written in two parts.
    let line = record(2);
    let (start, end) = line.split_at(20);
    append(&log, start);
    thread::sleep(Duration::from_millis(700));
    append(&log, end);
    wait_for("\"step\":2");
    fs::write(server.path().join("run/previews/epoch-003.png"), b"PNG").unwrap();
    wait_for("\"epoch\":3");
    assert_eq!(server.get("/api/preview").body, b"PNG");
    fs::rename(server.path().join("model"), server.path().join("run/model")).unwrap();
    wait_for("event: model");
    let picture = server.get("/api/picture?of=run&num-images=2");
    run(server.path(), &["sample", "--model", "run/model", "-n", "2", "-q", "-o", "out.png"]);
    assert!(picture.body == fs::read(server.path().join("out.png")).unwrap(), "{}", picture.status);
    // Another run in the same folder.
    fs::write(&log, "").unwrap();
    wait_for("event: restart");
}

fn append(path: &Path, text: &str) {
    fs::File::options().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_model_without_classes_is_served() {
    let server = Server::start(with_unlabelled_model(), &["--model", "model"]);
    assert_eq!(server.get("/api/model").json()["num_classes"], 0);
    assert_eq!(server.get("/api/run?num-images=3").status, 200);
    let (drawing, _) = drawing_and_mask();
    let answer = server.get(&format!("/api/classify?drawing={drawing}"));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("class"), "{}", answer.text());
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_server_with_its_exit_code_while_clients_wait() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut server = Server::of_model();
        let mut stream = TcpStream::connect(&server.address).unwrap();
        write!(stream, "GET /api/run?num-images=100 HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        let pid = server.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let started = Instant::now();
        let status = loop {
            if let Some(status) = server.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "the server does not end");
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(code));
    }
}

#[test]
fn a_wrong_address_and_a_missing_folder_are_refused() {
    let folder = with_model();
    for (args, message) in [
        (["--listen", "127.0.0.1:70000"], "--listen 127.0.0.1:70000"),
        (["--listen", "no host"], "--listen no host"),
        (["--run", "missing"], "missing: no such folder"),
        (["--model", "missing"], "missing: no such model folder"),
    ] {
        let error = fail(folder.path(), 1, &[&["serve"], &args[..]].concat());
        assert!(error.contains(message), "{error}");
    }
}
