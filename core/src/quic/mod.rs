//! The transport: quinn-proto behind our own interface. No code outside this folder names it.
//!
//! Its poll order is encoded once, in [`Endpoint::pump`]: endpoint events to a fixed point, then
//! application events, then the timer. It makes no decision about the tunnel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{ConnectionHandle, DatagramEvent, Dir, StreamEvent};

use crate::admission::{self, Admission};
use crate::clock::WallClock;
use crate::config::{Config, Limits};
use crate::error::{Code, Failure, Misuse};
use crate::fallback::is_tcp_client_address;
use crate::rng::Rng;
use crate::timer::{Deadline, Reason, Timers, earliest};
use crate::tls::{Tls, TlsError, Verifiers};
use crate::transmit::{Datagram, Route, Transmit};

mod arrival;
mod cid;
mod congestion;
mod connection;
mod convert;
mod setup;
mod source;
mod stall;

use arrival::Unproven;
use cid::IssuedCids;
use connection::Allowance;
pub(crate) use connection::{Connection, Read, Write, WriteClass};
use setup::{Setup, UNDERLAY_DATAGRAMS};
use source::PeerSource;
use stall::{Flight, StallGuard};

/// A connection of this endpoint; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// The role of a connection within its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Between two addresses; it carries only its own packets.
    Direct,
    /// To or on a relay: it carries packets of others.
    Underlay,
    /// End to end, over any path: its address is a name that never changes.
    Overlay,
}

/// How a connection is made: its identity, its trust, and its kind.
#[derive(Debug, Clone)]
pub(crate) struct ClientConfig {
    config: quinn_proto::ClientConfig,
    layer: Layer,
}

/// Settings of the connections that a node makes as itself.
struct ClientConfigs {
    direct: ClientConfig,
    overlay: ClientConfig,
}

impl ClientConfigs {
    fn new(setup: &Setup, tls: &Tls, verifiers: &Verifiers) -> Result<Option<Self>, TlsError> {
        if !tls.trust().may_dial() {
            return Ok(None);
        }
        let direct = setup.client(tls, verifiers, Layer::Direct)?;
        Ok(Some(Self { direct, overlay: setup.client(tls, verifiers, Layer::Overlay)? }))
    }
}

/// A batch to send.
#[derive(Debug)]
pub(crate) struct TransmitBatch {
    pub(crate) transmit: Transmit,
    /// Larger than the present packet size of the path: the connection probes for a larger one.
    pub(crate) is_mtu_probe: bool,
}

/// The connection that datagrams arrived for, and whether one of them was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) connection: ConnectionId,
    pub(crate) is_authentic: bool,
}

/// An event of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionEvent {
    /// The handshake is complete and both sides know it.
    Connected,
    /// The peer has another address, and the transport has proven it.
    Moved(SocketAddr),
    /// The connection is over.
    Lost(Failure),
    /// A handshake that the other end began failed.
    Rejected(SocketAddr, Failure),
    /// The peer opened streams.
    Opened,
    /// The peer allows more streams.
    Available,
    /// A stream has data, its end, or its reset.
    Readable(u64),
    /// A stream takes data again.
    Writable(u64),
    /// The peer has acknowledged everything of a finished stream.
    Finished(u64),
    /// The peer wants no more of a stream.
    Stopped(u64, Code),
    /// Datagrams arrived.
    Datagrams,
}

/// Largest batch in bytes: what one UDP send with segmentation offload can carry.
const MAX_BATCH: usize = 65_000;

/// All connections of one socket.
pub(crate) struct Endpoint {
    inner: quinn_proto::Endpoint,
    setup: Setup,
    /// Configurations for dialling, direct and end to end; none where the trust is for accepting
    /// alone.
    clients: Option<ClientConfigs>,
    /// How connections between two addresses, and end-to-end connections, are accepted.
    server: Option<Arc<quinn_proto::ServerConfig>>,
    overlay_server: Option<Arc<quinn_proto::ServerConfig>>,
    issued: IssuedCids,
    known_cids: cid::KnownCids,
    config: Config,
    /// Whether handshakes of others are accepted.
    accepting: bool,
    connections: BTreeMap<ConnectionId, Connection>,
    by_handle: BTreeMap<usize, ConnectionId>,
    next_id: u64,
    admission: Admission,
    /// The handshakes of others in progress, by the numbers of their tickets.
    by_ticket: BTreeMap<u64, ConnectionId>,
    timers: Timers<ConnectionId>,
    events: VecDeque<(ConnectionId, ConnectionEvent)>,
    /// Clients on TCP with an authenticated packet since this was last taken.
    heard_by_tcp: BTreeSet<SocketAddr>,
    sending: VecDeque<ConnectionId>,
    responses: VecDeque<(Transmit, Vec<u8>)>,
    /// Whether the last batch was such an answer.
    has_answered: bool,
    max_segments: usize,
}

