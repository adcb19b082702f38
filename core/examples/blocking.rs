//! The core in a plain loop: one thread, one blocking socket, no runtime.
//!
//! Dials a connector and sends COUNT lines to an echo service:
//!
//! ```text
//! cargo run -p adit-core --example blocking -- \
//!     127.0.0.1:4433 ca.pem cert.pem key.pem connector.example echo 1000
//! ```
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an example is a caller of the core: socket and clock are its own"
)]

mod echo_client;

use std::error::Error;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use adit_core::node::{Input, Node, Output};
use adit_core::transmit::{Datagram, Route};

use echo_client::{Arguments, EchoClient};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read()?;
    let socket = UdpSocket::bind(arguments.local())?;
    let (mut node, mut client) = EchoClient::start(arguments, Instant::now())?;
    let mut out = Vec::new();
    let mut buffer = vec![0; 65_535];
    loop {
        drain(&mut node, &mut client, &socket, &mut out)?;
        if client.is_over() {
            return Ok(());
        }
        let input = receive(&socket, &mut buffer, time_left(&node))?;
        node.handle(input, Instant::now());
    }
}

/// Carries out everything the node requests.
fn drain(
    node: &mut Node,
    client: &mut EchoClient,
    socket: &UdpSocket,
    out: &mut Vec<u8>,
) -> Result<(), Box<dyn Error>> {
    while let Some(output) = node.poll_output(out, Instant::now()) {
        match output {
            Output::Event(event) => client.on_event(node, event, Instant::now())?,
            Output::Transmit(transmit) => {
                if let Err(error) = socket.send_to(out, transmit.route.remote) {
                    let detail = error.to_string();
                    let failed = Input::SendFailed { route: transmit.route, detail };
                    node.handle(failed, Instant::now());
                }
            }
        }
    }
    Ok(())
}

/// Returns the time until the node's next deadline.
fn time_left(node: &Node) -> Option<Duration> {
    node.deadline().map(|(due, _)| due.saturating_duration_since(Instant::now()))
}

/// Waits for a datagram, or until the time is up.
fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    left: Option<Duration>,
) -> Result<Input, Box<dyn Error>> {
    // The socket takes a timeout of zero to mean none.
    socket.set_read_timeout(left.map(|left| left.max(Duration::from_micros(1))))?;
    match socket.recv_from(buffer) {
        Ok((length, remote)) => Ok(Input::Datagram(Datagram {
            route: Route::to(remote),
            ecn: None,
            segment_size: length,
            payload: buffer[..length].into(),
        })),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(Input::Tick)
        }
        Err(e) => Err(e.into()),
    }
}
