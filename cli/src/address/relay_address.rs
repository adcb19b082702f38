//! The address of a relay, and the key that it must prove to hold
//! (docs/protocol.md, "Relay addresses"). It decides how that is written; it neither resolves nor
//! dials.

use std::fmt;
use std::str::FromStr;

use adit_tokio::core::tls::KeyDigest;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

use super::{HostPort, PORT};

/// The default TCP port of a relay, for networks without UDP.
pub(crate) const TCP_PORT: u16 = 443;

/// Prefix of a TCP port that is not the default.
const TCP: &str = ",tcp=";

/// Optional prefix of the host.
const SCHEME: &str = "adit://";

/// A relay: `host[:port][,tcp=port]#key`, with or without a preceding `adit://`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct RelayAddress {
    /// Where it listens.
    pub(crate) at: HostPort,
    /// The port at which it accepts TLS over TCP.
    pub(crate) tcp: u16,
    /// The digest of its public key.
    pub(crate) key: KeyDigest,
}

impl FromStr for RelayAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let next = "give the whole line that adit relay printed, like relay.example:4433#KEY";
        let (place, key) = text
            .trim()
            .split_once('#')
            .ok_or_else(|| format!("\"{text}\" does not say which key the relay has; {next}"))?;
        let (at, tcp) =
            place_of(place).ok_or_else(|| format!("\"{text}\" names no host; {next}"))?;
        let key = key_of(key).ok_or_else(|| {
            format!(
                "\"{text}\": what stands behind the # is no key, or not the whole of one; {next}"
            )
        })?;
        Ok(Self { at, tcp, key })
    }
}

/// A relay with or without its key: enough to check whether a network reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelayTarget {
    pub(crate) at: HostPort,
    pub(crate) tcp: u16,
    pub(crate) key: Option<KeyDigest>,
}

impl FromStr for RelayTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('#') {
            return text.parse::<RelayAddress>().map(Self::from);
        }
        let (at, tcp) = place_of(text.trim()).ok_or_else(|| {
            format!("\"{text}\" is no relay; write it like relay.example:4433#KEY")
        })?;
        Ok(Self { at, tcp, key: None })
    }
}

impl From<RelayAddress> for RelayTarget {
    fn from(RelayAddress { at, tcp, key }: RelayAddress) -> Self {
        Self { at, tcp, key: Some(key) }
    }
}

/// Reads a host with its UDP port and its TCP port, each unless it is the default.
pub(crate) fn place_of(text: &str) -> Option<(HostPort, u16)> {
    let (text, tcp) = match text.split_once(TCP) {
        Some((text, port)) => (text, port.parse().ok().filter(|&port| port != 0)?),
        None => (text, TCP_PORT),
    };
    host_of(text).map(|at| (at, tcp))
}

/// Returns the address of a relay, as [`place_of`] reads it.
pub(crate) fn place(at: &HostPort, tcp: u16) -> String {
    match tcp {
        TCP_PORT => at.to_string(),
        other => format!("{at}{TCP}{other}"),
    }
}

fn host_of(text: &str) -> Option<HostPort> {
    let text = text.strip_prefix(SCHEME).map_or(text, |rest| rest.trim_end_matches('/'));
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return HostPort::try_from(format!("[{text}]:{PORT}")).ok();
    }
    let whole = HostPort::try_from(text.to_owned());
    whole.or_else(|_| HostPort::try_from(format!("{text}:{PORT}"))).ok()
}

/// Reads the digest in base64url without padding, or in hexadecimal.
pub(crate) fn key_of(text: &str) -> Option<KeyDigest> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
    let bytes = match text.len() {
        64 => HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?,
        _ => bytes.ok()?,
    };
    bytes.try_into().ok().map(KeyDigest)
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", place(&self.at, self.tcp), BASE64URL_NOPAD.encode(&self.key.0))
    }
}

