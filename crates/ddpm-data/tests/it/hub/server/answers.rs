//! The answers of the server: of its repositories, or of single files that it serves.

use super::http::encode;
use super::{COMMIT, Fault, PushFault, Request, Said, State};

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

    /// The answer to a request about a repository that this server keeps, and what follows it.
    fn respond_of_repository(&mut self, request: &Request) -> Option<(Vec<u8>, Option<Fault>)> {
        let what = format!("{} {}", request.method, request.path);
        let place = self.push_faults.iter().position(|(part, _)| what.contains(part));
        let fault = place.and_then(|place| self.push_faults.remove(place)).map(|(_, fault)| fault);
        let said =
            |status, text: &str| (encode(request, (status, Vec::new(), text.as_bytes().to_vec())), None);
        Some(match fault {
            Some(PushFault::Status(status, text)) => said(status, text),
            Some(PushFault::Rubbish) => said(200, "<html>rubbish</html>"),
            Some(PushFault::Json(text)) => said(200, text),
            Some(PushFault::Dropped) => (Vec::new(), None),
            Some(PushFault::Silent) => (Vec::new(), Some(Fault::Silent)),
            Some(PushFault::Lost) => self.repositories.respond(request).map(|_| (Vec::new(), None))?,
            Some(PushFault::Truncated) => {
                let mut answer = encode(request, self.repositories.respond(request)?);
                answer.truncate(answer.len() - 10);
                (answer, None)
            }
            None => (encode(request, self.repositories.respond(request)?), None),
        })
    }

    /// The answer to a request, and what follows it.
    pub(super) fn respond(&mut self, request: Request) -> (Vec<u8>, Option<Fault>) {
        let is_get = request.method == "GET";
        if let Some(answer) = self.respond_of_repository(&request) {
            return answer;
        }
        if let Some(list) = self.list(&request.path).filter(|_| !self.forbidden) {
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
