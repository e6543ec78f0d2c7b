//! Model repositories in memory, and what the Hub does with a push. As on the Hub, nothing but a commit changes a branch,
//! and a commit is refused if it names a large file that nobody has stored.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ddpm_files::sha256_hex;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::Request;

/// The token of the only user.
pub(crate) const TOKEN: &str = "hf_secret";

/// The organisation in which that user may not write.
pub(crate) const FORBIDDEN: &str = "others";

/// What storage servers expect in each address that the Hub gives for them.
const SIGNATURE: &str = "signature=4711";

/// A status, headers and a body.
pub(super) type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) bytes: Vec<u8>,
    /// Whether the file is in the storage for large files.
    pub(crate) large: bool,
}

impl Entry {
    fn oid(&self) -> String {
        let blob = [format!("blob {}\0", self.bytes.len()).as_bytes(), &self.bytes].concat();
        if self.large { sha256_hex(&self.bytes) } else { hex(&Sha1::digest(blob)) }
    }
}

#[derive(Debug, Default)]
struct Model {
    private: bool,
    /// The newest commit of each branch.
    branches: BTreeMap<String, String>,
    /// The files and the message of each commit.
    commits: BTreeMap<String, (BTreeMap<String, Entry>, String)>,
    /// Large files, by their SHA-256, and the parts that were sent.
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<(String, usize), Vec<u8>>,
}

impl Model {
    fn new(private: bool) -> Self {
        let mut model = Self { private, ..Self::default() };
        let bytes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n".to_vec();
        let files = BTreeMap::from([(".gitattributes".to_owned(), Entry { bytes, large: false })]);
        model.add("main", files, "initial commit");
        model
    }

    fn add(&mut self, branch: &str, files: BTreeMap<String, Entry>, message: &str) -> String {
        let commit = hex(&Sha1::digest(format!("{:?} {files:?} {message}", self.branches)));
        self.commits.insert(commit.clone(), (files, message.to_owned()));
        self.branches.insert(branch.to_owned(), commit.clone());
        commit
    }

    /// The commit of a branch or a commit.
    fn commit(&self, revision: &str) -> Option<&String> {
        self.branches.get(revision).or_else(|| self.commits.get_key_value(revision).map(|(commit, _)| commit))
    }
}

/// The repositories, and how the Hub wants large files to be sent.
#[derive(Debug, Default)]
pub(super) struct Repositories {
    models: BTreeMap<String, Model>,
    /// The address of the Hub and of its storage server, such as `http://127.0.0.1:80`.
    pub(super) here: String,
    pub(super) storage: String,
    /// The size of a part of a large file; `None` for files in one piece.
    pub(super) part: Option<usize>,
}

impl Repositories {
    /// The message and the files of the newest commit of a branch.
    pub(super) fn newest(&self, id: &str, branch: &str) -> Option<(String, BTreeMap<String, Entry>)> {
        let model = self.models.get(id)?;
        let (files, message) = model.commits.get(model.branches.get(branch)?)?;
        Some((message.clone(), files.clone()))
    }

    /// The number of commits and of large files of a repository, and whether it is private.
    pub(super) fn counts(&self, id: &str) -> Option<(usize, usize, bool)> {
        self.models.get(id).map(|model| (model.commits.len(), model.objects.len(), model.private))
    }

    pub(super) fn create(&mut self, id: &str, private: bool) {
        self.models.insert(id.to_owned(), Model::new(private));
    }

    pub(super) fn replace(&mut self, id: &str, file: &str, bytes: &[u8]) {
        let model = self.models.get_mut(id).unwrap();
        let mut files = model.commits[&model.branches["main"]].0.clone();
        files.insert(file.to_owned(), Entry { bytes: bytes.to_vec(), large: false });
        model.add("main", files, "by somebody else");
    }