impl Endpoint {
    pub(crate) fn new(
        config: &Config,
        verifiers: &Verifiers,
        wall: &WallClock,
        rng: &mut Rng,
    ) -> Result<Self, TlsError> {
        let setup = Setup::new(config, wall, rng);
        let issued = IssuedCids::default();
        let endpoint = Arc::new(setup::endpoint(config, issued.clone(), rng));
        let clients = ClientConfigs::new(&setup, &config.tls, verifiers)?;
        let mut new = Self {
            inner: quinn_proto::Endpoint::new(endpoint, None, true, None),
            setup,
            clients,
            server: None,
            overlay_server: None,
            issued,
            known_cids: cid::KnownCids::default(),
            config: config.clone(),
            accepting: config.listening,
            connections: BTreeMap::new(),
            by_handle: BTreeMap::new(),
            next_id: 0,
            admission: Admission::new(&with_spare(&config.limits)),
            by_ticket: BTreeMap::new(),
            timers: Timers::default(),
            events: VecDeque::new(),
            heard_by_tcp: BTreeSet::new(),
            sending: VecDeque::new(),
            responses: VecDeque::new(),
            has_answered: false,
            max_segments: 1,
        };
        if config.listening {
            new.accept_with(&config.tls, verifiers)?;
        }
        Ok(new)
    }

    /// Accepts handshakes with this identity.
    fn accept_with(&mut self, tls: &Tls, verifiers: &Verifiers) -> Result<(), TlsError> {
        let layer = if self.config.relay.is_some() { Layer::Underlay } else { Layer::Direct };
        let server = self.setup.server(tls, verifiers, layer)?;
        self.overlay_server = Some(self.setup.server(tls, verifiers, Layer::Overlay)?);
        self.server = Some(server.clone());
        self.inner.set_server_config(Some(server));
        Ok(())
    }

    /// Returns how to make a connection with its own identity or trust.
    pub(crate) fn client(
        &self,
        tls: &Tls,
        verifiers: &Verifiers,
        layer: Layer,
    ) -> Result<ClientConfig, TlsError> {
        self.setup.client(tls, verifiers, layer)
    }

    /// Sets how many datagrams one batch may hold.
    pub(crate) const fn set_max_segments(&mut self, segments: usize) {
        self.max_segments = if segments == 0 { 1 } else { segments };
    }

    /// Stops accepting connections; existing ones go on.
    pub(crate) fn stop_accepting(&mut self) {
        self.accepting = false;
        self.inner.set_server_config(None);
    }

    /// Sets the identity and the trust for further handshakes; existing connections go on.
    pub(crate) fn set_tls(&mut self, tls: &Tls, verifiers: &Verifiers) -> Result<(), TlsError> {
        let clients = ClientConfigs::new(&self.setup, tls, verifiers)?;
        if self.accepting {
            self.accept_with(tls, verifiers)?;
        }
        self.clients = clients;
        Ok(())
    }

    /// Returns the number of connections, those draining included.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Returns the results of the handshakes that others began.
    pub(crate) fn admission(&self) -> admission::AdmissionStats {
        self.admission.stats()
    }

    /// Starts a handshake between two addresses, as this node or as `client` specifies.
    pub(crate) fn connect(
        &mut self,
        route: Route,
        server_name: &str,
        client: Option<&ClientConfig>,
        now: Instant,
    ) -> Result<ConnectionId, Misuse> {
        let own = self.clients.as_ref().map(|clients| &clients.direct);
        let client = client.or(own).ok_or(Misuse::NotDialling)?.clone();
        self.begin(client, route.remote, server_name, now)
    }

    /// Starts an end-to-end handshake with a peer that this node names `address`.
    pub(crate) fn connect_overlay(
        &mut self,
        address: SocketAddr,
        server_name: &str,
        now: Instant,
    ) -> Result<ConnectionId, Misuse> {
        let clients = self.clients.as_ref().ok_or(Misuse::NotDialling)?;
        self.begin(clients.overlay.clone(), address, server_name, now)
    }

