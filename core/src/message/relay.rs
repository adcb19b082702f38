//! Messages between a relay and its clients: their names, the services they look up, and the
//! channels between them.
//!
//! Decides their fields and ranges. Never decides which clients may register or connect: the relay
//! does, and in the end the two clients' own handshake.

use std::fmt;
use std::net::SocketAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::control::{code, failure, id, millis};
use super::json::JsonBody;
use super::{MAX_SENTENCE, OutOfRange, ServiceName};
use crate::error::Failure;
use crate::tls::KeyDigest;

/// Most addresses of a relay that answer discovery: four networks in both families.
pub const MAX_DISCOVERY: usize = 8;

/// Most services of one registration: one connector forwards to a handful.
pub const MAX_SERVICES: usize = 64;

/// Most guests of one registration: each is an invite that is not yet redeemed.
pub const MAX_GUESTS: usize = 256;

/// Most revoked serial numbers of one registration: with the other lists at their limits it still
/// fits a control frame of 64 KiB.
pub const MAX_REVOKED: usize = 1_000;

/// Longest serial number, in hexadecimal digits: 20 octets (RFC 5280 §4.1.2.2).
pub const MAX_SERIAL: usize = 40;

/// Most connectors that one lookup excludes.
pub const MAX_EXCLUDED: usize = 64;

/// Shortest and longest time between two registrations, in milliseconds: a second, so that a relay
/// cannot make its clients send too often, and an hour.
pub const REFRESH_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// Relay to client, as soon as it is attached and whenever its address changes: how the relay sees
/// it, and how it asks for its address again (docs/protocol.md, "Address discovery").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The source address of the client's packets.
    pub observed: SocketAddr,
    /// The addresses at which the relay answers probes, up to [`MAX_DISCOVERY`] addresses.
    #[serde(default)]
    pub discovery: Vec<SocketAddr>,
    /// Names the client in those probes: 16 hexadecimal digits on the wire.
    #[serde(with = "session")]
    pub session: u64,
    /// Authenticates those probes.
    pub key: DiscoveryKey,
}

impl JsonBody for Welcome {
    fn check(&self) -> Result<(), OutOfRange> {
        reachable(self.observed, "observed")?;
        OutOfRange::unless(self.discovery.len() <= MAX_DISCOVERY, "discovery")?;
        self.discovery.iter().try_for_each(|address| reachable(*address, "discovery"))
    }
}

/// A key that a relay and one client share: 64 lowercase hexadecimal digits on the wire. It is
/// never logged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DiscoveryKey(pub [u8; 32]);

impl fmt::Debug for DiscoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoveryKey(..)")
    }
}

impl Serialize for DiscoveryKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The same digits as those of a digest.
        KeyDigest(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DiscoveryKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        KeyDigest::deserialize(deserializer).map(|KeyDigest(key)| Self(key))
    }
}

/// Client to relay: this client offers services, or refreshes that offer. Sent again before the
/// time in `Registered` is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The connector's name within its mesh, which only one key holds at a time: 1 to 128 bytes of
    /// visible ASCII.
    pub name: String,
    /// The services it offers: up to [`MAX_SERVICES`].
    #[serde(default)]
    pub services: Vec<ServiceName>,
    /// Keys outside the mesh that may connect as well: up to [`MAX_GUESTS`].
    #[serde(default)]
    pub guests: Vec<KeyDigest>,
    /// Serial numbers of certificates of the mesh that may not connect, each in 1 to
    /// `MAX_SERIAL` lowercase hexadecimal digits: up to [`MAX_REVOKED`].
    #[serde(default)]
    pub revoked: Vec<String>,
    /// Whether to replace another connection of the same key.
    #[serde(default)]
    pub takeover: bool,
}

impl JsonBody for Register {
    fn check(&self) -> Result<(), OutOfRange> {
        name(&self.name)?;
        OutOfRange::unless(self.services.len() <= MAX_SERVICES, "services")?;
        OutOfRange::unless(self.guests.len() <= MAX_GUESTS, "guests")?;
        let serials = self.revoked.iter().all(|serial| is_serial(serial));
        OutOfRange::unless(serials && self.revoked.len() <= MAX_REVOKED, "revoked")
    }
}

/// The answer to every accepted [`Register`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The next one should come within this many milliseconds: [`REFRESH_MS`].
    pub refresh_ms: u64,
}

impl JsonBody for Registered {
    fn check(&self) -> Result<(), OutOfRange> {
        OutOfRange::unless(REFRESH_MS.contains(&self.refresh_ms), "refresh_ms")
    }
}

/// Relay to client: it is not registered, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unregistered {
    /// Why: the text of a [`Code`](crate::error::Code), or one of a later version.
    pub code: String,
    /// Why, for a person: up to [`MAX_SENTENCE`] bytes.
    pub message: String,
    /// How long to wait before another try, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Unregistered {
    /// Returns the failure that the relay meant; `unknown` if this version has no such code.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        failure(&self.code, &self.message, self.retry_after_ms)
    }
}

impl From<&Failure> for Unregistered {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.code().as_str().to_owned(),
            message: failure.detail().to_owned(),
            retry_after_ms: failure.retry_after().map(millis),
        }
    }
}

