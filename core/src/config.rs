//! Configuration of a node: parsed, not validated. A [`Config`] that exists can work.
//!
//! Every knob has a default and the reason for it; relations between knobs are checked once, in
//! [`Builder::build`]. It never reads a file or the environment: that is the program's business.

use std::net::SocketAddr;
use std::time::Duration;

use crate::heartbeat;
use crate::message::ServiceName;
use crate::path;
use crate::relay;
use crate::retry;
use crate::tls::Tls;

/// Implements a method for each field of a struct of settings, by which other crates set it: the
/// struct may grow, so that they cannot write it as a literal.
macro_rules! setters {
    ($type:ident { $($field:ident: $value:ty,)* }) => {
        impl $type {
            $(
                #[doc = concat!("Returns these settings with another `", stringify!($field), "`.")]
                #[must_use]
                pub fn $field(mut self, $field: $value) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}
pub(crate) use setters;

/// A configuration that cannot work, and the reason.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value is outside what the protocol or the transport can express.
    #[error("{knob} is {value}, which is outside {allowed}")]
    OutOfRange {
        /// The knob.
        knob: &'static str,
        /// Its value.
        value: String,
        /// The allowed range.
        allowed: &'static str,
    },
    /// Two knobs contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// Sizes and times of the transport below the tunnel.
///
/// quinn-proto's own defaults suit a client; here every one that a peer could abuse is set.
///
/// ```
/// use adit_core::config::Transport;
/// use std::time::Duration;
/// let patient = Transport::default().idle_timeout(Duration::from_secs(300));
/// assert_eq!(patient.idle_timeout.as_secs(), 300);
/// assert_eq!(patient.keep_alive, Transport::default().keep_alive);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Transport {
    /// A packet at least this often, so that NAT bindings and the peer's idle timer live: 10 s,
    /// below the 30 s that the shortest common UDP bindings last (RFC 4787 §4.3).
    pub keep_alive: Duration,
    /// Without any packet for this long the connection is lost: 60 s, five keep-alives.
    pub idle_timeout: Duration,
    /// A handshake that is not complete by then has failed: 30 s.
    pub connect_timeout: Duration,
    /// Bytes of one stream that the transport may hold or have in flight: 16 MiB, 1 Gbit/s over 100
    /// ms. A sender that is a node uses as much only while the reader keeps up.
    pub stream_window: u32,
    /// Unread bytes all streams of one connection may hold: 64 MiB, and 8 KiB of each stream in
    /// addition, so that streams which nobody reads never stop the others. It is the limit of the
    /// data that a peer can make this node store in streams.
    pub connection_window: u32,
    /// Bytes written and not yet acknowledged, for bulk: 8 MiB at least, 64 MB/s over 125 ms.
    pub send_window: u32,
    /// The same at most, where the congestion window allows more: 32 MiB, 1 Gbit/s over 125 ms and
    /// as much again to be sent.
    pub max_send_window: u32,
    /// Bytes that interactive streams may write beyond `send_window`: 1 MiB, so that a small
    /// request never waits for a large one's acknowledgements.
    pub interactive_reserve: u32,
    /// Streams a peer may have open: 1,024.
    pub max_streams: u32,
    /// Bytes of received datagrams kept for the application, each counted with 64 more: 1 MiB;
    /// beyond it the oldest are dropped.
    pub datagram_receive_buffer: u32,
    /// Bytes of datagrams waiting to be sent: 1 MiB; then the oldest go.
    pub datagram_send_buffer: u32,
    /// Largest UDP payload that path MTU discovery tries: 16,336 bytes, so that four fill one GSO
    /// batch. Paths that carry less settle on what they carry.
    pub max_udp_payload: u16,
    /// How the sending rate follows the path: BBR, which loss that is not congestion does not slow
    /// down.
    pub congestion: Congestion,
}

setters!(Transport {
    keep_alive: Duration,
    idle_timeout: Duration,
    connect_timeout: Duration,
    stream_window: u32,
    connection_window: u32,
    send_window: u32,
    max_send_window: u32,
    interactive_reserve: u32,
    max_streams: u32,
    datagram_receive_buffer: u32,
    datagram_send_buffer: u32,
    max_udp_payload: u16,
    congestion: Congestion,
});

/// Bytes of a stream that a sender may always leave unread, outside the budget of the connection.
pub(crate) const STREAM_RESERVE: u32 = 8 << 10;

impl Transport {
    /// Returns the smallest and the largest window for what is written and not acknowledged.
    pub(crate) const fn send_windows(&self) -> (u64, u64) {
        let least = self.send_window as u64;
        let most = self.max_send_window as u64;
        (least, if most > least { most } else { least })
    }

    /// Returns the window that the transport advertises for a whole connection: its budget, and a
    /// little of every stream.
    pub(crate) const fn receive_window(&self) -> u32 {
        self.connection_window.saturating_add(self.max_streams.saturating_mul(STREAM_RESERVE))
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(30),
            stream_window: 16 << 20,
            connection_window: 64 << 20,
            send_window: 8 << 20,
            max_send_window: 32 << 20,
            interactive_reserve: 1 << 20,
            max_streams: 1_024,
            datagram_receive_buffer: 1 << 20,
            datagram_send_buffer: 1 << 20,
            max_udp_payload: 16_336,
            congestion: Congestion::Bbr,
        }
    }
}

/// A congestion controller. Between hosts less than 5 ms apart both are Cubic with a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Congestion {
    /// By a model of the path: its rate and its round trip (draft-ietf-ccwg-bbr).
    #[default]
    Bbr,
    /// By loss (RFC 9438).
    Cubic,
}