    fn begin(
        &mut self,
        client: ClientConfig,
        remote: SocketAddr,
        server_name: &str,
        now: Instant,
    ) -> Result<ConnectionId, Misuse> {
        let ClientConfig { mut config, layer } = client;
        let flight = Arc::default();
        config.transport_config(self.setup.transport(layer, &flight, self.next_id));
        let (handle, connection) = self
            .inner
            .connect(now, config, remote, server_name)
            .map_err(|e| convert::misuse(&e))?;
        let id = self.insert((handle, connection), layer, flight, None, now);
        self.pump(id, now);
        Ok(id)
    }

    /// Returns the end-to-end connection that a packet belongs to, regardless of its source
    /// address.
    pub(crate) fn overlay_connection(&self, packet: &[u8]) -> Option<ConnectionId> {
        self.known_cids.find(packet)
    }

    /// Splits a received batch and routes each datagram; returns the connection of the last ones.
    pub(crate) fn handle_datagram(&mut self, datagram: Datagram, now: Instant) -> Option<Received> {
        let Datagram { route: from, ecn, segment_size, mut payload } = datagram;
        // The transport of a dialing side drops what comes from another address than it knows.
        let moved = self.known_cids.find(&payload).and_then(|id| self.connections.get(&id));
        let known = moved.and_then(|connection| connection.followed());
        let route = known.map_or(from, |remote| Route { remote, ..from });
        let mut touched = None;
        while !payload.is_empty() {
            let size = if segment_size == 0 { payload.len() } else { segment_size };
            let one = payload.split_to(size.min(payload.len()));
            let id = self.handle_one(route, ecn.map(convert::ecn_in), one, now);
            // One batch is of one route, and so nearly always of one connection: its machines are
            // polled once for the batch.
            if touched != id {
                if let Some(previous) = touched {
                    self.on_received(previous, from, now);
                }
                touched = id;
            }
        }
        touched.map(|id| self.on_received(id, from, now))
    }

    /// Polls a connection once after a batch of its datagrams.
    fn on_received(&mut self, id: ConnectionId, from: Route, now: Instant) -> Received {
        let mut is_authentic = false;
        if let Some(connection) = self.connections.get_mut(&id) {
            is_authentic = connection.note_heard(now);
            let is_by_tcp = is_tcp_client_address(connection.remote());
            if is_by_tcp && is_authentic && connection.proven {
                self.heard_by_tcp.insert(connection.remote());
            }
            if is_authentic {
                connection.note_source(from, now);
            }
            if let Some(remote) = connection.note_moved() {
                self.events.push_back((id, ConnectionEvent::Moved(remote)));
            }
        }
        self.pump(id, now);
        Received { connection: id, is_authentic }
    }

    fn handle_one(
        &mut self,
        route: Route,
        ecn: Option<quinn_proto::EcnCodepoint>,
        data: BytesMut,
        now: Instant,
    ) -> Option<ConnectionId> {
        let (size, mut answer) = (data.len(), Vec::new());
        let is_handshake = arrival::is_handshake_packet(&data);
        match self.inner.handle(now, route.remote, route.local_ip, ecn, data, &mut answer)? {
            DatagramEvent::ConnectionEvent(handle, event) => {
                let id = *self.by_handle.get(&handle.0)?;
                if !self.is_within_allowance(id, size, now) {
                    return None;
                }
                let connection = self.connections.get_mut(&id)?;
                let frames = connection.received_frames();
                connection.inner.handle_event(event);
                if is_handshake && connection.received_frames() != frames {
                    connection.unproven.iter_mut().for_each(Unproven::note_validated);
                }
                Some(id)
            }
            DatagramEvent::NewConnection(incoming) => self.admit(incoming, size, now),
            DatagramEvent::Response(transmit) => {
                self.respond(&transmit, answer);
                None
            }
        }
    }