    /// The answer to a request about a model repository; `None` if it is about something else.
    pub(super) fn respond(&mut self, request: &Request) -> Option<Reply> {
        let path = request.path.replace("%2F", "/");
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let method = request.method.as_str();
        let body = &request.body;
        if let (["PUT"], ["objects", owner, name, oid]) = (&[method][..], &words[..]) {
            return Some(self.put(&format!("{owner}/{name}"), oid, query, request));
        }
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        if let ("POST", ["complete", owner, name, oid]) = (method, &words[..]) {
            let is_signed = query == SIGNATURE && request.authorization.is_none();
            let refused = error(403, "expected a signature and nothing else");
            return Some(if is_signed {
                self.complete(&format!("{owner}/{name}"), oid, &json)
            } else {
                refused
            });
        }
        let is_known = request.authorization.as_deref() == Some(&format!("Bearer {TOKEN}"));
        if method == "POST" && !is_known {
            return Some(error(401, "Invalid username or password."));
        }
        Some(match (method, &words[..]) {
            ("POST", ["api", "validate-yaml"]) => reply(200, &json!({"errors": [], "warnings": []})),
            ("POST", ["api", "repos", "create"]) => self.create_by(&json),
            ("POST", [owner, name, "info", "lfs", "objects", "batch"]) => {
                self.batch(&format!("{owner}/{}", name.strip_suffix(".git")?), &json)
            }
            ("POST", ["verify", owner, name]) => self.verify(&format!("{owner}/{name}"), &json),
            (_, ["api", "models", owner, name, rest @ ..]) => {
                let id = format!("{owner}/{name}");
                let visible = self.models.get_mut(&id).filter(|model| is_known || !model.private);
                let Some(model) = visible else {
                    let (status, mut headers, body) = error(404, "Repository not found");
                    headers.push(("X-Error-Code", "RepoNotFound".to_owned()));
                    return Some((status, headers, body));
                };
                let revision = rest.get(1..).map_or("main".to_owned(), |rest| rest.join("/"));
                match (method, rest.first().copied().unwrap_or("revision")) {
                    ("GET", "revision") => info(model, &id, &revision),
                    ("POST", "branch") if model.branches.contains_key(&revision) => {
                        error(409, "Reference already exists")
                    }
                    ("POST", "branch") => {
                        let main = model.branches["main"].clone();
                        model.branches.insert(revision, main);
                        reply(200, &json!({}))
                    }
                    ("POST", "preupload") => preupload(model, &revision, &json),
                    ("POST", "commit") => commit(model, &revision, body, &format!("{}/{id}", self.here)),
                    _ => return None,
                }
            }
            (_, [owner, name, "resolve", rest @ ..]) => {
                let model = self.models.get(&format!("{owner}/{name}"))?;
                if model.private && !is_known {
                    return Some(error(401, "Access to model is restricted"));
                }
                let (commit, file) = (1..rest.len()).find_map(|split| {
                    Some((model.commit(&rest[..split].join("/"))?, rest[split..].join("/")))
                })?;
                let Some(entry) = model.commits[commit].0.get(&file) else {
                    return Some((404, vec![("X-Repo-Commit", commit.clone())], Vec::new()));
                };
                let etag = format!("\"{}\"", entry.oid());
                (200, vec![("X-Repo-Commit", commit.clone()), ("ETag", etag)], entry.bytes.clone())
            }
            _ => return None,
        })
    }

    fn create_by(&mut self, request: &Value) -> Reply {
        let (owner, name) = (request["organization"].as_str(), request["name"].as_str());
        let id = format!("{}/{}", owner.unwrap_or_default(), name.unwrap_or_default());
        if request["type"].as_str().is_some_and(|kind| kind != "model") {
            return error(400, "only models");
        }
        if owner == Some(FORBIDDEN) {
            return error(403, "You don't have the rights to create a model under the namespace \"others\"");
        }
        if self.models.contains_key(&id) {
            let url = format!("{}/{id}", self.here);
            return reply(409, &json!({"error": "You already created this model repo", "url": url}));
        }
        self.create(&id, request["visibility"] == "private");
        reply(200, &json!({"url": format!("{}/{id}", self.here)}))
    }