/// Limits on the resources that peers can use at this node.
///
/// ```
/// use adit_core::config::Limits;
/// let small = Limits::default().peers(100).handshakes(16);
/// assert_eq!((small.peers, small.handshakes), (100, 16));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most peers, dialled and accepted: 16,384. Above it, the newest connection of the source or
    /// the mesh with the most ends for one that would have fewer; others are refused.
    pub peers: usize,
    /// Connections of one key: 8, the programs that a device runs at the same time. One more is
    /// refused, unless one of them has been silent for 12 s and makes room: a device that was killed
    /// gets in.
    pub connections_of_a_key: usize,
    /// The same for a guest, which redeems an invite: 2, one of them from an earlier try.
    pub connections_of_a_guest: usize,
    /// Handshakes in progress that others began, in all: 512. Each takes about 45 KiB before the
    /// peer is authenticated, so that they stay below 32 MiB together. Above it, the oldest of
    /// the source with the most ends for a source without any.
    pub handshakes: usize,
    /// Handshakes in progress above which an address must prove itself with a Retry (RFC 9000
    /// §8.1.2): 128, a quarter of all, so that sources that never prove theirs leave room.
    pub handshakes_before_retry: usize,
    /// Handshakes that one proven source, an IPv4 address or an IPv6 /64, may have in progress
    /// while few are: 32, which is 160 devices a second from behind one NAT at 100 ms of round
    /// trip. The more are in progress, the fewer of them one source may have.
    pub handshakes_per_source: usize,
    /// Handshakes a second that one proven source may begin, and that all unproven sources may
    /// begin together while no proof is required: 64, a small part of a core. A burst may be twice
    /// as large.
    pub handshakes_per_second: u32,
    /// Time within which a peer has to finish a handshake it began: 10 s, several losses on a bad
    /// mobile link.
    pub handshake_timeout: Duration,
    /// Bytes a peer may send before it is known: 64 KiB, two large certificate chains with every
    /// packet sent several times.
    pub handshake_bytes: usize,
    /// Bytes of request bodies that one peer's requests may make this node hold: 32 MiB, three of
    /// the largest. Above it further bodies stay unread, and QUIC's flow control holds them back.
    pub request_bytes: usize,
    /// The same for a guest, which only redeems an invite: 256 KiB. One body is always accepted.
    pub request_bytes_of_a_guest: usize,
    /// The same for all peers: 256 MiB. Above it, the connection that holds the most of the key that
    /// holds the most is closed, and what it holds is freed.
    pub request_bytes_in_all: usize,
    /// Time a peer has to send the header of a stream it opened: 10 s.
    pub header_timeout: Duration,
}

