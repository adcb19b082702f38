//! The limits of a relay. Every knob has a default and the reason for it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::held::HeldLimits;
use crate::config::{ConfigError, setters};
use crate::message::{MAX_DISCOVERY, REFRESH_MS};
use crate::tls::KeyDigest;
use crate::token_bucket::Rate;

/// Refresh intervals without a registration after which it ends: two refreshes may be lost.
pub(super) const REFRESHES_UNTIL_EXPIRY: u32 = 3;

/// The longest wait of a lookup: a client gives an attempt to connect up after 10 s.
const LONGEST_LOOKUP_WAIT: Duration = Duration::from_secs(5);

/// Connectors of one mesh that may offer one service, and connectors that may admit one guest: a
/// lookup checks each of them.
pub const MAX_OFFERS: usize = 64;

/// The limits of a relay for its clients, and how long a client may be silent.
///
/// ```
/// use adit_core::relay::RelayConfig;
/// let small = RelayConfig::default().clients(100).guests(0);
/// assert_eq!((small.clients, small.check()), (100, Ok(())));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayConfig {
    /// The meshes with access to the relay, each by the key of its CA; `None` admits any, since a
    /// relay reads no payload and grants only the forwarding of packets. Guests come with a mesh:
    /// they are those that a registered connector lists.
    pub meshes: Option<BTreeSet<KeyDigest>>,
    /// The devices with access to the relay besides, each by its key, whatever their mesh; `None`
    /// admits any if `meshes` does.
    pub keys: Option<BTreeSet<KeyDigest>>,
    /// The addresses at which the relay answers discovery, as clients reach it, up to
    /// [`MAX_DISCOVERY`] addresses. Default: none, since the relay cannot find them out itself.
    pub discovery: Vec<SocketAddr>,
    /// Concurrent clients: 16,384, as many as a node has peers.
    pub clients: usize,
    /// Concurrent clients without a mesh: 1,024. They cannot do anything unless a connector lists
    /// them; one that is listed is admitted beyond this limit.
    pub guests: usize,
    /// Services, guests and revoked serial numbers of all registrations together: 262,144, sixteen
    /// for each client, so that many large registrations take no more than about 64 MiB.
    pub entries: usize,
    /// Channels that one client may have requested: 64, more than a device has connectors.
    pub channels: usize,
    /// Channels of other clients to one connector: 4,096, a quarter of the clients.
    pub channels_of_a_connector: usize,
    /// Channels between the same two clients: 8, so that one device cannot use up a connector's
    /// limit.
    pub channels_of_a_pair: usize,
    /// Lookups a second of one client: 10, more services than a returning device has to find.
    pub connects_per_second: u32,
    /// Concurrent lookups of one client: 64, one for each channel.
    pub connects_at_once: u32,
    /// How long a lookup without a match waits for a connector to register before it is answered:
    /// 2 s, the time a program takes to start again. 0 s answers immediately. An agent that starts
    /// together with its connector is connected as soon as that is registered.
    pub lookup_wait: Duration,
    /// Lookups of one client that wait: 4, more services than a device looks up at the same time.
    /// Those beyond it are answered immediately.
    pub held_lookups_of_a_client: usize,
    /// Lookups of all clients that wait: 4,096, a quarter of the clients, at up to 800
    /// bytes each.
    pub held_lookups: usize,
    /// Channels a second that are offered to one connector: 50, half of the control frames that it
    /// takes from a peer.
    pub incoming_per_second: u32,
    /// Burst of channels that are offered to one connector: 500, since its devices come back
    /// together.
    pub incoming_at_once: u32,
    /// Bytes a second that one client may have forwarded: 125 MB, a gigabit. This is not a fair
    /// share of a line but the limit of what one client can cost; the queues provide fairness.
    pub bytes_per_second: u64,
    /// Bytes a second that all clients may have forwarded together; `None`, the default, is without
    /// a limit, since the relay does not know the price of its line. A burst may be as much as one
    /// second.
    pub bytes_per_second_in_all: Option<u64>,
    /// Burst of bytes that one client may have forwarded: 2 MiB, a window of 100 ms at 160 Mbit/s.
    pub bytes_at_once: u64,
    /// Bytes that may wait for one client, each packet with 64 more: 1 MiB, 80 ms at 100 Mbit/s.
    pub queue_bytes: usize,
    /// Bytes of one sender that may wait for one client: 512 KiB, so that a second sender finds
    /// room.
    pub queue_bytes_of_a_source: usize,
    /// Bytes that may wait for all clients: 64 MiB, for a whole network that is silent.
    pub queue_bytes_in_all: usize,
    /// A connector has to register again within this time, and is removed after three of them: 30
    /// s, the time in which a connection notices that its peer has vanished.
    pub refresh: Duration,
    /// How long clients should stay away when the relay shuts down: 2 s, the time a program takes
    /// to start again.
    pub come_back_after: Duration,
}

