//! Probes: authenticated pings and pongs of two fixed lengths, bytes to values and back.
//!
//! It decides their layout and whether one is genuine. It never decides when one is sent or what an
//! answer proves, and keeps no record of those that were seen.
//!
//! A ping and its pong are equally long, so that an answer never has more bytes than its ping. The
//! two directions of a connection have keys of their own: a probe that is sent back to its sender
//! is refused there. Their first byte lies where no packet of QUIC begins (RFC 9443 §3), so that
//! they share a socket with it.
//!
//! ```text
//!  0      1         9            17      25        26      42     44      45     48   64
//!  | kind | session | transaction | sent | family  | address | port | state | zero | mac |
//! ```
//!
//! A full-size probe is the same followed by zeros up to 1,200 bytes, the least that every path of
//! QUIC carries (RFC 9000 §14). Its kind is another, so that the mac covers the length as well.
//!
//! Numbers are big-endian. The mac is the first half of HMAC-SHA256 (RFC 2104 §5) over all bytes
//! before it. Source: docs/protocol.md, "Probes".

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[cfg(not(feature = "ring"))]
use aws_lc_rs::hmac;
#[cfg(feature = "ring")]
use ring::hmac;

/// Bytes of a probe, and of the part of a full-size one before its padding.
pub const LEN: usize = BODY + MAC;

/// Bytes of a full-size probe, as many as QUIC's least packet size (RFC 9000 §14).
pub const FULL_LEN: usize = 1_200;

/// The first bytes that belong to probes; kinds other than [`ProbeKind`] are of later versions.
pub const FIRST_BYTES: std::ops::RangeInclusive<u8> = 0x20..=0x3f;

/// Bytes under the mac.
const BODY: usize = 48;
/// Bytes of the mac: a forger needs 2^128 tries, and each is a packet.
const MAC: usize = 16;

/// The key of one direction.
#[derive(Clone)]
pub struct ProbeKey([u8; 32]);

impl ProbeKey {
    /// Returns the key of 32 secret bytes, for one direction of one connection.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The kind of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// A ping, 0x20.
    Ping,
    /// Its answer, 0x21.
    Pong,
    /// A ping of 1,200 bytes, 0x22.
    FullPing,
    /// Its answer, as long, 0x23.
    FullPong,
}

impl ProbeKind {
    const ALL: [Self; 4] = [Self::Ping, Self::Pong, Self::FullPing, Self::FullPong];

    /// Returns true for a ping of either length.
    #[must_use]
    pub const fn is_ping(self) -> bool {
        matches!(self, Self::Ping | Self::FullPing)
    }

    /// Returns true for a probe of 1,200 bytes.
    #[must_use]
    pub const fn is_full(self) -> bool {
        matches!(self, Self::FullPing | Self::FullPong)
    }

    /// Returns the kind of the answer to a ping, which is as long.
    #[must_use]
    pub const fn answer(self) -> Self {
        match self {
            Self::Ping | Self::Pong => Self::Pong,
            Self::FullPing | Self::FullPong => Self::FullPong,
        }
    }

    /// Returns the first byte.
    const fn byte(self) -> u8 {
        match self {
            Self::Ping => 0x20,
            Self::Pong => 0x21,
            Self::FullPing => 0x22,
            Self::FullPong => 0x23,
        }
    }

    /// Returns the bytes of the whole probe.
    const fn len(self) -> usize {
        if self.is_full() { FULL_LEN } else { LEN }
    }
}

/// One ping or pong.
///
/// ```
/// use adit_core::probe::{ProbeKey, ProbeKind, Probe};
/// let (there, back) = (ProbeKey::new([1; 32]), ProbeKey::new([2; 32]));
/// let ping = Probe {
///     kind: ProbeKind::Ping,
///     session: 7,
///     transaction: 1,
///     sent: 1_000,
///     observed: None,
///     state: 0,
/// };
/// let bytes = ping.encode(&there);
/// assert_eq!(Probe::session(&bytes), Some(7));
/// assert_eq!(Probe::decode(&bytes, &there), Some(ping));
/// assert_eq!(Probe::decode(&bytes, &back), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Ping or answer.
    pub kind: ProbeKind,
    /// The tag of the sender's direction, by which a receiver finds the key.
    pub session: u64,
    /// One more than that of the sender's last ping; a pong repeats the ping's.
    pub transaction: u64,
    /// When this probe was sent, in microseconds of the sender's own clock, which never goes back;
    /// a relay, which keeps no clock for a client, repeats the ping's.
    pub sent: u64,
    /// The source of the ping, as the sender of the pong saw it; `None` in a ping, and where there
    /// is no address.
    pub observed: Option<SocketAddr>,
    /// Eight bits that the two ends agree on.
    pub state: u8,
}

