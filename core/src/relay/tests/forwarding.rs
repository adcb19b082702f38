//! Tests forwarding: packets are renumbered, policed, fair, bounded and counted.

use std::collections::BTreeMap;

use super::*;
use crate::encapsulation::{PART as CONTEXT_PART, WHOLE as CONTEXT_PACKET};

/// Size that a packet counts in a queue beyond its bytes.
const OVERHEAD: usize = 64;

fn datagram(context: u8, channel: u32, rest: &[u8]) -> Vec<u8> {
    [&[context][..], &channel.to_be_bytes(), rest].concat()
}

impl Table {
    /// Sends `count` packets of `length` bytes each, headers included.
    fn flood(&mut self, client: u64, channel: u32, length: usize, count: usize) {
        let datagram = datagram(CONTEXT_PACKET, channel, &vec![client as u8; length - 5]);
        for _ in 0..count {
            self.relay.forward(PeerId(client), &datagram, self.now);
        }
        self.relay.audit();
    }

    fn receive(&mut self, client: u64) -> Option<Vec<u8>> {
        let length = self.relay.peek_packet(PeerId(client));
        let packet =
            self.relay.poll_packet(PeerId(client), usize::MAX).and_then(|mut it| it.next());
        assert_eq!(packet.as_ref().map(|it| it.len()), length);
        self.relay.audit();
        packet.map(|it| it.to_vec())
    }

    fn drops(&self) -> crate::relay::Drops {
        self.relay.view(self.now).dropped
    }
}

#[test]
fn a_packet_arrives_as_it_was_with_the_number_of_its_receiver() {
    let mut table = Table::with_two();
    table.channel(2, "db");
    let (here, _, there) = table.channel(2, "db");
    table.attach(3, member(3));
    let (_, _, _) = table.channel(3, "db");
    let (other, _, there_too) = table.channel(3, "db");
    assert_ne!((here, other), (there, there_too), "the test would show nothing");
    let part = [0, 9, 0, 2, 77];
    table.relay.forward(PeerId(2), &datagram(CONTEXT_PACKET, here, b"hello"), table.now);
    table.relay.forward(PeerId(2), &datagram(CONTEXT_PART, here, &part), table.now);
    assert_eq!(table.relay.poll_ready(), Some(PeerId(1)));
    assert_eq!(table.relay.poll_ready(), None);
    assert_eq!(table.receive(1), Some(datagram(CONTEXT_PACKET, there, b"hello")));
    assert_eq!(table.receive(1), Some(datagram(CONTEXT_PART, there, &part)));
    assert_eq!(table.receive(1), None);
    table.relay.forward(PeerId(1), &datagram(CONTEXT_PACKET, there_too, b"back"), table.now);
    assert_eq!(table.relay.poll_ready(), Some(PeerId(3)));
    assert_eq!(table.receive(3), Some(datagram(CONTEXT_PACKET, other, b"back")));
    let view = table.relay.view(table.now);
    assert_eq!((view.forwarded_packets, view.forwarded_bytes), (3, 10 + 10 + 9));
    assert_eq!((view.dropped, view.queued_bytes), (crate::relay::Drops::default(), 0));
}

#[test]
fn a_receiver_is_ready_again_when_it_is_given_more_and_not_before() {
    let mut table = Table::with_two();
    let (here, _, _) = table.channel(2, "db");
    table.flood(2, here, 100, 2);
    assert_eq!(table.relay.poll_ready(), Some(PeerId(1)));
    assert!(table.receive(1).is_some());
    assert_eq!(table.relay.poll_ready(), None);
    table.flood(2, here, 100, 1);
    assert_eq!(table.relay.poll_ready(), Some(PeerId(1)));
    assert!(table.receive(1).is_some() && table.receive(1).is_some());
    table.flood(2, here, 100, 1);
    assert!(table.receive(1).is_some());
    assert_eq!(table.relay.poll_ready(), None, "it has taken all");
}

