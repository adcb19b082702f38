//! The address of a connector as a person writes it: a host, and a port or none. It resolves no
//! name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::HostPort;

/// Scheme of the program's URLs (RFC 3986 §3.1).
const SCHEME: &str = "adit://";

/// `adit://host`, `adit://host:port`, or either without the scheme; a host is a name or an address.
/// Without a port, SRV records supply it (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HostAddress {
    host: String,
    port: Option<u16>,
}

impl HostAddress {
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the host, where it is a name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.host.parse::<IpAddr>().is_err().then_some(&*self.host)
    }

    /// The address, where the host is one; without a port at `otherwise`.
    pub(crate) fn literal(&self, otherwise: u16) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port.unwrap_or(otherwise)))
    }
}

impl From<HostPort> for HostAddress {
    fn from(it: HostPort) -> Self {
        Self { host: it.host().to_owned(), port: Some(it.port()) }
    }
}

impl TryFrom<String> for HostAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a host, a host and a port, or an adit:// URL");
        let rest = match text.split_at_checked(SCHEME.len()) {
            // A URL may end in the empty path (RFC 3986 §6.2.3).
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => {
                rest.strip_suffix('/').unwrap_or(rest)
            }
            Some(_) | None => &text,
        };
        if let Ok(both) = HostPort::try_from(rest.to_owned()) {
            return Ok(both.into());
        }
        let bracketed = rest.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(rest);
        let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
        if !is_v6 && (bracketed.is_some() || !HostPort::is_name(host)) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port: None })
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<HostAddress, String> {
        HostAddress::try_from(text.to_owned())
    }

    #[test]
    fn a_url_is_the_host_and_the_port_in_it() {
        for (text, host, port) in [
            ("adit://relay.example", "relay.example", None),
            ("ADIT://relay.example:9/", "relay.example", Some(9)),
            ("adit://[2001:db8::7]:9", "2001:db8::7", Some(9)),
            ("adit://[2001:db8::7]", "2001:db8::7", None),
            ("adit://192.0.2.7", "192.0.2.7", None),
            ("relay.example", "relay.example", None),
            ("relay.example:443", "relay.example", Some(443)),
            ("2001:db8::7", "2001:db8::7", None),
        ] {
            let found = place(text).unwrap();
            assert_eq!((found.host(), found.port()), (host, port), "{text}");
            assert_eq!(place(&found.to_string()).unwrap(), found, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "adit://",
            "adit:///",
            "http://a",
            "adit://user@host",
            "adit://host/path",
            "adit://host?x",
            "adit://host:0",
            "adit://host:65536",
            "adit://host:",
            "[name]",
            "a b",
            "host#1",
            "ädit",
        ] {
            assert!(place(text).unwrap_err().contains("is not"), "{text}");
        }
    }

    #[test]
    fn an_address_needs_no_resolver() {
        assert_eq!(place("[::1]").unwrap().literal(9), Some("[::1]:9".parse().unwrap()));
        assert_eq!(place("192.0.2.7:1").unwrap().literal(9), Some("192.0.2.7:1".parse().unwrap()));
        assert_eq!(place("localhost").unwrap().literal(9), None);
    }
}
