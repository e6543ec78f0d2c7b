//! Pushes files to a model repository.
//!
//! The requests follow the Hub's Python client, huggingface_hub 2.4; a comment at each request names the function there:
//!
//! ```text
//! GET  /api/models/OWNER/NAME/revision/BRANCH      whether the repository exists, whether it is private, its newest commit
//! POST /api/repos/create                           if the repository does not exist
//! POST /api/models/OWNER/NAME/branch/BRANCH        if it has no such branch
//! POST /api/models/OWNER/NAME/preupload/BRANCH     which files changed, and which are sent by Git LFS
//! …                                                these files, `lfs.rs`
//! POST /api/models/OWNER/NAME/commit/BRANCH        all files in one commit
//! ```
//!
//! Only the last request changes the content of the repository. It names the commit that the files were compared with, so
//! it fails if somebody else has pushed in between.

mod commit;
mod lfs;

use percent_encoding::utf8_percent_encode;
use serde_json::{Value, json};

use super::cache::Commit;
use super::client::{Client, REVISION, Repeat, Response, header};
use super::{Hub, HubAddress};
use crate::error::{Cause, Error, Result};
use crate::source::address::is_safe_path;
use crate::source::push::{PushFile, PushOptions, Pushed};

/// The branch of an address without a revision.
const MAIN: &str = "main";
/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 24;
/// The longest cause of an error, in characters.
const MAX_TEXT: usize = 500;

const JSON: (&str, &str) = ("Content-Type", "application/json");

impl Hub {
    /// Checks that [`push_model`](Self::push_model) may begin, without sending a request.
    ///
    /// # Errors
    /// [`Error::BadAddress`] if the revision is a commit, [`Error::PushOffline`] in offline mode, [`Error::NoToken`]
    /// without an access token.
    pub fn check_push(&self, address: &HubAddress) -> Result<()> {
        let repo = format!("{}/{}", address.owner(), address.name());
        if address.revision().is_some_and(|revision| Commit::new(revision).is_some()) {
            let reason = "expected a branch after '@', because a commit cannot change";
            return Err(Error::BadAddress { address: format!("hf://{address}"), reason });
        }
        if self.offline {
            return Err(Error::PushOffline { repo });
        }
        if !self.client.has_token() {
            let (endpoint, file) = (self.client.endpoint().to_owned(), self.token_file.clone());
            return Err(Error::NoToken { repo, endpoint, file });
        }
        Ok(())
    }

    /// Pushes files to a model repository in one commit, without those that it has already. Creates the repository and the
    /// branch if they are missing. Files that are not named stay.
    ///
    /// `progress` gets the name of the file that is being sent, the number of bytes sent so far and the number of all bytes
    /// to send.
    ///
    /// # Errors
    /// Those of [`check_push`](Self::check_push); [`Error::BadAddress`] for the name of a file;
    /// [`Error::NotPrivate`]; [`Error::PushAccess`] and [`Error::Push`] if the server refuses a request or answers
    /// something else. The branch then has its old content, unless the answer to the last request was lost.
    pub fn push_model(
        &self,
        address: &HubAddress,
        files: &[PushFile],
        options: &PushOptions,
        progress: impl FnMut(&str, u64, u64),
    ) -> Result<Pushed> {
        self.check_push(address)?;
        if let Some(file) = files.iter().find(|file| !is_safe_path(&file.name)) {
            let reason = "expected a relative file path without '..'";
            return Err(Error::BadAddress { address: format!("hf://{address}/{}", file.name), reason });
        }
        Target::new(&self.client, address).push(files, options, progress)
    }
}

/// The branch to push to.
struct Target<'a> {
    client: &'a Client,
    owner: &'a str,
    name: &'a str,
    branch: &'a str,
}

/// What the server says of the branch.
enum State {
    Found { commit: Commit, private: bool },
    NoRepository,
    NoBranch,
}

impl<'a> Target<'a> {
    fn new(client: &'a Client, address: &'a HubAddress) -> Self {
        let branch = address.revision().unwrap_or(MAIN);
        Self { client, owner: address.owner(), name: address.name(), branch }
    }

    fn push(
        &self,
        files: &[PushFile],
        options: &PushOptions,
        progress: impl FnMut(&str, u64, u64),
    ) -> Result<Pushed> {
        let (parent, private) = self.open(options)?;
        // Before anything is sent that others must not see.
        if options.private && !private {
            return Err(Error::NotPrivate { repo: self.id() });
        }
        let url = format!("{}/{}", self.client.endpoint(), self.id());
        let changes = self.changes(files)?;
        if changes.is_empty() {
            return Ok(Pushed { url, commit: parent.as_str().to_owned(), changed: Vec::new() });
        }
        self.send_large(&changes, progress)?;
        let commit = self.commit(&changes, options, &parent)?;
        let changed = changes.iter().map(|change| change.file.name.clone()).collect();
        Ok(Pushed { url, commit: commit.as_str().to_owned(), changed })
    }

