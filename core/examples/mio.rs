//! The core in an event loop over readiness, here mio's.
//!
//! Dials a connector and sends COUNT lines to an echo service:
//!
//! ```text
//! cargo run -p adit-core --example mio -- \
//!     127.0.0.1:4433 ca.pem cert.pem key.pem connector.example echo 1000
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "an example is a caller of the core: the clock is its own"
)]

mod echo_client;

use std::error::Error;
use std::io::ErrorKind;
use std::time::Instant;

use adit_core::node::{Input, Node, Output};
use adit_core::transmit::{Datagram, Route, Transmit};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use echo_client::{Arguments, EchoClient};

/// Datagrams received in one turn, so that a fast sender cannot keep the node from its deadlines.
const BUDGET: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read()?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(8);
    let mut socket = UdpSocket::bind(arguments.local())?;
    poll.registry().register(&mut socket, Token(0), Interest::READABLE | Interest::WRITABLE)?;
    let (mut node, mut client) = EchoClient::start(arguments, Instant::now())?;
    let mut outgoing = Outgoing::default();
    let mut buffer = vec![0; 65_535];
    loop {
        let is_drained = receive(&socket, &mut buffer, &mut node)?;
        node.handle(Input::Tick, Instant::now());
        outgoing.drain(&mut node, &mut client, &socket)?;
        if client.is_over() {
            return Ok(());
        }
        // Readiness is edge-triggered: what was left unread is not announced again.
        if is_drained {
            // A blocked socket reports when it takes more; until then output would be due
            // immediately.
            let due = if outgoing.blocked.is_some() { None } else { node.deadline() };
            let left = due.map(|(due, _)| due.saturating_duration_since(Instant::now()));
            match poll.poll(&mut events, left) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => done?,
            }
        }
    }
}

/// Receives what the socket has. Returns true if that was everything.
fn receive(socket: &UdpSocket, buffer: &mut [u8], node: &mut Node) -> Result<bool, Box<dyn Error>> {
    for _ in 0..BUDGET {
        match socket.recv_from(buffer) {
            Ok((length, remote)) => {
                let datagram = Datagram {
                    route: Route::to(remote),
                    ecn: None,
                    segment_size: length,
                    payload: buffer[..length].into(),
                };
                node.handle(Input::Datagram(datagram), Instant::now());
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

/// The datagram being sent. If the socket does not take it yet, it is kept with its bytes, and the
/// node is not polled for another until it is sent.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    blocked: Option<Transmit>,
}

impl Outgoing {
    fn drain(
        &mut self,
        node: &mut Node,
        client: &mut EchoClient,
        socket: &UdpSocket,
    ) -> Result<(), Box<dyn Error>> {
        loop {
            let transmit = match self.blocked.take() {
                Some(transmit) => transmit,
                None => match node.poll_output(&mut self.bytes, Instant::now()) {
                    Some(Output::Transmit(transmit)) => transmit,
                    Some(Output::Event(event)) => {
                        client.on_event(node, event, Instant::now())?;
                        continue;
                    }
                    None => return Ok(()),
                },
            };
            match socket.send_to(&self.bytes, transmit.route.remote) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.blocked = Some(transmit);
                    return Ok(());
                }
                Err(e) => {
                    let failed = Input::SendFailed { route: transmit.route, detail: e.to_string() };
                    node.handle(failed, Instant::now());
                }
            }
        }
    }
}
