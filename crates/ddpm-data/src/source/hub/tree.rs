//! The list of the files of a repository.

use serde_json::Value;

use super::client::header;
use super::fetch::Repository;
use crate::error::{Error, Result};
use crate::source::address::is_safe_path;

/// The largest list that is read, in bytes, and the largest number of its pages.
const MAX_BYTES: u64 = 1 << 24;
const MAX_PAGES: usize = 100;

impl Repository<'_> {
    /// The paths of all files: of the server, or of the cache if the server does not answer or must not be asked. `None` if
    /// the server has no such list.
    pub(super) fn files(&self) -> Result<Option<Vec<String>>> {
        if self.is_offline() {
            return Ok(self.cached_files());
        }
        match self.listed() {
            Ok(files) => Ok(Some(files)),
            Err(Error::NotOnHub { .. }) => Ok(None),
            Err(error @ Error::HubRequest { .. }) => self.cached_files().map(Some).ok_or(error),
            Err(error) => Err(error),
        }
    }

    fn listed(&self) -> Result<Vec<String>> {
        const WHAT: &str = "the list of files";
        let client = self.client();
        let (mut address, mut files) = (client.tree_address(self.path(), self.revision()), Vec::new());
        for _ in 0..MAX_PAGES {
            let response = client.get(&address).map_err(|source| self.failed(WHAT, source))?;
            let response = self.accepted(WHAT, response)?;
            let next = header(&response, "Link").and_then(next_page).map(str::to_owned);
            let mut body = Vec::new();
            let read = client.read(response.into_body(), MAX_BYTES, |piece| {
                body.extend_from_slice(piece);
                Ok(())
            })?;
            read.map_err(|source| self.failed(WHAT, source))?;
            let list: Vec<Value> =
                serde_json::from_slice(&body).map_err(|error| self.failed(WHAT, error.into()))?;
            let paths = list
                .iter()
                .filter(|entry| entry["type"] == "file")
                .filter_map(|entry| entry["path"].as_str());
            files.extend(paths.filter(|path| is_safe_path(path)).map(str::to_owned));
            match next {
                Some(next) => address = next,
                None => break,
            }
        }
        Ok(files)
    }
}

/// The address of the next page in a header `<ADDRESS>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let (address, relation) = link.strip_prefix('<')?.split_once('>')?;
    relation.contains("rel=\"next\"").then_some(address)
}
