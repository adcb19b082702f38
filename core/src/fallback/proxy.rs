//! The exchange with an HTTP proxy that stands between a client and its relay: CONNECT, before TLS
//! begins (RFC 9110 §9.3.6). It decides what is asked and whether the answer is a tunnel; it never
//! decides whether a proxy is used.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

/// The longest answer of a proxy up to its empty line. Proxies send a few hundred bytes; a page that
/// explains a refusal comes after the line.
const MAX_ANSWER: usize = 16 * 1024;

/// An HTTP proxy that opens streams to relays.
///
/// ```
/// use adit_core::fallback::HttpProxy;
/// let proxy = HttpProxy::new("192.0.2.1:3128".parse()?);
/// assert!(proxy.clone().authorization("Basic dXNlcjpzZWNyZXQ=").is_ok());
/// assert!(proxy.authorization("Basic x\r\nHost: other").is_err());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    address: SocketAddr,
    authorization: Option<Arc<str>>,
}

/// A value that no header can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credentials of a proxy have characters that an HTTP header cannot contain")]
pub struct InvalidAuthorization;

impl HttpProxy {
    /// Returns the proxy at this address, without credentials.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, authorization: None }
    }

    /// Returns the same proxy with a value for `Proxy-Authorization` (RFC 9110 §11.7.2).
    ///
    /// # Errors
    /// [`InvalidAuthorization`] for a value with other characters than visible ASCII and spaces.
    pub fn authorization(mut self, value: &str) -> Result<Self, InvalidAuthorization> {
        if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(InvalidAuthorization);
        }
        self.authorization = Some(value.into());
        Ok(self)
    }

    /// Returns its address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProxy")
            .field("address", &self.address)
            .field("has_credentials", &self.authorization.is_some())
            .finish()
    }
}

/// Why a proxy opened no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProxyFailure {
    #[error("asks for other credentials (HTTP status 407)")]
    Credentials,
    #[error("refused the connection (HTTP status {0})")]
    Refused(u16),
    #[error("does not speak HTTP")]
    NotHttp,
}

/// One CONNECT exchange.
#[derive(Debug)]
pub(super) struct ProxyHandshake {
    request: Bytes,
    answer: Vec<u8>,
}

impl ProxyHandshake {
    pub(super) fn new(proxy: &HttpProxy, to: SocketAddr) -> Self {
        let authorization = proxy.authorization.as_ref();
        let authorization = authorization
            .map(|value| format!("Proxy-Authorization: {value}\r\n"))
            .unwrap_or_default();
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{authorization}\r\n");
        Self { request: request.into(), answer: Vec::new() }
    }

    /// Returns the bytes of the request.
    pub(super) fn request(&self) -> Bytes {
        self.request.clone()
    }

    /// Handles bytes of the proxy. Returns how many of them belong to the answer once it is complete
    /// and the tunnel is open; what follows is the relay's.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProxyFailure> {
        for (index, byte) in bytes.iter().enumerate() {
            if self.answer.len() == MAX_ANSWER {
                return Err(ProxyFailure::NotHttp);
            }
            self.answer.push(*byte);
            if self.answer.ends_with(b"\r\n\r\n") || self.answer.ends_with(b"\n\n") {
                match status(&self.answer)? {
                    // An interim answer: the final one follows (RFC 9110 §15.2).
                    100..=199 => self.answer.clear(),
                    200..=299 => return Ok(Some(index + 1)),
                    407 => return Err(ProxyFailure::Credentials),
                    other => return Err(ProxyFailure::Refused(other)),
                }
            }
        }
        // What cannot become a status line is refused before its end comes.
        let start = self.answer.len().min(b"HTTP/1.".len());
        if self.answer[..start] != b"HTTP/1."[..start] {
            return Err(ProxyFailure::NotHttp);
        }
        Ok(None)
    }
}

/// Returns the status of an answer (RFC 9112 §4).
fn status(answer: &[u8]) -> Result<u16, ProxyFailure> {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| ProxyFailure::NotHttp)?;
    let (version, rest) = line.split_once(' ').ok_or(ProxyFailure::NotHttp)?;
    let digits = rest.get(..3).ok_or(ProxyFailure::NotHttp)?;
    match digits.parse() {
        Ok(status @ 100..=599) if version.starts_with("HTTP/1.") => Ok(status),
        _ => Err(ProxyFailure::NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> ProxyHandshake {
        let proxy = HttpProxy::new("192.0.2.1:3128".parse().unwrap());
        let proxy = proxy.authorization("Basic dTpw").unwrap();
        ProxyHandshake::new(&proxy, "[2001:db8::7]:443".parse().unwrap())
    }

    #[test]
    fn the_request_names_the_relay_and_has_the_credentials() {
        assert_eq!(
            exchange().request(),
            "CONNECT [2001:db8::7]:443 HTTP/1.1\r\nHost: [2001:db8::7]:443\r\n\
             Proxy-Authorization: Basic dTpw\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_cut_anywhere_opens_the_tunnel_and_leaves_the_relay_its_bytes() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 Connection established\r\n\
                       Via: x\r\n\r\n\x16\x03";
        for cut in 0..answer.len() - 2 {
            let mut exchange = exchange();
            assert_eq!(exchange.handle_bytes(&answer[..cut]), Ok(None));
            assert_eq!(exchange.handle_bytes(&answer[cut..]), Ok(Some(answer.len() - 2 - cut)));
        }
    }

    #[test]
    fn a_refusal_names_its_status() {
        for (answer, failure) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", ProxyFailure::Credentials),
            ("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno", ProxyFailure::Refused(403)),
            ("HTTP/1.1 302\r\n\r\n", ProxyFailure::Refused(302)),
            ("HTTP/1.1 99 \r\n\r\n", ProxyFailure::NotHttp),
            ("HTTP/1.1\r\n\r\n", ProxyFailure::NotHttp),
            ("SSH-2.0-OpenSSH_9.2\r\n", ProxyFailure::NotHttp),
            ("\x15\x03\x01", ProxyFailure::NotHttp),
        ] {
            assert_eq!(exchange().handle_bytes(answer.as_bytes()), Err(failure), "{answer:?}");
        }
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; MAX_ANSWER]].concat();
        assert_eq!(exchange().handle_bytes(&endless), Err(ProxyFailure::NotHttp));
    }
}
