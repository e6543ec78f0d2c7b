//! Which hosts a request may name. A page of another site could otherwise reach the server by a name of its own that leads
//! to this machine.

use std::net::IpAddr;

use axum::http::{HeaderMap, header, uri::Authority};

/// The names of the server.
#[derive(Debug)]
pub(super) struct Hosts {
    /// The name of --listen.
    name: String,
    /// Whether the server listens at all addresses of the machine.
    all: bool,
    port: u16,
}

impl Hosts {
    pub(super) fn new(name: &str, address: IpAddr, port: u16) -> Self {
        Self { name: name.trim_matches(['[', ']']).to_ascii_lowercase(), all: address.is_unspecified(), port }
    }

    /// Why the headers of a request name another host; `None` if they do not.
    pub(super) fn refusal(&self, headers: &HeaderMap) -> Option<String> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("not text"));
        let Some(host) = text(header::HOST).filter(|_| headers.get_all(header::HOST).iter().count() == 1)
        else {
            return Some("the request has no header Host, or several".to_owned());
        };
        if !self.is_own(host) {
            return Some(format!(
                "the host is `{host}`, expected {} or localhost; see --listen",
                self.shown()
            ));
        }
        let origin = text(header::ORIGIN)?;
        let is_own = origin.strip_prefix("http://").is_some_and(|host| self.is_own(host));
        (!is_own)
            .then(|| format!("the request comes from a page of `{origin}`, expected a page of this server"))
    }

    /// The address of the server, as a browser takes it.
    pub(super) fn shown(&self) -> String {
        let name = if self.all { "localhost" } else { &self.name };
        let port = self.port;
        if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
    }

    fn is_own(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let address = name.parse::<IpAddr>().ok();
        let is_named = name == self.name
            || name == "localhost"
            || address.is_some_and(|address| address.is_loopback() || self.all);
        is_named && !host.contains('@') && authority.port_u16().unwrap_or(80) == self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(hosts: &Hosts, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
        hosts.refusal(&headers).is_some()
    }

    #[test]
    fn other_hosts_and_origins_are_refused() {
        let loopback = Hosts::new("127.0.0.1", [127, 0, 0, 1].into(), 8000);
        for host in ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"] {
            assert!(!refused(&loopback, host, None), "{host}");
            assert!(!refused(&loopback, host, Some("http://localhost:8000")), "{host}");
        }
        for host in
            ["evil.example:8000", "localhost", "localhost:80", "10.0.0.1:8000", "a@localhost:8000", ""]
        {
            assert!(refused(&loopback, host, None), "{host}");
        }
        for origin in ["null", "http://evil.example", "http://localhost", "https://localhost:8000", "http://"]
        {
            assert!(refused(&loopback, "localhost:8000", Some(origin)), "{origin}");
        }
        assert!(loopback.refusal(&HeaderMap::new()).is_some());
    }

    #[test]
    fn the_name_of_listen_is_a_host_and_all_addresses_are_those_of_the_machine() {
        let named = Hosts::new("digits.example", [10, 0, 0, 1].into(), 80);
        assert!(!refused(&named, "digits.example", Some("http://digits.example")));
        assert!(refused(&named, "10.0.0.1", None));
        let all = Hosts::new("0.0.0.0", [0, 0, 0, 0].into(), 8000);
        assert!(!refused(&all, "10.0.0.1:8000", None));
        assert!(refused(&all, "evil.example:8000", None));
        assert_eq!((all.shown().as_str(), named.shown().as_str()), ("localhost:8000", "digits.example:80"));
        let six = Hosts::new("[::1]", std::net::Ipv6Addr::LOCALHOST.into(), 8000);
        assert_eq!(six.shown(), "[::1]:8000");
    }
}
