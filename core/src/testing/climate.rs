//! The differences between worlds: configurations, network conditions, and forged packets.
//!
//! It decides the variants that worlds choose from, never which one is chosen.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use bytes::BytesMut;

use super::link::{Conditions, Loss};
use crate::config::{Builder, Limits, Transport};
use crate::heartbeat;
use crate::retry::Policy;
use crate::rng::Rng;
use crate::transmit::{Datagram, Route};

pub(super) fn limits(small: bool) -> Limits {
    let request_bytes = if small { 60_000 } else { Limits::default().request_bytes };
    Limits { request_bytes, ..Limits::default() }
}

pub(super) fn configure(
    builder: Builder,
    few: bool,
    small: bool,
    quick: bool,
    gives_up: bool,
) -> Builder {
    let mut transport = Transport::default();
    if few {
        transport.max_streams = 4;
    }
    if small {
        transport.stream_window = 32_768;
        transport.connection_window = 100_000;
        transport.send_window = 65_536;
        transport.interactive_reserve = 16_384;
        transport.datagram_receive_buffer = 5_000;
    }
    let mut builder = builder.transport(transport).limits(limits(small));
    if quick {
        let beats = heartbeat::HeartbeatConfig::builder()
            .interval(Duration::from_secs(2))
            .ack_within(Duration::from_secs(1))
            .dead_after(Duration::from_secs(4));
        builder = builder.heartbeat(beats.build().expect("the times fit"));
    }
    let retry = if gives_up {
        Policy::builder().max_attempts(Some(3)).build().expect("three attempts are some")
    } else {
        Policy::persistent()
    };
    builder.retry(retry)
}

pub(super) fn weather(which: u8) -> Conditions {
    let ms = Duration::from_millis;
    let calm = Conditions::default();
    match which % 10 {
        0 => calm,
        1 => Conditions { loss: Loss::Random(0.05), ..calm },
        2 => Conditions { loss: Loss::Random(0.4), ..calm },
        3 => Conditions {
            loss: Loss::Bursty { worsen: 0.05, improve: 0.2, loss: 0.9 },
            jitter: ms(30),
            ..calm
        },
        4 => Conditions { latency: ms(300), jitter: ms(200), ..calm },
        5 => Conditions { reorder: 0.3, duplicate: 0.3, hold: ms(50), ..calm },
        6 => Conditions { corrupt: 0.2, ..calm },
        7 => Conditions { bandwidth: NonZeroU64::new(50_000), queue: 20_000, ..calm },
        8 => Conditions { mtu: 1252, latency: ms(1), ..calm },
        // Not zero: at a round trip of nanoseconds a pacer waits for no time at all.
        _ => Conditions { latency: Duration::from_micros(50), ..calm },
    }
}

/// Returns a datagram that is no valid packet, or nearly one.
pub(super) fn forged(remote: SocketAddr, kind: u8, length: u8) -> Datagram {
    let mut rng = Rng::new([length; 32], "forged");
    let mut payload = vec![0; 6 * usize::from(length)];
    rng.fill(&mut payload);
    // Short and long headers, the latter of a supported version, of an unsupported one, or of
    // version negotiation.
    let version: &[u8] = match kind % 6 {
        0 => &[0x40],
        1 => &[0xc0, 0, 0, 0, 1, 8],
        2 => &[0xc0, 0x6b, 0x33, 0x43, 0xcf, 8],
        3 => &[0xc0, 0, 0, 0, 0, 8],
        4 => &[0xf0, 0, 0, 0, 1, 8],
        _ => &[],
    };
    let head = version.len().min(payload.len());
    payload[..head].copy_from_slice(&version[..head]);
    let (route, payload) = (Route::to(remote), BytesMut::from(&payload[..]));
    Datagram { route, ecn: None, segment_size: usize::from(kind) % 700, payload }
}