#[test]
fn what_is_no_packet_of_a_channel_is_dropped_and_counted() {
    let mut table = Table::with_two();
    let (here, _, there) = table.channel(2, "db");
    for malformed in [
        &[][..],
        &[CONTEXT_PACKET],
        &datagram(CONTEXT_PACKET, here, b""),
        &datagram(CONTEXT_PART, here, &[0; 4]),
        &datagram(1, here, b"hello"),
        &datagram(4, here, b"hello"),
    ] {
        table.relay.forward(PeerId(2), malformed, table.now);
    }
    assert_eq!(table.drops().malformed, 6);
    table.relay.forward(PeerId(2), &datagram(CONTEXT_PACKET, here, b"x"), table.now);
    table.relay.forward(PeerId(2), &datagram(CONTEXT_PART, here, &[0; 5]), table.now);
    assert!(table.receive(1).is_some() && table.receive(1).is_some());
    table.flood(2, here + 1, 100, 1);
    table.relay.forward(PeerId(9), &datagram(CONTEXT_PACKET, here, b"x"), table.now);
    table.hang_up(2, here);
    table.flood(2, here, 100, 1);
    table.flood(1, there, 100, 1);
    assert_eq!(table.drops().unknown_channel, 3);
    assert_eq!(table.receive(1), None);
}

#[test]
fn a_client_may_send_its_burst_and_then_its_rate_and_not_a_packet_more() {
    let mut table = Table::new(|it| {
        it.bytes_per_second = 100_000;
        it.bytes_at_once = 65_536;
    });
    table.attach(1, member(1));
    table.attach(2, member(2));
    table.register(1, "home", &["db"]);
    let (here, _, there) = table.channel(2, "db");
    table.flood(2, here, 1_024, 64);
    assert_eq!(table.drops().over_rate, 0);
    table.flood(2, here, 6, 1);
    assert_eq!(table.drops().over_rate, 1);
    table.flood(1, there, 1_024, 1);
    table.wait(Duration::from_micros(10_240) - TICK);
    table.flood(2, here, 1_024, 1);
    assert_eq!(table.drops().over_rate, 2);
    table.wait(TICK);
    table.flood(2, here, 1_024, 1);
    assert_eq!(table.drops().over_rate, 2);
}

#[test]
fn a_queue_holds_its_bytes_and_the_oldest_packet_gives_way_to_one_more() {
    let cost = 1_000 + OVERHEAD;
    let mut table = Table::new(|it| {
        it.queue_bytes_of_a_source = 20 * cost;
        it.queue_bytes = 40 * cost;
    });
    table.attach(1, member(1));
    table.attach(2, member(2));
    table.register(1, "home", &["db"]);
    let (here, _, there) = table.channel(2, "db");
    for number in 0..21u8 {
        let packet = datagram(CONTEXT_PACKET, here, &[number; 995]);
        table.relay.forward(PeerId(2), &packet, table.now);
        let expected = u64::from(number == 20);
        assert_eq!(table.drops().queue_full, expected, "after {number}");
    }
    assert_eq!(table.relay.view(table.now).queued_bytes, 20 * cost);
    let kept: Vec<u8> = std::iter::from_fn(|| table.receive(1)).map(|it| it[5]).collect();
    assert_eq!(kept, (1..21).collect::<Vec<_>>());
    // A packet that would not fit an empty queue is dropped itself.
    table.flood(2, here, 20 * 1_064 - OVERHEAD + 1, 1);
    assert_eq!((table.drops().queue_full, table.receive(1)), (2, None));
    table.flood(2, here, 20 * 1_064 - OVERHEAD, 1);
    assert!(table.receive(1).is_some());
    table.flood(1, there, 1_000, 1);
    table.detach(2);
    assert_eq!(table.drops().receiver_gone, 1);
}

#[test]
fn a_flooding_sender_loses_only_its_own_packets() {
    let mut table = Table::with_two();
    table.attach(3, member(3));
    let (quiet, _, to_quiet) = table.channel(2, "db");
    let (loud, _, to_loud) = table.channel(3, "db");
    table.flood(2, quiet, 1_200, 10);
    table.flood(3, loud, 1_200, 1_500);
    table.flood(2, quiet, 1_200, 10);
    assert!(table.drops().queue_full > 1_000, "{:?}", table.drops());
    let mut received = BTreeMap::<u32, u32>::new();
    for taken in 0.. {
        let Some(packet) = table.receive(1) else { break };
        let channel = u32::from_be_bytes(packet[1..5].try_into().unwrap());
        *received.entry(channel).or_default() += 1;
        if taken == 40 {
            assert!(received[&to_quiet] >= 19, "the quiet one waits behind a flood: {received:?}");
        }
    }
    assert_eq!(received[&to_quiet], 20);
    assert!(received[&to_loud] > 100);
}

