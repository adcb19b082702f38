//! The HTTP proxy that the environment names, for relays by TCP where nothing else leads out. It
//! decides which relays are reached through it; the core speaks with it.
//!
//! `HTTPS_PROXY` goes before `ALL_PROXY`, and the names in lower case count as well, as with curl.
//! `NO_PROXY` lists addresses and networks that are reached without it. A relay is known by its
//! address here, so that names in `NO_PROXY` do not apply.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use adit_tokio::core::fallback::HttpProxy;
use data_encoding::BASE64;

use crate::address::HostPort;

/// The variable that names a file with `user:password`, so that they need not be in the environment.
const CREDENTIALS: &str = "ADIT_PROXY_CREDENTIALS";

/// The port of a proxy whose URL names none.
const DEFAULT_PORT: u16 = 80;

/// A proxy, and what is reached without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxySettings {
    at: HostPort,
    authorization: Option<ProxyAuthorization>,
    except: Vec<Exception>,
}

/// A header value with a password in it.
#[derive(Clone, PartialEq, Eq)]
struct ProxyAuthorization(String);

impl std::fmt::Debug for ProxyAuthorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exception {
    Everything,
    Network(IpAddr, u8),
}

impl ProxySettings {
    /// Returns the proxy of the environment. One that cannot be used is said in the log, and none is
    /// used.
    pub(crate) fn from_environment() -> Option<Self> {
        let read = |path: &Path| std::fs::read_to_string(path);
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::from_variables(variable, read).unwrap_or_else(|why| {
            tracing::warn!("{why}; relays are reached without a proxy");
            None
        })
    }

    /// # Errors
    /// A sentence with the variable and the cause.
    fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        read: impl Fn(&Path) -> std::io::Result<String>,
    ) -> Result<Option<Self>, String> {
        let of = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| variable(name).map(|value| (name, value)))
        };
        let https = of(["HTTPS_PROXY", "https_proxy"]);
        let Some((name, url)) = https.or_else(|| of(["ALL_PROXY", "all_proxy"])) else {
            return Ok(None);
        };
        // The URL may contain a password: it is not repeated.
        let (at, credentials) = parse(&url).map_err(|why| format!("{name}: {why}"))?;
        let credentials = match variable(CREDENTIALS) {
            None => credentials,
            Some(path) => {
                let text = read(Path::new(&path))
                    .map_err(|error| format!("{CREDENTIALS}: cannot read {path}: {error}"))?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        };
        let except = of(["NO_PROXY", "no_proxy"]).map(|(_, list)| exceptions(&list));
        let authorization = credentials
            .map(|text| ProxyAuthorization(format!("Basic {}", BASE64.encode(text.as_bytes()))));
        Ok(Some(Self { at, authorization, except: except.unwrap_or_default() }))
    }

    /// Returns true if this address is reached through the proxy. This machine never is.
    pub(crate) fn applies_to(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !address.is_loopback() && !self.except.iter().any(|exception| exception.covers(address))
    }

    /// Returns the proxy with an address that its name has now.
    ///
    /// # Errors
    /// Why the name has none.
    pub(crate) async fn resolve(&self) -> std::io::Result<HttpProxy> {
        let first = self.at.resolve().await?.into_iter().next();
        let address = first.ok_or(std::io::ErrorKind::NotFound)?;
        Ok(self.proxy_at(address))
    }

    fn proxy_at(&self, address: SocketAddr) -> HttpProxy {
        let plain = HttpProxy::new(address);
        match &self.authorization {
            // Base64 has no character that a header cannot contain.
            Some(ProxyAuthorization(value)) => plain.clone().authorization(value).unwrap_or(plain),
            None => plain,
        }
    }
}

impl std::fmt::Display for ProxySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", self.at)
    }
}

