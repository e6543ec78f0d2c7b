//! Which files have changed, and the commit with them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ddpm_files::sha256_hex;
use serde_json::json;
use sha1::{Digest, Sha1};

use super::{Commit, Repeat, Target};
use crate::error::{Error, Result};
use crate::source::push::{PushFile, PushOptions};

/// The number of first bytes of a file by which the Hub tells text from binary data.
const SAMPLE: usize = 512;

const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// A file that the branch lacks, or has with another content.
pub(super) struct Change<'a> {
    pub(super) file: &'a PushFile,
    /// The SHA-256 of a file that goes to the storage for large files; `None` for one that is part of the commit.
    pub(super) large: Option<String>,
}

impl Target<'_> {
    /// The files that the branch lacks or has with other content. `_commit_api.py`, `_fetch_upload_modes`.
    pub(super) fn changes<'f>(&self, files: &'f [PushFile]) -> Result<Vec<Change<'f>>> {
        const ACTION: &str = "comparing the files";
        let described = |PushFile { name, bytes }: &PushFile| {
            let sample = STANDARD.encode(&bytes[..bytes.len().min(SAMPLE)]);
            json!({"path": name, "size": bytes.len(), "sample": sample})
        };
        let request = json!({"files": files.iter().map(described).collect::<Vec<_>>()});
        let answer = self.post(ACTION, &self.address("preupload"), &request, Repeat::Idempotent, &[])?;
        let answer = self.json(ACTION, answer)?;
        let mut changes = Vec::new();
        for file in files {
            let name = &file.name;
            let told =
                answer["files"].as_array().and_then(|all| all.iter().find(|told| told["path"] == **name));
            let told = told.ok_or_else(|| self.failed(ACTION, format!("no answer about {name}").into()))?;
            if told["shouldIgnore"] == true {
                return Err(self.failed(ACTION, format!("its .gitignore excludes {name}").into()));
            }
            // An empty file is always a part of the commit: storage servers refuse it.
            let large = match told["uploadMode"].as_str() {
                _ if file.bytes.is_empty() => None,
                Some("regular") => None,
                Some("lfs") => Some(sha256_hex(&file.bytes)),
                found => {
                    let found =
                        format!("expected uploadMode of {name} to be regular or lfs, but it is {found:?}");
                    return Err(self.failed(ACTION, found.into()));
                }
            };
            // The Hub names a large file by its SHA-256, and another one as git does.
            let digest = large.clone().unwrap_or_else(|| git_blob(&file.bytes));
            if told["oid"].as_str() != Some(&digest) {
                changes.push(Change { file, large });
            }
        }
        Ok(changes)
    }

    /// Adds the files to the branch. `_commit_api.py`, `_prepare_commit_payload` and `_send_commit`.
    pub(super) fn commit(
        &self,
        changes: &[Change<'_>],
        options: &PushOptions,
        parent: &Commit,
    ) -> Result<Commit> {
        const ACTION: &str = "the commit";
        let header = json!({"summary": options.message, "description": "", "parentCommit": parent.as_str()});
        let mut lines = vec![json!({"key": "header", "value": header})];
        lines.extend(changes.iter().map(|Change { file: PushFile { name, bytes }, large }| match large {
            Some(oid) => {
                let value = json!({"path": name, "algo": "sha256", "oid": oid, "size": bytes.len()});
                json!({"key": "lfsFile", "value": value})
            }
            None => {
                let content = STANDARD.encode(bytes);
                json!({"key": "file", "value": {"path": name, "content": content, "encoding": "base64"}})
            }
        }));
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        // A repeated commit would be a second one.
        let sent = self.client.post(&self.address("commit"), &[LINES], body.as_bytes(), Repeat::Unsent);
        let done = sent.map_err(|source| self.failed(ACTION, source)).and_then(|response| {
            let refused = response.status().is_client_error();
            let answer =
                self.accepted(ACTION, response, &[]).and_then(|response| self.json(ACTION, response));
            match answer {
                Err(error) if refused => Ok(Err(error)),
                answer => self.commit_of(ACTION, &answer?["commitOid"]).map(Ok),
            }
        });
        // It is not known what the server has done.
        done.map_err(|error| match error {
            Error::Push { source, .. } => {
                let source = format!("push again to see whether it was made; {source}");
                self.failed(ACTION, source.into())
            }
            error => error,
        })?
    }
}

/// The name that git gives to the content of a file: the SHA-1 of a header and the content.
fn git_blob(bytes: &[u8]) -> String {
    let mut digest = Sha1::new();
    digest.update(format!("blob {}\0", bytes.len()));
    digest.update(bytes);
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::git_blob;

    /// The first from `printf 'Hello, World!' | git hash-object --stdin`, the second for an empty file.
    #[test]
    fn a_blob_is_named_as_git_does() {
        assert_eq!(git_blob(b"Hello, World!"), "b45ef6fec89518d314f546fd6c3025367b721684");
        assert_eq!(git_blob(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }
}