impl TryFrom<String> for RelayAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RelayAddress> for String {
    fn from(relay: RelayAddress) -> Self {
        relay.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk";

    fn read(text: &str) -> Result<RelayAddress, String> {
        text.parse()
    }

    #[test]
    fn a_relay_is_a_host_a_port_unless_usual_and_a_key() {
        let hex = "09".repeat(32);
        for (text, at) in [
            (format!("relay.example#{KEY}"), "relay.example:4433"),
            (format!("relay.example:9#{hex}"), "relay.example:9"),
            (format!(" adit://relay.example:9#{KEY}\n"), "relay.example:9"),
            (format!("adit://192.0.2.7/#{}", hex.to_uppercase()), "192.0.2.7:4433"),
            (format!("2001:db8::7#{KEY}"), "[2001:db8::7]:4433"),
            (format!("[2001:db8::7]#{KEY}"), "[2001:db8::7]:4433"),
            (format!("adit://[2001:db8::7]:9#{KEY}"), "[2001:db8::7]:9"),
        ] {
            let relay = read(&text).unwrap();
            assert_eq!((relay.at.to_string().as_str(), relay.key), (at, KeyDigest([9; 32])));
            assert_eq!(relay.to_string(), format!("{at}#{KEY}"));
            assert_eq!(read(&relay.to_string()), Ok(relay));
        }
    }

    #[test]
    fn a_tcp_port_is_written_where_it_is_not_the_usual_one() {
        for (text, at, tcp) in [
            ("relay.example", "relay.example:4433", 443),
            ("relay.example,tcp=443", "relay.example:4433", 443),
            ("relay.example:9,tcp=1", "relay.example:9,tcp=1", 1),
            ("adit://relay.example,tcp=65535", "relay.example:4433,tcp=65535", 65_535),
            ("2001:db8::7,tcp=8443", "[2001:db8::7]:4433,tcp=8443", 8_443),
        ] {
            let relay = read(&format!("{text}#{KEY}")).unwrap();
            assert_eq!((relay.tcp, relay.to_string()), (tcp, format!("{at}#{KEY}")));
            assert_eq!(text.parse::<RelayTarget>().unwrap().tcp, tcp);
            assert_eq!(read(&relay.to_string()), Ok(relay));
        }
    }

    #[test]
    fn what_is_no_relay_is_answered_with_what_is_missing() {
        let short = &KEY[..42];
        for (text, why) in [
            ("relay.example:4433".to_owned(), "does not say which key"),
            (format!("#{KEY}"), "names no host"),
            (format!("https://relay.example#{KEY}"), "names no host"),
            (format!("relay.example:0#{KEY}"), "names no host"),
            (format!("a b#{KEY}"), "names no host"),
            (format!("relay.example,tcp=0#{KEY}"), "names no host"),
            (format!("relay.example,tcp=65536#{KEY}"), "names no host"),
            (format!("relay.example,tcp=#{KEY}"), "names no host"),
            (format!("relay.example,tcp=1,tcp=2#{KEY}"), "names no host"),
            ("relay.example#".to_owned(), "is no key"),
            (format!("relay.example#{short}"), "is no key"),
            (format!("relay.example#{KEY}A"), "is no key"),
            (format!("relay.example#{KEY}#{KEY}"), "is no key"),
            (format!("relay.example#{}", "0g".repeat(32)), "is no key"),
        ] {
            let said = read(&text).unwrap_err();
            assert!(said.contains(why) && said.contains("; give the whole line"), "{said}");
        }
    }

    #[test]
    fn a_place_alone_is_enough_to_ask_for_it() {
        let place: RelayTarget = "relay.example".parse().unwrap();
        assert_eq!((place.at.to_string().as_str(), place.key), ("relay.example:4433", None));
        let place: RelayTarget = format!("relay.example#{KEY}").parse().unwrap();
        assert_eq!(place.key, Some(KeyDigest([9; 32])));
        assert!("a b".parse::<RelayTarget>().unwrap_err().contains("write it like"));
        assert!("relay.example#x".parse::<RelayTarget>().is_err());
    }
}