setters!(RelayConfig {
    meshes: Option<BTreeSet<KeyDigest>>,
    keys: Option<BTreeSet<KeyDigest>>,
    discovery: Vec<SocketAddr>,
    clients: usize,
    guests: usize,
    entries: usize,
    channels: usize,
    channels_of_a_connector: usize,
    channels_of_a_pair: usize,
    connects_per_second: u32,
    connects_at_once: u32,
    lookup_wait: Duration,
    held_lookups_of_a_client: usize,
    held_lookups: usize,
    incoming_per_second: u32,
    incoming_at_once: u32,
    bytes_per_second: u64,
    bytes_per_second_in_all: Option<u64>,
    bytes_at_once: u64,
    queue_bytes: usize,
    queue_bytes_of_a_source: usize,
    queue_bytes_in_all: usize,
    refresh: Duration,
    come_back_after: Duration,
});

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            meshes: None,
            keys: None,
            discovery: Vec::new(),
            clients: 16_384,
            guests: 1_024,
            entries: 262_144,
            channels: 64,
            channels_of_a_connector: 4_096,
            channels_of_a_pair: 8,
            connects_per_second: 10,
            connects_at_once: 64,
            lookup_wait: Duration::from_secs(2),
            held_lookups_of_a_client: 4,
            held_lookups: 4_096,
            incoming_per_second: 50,
            incoming_at_once: 500,
            bytes_per_second: 125_000_000,
            bytes_per_second_in_all: None,
            bytes_at_once: 2 << 20,
            queue_bytes: 1 << 20,
            queue_bytes_of_a_source: 512 << 10,
            queue_bytes_in_all: 64 << 20,
            refresh: Duration::from_secs(30),
            come_back_after: Duration::from_secs(2),
        }
    }
}

impl RelayConfig {
    /// Checks whether it can work.
    ///
    /// # Errors
    /// [`ConfigError`] names the knob and its allowed range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let millis = u64::try_from(self.refresh.as_millis()).unwrap_or(u64::MAX);
        out_of_range(
            "refresh",
            format!("{:?}", self.refresh),
            REFRESH_MS.contains(&millis),
            "1 s to 1 h",
        )?;
        out_of_range(
            "lookup_wait",
            format!("{:?}", self.lookup_wait),
            self.lookup_wait <= LONGEST_LOOKUP_WAIT,
            "0 s to 5 s",
        )?;
        let addresses = self.discovery.len();
        let fits = addresses <= MAX_DISCOVERY;
        out_of_range("discovery", addresses.to_string(), fits, "at most 8 addresses")?;
        let (rate, burst) = (self.bytes_per_second, self.bytes_at_once);
        out_of_range("bytes_per_second", rate.to_string(), rate >= 1_500, "1,500 or more")?;
        out_of_range("bytes_at_once", burst.to_string(), burst >= 65_536, "64 KiB or more")?;
        for (knob, bytes) in [
            ("queue_bytes", self.queue_bytes),
            ("queue_bytes_of_a_source", self.queue_bytes_of_a_source),
            ("queue_bytes_in_all", self.queue_bytes_in_all),
        ] {
            out_of_range(knob, bytes.to_string(), bytes >= 16 << 10, "16 KiB or more")?;
        }
        if self.queue_bytes_of_a_source > self.queue_bytes
            || self.queue_bytes > self.queue_bytes_in_all
        {
            return Err(ConfigError::Contradiction(
                "queue_bytes is not between queue_bytes_of_a_source and queue_bytes_in_all",
            ));
        }
        Ok(())
    }

    /// Returns true if a device of a mesh may use the relay.
    pub(super) fn admits(&self, mesh: &KeyDigest, key: &KeyDigest) -> bool {
        let is_mesh = self.meshes.as_ref().map(|meshes| meshes.contains(mesh));
        let is_key = self.keys.as_ref().map(|keys| keys.contains(key));
        match (is_mesh, is_key) {
            (None, None) => true,
            (is_mesh, is_key) => is_mesh.unwrap_or(false) || is_key.unwrap_or(false),
        }
    }

    /// Returns the lifetime of a registration since its last refresh.
    pub(super) fn expiry(&self) -> Duration {
        self.refresh.saturating_mul(REFRESHES_UNTIL_EXPIRY)
    }

    pub(super) fn refresh_ms(&self) -> u64 {
        let millis = u64::try_from(self.refresh.as_millis()).unwrap_or(u64::MAX);
        millis.clamp(*REFRESH_MS.start(), *REFRESH_MS.end())
    }

    pub(super) fn connects(&self) -> Rate {
        Rate::per_second(self.connects_per_second, self.connects_at_once)
    }

    pub(super) const fn held(&self) -> HeldLimits {
        HeldLimits { of_a_client: self.held_lookups_of_a_client, in_all: self.held_lookups }
    }

    pub(super) fn incoming(&self) -> Rate {
        Rate::per_second(self.incoming_per_second, self.incoming_at_once)
    }
}

fn out_of_range(
    knob: &'static str,
    value: String,
    is_within: bool,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    if is_within { Ok(()) } else { Err(ConfigError::OutOfRange { knob, value, allowed }) }
}
