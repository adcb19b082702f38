//! A host, by name or address, and a port. It is resolved at each use, since the addresses of a
//! name change.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

/// The name of this machine.
pub(super) const LOCALHOST: &str = "localhost";

/// Returns how an IPv6 address and its port are written, where a text has them without brackets.
pub(crate) fn in_brackets(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let is_both = host.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok();
    is_both.then(|| format!("[{host}]:{port}"))
}

/// `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Returns the host: a name, or an address without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the same host with another port.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port }
    }

    /// Returns true if a text can be the name of a host, or an IPv4 address.
    pub(crate) fn is_name(host: &str) -> bool {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    }

    /// Returns every address that the name has now, at least one.
    ///
    /// # Errors
    /// The error of the resolver, or that it found no address.
    pub(crate) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = IpAddr::from_str(&self.host) {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        // The name is of this machine in both families, whatever a resolver has (RFC 6761 §6.3).
        if self.host.eq_ignore_ascii_case(LOCALHOST) {
            let both = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
            return Ok(both.map(|address| SocketAddr::new(address, self.port)).into());
        }
        let all: Vec<_> = tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect();
        if all.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(all)
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a host and a port");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(v6) if v6.parse::<Ipv6Addr>().is_ok() => v6,
            None if Self::is_name(host) => host,
            Some(_) | None => return Err(wrong()),
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_survive_being_written_out() {
        for text in ["localhost:80", "192.0.2.1:4433", "[2001:db8::1]:65535", "a-b.example:1"] {
            assert_eq!(HostPort::try_from(text.to_owned()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_host_and_a_port_is_refused() {
        for text in
            ["", ":80", "host", "host:", "host:0", "host:65536", "::1:80", "[x]:80", "a b:1"]
        {
            assert!(HostPort::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn an_address_is_its_own_resolution() {
        let host = HostPort::try_from("[::1]:80".to_owned()).unwrap();
        assert_eq!(host.resolve().await.unwrap(), ["[::1]:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn localhost_is_both_families() {
        let host = HostPort::try_from("localhost:80".to_owned()).unwrap();
        let both = ["127.0.0.1:80", "[::1]:80"].map(|address| address.parse().unwrap());
        assert_eq!(host.resolve().await.unwrap(), both);
    }
}