impl Probe {
    /// Returns the probe as bytes, authenticated with `key`. [`datagram`] adds the padding of a
    /// full-size one.
    ///
    /// Of an IPv6 address, flow label and scope are not carried: they have no meaning elsewhere.
    #[must_use]
    pub fn encode(&self, key: &ProbeKey) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[0] = self.kind.byte();
        out[1..9].copy_from_slice(&self.session.to_be_bytes());
        out[9..17].copy_from_slice(&self.transaction.to_be_bytes());
        out[17..25].copy_from_slice(&self.sent.to_be_bytes());
        if let Some(observed) = self.observed {
            match observed.ip() {
                IpAddr::V4(ip) => {
                    out[25] = 4;
                    out[26..30].copy_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out[25] = 6;
                    out[26..42].copy_from_slice(&ip.octets());
                }
            }
            out[42..44].copy_from_slice(&observed.port().to_be_bytes());
        }
        out[44] = self.state;
        let tag = hmac::sign(&hmac_key(key), &out[..BODY]);
        out[BODY..].copy_from_slice(&tag.as_ref()[..MAC]);
        out
    }

    /// Returns the session that `bytes` claim to be of, before any of them is authenticated: to
    /// find the key. `None` if they cannot be a probe.
    #[must_use]
    pub fn session(bytes: &[u8]) -> Option<u64> {
        let (_, head, _) = split(bytes)?;
        Some(number(head, 1))
    }

    /// Returns the probe, if these are exactly the bytes that a holder of `key` made of one.
    #[must_use]
    pub fn decode(bytes: &[u8], key: &ProbeKey) -> Option<Self> {
        let (kind, bytes, padding) = split(bytes)?;
        is_genuine(bytes, key).then_some(())?;
        let probe = Self {
            kind,
            session: number(bytes, 1),
            transaction: number(bytes, 9),
            sent: number(bytes, 17),
            observed: address(bytes)?,
            state: bytes[44],
        };
        // A value has exactly one encoding: no hidden data where the layout has zeros.
        let has_zeros = bytes[45..BODY] == [0; BODY - 45] && padding.iter().all(|&it| it == 0);
        has_zeros.then_some(probe)
    }
}

/// Returns the datagram of an encoded probe: a full-size one is padded with zeros.
#[must_use]
pub fn datagram(encoded: &[u8; LEN]) -> Vec<u8> {
    let mut datagram = encoded.to_vec();
    datagram.resize(kind(encoded[0]).map_or(LEN, ProbeKind::len), 0);
    datagram
}

/// Returns the kind of a probe, its authenticated bytes and its padding. `None` if its length is
/// not that of its kind.
fn split(bytes: &[u8]) -> Option<(ProbeKind, &[u8; LEN], &[u8])> {
    let (head, padding) = bytes.split_first_chunk::<LEN>()?;
    let kind = kind(head[0])?;
    (bytes.len() == kind.len()).then_some((kind, head, padding))
}

fn kind(first: u8) -> Option<ProbeKind> {
    ProbeKind::ALL.into_iter().find(|kind| kind.byte() == first)
}

fn number(bytes: &[u8; LEN], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |number, &byte| (number << 8) | u64::from(byte))
}

/// Returns the contained address; the outer `None` means that the encoding is invalid.
fn address(bytes: &[u8; LEN]) -> Option<Option<SocketAddr>> {
    let octets: [u8; 16] = bytes[26..42].try_into().ok()?;
    let port = u16::from_be_bytes([bytes[42], bytes[43]]);
    match bytes[25] {
        0 => (octets == [0; 16] && port == 0).then_some(None),
        4 => {
            let [a, b, c, d, rest @ ..] = octets;
            let ip = Ipv4Addr::new(a, b, c, d);
            (rest == [0; 12]).then_some(Some(SocketAddr::from((ip, port))))
        }
        6 => Some(Some(SocketAddr::from((Ipv6Addr::from(octets), port)))),
        _ => None,
    }
}

/// Compares in constant time. The provider compares whole tags only; the half that is not sent is
/// therefore put behind the half that was, and counts as equal.
fn is_genuine(bytes: &[u8; LEN], key: &ProbeKey) -> bool {
    let key = hmac_key(key);
    let (body, mac) = bytes.split_at(BODY);
    let mut claimed = [0; 32];
    claimed.copy_from_slice(hmac::sign(&key, body).as_ref());
    claimed[..MAC].copy_from_slice(mac);
    hmac::verify(&key, body, &claimed).is_ok()
}

fn hmac_key(key: &ProbeKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &key.0)
}

#[cfg(test)]
mod tests;
