//! The forms of addresses on the command line, where a part of one may be left out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::address::{HostPort, PORT, in_brackets};

/// Reads `[IP:]PORT`, where no IP means `ip`.
fn with_default(text: &str, ip: IpAddr) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    let parsed = match port.parse() {
        Ok(port) => Some(SocketAddr::new(ip, port)),
        Err(_) => text.parse().ok(),
    };
    parsed.ok_or_else(|| match in_brackets(text) {
        Some(written) => format!("\"{text}\" is no address; write it like {written}"),
        None => format!("\"{text}\" is no address; write it like 4433 or 192.0.2.7:4433"),
    })
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    with_default(text, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

pub(super) fn local(text: &str) -> Result<SocketAddr, String> {
    with_default(text, IpAddr::V4(Ipv4Addr::LOCALHOST))
}

pub(super) fn host_port(text: &str) -> Result<HostPort, String> {
    let next = |error: String| match in_brackets(text) {
        Some(written) => format!("{error}; write it like {written}"),
        None => format!("{error}; write it like home.example:{PORT}"),
    };
    HostPort::try_from(text.to_owned()).map_err(next)
}

/// An address that is advertised: with its own port, or with the port that is listened on.
#[derive(Debug, Clone)]
pub(crate) struct Advertised {
    at: HostPort,
    has_port: bool,
}

impl Advertised {
    /// Returns the address for a program that listens on `listen`; if that is any port, an address
    /// without a port has the usual one.
    pub(super) fn at(&self, listen: u16) -> HostPort {
        match self.has_port || listen == 0 {
            true => self.at.clone(),
            false => self.at.with_port(listen),
        }
    }
}

pub(super) fn advertised(text: &str) -> Result<Advertised, String> {
    let has_port = |at| Advertised { at, has_port: true };
    host_port(text).map(has_port).or_else(|error| {
        let is_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        let with_port = if is_v6 { format!("[{text}]:{PORT}") } else { format!("{text}:{PORT}") };
        let at = HostPort::try_from(with_port).map_err(|_| error)?;
        Ok(Advertised { at, has_port: false })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_alone_or_with_an_ip() {
        assert_eq!(listen("4433"), Ok("0.0.0.0:4433".parse().unwrap()));
        assert_eq!(listen(":5000"), Ok("0.0.0.0:5000".parse().unwrap()));
        assert_eq!(listen("[::]:5000"), Ok("[::]:5000".parse().unwrap()));
        assert_eq!(local("8080"), Ok("127.0.0.1:8080".parse().unwrap()));
        for wrong in ["", "x", "1.2.3.4", "65536", "::1"] {
            assert!(listen(wrong).unwrap_err().contains("write it like"), "{wrong}");
        }
        assert!(listen("::1:4433").unwrap_err().ends_with("write it like [::1]:4433"));
        assert!(host_port("fd00::7:80").unwrap_err().ends_with("write it like [fd00::7]:80"));
    }

    #[test]
    fn an_advertised_address_has_the_usual_port_by_default() {
        assert_eq!(advertised("home.example").unwrap().at(0).to_string(), "home.example:4433");
        assert_eq!(advertised("2001:db8::7").unwrap().at(4433).to_string(), "[2001:db8::7]:4433");
        assert_eq!(advertised("192.0.2.7:9").unwrap().at(5000).to_string(), "192.0.2.7:9");
        assert_eq!(advertised("home.example").unwrap().at(5000).to_string(), "home.example:5000");
        assert!(advertised("a b").unwrap_err().contains("write it like home.example:4433"));
    }
}
