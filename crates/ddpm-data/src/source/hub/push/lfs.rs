//! Large files, by the batch interface of Git LFS.
//!
//! ```text
//! POST /OWNER/NAME.git/info/lfs/objects/batch   where to store each file that the server does not have
//! PUT  HREF                                     a file, or each part of it
//! POST HREF                                     with parts: their list
//! POST VERIFY                                   if the server wants to be told
//! ```
//!
//! The addresses come from the server and may lead to any other one. They are signed, so these requests have no token; the
//! first and the last one have it if they go to the Hub itself. `lfs.py` of huggingface_hub 2.4, and the
//! [description of Git LFS](https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::commit::Change;
use super::{Repeat, Response, Target};
use crate::error::{Cause, Result};
use crate::source::hub::client::header;
use crate::source::push::PushFile;

const LFS: &str = "application/vnd.git-lfs+json";
const HEADERS: [(&str, &str); 2] = [("Content-Type", LFS), ("Accept", LFS)];

/// The key of the size of a part among the headers of an upload. The other keys are then the numbers of the parts.
const CHUNK_SIZE: &str = "chunk_size";

/// A file to store, and what the server wants to be done for it.
struct Order<'a> {
    oid: &'a str,
    name: &'a str,
    bytes: &'a [u8],
    upload: Action,
    verify: Option<Action>,
}

impl Target<'_> {
    /// Stores the large files that the server does not have.
    pub(super) fn send_large(
        &self,
        changes: &[Change<'_>],
        mut progress: impl FnMut(&str, u64, u64),
    ) -> Result<()> {
        let orders = self.orders(changes)?;
        let total = orders.iter().map(|order| order.bytes.len() as u64).sum();
        let mut before = 0;
        for order in &orders {
            let sent = self.store(order, &mut |sent| progress(order.name, before + sent, total));
            sent.map_err(|source| self.failed(&format!("sending {} to the storage", order.name), source))?;
            before += order.bytes.len() as u64;
        }
        Ok(())
    }

    /// Asks where to store the files. `post_lfs_batch_info`.
    fn orders<'c>(&self, changes: &'c [Change<'_>]) -> Result<Vec<Order<'c>>> {
        const ACTION: &str = "asking where to store large files";
        // Files of the same content are one object.
        let mut objects: Vec<(&str, &PushFile)> = Vec::new();
        for Change { file, large } in changes {
            if let Some(oid) = large.as_deref().filter(|oid| objects.iter().all(|(known, _)| known != oid)) {
                objects.push((oid, file));
            }
        }
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let described = objects.iter().map(|(oid, file)| json!({"oid": oid, "size": file.bytes.len()}));
        let request = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "hash_algo": "sha256",
            "ref": {"name": self.branch},
            "objects": described.collect::<Vec<_>>(),
        });
        let address = format!("{}/{}.git/info/lfs/objects/batch", self.client.endpoint(), self.id());
        let sent = self.client.post(&address, &HEADERS, request.to_string().as_bytes(), Repeat::Idempotent);
        let response = self.accepted(ACTION, sent.map_err(|source| self.failed(ACTION, source))?, &[])?;
        let answer = self.json(ACTION, response)?;
        let mut orders = Vec::new();
        for (oid, file) in objects {
            let (name, bytes) = (&file.name, &file.bytes);
            let all = answer["objects"].as_array();
            let Some(told) = all.and_then(|all| all.iter().find(|told| told["oid"] == oid)) else {
                return Err(self.failed(ACTION, format!("no answer about {name}").into()));
            };
            if let Some(error) = told.get("error") {
                let (code, message) = (error["code"].as_u64().unwrap_or(0), &error["message"]);
                let refused = format!("the server refuses {name} with code {code}: {message}");
                return Err(self.failed(ACTION, refused.into()));
            }
            // Without an action, the server has the object.
            if let Some(upload) = told.pointer("/actions/upload") {
                let no_address = || self.failed(ACTION, format!("no address for {name}").into());
                let upload = Action::new(upload).ok_or_else(no_address)?;
                let verify = told.pointer("/actions/verify").and_then(Action::new);
                orders.push(Order { oid, name, bytes, upload, verify });
            }
        }
        Ok(orders)
    }

    /// `lfs_upload`.
    fn store(&self, order: &Order<'_>, progress: &mut dyn FnMut(u64)) -> Result<(), Cause> {
        let upload = &order.upload;
        match upload.headers.get(CHUNK_SIZE) {
            Some(size) => self.store_parts(order, size, progress)?,
            None => self
                .stored(self.client.put(&upload.address, &upload.headers(), order.bytes, progress)?)
                .map(drop)?,
        }
        let Some(verify) = &order.verify else { return Ok(()) };
        let headers = [&HEADERS[..], &verify.headers()].concat();
        let body = json!({"oid": order.oid, "size": order.bytes.len()}).to_string();
        let told = self.client.post(&verify.address, &headers, body.as_bytes(), Repeat::Idempotent)?;
        self.stored(told).map(drop)
    }

    /// Stores a file in parts, and tells the server their ETags. `_upload_multi_part`.
    fn store_parts(&self, order: &Order<'_>, size: &str, progress: &mut dyn FnMut(u64)) -> Result<(), Cause> {
        let Action { address, headers } = &order.upload;
        let size = size.parse().ok().filter(|&size: &usize| size > 0);
        let size = size.ok_or("the server gives no size of a part, expected 1 byte or more")?;
        // In the order of the numbers, not of their texts.
        let places: BTreeMap<u64, &str> =
            headers.iter().filter_map(|(number, at)| Some((number.parse().ok()?, at.as_str()))).collect();
        let (found, expected) = (places.len(), order.bytes.len().div_ceil(size));
        if found != expected {
            return Err(
                format!("the server gives {found} addresses for {expected} parts of {size} bytes").into()
            );
        }
        let (mut parts, mut before) = (Vec::new(), 0);
        for (number, (bytes, at)) in (1..).zip(order.bytes.chunks(size).zip(places.into_values())) {
            let stored =
                self.stored(self.client.put(at, &[], bytes, &mut |sent| progress(before + sent))?)?;
            let etag = header(&stored, "ETag")
                .ok_or_else(|| format!("the storage gives no ETag of part {number}"))?;
            parts.push(json!({"partNumber": number, "etag": etag}));
            before += bytes.len() as u64;
        }
        let body = json!({"oid": order.oid, "parts": parts}).to_string();
        self.stored(self.client.post_signed(address, &HEADERS, body.as_bytes())?).map(drop)
    }

    fn stored(&self, response: Response) -> Result<Response, Cause> {
        if response.status().is_success() { Ok(response) } else { Err(self.client.refused(response)) }
    }
}

/// A request that the server wants to get.
struct Action {
    address: String,
    headers: BTreeMap<String, String>,
}

impl Action {
    fn new(told: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let headers = told["header"].as_object().into_iter().flatten();
        let headers = headers.map(|(name, value)| (name.clone(), text(value))).collect();
        Some(Self { address: told["href"].as_str()?.to_owned(), headers })
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}