    /// `OWNER/NAME`.
    fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The address of a request about the branch.
    fn address(&self, request: &str) -> String {
        let (endpoint, branch) = (self.client.endpoint(), utf8_percent_encode(self.branch, REVISION));
        format!("{endpoint}/api/models/{}/{request}/{branch}", self.id())
    }

    /// The newest commit of the branch, and whether the repository is private. Creates what is missing.
    fn open(&self, options: &PushOptions) -> Result<(Commit, bool)> {
        let state = match self.state()? {
            State::NoRepository => {
                self.create(options)?;
                self.state()?
            }
            state => state,
        };
        let state = match state {
            State::NoBranch => {
                let action = format!("making the branch {}", self.branch);
                // `hf_api.py`, `create_branch`. 409: somebody else has made it in the meantime.
                self.post(&action, &self.address("branch"), &json!({}), Repeat::Idempotent, &[409])?;
                self.state()?
            }
            state => state,
        };
        match state {
            State::Found { commit, private } => Ok((commit, private)),
            _ => {
                Err(self.failed("creation", "the server shows no such repository or branch after it".into()))
            }
        }
    }

    /// `hf_api.py`, `model_info`.
    fn state(&self) -> Result<State> {
        const ACTION: &str = "reading the state";
        let answer = self.client.get(&self.address("revision"));
        let response = answer.map_err(|source| self.failed(ACTION, source))?;
        if response.status().as_u16() == 404 {
            let code = header(&response, "X-Error-Code");
            return Ok(if code == Some("RevisionNotFound") { State::NoBranch } else { State::NoRepository });
        }
        let found = self.json(ACTION, self.accepted(ACTION, response, &[])?)?;
        let commit = self.commit_of(ACTION, &found["sha"])?;
        Ok(State::Found { commit, private: found["private"] == true })
    }

    /// `hf_api.py`, `create_repo`. 409: somebody else has created it in the meantime.
    fn create(&self, options: &PushOptions) -> Result<()> {
        let address = format!("{}/api/repos/create", self.client.endpoint());
        let mut request = json!({"type": "model", "organization": self.owner, "name": self.name});
        if options.private {
            request["visibility"] = "private".into();
        }
        self.post("creation", &address, &request, Repeat::Idempotent, &[409]).map(drop)
    }

    /// Posts JSON. The statuses of `also` are accepted besides those of success.
    fn post(
        &self,
        action: &str,
        address: &str,
        body: &Value,
        repeat: Repeat,
        also: &[u16],
    ) -> Result<Response> {
        let sent = self.client.post(address, &[JSON], body.to_string().as_bytes(), repeat);
        self.accepted(action, sent.map_err(|source| self.failed(action, source))?, also)
    }

    /// Converts an answer that refuses the request to an error.
    fn accepted(&self, action: &str, response: Response, also: &[u16]) -> Result<Response> {
        match response.status().as_u16() {
            200..=299 => Ok(response),
            status if also.contains(&status) => Ok(response),
            401 | 403 => {
                let (repo, action) = (self.id(), action.to_owned());
                Err(Error::PushAccess { repo, action, source: self.client.refused(response) })
            }
            _ => Err(self.failed(action, self.client.refused(response))),
        }
    }

    /// Reads an answer as JSON.
    fn json(&self, action: &str, response: Response) -> Result<Value> {
        let mut body = Vec::new();
        let read = self.client.read(response.into_body(), MAX_ANSWER, |piece| {
            body.extend_from_slice(piece);
            Ok(())
        })?;
        read.map_err(|source| self.failed(action, source))?;
        let not_json =
            |error| self.failed(action, format!("the server's answer is not JSON: {error}").into());
        serde_json::from_slice(&body).map_err(not_json)
    }

    fn commit_of(&self, action: &str, found: &Value) -> Result<Commit> {
        let wrong = || format!("expected a commit of 40 hexadecimal digits, but the server names {found}");
        let commit = found.as_str().and_then(Commit::new);
        commit.ok_or_else(|| self.failed(action, wrong().into()))
    }

    /// The cause may be a text of the server, of any length.
    fn failed(&self, action: &str, source: Cause) -> Error {
        let text = self.client.without_token(&source.to_string());
        let source = format!("{text:.MAX_TEXT$}").into();
        Error::Push { repo: self.id(), action: action.to_owned(), source }
    }
}
