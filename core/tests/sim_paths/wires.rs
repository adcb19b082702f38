//! What may be observed on the wire, and by a relay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use adit_core::id::PeerId;
use adit_core::node::FaultInjector;
use adit_core::testing::lab::{Captured, Passage};
use adit_core::testing::pair::pattern;

use super::SECOND;

/// Bit of the first byte of every QUIC packet (RFC 9000 §17), and of no probe.
const FIXED_BIT: u8 = 0x40;

/// Bytes per minute to an address from which no packet has come: 16 rounds of nine probes.
pub(crate) const UNHEARD_A_MINUTE: usize = 16 * 9 * 64;

/// What relays forward, as they see it: without the encryption between clients and relays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<Vec<Vec<u8>>>>);

impl Tap {
    /// Returns all of it.
    pub(crate) fn seen(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

impl FaultInjector for Tap {
    fn on_packet(&mut self, from: PeerId, datagram: &[u8]) -> Vec<(PeerId, Vec<u8>)> {
        self.0.lock().unwrap().push(datagram.to_vec());
        vec![(from, datagram.to_vec())]
    }
}

/// Returns true if a datagram contains these bytes.
pub(crate) fn contains(datagram: &[u8], needle: &[u8]) -> bool {
    datagram.windows(needle.len()).any(|window| window == needle)
}

/// Returns true if any datagram shows how any of the first transfers begins.
pub(crate) fn is_plain(datagrams: &[Vec<u8>]) -> bool {
    let canaries = [pattern(0, 48), pattern(1_013, 48), pattern(2 * 1_013, 48)];
    datagrams.iter().any(|it| canaries.iter().any(|canary| contains(it, canary)))
}

/// Returns true if it can be a probe, and not a packet of a peer.
pub(crate) fn is_probe(datagram: &[u8]) -> bool {
    datagram.len() == adit_core::relay::DISCOVERY_LEN && datagram[0] & FIXED_BIT == 0
}

/// Checks what a host sent: no packets to addresses from which it has not received, and few probes.
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