impl Exception {
    fn covers(self, address: IpAddr) -> bool {
        let Self::Network(network, bits) = self else { return true };
        let prefix = |ip: u128, width: u32| {
            ip.checked_shr(width.saturating_sub(u32::from(bits))).unwrap_or(0)
        };
        match (network, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                prefix(a.to_bits().into(), 32) == prefix(b.to_bits().into(), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => prefix(a.to_bits(), 128) == prefix(b.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Reads the URL of a proxy: its place, and `user:password` if they are in it.
fn parse(url: &str) -> Result<(HostPort, Option<String>), String> {
    let rest = match url.split_once("://") {
        None => url,
        Some(("http", rest)) => rest,
        Some((scheme, _)) => {
            return Err(format!(
                "a proxy of the kind {scheme}:// cannot be used; name one as http://"
            ));
        }
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(unescape(user)?), place),
        None => (None, authority),
    };
    let has_port = place.rsplit_once(':').is_some_and(|(host, port)| {
        (!host.contains(':') || host.ends_with(']')) && port.parse::<u16>().is_ok()
    });
    let place = if has_port { place.to_owned() } else { format!("{place}:{DEFAULT_PORT}") };
    let at = place.try_into().map_err(|_| "not an address of a proxy, like http://proxy:3128")?;
    Ok((at, user))
}

/// Decodes %xx (RFC 3986 §2.1).
fn unescape(text: &str) -> Result<String, String> {
    let wrong = || "its user or password has a % that is not followed by two digits".to_owned();
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let value = high.zip(low).map(|(high, low)| high * 16 + low);
                value.and_then(|value| u8::try_from(value).ok()).ok_or_else(wrong)?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| "its user or password is not UTF-8".to_owned())
}

/// Reads `NO_PROXY`. Names are left out: a relay is known by its address.
fn exceptions(list: &str) -> Vec<Exception> {
    let one = |entry: &str| {
        if entry == "*" {
            return Some(Exception::Everything);
        }
        let (network, bits) = match entry.split_once('/') {
            Some((network, bits)) => (network, Some(bits.parse().ok()?)),
            None => (entry, None),
        };
        let network: IpAddr = network.trim_matches(['[', ']']).parse().ok()?;
        let widest = if network.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(widest);
        (bits <= widest).then_some(Exception::Network(network, bits))
    };
    list.split(',').filter_map(|entry| one(entry.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Option<ProxySettings>, String> {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        ProxySettings::from_variables(variable, |path| match path.to_str() {
            Some("/etc/proxy") => Ok("ann:a b\n".to_owned()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        })
    }

    fn one(variables: &[(&str, &str)]) -> ProxySettings {
        settings(variables).unwrap().unwrap()
    }

    #[test]
    fn without_a_variable_there_is_no_proxy() {
        assert_eq!(settings(&[("NO_PROXY", "*"), ("HTTP_PROXY", "http://p:1")]), Ok(None));
    }

    #[test]
    fn the_proxy_for_https_goes_before_the_one_for_all() {
        let both = [("ALL_PROXY", "http://all:1"), ("https_proxy", "https.example:3128/")];
        assert_eq!(one(&both).to_string(), "http://https.example:3128");
        assert_eq!(one(&both[..1]).to_string(), "http://all:1");
        assert_eq!(
            one(&[("ALL_PROXY", "http://[2001:db8::1]")]).to_string(),
            "http://[2001:db8::1]:80"
        );
    }

    #[test]
    fn credentials_come_from_the_url_or_from_a_file() {
        let url = ("HTTPS_PROXY", "http://ann:p%40ss@proxy:3128");
        let value = |settings: ProxySettings| settings.authorization.unwrap().0;
        assert_eq!(value(one(&[url])), format!("Basic {}", BASE64.encode(b"ann:p@ss")));
        let file = (CREDENTIALS, "/etc/proxy");
        assert_eq!(value(one(&[url, file])), format!("Basic {}", BASE64.encode(b"ann:a b")));
        let shown = format!("{:?} {}", one(&[url]), one(&[url]));
        assert!(!shown.contains("p@ss") && !shown.contains("YW5u"), "{shown}");
    }

    #[test]
    fn what_cannot_be_used_is_a_sentence_without_the_password() {
        for (variables, sentence) in [
            (
                [("ALL_PROXY", "socks5://u:secret@p:1"), ("", "")],
                "ALL_PROXY: a proxy of the kind socks5:// cannot be used; name one as http://",
            ),
            (
                [("HTTPS_PROXY", "http://u:secret@"), ("", "")],
                "HTTPS_PROXY: not an address of a proxy, like http://proxy:3128",
            ),
            (
                [("HTTPS_PROXY", "http://u:secret%4@p"), ("", "")],
                "HTTPS_PROXY: its user or password has a % that is not followed by two digits",
            ),
            (
                [("HTTPS_PROXY", "p:1"), (CREDENTIALS, "/none")],
                "ADIT_PROXY_CREDENTIALS: cannot read /none: entity not found",
            ),
        ] {
            assert_eq!(settings(&variables), Err(sentence.to_owned()));
        }
    }

    #[test]
    fn no_proxy_lists_addresses_and_networks() {
        let list = "localhost, 10.0.0.0/8,192.0.2.7 ,[2001:db8::1],fd00::/8,1.2.3.4/40";
        let settings = one(&[("HTTPS_PROXY", "p:1"), ("no_proxy", list)]);
        for (address, applies) in [
            ("10.9.9.9", false),
            ("11.0.0.1", true),
            ("192.0.2.7", false),
            ("::ffff:192.0.2.7", false),
            ("192.0.2.8", true),
            ("2001:db8::1", false),
            ("2001:db8::2", true),
            ("fdff::1", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("1.2.3.4", true),
        ] {
            assert_eq!(settings.applies_to(address.parse().unwrap()), applies, "{address}");
        }
        assert!(!one(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", "*")]).applies_to([8, 8, 8, 8].into()));
    }
}