    fn insert(
        &mut self,
        (handle, inner): (ConnectionHandle, quinn_proto::Connection),
        layer: Layer,
        flight: Arc<Flight>,
        unproven: Option<Unproven>,
        now: Instant,
    ) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let issued = self.issued.take();
        let source = PeerSource::new(layer == Layer::Direct && inner.side().is_client(), now);
        if layer == Layer::Overlay || source.is_followed() {
            self.known_cids.insert(id, issued);
        }
        self.by_handle.insert(handle.0, id);
        self.connections.insert(
            id,
            Connection {
                handle,
                layer,
                remote: inner.remote_address(),
                inner,
                proven: false,
                establishing: true,
                unproven,
                lost: false,
                streams: Allowance { allowed: 0, most: self.config.transport.max_streams },
                send_windows: self.config.transport.send_windows(),
                interactive_reserve: self.config.transport.interactive_reserve.into(),
                queued: false,
                heard_frames: 0,
                heard_data: 0,
                last_heard: now,
                flight,
                stall: StallGuard::default(),
                pacer: congestion::Pacer::default(),
                mtu_probes: (0, 0),
                source,
                lost_packets: 0,
            },
        );
        id
    }

    /// Handles a failed send. Connections that are pinned to a source address which this host may have
    /// no more leave the choice of another to the system, until their peers send to the first again.
    pub(crate) fn on_send_failed(&mut self, route: Route) {
        if route.local_ip.is_none() {
            return;
        }
        for connection in self.connections.values_mut() {
            if connection.inner.local_ip() == route.local_ip && connection.remote() == route.remote
            {
                connection.source.unpin();
            }
        }
    }

    /// Runs the due timers of the transport.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        // Each connection once: after a leap of the clock a probe may be due again immediately, and
        // only sending it moves its timer on.
        let mut due = Vec::new();
        while let Some((id, _)) = self.timers.pop_due(now) {
            due.push(id);
        }
        for id in due {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.inner.handle_timeout(now);
                connection.on_stall_time(now);
                connection.on_pacing_time(now);
            }
            self.pump(id, now);
            self.end_if_overdue(id, now);
        }
    }

    /// Returns the transport's next timer.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.timers.next()
    }

    /// Returns a connection, if it still exists. Changes go through [`Endpoint::with`] or
    /// [`Endpoint::stream`].
    pub(crate) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// Runs `act` on a connection and then settles its machines.
    pub(crate) fn with<T>(
        &mut self,
        id: ConnectionId,
        now: Instant,
        act: impl FnOnce(&mut Connection) -> T,
    ) -> Option<T> {
        let result = act(self.connections.get_mut(&id)?);
        self.pump(id, now);
        Some(result)
    }

    /// Calls a stream method as [`Endpoint::with`] does. Such calls cannot end a connection or move
    /// its timer before the next transmission, so that only that is scheduled.
    pub(crate) fn stream<T>(
        &mut self,
        id: ConnectionId,
        act: impl FnOnce(&mut Connection) -> T,
    ) -> Option<T> {
        let result = act(self.connections.get_mut(&id)?);
        self.schedule(id);
        Some(result)
    }

    /// Returns the bytes of datagrams that wait to be sent on a connection to a relay.
    pub(crate) fn datagrams_waiting(&mut self, id: ConnectionId) -> usize {
        self.connections.get_mut(&id).map_or(0, Connection::datagrams_waiting)
    }

    /// Takes a client on TCP of which a packet was authenticated.
    pub(crate) fn poll_heard_by_tcp(&mut self) -> Option<SocketAddr> {
        self.heard_by_tcp.pop_first()
    }

    /// Returns the events since the last call.
    pub(crate) fn poll_event(&mut self) -> Option<(ConnectionId, ConnectionEvent)> {
        self.events.pop_front()
    }

    /// Returns the next batch, its bytes appended to the empty `out`. Connections take turns, and
    /// answers to strangers take turns with them, so that a flood of questions does not delay the
    /// data of connections.
    pub(crate) fn poll_transmit(
        &mut self,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Option<TransmitBatch> {
        if !std::mem::take(&mut self.has_answered)
            && let Some(answer) = self.poll_response(out)
        {
            self.has_answered = true;
            return Some(answer);
        }
        while let Some(id) = self.sending.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let mtu = connection.inner.current_mtu();
            let segments = self.max_segments.min(MAX_BATCH / usize::from(mtu).max(1)).max(1);
            let transmit = connection.poll_transmit(segments, out, now);
            connection.queued = transmit.is_some();
            if let Some(transmit) = transmit {
                let is_underlay = connection.layer == Layer::Underlay;
                self.sending.push_back(id);
                let is_mtu_probe = connection::is_mtu_probe(&transmit, mtu);
                let mut transmit = ours(&transmit);
                transmit.route = connection.source.route(transmit.route);
                if is_underlay {
                    // It carries packets of another connection, which would have to be notified.
                    transmit.ecn = None;
                }
                return Some(TransmitBatch { transmit, is_mtu_probe });
            }
            self.settle(id, now);
        }
        self.poll_response(out)
    }

    /// Returns true if there may be a batch to send.
    pub(crate) fn is_sending(&self) -> bool {
        !self.responses.is_empty() || !self.sending.is_empty()
    }

    /// Returns true if the close of a connection is still to be sent to its peer: congestion
    /// control or pacing can hold back earlier data, and the close behind it.
    pub(crate) fn is_closing(&self) -> bool {
        self.connections.values().any(Connection::is_closing)
    }

    fn schedule(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.queued
        {
            connection.queued = true;
            self.sending.push_back(id);
        }
    }

    /// Settles a connection after any call on it, and lets it send.
    fn pump(&mut self, id: ConnectionId, now: Instant) {
        self.settle(id, now);
        self.schedule(id);
    }

    fn settle(&mut self, id: ConnectionId, now: Instant) {
        let mut unproven = None;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        while let Some(event) = connection.inner.poll_endpoint_events() {
            if let Some(event) = self.inner.handle_event(connection.handle, event) {
                connection.inner.handle_event(event);
                let issued = self.issued.take();
                if connection.layer == Layer::Overlay || connection.source.is_followed() {
                    self.known_cids.insert(id, issued);
                }
            }
        }
        while let Some(event) = connection.inner.poll() {
            connection.proven |= matches!(event, quinn_proto::Event::Connected);
            let Some(mut event) = translate(event) else { continue };
            if let ConnectionEvent::Lost(failure) = &mut event {
                connection.lost = true;
                if !connection.proven {
                    *failure = failure.clone().unproven();
                }
                if connection.establishing && connection.inner.side().is_server() {
                    event = ConnectionEvent::Rejected(connection.remote(), failure.clone());
                }
            }
            self.events.push_back((id, event));
        }
        if connection.establishing {
            if connection.lost {
                connection.establishing = false;
            } else if connection.is_confirmed() {
                connection.establishing = false;
                self.events.push_back((id, ConnectionEvent::Connected));
                unproven = connection.unproven.take();
                // A relay only needs the control stream, and has ten thousand clients.
                if connection.layer != Layer::Underlay {
                    connection.allow_streams(setup::STREAMS_OF_A_PEER);
                }
            }
        }
        let is_drained = connection.inner.is_drained();
        if let Some(unproven) = unproven {
            self.release(unproven, now);
        }
        if is_drained {
            return self.remove(id, now);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // A timer that is already past is due now: it is never reported as before the caller's
        // time.
        let own = [connection.stall_due(), connection.pacing_due()];
        let timeout = own.into_iter().chain([connection.inner.poll_timeout()]);
        let timeout = timeout.flatten().min();
        let timeout = timeout.map(|at| (at.max(now), Reason::Transport));
        let handshake = connection.handshake_due().map(|at| (at.max(now), Reason::Connect));
        self.timers.set(id, earliest([timeout, handshake]));
    }

    fn remove(&mut self, id: ConnectionId, now: Instant) {
        if let Some(connection) = self.connections.remove(&id) {
            self.by_handle.remove(&connection.handle.0);
            self.known_cids.remove(id);
            if let Some(unproven) = connection.unproven {
                self.release(unproven, now);
            }
        }
        self.timers.set(id, None);
    }
}

