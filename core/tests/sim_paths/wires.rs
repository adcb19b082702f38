//! What may be seen on the wires, and by a relay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use adit_core::testing::lab::{Captured, Passage};
use adit_core::testing::pair::pattern;

use super::SECOND;

/// Bit of the first byte of every QUIC packet (RFC 9000 §17), and of no probe.
const FIXED_BIT: u8 = 0x40;

/// Bytes that go within a minute to an address from which nothing has come: 16 rounds of nine probes.
pub(crate) const UNHEARD_A_MINUTE: usize = 16 * 9 * 64;

/// Whether what a relay was given to pass on shows anything of what transfers carry.
pub(crate) fn is_plain(seen: &[Vec<u8>]) -> bool {
    let canaries = [pattern(0, 48), pattern(1_013, 48), pattern(2 * 1_013, 48)];
    let shows = |datagram: &Vec<u8>| {
        datagram.windows(48).any(|window| canaries.iter().any(|canary| *window == canary[..]))
    };
    seen.iter().any(shows)
}

/// Whether it can be a probe, and not a packet of anybody's.
pub(crate) fn is_probe(datagram: &[u8]) -> bool {
    datagram.len() == adit_core::probe::LEN && datagram[0] & FIXED_BIT == 0
}

/// What a host sent: packets to nobody whom it has not heard, and few probes.
pub(crate) fn check(captured: &[Captured], trusted: &BTreeSet<SocketAddr>) {
    let mut heard = trusted.clone();
    let mut unheard: BTreeMap<SocketAddr, VecDeque<(Instant, usize)>> = BTreeMap::new();
    for Captured { at, passage, packet } in captured {
        match passage {
            Passage::In => drop(heard.insert(packet.from)),
            Passage::Out if heard.contains(&packet.to) => {}
            Passage::Out => {
                assert!(is_probe(&packet.payload), "data to {}, never heard", packet.to);
                let sent = unheard.entry(packet.to).or_default();
                sent.push_back((*at, packet.payload.len()));
                while sent.front().is_some_and(|(first, _)| *at - *first >= 60 * SECOND) {
                    sent.pop_front();
                }
                let bytes: usize = sent.iter().map(|(_, length)| length).sum();
                assert!(bytes <= UNHEARD_A_MINUTE, "{bytes} bytes a minute to {}", packet.to);
            }
        }
    }
}

#[test]
fn a_canary_in_what_a_relay_sees_is_found() {
    let content = pattern(0, 1_000);
    assert!(is_plain(&[b"first".to_vec(), [b"head", &content[..]].concat()]));
    assert!(!is_plain(&[b"first".to_vec(), content[1..48].to_vec()]));
}