#[test]
fn among_many_who_flood_each_gets_its_share_whatever_the_size_of_its_packets() {
    let mut table = Table::new(|it| it.bytes_at_once = 1 << 30);
    table.attach(1, member(1));
    table.register(1, "home", &["db"]);
    let sizes = [(2, 60), (3, 1_200), (4, 5_000), (5, 16_000)];
    let mut channels = Vec::new();
    for (client, size) in sizes {
        table.attach(client, member(client as u8));
        let (here, _, there) = table.channel(client, "db");
        channels.push((client, here, there, size));
    }
    let mut taken = BTreeMap::<u32, usize>::new();
    for _ in 0..400 {
        for (client, here, _, size) in &channels {
            table.flood(*client, *here, *size, 1 + 32_000 / size);
        }
        let mut room = 16_000 * 4;
        while let Some(length) = table.relay.peek_packet(PeerId(1)) {
            if length > room {
                break;
            }
            room -= length;
            let packet = table.receive(1).unwrap();
            let channel = u32::from_be_bytes(packet[1..5].try_into().unwrap());
            *taken.entry(channel).or_default() += length + OVERHEAD;
        }
    }
    let all: usize = taken.values().sum();
    for (_, _, there, size) in channels {
        let share = taken[&there] as f64 / all as f64;
        assert!((0.23..=0.27).contains(&share), "{share} for packets of {size}: {taken:?}");
    }
}

#[test]
fn a_packet_goes_in_parts_where_the_path_of_its_receiver_is_narrower() {
    let mut table = Table::with_two();
    let (here, _, there) = table.channel(2, "db");
    let packet: Vec<u8> = (0..1_200).map(|it| it as u8).collect();
    let whole = datagram(CONTEXT_PACKET, here, &packet);
    for _ in 0..2 {
        table.relay.forward(PeerId(2), &whole, table.now);
    }
    let mut ids = Vec::new();
    for _ in 0..2 {
        let datagrams = table.relay.poll_packet(PeerId(1), 1_162).unwrap();
        let parts: Vec<_> = datagrams.map(|it| it.to_vec()).collect();
        let (headers, bodies): (Vec<_>, Vec<_>) = parts.iter().map(|it| it.split_at(9)).unzip();
        let start = datagram(CONTEXT_PART, there, &[]);
        assert!(headers.iter().all(|it| it.starts_with(&start)));
        assert_eq!([&headers[0][7..], &headers[1][7..]], [[0, 2], [1, 2]]);
        assert_eq!(bodies.concat(), packet);
        ids.extend(headers.iter().map(|it| u16::from_be_bytes([it[5], it[6]])));
    }
    assert!(ids[0] == ids[1] && ids[2] == ids[3] && ids[0] != ids[2], "{ids:?}");
    assert!(ids.iter().all(|id| *id >= 1 << 15), "one that a sender gives: {ids:?}");
    assert_eq!(table.drops().too_large, 0);
    let part = [&[0, 9, 0, 2][..], &packet].concat();
    table.relay.forward(PeerId(2), &datagram(CONTEXT_PART, here, &part), table.now);
    assert_eq!(table.relay.poll_packet(PeerId(1), 1_162).unwrap().count(), 0);
    assert_eq!((table.drops().too_large, table.relay.view(table.now).forwarded_packets), (1, 2));
    table.relay.audit();
}

#[test]
fn all_queues_together_are_bounded_and_one_that_is_full_does_not_stop_the_others() {
    let mut table = Table::new(|it| {
        it.queue_bytes_of_a_source = 16 << 10;
        it.queue_bytes = 32 << 10;
        it.queue_bytes_in_all = 64 << 10;
    });
    for client in 1..=8 {
        table.attach(client, member(client as u8));
        table.register(client, &format!("c{client}"), &[&format!("s{client}")]);
    }
    let mut channels = Vec::new();
    for client in 1..=8u64 {
        let (here, to, _) = table.channel(client, &format!("s{}", client % 8 + 1));
        channels.push((client, here, to));
    }
    for (client, here, _) in &channels {
        table.flood(*client, *here, 1_000, 16);
    }
    let queued = table.relay.view(table.now).queued_bytes;
    assert!((60 << 10..=64 << 10).contains(&queued), "{queued}");
    let (client, here, to) = channels[7];
    while table.receive(channels[0].2).is_some() {}
    table.flood(client, here, 1_000, 1);
    assert!(table.receive(to).is_some());
}

#[test]
fn what_was_under_way_when_its_sender_left_still_arrives() {
    let mut table = Table::with_two();
    let (here, _, _) = table.channel(2, "db");
    table.flood(2, here, 100, 2);
    table.detach(2);
    assert!(table.receive(1).is_some());
    table.detach(1);
    assert_eq!(table.drops().receiver_gone, 1);
    assert!(table.relay.is_empty());
}
