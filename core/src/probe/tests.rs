//! Tests of the encoding, that it is unique, and of invalid probes.

use super::{BODY, FIRST_BYTES, FULL_LEN, LEN, Probe, ProbeKey, ProbeKind, datagram};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence::Direct;
use std::net::SocketAddr;

fn pong() -> Probe {
    Probe {
        kind: ProbeKind::Pong,
        session: 0x0102_0304_0506_0708,
        transaction: 0x1112_1314_1516_1718,
        sent: 0x2122_2324_2526_2728,
        observed: Some("192.0.2.1:443".parse().unwrap()),
        state: 0x5a,
    }
}

fn key(byte: u8) -> ProbeKey {
    ProbeKey::new([byte; 32])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_pong_has_these_bytes() {
    let expected = concat!(
        "21",
        "0102030405060708",
        "1112131415161718",
        "2122232425262728",
        "04c0000201000000000000000000000000",
        "01bb",
        "5a",
        "000000",
    );
    let bytes = pong().encode(&key(7));
    assert_eq!(hex(&bytes[..BODY]), expected);
    assert_eq!(hex(&bytes[BODY..]), "633b305b31cfae0a9c9a58d5bb229b51");
    assert_eq!((LEN, bytes.len()), (64, 64));
}

#[test]
fn a_ping_without_an_address_has_zeros_for_it() {
    let bytes = Probe { kind: ProbeKind::Ping, observed: None, ..pong() }.encode(&key(7));
    assert_eq!(bytes[0], 0x20);
    assert_eq!(bytes[25..44], [0; 19]);
}

#[test]
fn an_address_of_either_family_comes_back_as_it_was() {
    for address in ["192.0.2.1:443", "[2001:db8::1]:65535", "[::ffff:192.0.2.1]:1", "0.0.0.0:0"] {
        let probe = Probe { observed: Some(address.parse().unwrap()), ..pong() };
        assert_eq!(Probe::decode(&probe.encode(&key(7)), &key(7)), Some(probe));
    }
}

#[test]
fn every_single_flipped_bit_is_refused() {
    let bytes = pong().encode(&key(7));
    for bit in 0..LEN * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Probe::decode(&flipped, &key(7)), None, "bit {bit}");
    }
    assert_eq!(Probe::decode(&bytes, &key(7)), Some(pong()));
}

#[test]
fn one_byte_more_or_less_is_no_probe() {
    let bytes = pong().encode(&key(7));
    let longer = [&bytes[..], &[0]].concat();
    for wrong in [&bytes[..LEN - 1], &longer, &[]] {
        assert_eq!(Probe::session(wrong), None);
        assert_eq!(Probe::decode(wrong, &key(7)), None);
    }
}

#[test]
fn a_probe_that_is_sent_back_is_refused_by_the_key_of_the_other_direction() {
    let (ours, theirs) = (key(1), key(2));
    let bytes = pong().encode(&ours);
    assert_eq!(Probe::decode(&bytes, &theirs), None);
}

#[test]
fn a_genuine_probe_in_another_form_is_refused() {
    let other = |change: &dyn Fn(&mut [u8; LEN])| {
        let mut bytes = pong().encode(&key(7));
        change(&mut bytes);
        let tag = super::hmac::sign(&super::hmac_key(&key(7)), &bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&tag.as_ref()[..LEN - BODY]);
        Probe::decode(&bytes, &key(7))
    };
    assert_eq!(other(&|_| ()), Some(pong()));
    assert_eq!(other(&|bytes| bytes[47] = 1), None, "padding");
    assert_eq!(other(&|bytes| bytes[25] = 5), None, "family");
    assert_eq!(other(&|bytes| bytes[25] = 0), None, "no family, and an address");
    assert_eq!(other(&|bytes| bytes[30] = 1), None, "bytes behind an IPv4 address");
    assert_eq!(other(&|bytes| bytes[0] = 0x22), None, "a kind of another length");
    assert_eq!(other(&|bytes| bytes[0] = 0x24), None, "a kind of a later version");
}

#[test]
fn a_full_size_probe_has_1200_bytes_and_only_zeros_behind_the_mac() {
    let full = Probe { kind: ProbeKind::FullPong, ..pong() };
    let bytes = datagram(&full.encode(&key(7)));
    assert_eq!((bytes.len(), bytes[0]), (FULL_LEN, 0x23));
    assert_eq!(hex(&bytes[BODY..LEN]), "4ecfde2d56674b007d24fa7ee58089e4");
    assert_eq!(Probe::session(&bytes), Some(full.session));
    assert_eq!(Probe::decode(&bytes, &key(7)), Some(full));
    for at in [LEN, LEN + 1, FULL_LEN - 1] {
        let mut other = bytes.clone();
        other[at] = 1;
        assert_eq!(Probe::decode(&other, &key(7)), None, "byte {at}");
    }
    for length in [LEN, FULL_LEN - 1] {
        assert_eq!(Probe::decode(&bytes[..length], &key(7)), None, "{length} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Probe::decode(&longer, &key(7)), None);
    let small = datagram(&pong().encode(&key(7)));
    assert_eq!(small.len(), LEN);
    let padded = [&small[..], &[0; FULL_LEN - LEN]].concat();
    assert_eq!(Probe::decode(&padded, &key(7)), None, "the kind of a small one");
}

#[test]
fn the_session_is_read_without_a_key() {
    let mut bytes = pong().encode(&key(7));
    assert_eq!(Probe::session(&bytes), Some(0x0102_0304_0506_0708));
    bytes[0] = 0x40;
    assert_eq!(Probe::session(&bytes), None);
    assert!(FIRST_BYTES.contains(&0x20) && FIRST_BYTES.contains(&0x21));
}

#[test]
fn a_key_is_not_shown() {
    assert_eq!(format!("{:?}", key(7)), "Key(..)");
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(Direct(concat!(
            env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/probe.txt"
        )))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_encoded_is_decoded_and_no_other_key_takes_it(
        (is_ping, is_full) in any::<(bool, bool)>(),
        numbers in any::<(u64, u64, u64)>(),
        observed in any::<Option<(std::net::IpAddr, u16)>>(),
        state in any::<u8>(),
        keys in any::<([u8; 32], [u8; 32])>(),
    ) {
        let probe = Probe {
            kind: match (is_ping, is_full) {
                (true, false) => ProbeKind::Ping,
                (false, false) => ProbeKind::Pong,
                (true, true) => ProbeKind::FullPing,
                (false, true) => ProbeKind::FullPong,
            },
            session: numbers.0,
            transaction: numbers.1,
            sent: numbers.2,
            observed: observed.map(SocketAddr::from),
            state,
        };
        let bytes = datagram(&probe.encode(&ProbeKey::new(keys.0)));
        prop_assert_eq!(Probe::decode(&bytes, &ProbeKey::new(keys.0)), Some(probe));
        prop_assert_eq!(Probe::session(&bytes), Some(probe.session));
        if keys.0 != keys.1 {
            prop_assert_eq!(Probe::decode(&bytes, &ProbeKey::new(keys.1)), None);
        }
    }
}