setters!(Limits {
    peers: usize,
    connections_of_a_key: usize,
    connections_of_a_guest: usize,
    handshakes: usize,
    handshakes_before_retry: usize,
    handshakes_per_source: usize,
    handshakes_per_second: u32,
    handshake_timeout: Duration,
    handshake_bytes: usize,
    request_bytes: usize,
    request_bytes_of_a_guest: usize,
    request_bytes_in_all: usize,
    header_timeout: Duration,
});

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers: 16_384,
            connections_of_a_key: 8,
            connections_of_a_guest: 2,
            handshakes: 512,
            handshakes_before_retry: 128,
            handshakes_per_source: 32,
            handshakes_per_second: 64,
            handshake_timeout: Duration::from_secs(10),
            handshake_bytes: 64 << 10,
            request_bytes: 32 << 20,
            request_bytes_of_a_guest: 256 << 10,
            request_bytes_in_all: 256 << 20,
            header_timeout: Duration::from_secs(10),
        }
    }
}

/// Everything a node needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) tls: Tls,
    pub(crate) device_id: String,
    pub(crate) listening: bool,
    pub(crate) relay: Option<relay::RelayConfig>,
    pub(crate) path: path::PathConfig,
    pub(crate) transport: Transport,
    pub(crate) limits: Limits,
    pub(crate) heartbeat: heartbeat::HeartbeatConfig,
    pub(crate) retry: retry::Policy,
    pub(crate) request_timeout: Duration,
    pub(crate) drain: Duration,
}

impl Config {
    /// Starts from the defaults.
    pub fn builder(tls: Tls) -> Builder {
        Builder(Self {
            tls,
            device_id: "device".into(),
            listening: false,
            relay: None,
            path: path::PathConfig::default(),
            transport: Transport::default(),
            limits: Limits::default(),
            heartbeat: heartbeat::HeartbeatConfig::default(),
            retry: retry::Policy::default(),
            request_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        })
    }

    /// Returns the same, accepting connections.
    #[must_use]
    pub const fn accepting(mut self) -> Self {
        self.listening = true;
        self
    }

    /// Returns the same with another identity or another trust.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }
}

/// Collects the knobs; [`Builder::build`] checks how they fit together.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder(Config);

impl Builder {
    /// Sets the name this node gives itself in heartbeats, at most 128 bytes: `device`. It is not
    /// authenticated; authorisation reads the certificate.
    pub fn device_id(mut self, id: impl Into<String>) -> Self {
        self.0.device_id = id.into();
        self
    }

    /// Sets whether connections are accepted. Default: no.
    pub const fn listening(mut self, listening: bool) -> Self {
        self.0.listening = listening;
        self
    }

    /// Makes the node a relay, which accepts every client that its trust admits and passes packets
    /// between them. Default: not a relay.
    pub fn relay(mut self, relay: relay::RelayConfig) -> Self {
        self.0.relay = Some(relay);
        self.0.listening = true;
        self
    }

    /// How paths to peers behind a relay are found and chosen.
    pub fn path(mut self, path: path::PathConfig) -> Self {
        self.0.path = path;
        self
    }

    /// Sizes and times of the transport.
    pub const fn transport(mut self, transport: Transport) -> Self {
        self.0.transport = transport;
        self
    }