    fn batch(&self, id: &str, request: &Value) -> Reply {
        let Some(model) = self.models.get(id) else { return error(404, "Repository not found") };
        assert_eq!((&request["operation"], &request["hash_algo"]), (&"upload".into(), &"sha256".into()));
        let object = |object: &Value| {
            let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap());
            if model.objects.contains_key(oid) {
                return json!({"oid": oid, "size": size});
            }
            let href = format!("{}/objects/{id}/{oid}?{SIGNATURE}", self.storage);
            let upload = match self.part {
                None => json!({"href": href, "header": {"X-Storage": "given"}}),
                Some(part) => {
                    let parts = usize::try_from(size).unwrap().div_ceil(part);
                    let mut header = json!({"chunk_size": part.to_string()});
                    for number in 1..=parts {
                        header[number.to_string()] = format!("{href}&part={number}").into();
                    }
                    json!({"href": format!("{}/complete/{id}/{oid}?{SIGNATURE}", self.here), "header": header})
                }
            };
            let verify = json!({"href": format!("{}/verify/{id}", self.here)});
            json!({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
        };
        let objects: Vec<Value> = request["objects"].as_array().unwrap().iter().map(object).collect();
        reply(200, &json!({"transfer": "basic", "objects": objects}))
    }

    /// A storage server refuses a request that is signed twice, and has its own way to write errors.
    fn put(&mut self, id: &str, oid: &str, query: &str, request: &Request) -> Reply {
        let xml = |message: &str| {
            (400, Vec::new(), format!("<Error><Message>{message}</Message></Error>").into_bytes())
        };
        let Some(model) = self.models.get_mut(id) else { return xml("no such bucket") };
        if request.authorization.is_some() || !query.starts_with(SIGNATURE) {
            return xml("Only one auth mechanism allowed");
        }
        let etag = vec![("ETag", format!("\"{}\"", &sha256_hex(&request.body)[..32]))];
        match query.split_once("&part=") {
            Some((_, part)) => {
                model.parts.insert((oid.to_owned(), part.parse().unwrap()), request.body.clone());
            }
            None if sha256_hex(&request.body) == oid => {
                model.objects.insert(oid.to_owned(), request.body.clone());
            }
            None => return xml("the checksum differs"),
        }
        (200, etag, Vec::new())
    }

    fn complete(&mut self, id: &str, oid: &str, request: &Value) -> Reply {
        let model = self.models.get_mut(id).unwrap();
        let mut bytes = Vec::new();
        for (number, part) in (1..).zip(request["parts"].as_array().unwrap()) {
            let stored = model.parts.get(&(oid.to_owned(), number)).cloned().unwrap_or_default();
            let etag = format!("\"{}\"", &sha256_hex(&stored)[..32]);
            if part["partNumber"] != number || part["etag"] != *etag {
                return error(400, "a part is missing");
            }
            bytes.extend(stored);
        }
        if request["oid"] != *oid || sha256_hex(&bytes) != oid {
            return error(400, "the checksum differs");
        }
        model.objects.insert(oid.to_owned(), bytes);
        reply(200, &json!({}))
    }

    fn verify(&self, id: &str, request: &Value) -> Reply {
        let object = request["oid"].as_str().and_then(|oid| self.models.get(id)?.objects.get(oid));
        match object {
            Some(bytes) if request["size"] == bytes.len() => reply(200, &json!({})),
            _ => error(404, "the object is not in the storage"),
        }
    }
}

fn info(model: &Model, id: &str, revision: &str) -> Reply {
    let Some(commit) = model.commit(revision) else {
        let (status, mut headers, body) = error(404, "Invalid rev id");
        headers.push(("X-Error-Code", "RevisionNotFound".to_owned()));
        return (status, headers, body);
    };
    let files: Vec<Value> = model.commits[commit].0.keys().map(|name| json!({"rfilename": name})).collect();
    reply(200, &json!({"id": id, "sha": commit, "private": model.private, "siblings": files}))
}

fn preupload(model: &Model, branch: &str, request: &Value) -> Reply {
    let Some(commit) = model.branches.get(branch) else { return error(404, "Invalid rev id") };
    let told = |file: &Value| {
        let (path, size) = (file["path"].as_str().unwrap(), file["size"].as_u64().unwrap());
        let sample = STANDARD.decode(file["sample"].as_str().unwrap()).unwrap();
        assert_eq!(sample.len() as u64, size.min(512), "{path}");
        let large = path.ends_with(".safetensors") || sample.contains(&0);
        let mode = if large { "lfs" } else { "regular" };
        let oid = model.commits[commit].0.get(path).map(Entry::oid);
        json!({"path": path, "uploadMode": mode, "shouldIgnore": false, "oid": oid})
    };
    let files: Vec<Value> = request["files"].as_array().unwrap().iter().map(told).collect();
    reply(200, &json!({"files": files}))
}

fn commit(model: &mut Model, branch: &str, lines: &[u8], url: &str) -> Reply {
    let Some(parent) = model.branches.get(branch).cloned() else { return error(404, "Invalid rev id") };
    let mut files = model.commits[&parent].0.clone();
    let mut message = None;
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { return error(400, "a line is not JSON") };
        let (value, path) = (&line["value"], line["value"]["path"].as_str().unwrap_or_default().to_owned());
        match line["key"].as_str() {
            Some("header") if message.is_none() => {
                if value.get("parentCommit").is_some_and(|found| *found != *parent) {
                    return error(412, "A commit has happened since. Please refresh and try again.");
                }
                message = value["summary"].as_str().map(str::to_owned);
            }
            Some("file") if message.is_some() => {
                let bytes = STANDARD.decode(value["content"].as_str().unwrap()).unwrap();
                files.insert(path, Entry { bytes, large: false });
            }
            Some("lfsFile") if message.is_some() => {
                let object = value["oid"].as_str().and_then(|oid| model.objects.get(oid));
                let Some(bytes) = object.filter(|bytes| value["size"] == bytes.len()).cloned() else {
                    return error(400, "a large file is not in the storage");
                };
                files.insert(path, Entry { bytes, large: true });
            }
            key => return error(400, &format!("a line has the key {key:?}")),
        }
    }
    let Some(message) = message else { return error(400, "no message") };
    let commit = model.add(branch, files, &message);
    reply(200, &json!({"success": true, "commitOid": commit, "commitUrl": format!("{url}/commit/{commit}")}))
}

fn reply(status: u16, json: &Value) -> Reply {
    (status, Vec::new(), json.to_string().into_bytes())
}

fn error(status: u16, message: &str) -> Reply {
    reply(status, &json!({"error": message}))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