impl JsonBody for Unregistered {
    fn check(&self) -> Result<(), OutOfRange> {
        reason(&self.code, &self.message)
    }
}

/// Client to relay: this client offers no services any more. It has no fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Withdraw {}

impl JsonBody for Withdraw {
    fn check(&self) -> Result<(), OutOfRange> {
        Ok(())
    }
}

/// Client to relay: requests a channel to a connector that offers a service. Answered with
/// [`Matched`] or [`Unmatched`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Chosen by the client, repeated by the answer.
    pub request: u64,
    /// The service looked for.
    pub service: ServiceName,
    /// Connectors to exclude, since they were tried: up to [`MAX_EXCLUDED`].
    #[serde(default)]
    pub exclude: Vec<KeyDigest>,
}

impl JsonBody for Connect {
    fn check(&self) -> Result<(), OutOfRange> {
        OutOfRange::unless(self.exclude.len() <= MAX_EXCLUDED, "exclude")
    }
}

/// The answer to a [`Connect`]: there is a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// The request number of the [`Connect`].
    pub request: u64,
    /// The relay's number for the channel on this connection.
    pub channel: u32,
    /// The name under which the connector is registered.
    pub name: String,
    /// The connector's key, as proven to the relay.
    pub key: KeyDigest,
}

impl JsonBody for Matched {
    fn check(&self) -> Result<(), OutOfRange> {
        name(&self.name)
    }
}

/// The answer to a [`Connect`]: there is no channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmatched {
    /// The request number of the [`Connect`].
    pub request: u64,
    /// Why: the text of a [`Code`](crate::error::Code), or one of a later version.
    pub code: String,
    /// Why, for a person: up to [`MAX_SENTENCE`] bytes.
    pub message: String,
    /// How long to wait before another try, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Unmatched {
    /// Reports that a request failed.
    #[must_use]
    pub fn new(request: u64, failure: &Failure) -> Self {
        Self {
            request,
            code: failure.code().as_str().to_owned(),
            message: failure.detail().to_owned(),
            retry_after_ms: failure.retry_after().map(millis),
        }
    }

    /// Returns the failure that the relay meant; `unknown` if this version has no such code.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        failure(&self.code, &self.message, self.retry_after_ms)
    }
}

impl JsonBody for Unmatched {
    fn check(&self) -> Result<(), OutOfRange> {
        reason(&self.code, &self.message)
    }
}

/// Relay to connector: a client asked for one of its services, and a channel to it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// The relay's number for the channel on this connection.
    pub channel: u32,
    /// The requested service.
    pub service: ServiceName,
    /// The other end's key, as proven to the relay.
    pub key: KeyDigest,
}

impl JsonBody for Incoming {
    fn check(&self) -> Result<(), OutOfRange> {
        Ok(())
    }
}

/// Either direction: a channel is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hangup {
    /// Its number on this connection.
    pub channel: u32,
    /// Why: the text of a [`Code`](crate::error::Code), or one of a later version.
    pub code: String,
    /// Why, for a person: up to [`MAX_SENTENCE`] bytes.
    pub message: String,
}

impl Hangup {
    /// Reports that a channel ended with this failure.
    #[must_use]
    pub fn new(channel: u32, failure: &Failure) -> Self {
        let (code, message) = (failure.code().as_str().to_owned(), failure.detail().to_owned());
        Self { channel, code, message }
    }

    /// Returns the failure that the sender meant; `unknown` if this version has no such code.
    #[must_use]
    pub fn to_failure(&self) -> Failure {
        failure(&self.code, &self.message, None)
    }
}

impl JsonBody for Hangup {
    fn check(&self) -> Result<(), OutOfRange> {
        reason(&self.code, &self.message)
    }
}

/// Checks another node's address: a packet can be sent there, and it has no scope, which only has
/// meaning on one host.
pub(super) fn reachable(address: SocketAddr, field: &'static str) -> Result<(), OutOfRange> {
    let ip = address.ip().to_canonical();
    let scope = match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    let is_host = !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast(ip);
    OutOfRange::unless(is_host && address.port() != 0 && scope == 0, field)
}

const fn is_broadcast(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(v4) => v4.is_broadcast(),
        std::net::IpAddr::V6(_) => false,
    }
}

/// Checks a connector's name. It is shown in logs and terminals.
fn name(name: &str) -> Result<(), OutOfRange> {
    id(name, "name")?;
    OutOfRange::unless(name.bytes().all(|byte| byte.is_ascii_graphic()), "name")
}

fn is_serial(serial: &str) -> bool {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (1..=MAX_SERIAL).contains(&serial.len()) && serial.bytes().all(is_digit)
}

fn reason(why: &str, message: &str) -> Result<(), OutOfRange> {
    code(why)?;
    OutOfRange::unless(message.len() <= MAX_SENTENCE, "message")
}

/// A session as 16 lowercase hexadecimal digits.
mod session {
    use super::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let value = u64::from_str_radix(&text, 16).ok();
        let value = value.filter(|_| text.len() == 16 && text.bytes().all(is_digit));
        value.ok_or_else(|| super::wrong::<D>("16 lowercase hexadecimal digits"))
    }
}

fn wrong<'de, D: Deserializer<'de>>(expected: &str) -> D::Error {
    D::Error::custom(format_args!("expected {expected}"))
}
