//! What both examples have in common: the arguments, and an application that sends numbered lines
//! to an echo service and checks what comes back. It is pure, as the node is: the loops around it
//! own the socket and the clock.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use std::time::{Instant, SystemTime};

use adit_core::config::{Config, Dial};
use adit_core::error::Code;
use adit_core::event::Event;
use adit_core::id::{PeerId, StreamId};
use adit_core::lifecycle::State;
use adit_core::message::ServiceName;
use adit_core::node::{Node, Start};
use adit_core::tls::{Identity, Tls, Trust, default_provider};
use bytes::{Bytes, BytesMut};

const USAGE: &str = "arguments: ADDRESS CA.pem CERT.pem KEY.pem SERVER_NAME SERVICE COUNT";

/// The command line.
pub(crate) struct Arguments {
    address: SocketAddr,
    config: Config,
    server_name: String,
    service: ServiceName,
    count: usize,
}

impl Arguments {
    /// Reads the command line and the files it names.
    pub(crate) fn read() -> Result<Self, Box<dyn Error>> {
        let all: Vec<String> = std::env::args().skip(1).collect();
        let [address, ca, cert, key, server_name, service, count] = all.as_slice() else {
            return Err(USAGE.into());
        };
        let identity = Identity::from_pem(&std::fs::read(cert)?, &std::fs::read(key)?)?;
        let trust = Trust::from_pem(&std::fs::read(ca)?)?;
        Ok(Self {
            address: address.parse()?,
            config: Config::builder(Tls::new(identity, trust)).build()?,
            server_name: server_name.clone(),
            service: service.parse()?,
            count: count.parse()?,
        })
    }

    /// Returns the address to bind to reach the connector.
    pub(crate) fn local(&self) -> SocketAddr {
        let ip = match self.address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(ip, 0)
    }
}

/// Sends lines, and compares what comes back.
pub(crate) struct EchoClient {
    service: ServiceName,
    peer: PeerId,
    stream: Option<StreamId>,
    unsent: Bytes,
    expected: Bytes,
    is_over: bool,
}

impl EchoClient {
    /// Returns a node that is dialling, and its client.
    pub(crate) fn start(
        arguments: Arguments,
        now: Instant,
    ) -> Result<(Node, Self), Box<dyn Error>> {
        let mut seed = [0; 32];
        default_provider().secure_random.fill(&mut seed).map_err(|_| "no random bytes")?;
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let mut node = Node::new(arguments.config, Start { seed, now, unix })?;
        let peer = node.dial(Dial::new(arguments.address, arguments.server_name), now)?;
        let lines: BytesMut =
            (0..arguments.count).flat_map(|i| format!("message {i}\n").into_bytes()).collect();
        let lines = lines.freeze();
        let client = Self {
            service: arguments.service,
            peer,
            stream: None,
            unsent: lines.clone(),
            expected: lines,
            is_over: false,
        };
        Ok((node, client))
    }

    /// Returns true if the node has emitted its last event.
    pub(crate) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Responds to an event.
    #[expect(clippy::wildcard_enum_match_arm, reason = "an application picks the events it needs")]
    pub(crate) fn on_event(
        &mut self,
        node: &mut Node,
        event: Event,
        now: Instant,
    ) -> Result<(), Box<dyn Error>> {
        match event {
            Event::Transition { transition, .. } => match transition.to {
                State::Connected { .. } => self.open(node)?,
                State::Failed { error, .. } => return Err(error.into()),
                State::Reconnecting { last_error, .. } => return Err(last_error.into()),
                State::Disconnected | State::Connecting { .. } => {}
            },
            Event::StreamsAvailable { .. } => self.open(node)?,
            Event::StreamWritable { .. } => self.write(node)?,
            Event::StreamReadable { stream } => self.read(node, stream, now)?,
            Event::ShutDown => self.is_over = true,
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, node: &mut Node) -> Result<(), Box<dyn Error>> {
        if self.stream.is_none() {
            self.stream = node.open(self.peer, self.service.clone())?;
        }
        self.write(node)
    }

    fn write(&mut self, node: &mut Node) -> Result<(), Box<dyn Error>> {
        let Some(stream) = self.stream else { return Ok(()) };
        while !self.unsent.is_empty() {
            match node.stream(stream).write(&mut self.unsent) {
                Poll::Ready(written) => written?,
                Poll::Pending => return Ok(()),
            };
        }
        Ok(())
    }

    fn read(
        &mut self,
        node: &mut Node,
        stream: StreamId,
        now: Instant,
    ) -> Result<(), Box<dyn Error>> {
        while !self.expected.is_empty()
            && let Poll::Ready(chunk) = node.stream(stream).read(usize::MAX)
        {
            let chunk = chunk?.ok_or("the service ended the stream")?;
            if !self.expected.starts_with(&chunk) {
                return Err("the service sent something else back".into());
            }
            self.expected = self.expected.slice(chunk.len()..);
            if self.expected.is_empty() {
                println!("all messages came back");
                // The service ends its direction when it chooses.
                node.stream(stream).finish()?;
                node.stream(stream).stop(Code::Closed);
                node.shutdown(now);
            }
        }
        Ok(())
    }
}