    /// Sets the limits on the resources that peers can use.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.0.limits = limits;
        self
    }

    /// Sets the heartbeat schedule.
    pub fn heartbeat(mut self, heartbeat: heartbeat::HeartbeatConfig) -> Self {
        self.0.heartbeat = heartbeat;
        self
    }

    /// Sets the reconnect policy of dialled peers without their own. Default: unlimited
    /// ([`retry::Policy::persistent`]).
    pub fn retry(mut self, retry: retry::Policy) -> Self {
        self.0.retry = retry;
        self
    }

    /// Sets how long a request without its own deadline may take: 60 s.
    pub const fn request_timeout(mut self, timeout: Duration) -> Self {
        self.0.request_timeout = timeout;
        self
    }

    /// Sets how long a shutdown waits for open streams and requests: 5 s.
    pub const fn drain(mut self, drain: Duration) -> Self {
        self.0.drain = drain;
        self
    }

    /// Returns the configuration, if it can work.
    ///
    /// # Errors
    /// [`ConfigError`] names the knob and its allowed range.
    pub fn build(self) -> Result<Config, ConfigError> {
        let c = self.0;
        let t = &c.transport;
        in_range("device_id length", c.device_id.len(), 1, 128, "1 to 128 bytes")?;
        in_range("max_udp_payload", t.max_udp_payload.into(), 1_200, 65_487, "1,200 to 65,487")?;
        in_range("stream_window", t.stream_window as usize, 16_384, 1 << 28, "16 KiB to 256 MiB")?;
        in_range("max_streams", t.max_streams as usize, 2, 1 << 20, "2 to 1,048,576")?;
        let idle = usize::try_from(t.idle_timeout.as_millis()).unwrap_or(usize::MAX);
        in_range("idle_timeout", idle, 1, 86_400_000, "1 ms to one day")?;
        for (knob, time) in [
            ("keep_alive", t.keep_alive),
            ("connect_timeout", t.connect_timeout),
            ("handshake_timeout", c.limits.handshake_timeout),
            ("header_timeout", c.limits.header_timeout),
            ("request_timeout", c.request_timeout),
        ] {
            let millis = usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
            in_range(knob, millis, 1, 86_400_000, "1 ms to one day")?;
        }
        let most = "1 to 65,536";
        for (knob, connections) in [
            ("connections_of_a_key", c.limits.connections_of_a_key),
            ("connections_of_a_guest", c.limits.connections_of_a_guest),
        ] {
            in_range(knob, connections, 1, 65_536, most)?;
        }
        in_range("handshakes", c.limits.handshakes, 1, 65_536, most)?;
        in_range("handshakes_per_source", c.limits.handshakes_per_source, 1, 65_536, most)?;
        in_range(
            "handshakes_per_second",
            c.limits.handshakes_per_second as usize,
            1,
            65_536,
            most,
        )?;
        in_range("handshake_bytes", c.limits.handshake_bytes, 8_192, 1 << 24, "8 KiB to 16 MiB")?;
        let drain = usize::try_from(c.drain.as_millis()).unwrap_or(usize::MAX);
        in_range("drain", drain, 0, 86_400_000, "at most one day")?;
        if t.connection_window < t.stream_window {
            return Err(ConfigError::Contradiction(
                "connection_window is smaller than stream_window: one stream could never fill its own",
            ));
        }
        if t.keep_alive >= t.idle_timeout {
            return Err(ConfigError::Contradiction(
                "keep_alive is not shorter than idle_timeout: an idle connection would be lost",
            ));
        }
        Ok(c)
    }
}

fn in_range(
    knob: &'static str,
    value: usize,
    low: usize,
    high: usize,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { knob, value: value.to_string(), allowed })
}

/// Where a peer is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// At an address.
    Address(SocketAddr),
    /// At an address, and it is a relay.
    Relay(SocketAddr),
    /// Through any of this node's relays that knows the service.
    Service(ServiceName),
}

/// A peer to dial.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where the peer is found.
    pub to: Destination,
    /// The name its certificate must carry.
    pub server_name: String,
    /// How to come back after a loss; `None` takes the node's own policy, by default one without
    /// end.
    pub retry: Option<retry::Policy>,
    /// This node's identity towards the peer, and its trust; `None` uses the node's own.
    pub tls: Option<Tls>,
}

impl Dial {
    /// Returns a peer at an address, under the node's own reconnect policy.
    #[must_use]
    pub fn new(address: SocketAddr, server_name: impl Into<String>) -> Self {
        Self::to(Destination::Address(address), server_name)
    }

    /// Returns a relay at an address, for as long as the node lives. It belongs to no mesh, so that
    /// trust in it is its own; `tls` presents this node's certificate followed by that of its CA.
    #[must_use]
    pub fn relay(address: SocketAddr, server_name: impl Into<String>, tls: Tls) -> Self {
        let retry = Some(retry::Policy::steady());
        Self { retry, tls: Some(tls), ..Self::to(Destination::Relay(address), server_name) }
    }

    /// Returns a connector by a service that it offers, through the relays that this node has
    /// dialled, and directly as soon as that can be. It is dialled when the first of them knows it.
    #[must_use]
    pub fn service(service: ServiceName, server_name: impl Into<String>) -> Self {
        Self::to(Destination::Service(service), server_name)
    }

    /// Returns its address, if it is found at one.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self.to {
            Destination::Address(address) | Destination::Relay(address) => Some(address),
            Destination::Service(_) => None,
        }
    }

    fn to(to: Destination, server_name: impl Into<String>) -> Self {
        Self { to, server_name: server_name.into(), retry: None, tls: None }
    }
}