/// Returns the limits of the admission: beyond the peers, handshakes are taken up of those for which
/// another peer may make room, and connections are counted that are about to end.
fn with_spare(limits: &Limits) -> Limits {
    limits.clone().peers(limits.peers.saturating_add(limits.handshakes))
}

fn translate(event: quinn_proto::Event) -> Option<ConnectionEvent> {
    Some(match event {
        quinn_proto::Event::HandshakeDataReady
        | quinn_proto::Event::Connected
        | quinn_proto::Event::DatagramsUnblocked => return None,
        quinn_proto::Event::ConnectionLost { reason } => {
            ConnectionEvent::Lost(convert::failure(&reason))
        }
        quinn_proto::Event::DatagramReceived => ConnectionEvent::Datagrams,
        quinn_proto::Event::Stream(event) => match event {
            StreamEvent::Opened { dir: Dir::Bi } => ConnectionEvent::Opened,
            StreamEvent::Available { dir: Dir::Bi } => ConnectionEvent::Available,
            StreamEvent::Opened { dir: Dir::Uni } | StreamEvent::Available { dir: Dir::Uni } => {
                return None;
            }
            StreamEvent::Readable { id } => ConnectionEvent::Readable(id.into()),
            StreamEvent::Writable { id } => ConnectionEvent::Writable(id.into()),
            StreamEvent::Finished { id } => ConnectionEvent::Finished(id.into()),
            StreamEvent::Stopped { id, error_code } => {
                ConnectionEvent::Stopped(id.into(), Code::from_wire(error_code.into_inner()))
            }
        },
    })
}

fn ours(transmit: &quinn_proto::Transmit) -> Transmit {
    Transmit {
        route: Route { remote: transmit.destination, local_ip: transmit.src_ip },
        ecn: transmit.ecn.map(convert::ecn_out),
        segment_size: transmit.segment_size,
        size: transmit.size,
    }
}
