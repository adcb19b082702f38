//! Tests the messages of a relay and its clients, exactly at every limit and one past it.

use std::net::SocketAddr;

use super::hostile::at_and_past;
use super::{decode, payload_of};
use crate::message::{
    Candidate, CandidateKind, Candidates, Connect, ControlMessage, DiscoveryKey, Hangup,
    MAX_CANDIDATES, MAX_CODE, MAX_DISCOVERY, MAX_EXCLUDED, MAX_GUESTS, MAX_ID, MAX_REVOKED,
    MAX_SENTENCE, MAX_SERIAL, MAX_SERVICE_NAME, MAX_SERVICES, Mapping, Matched, Message,
    MessageError, REFRESH_MS, Register, Registered, RelayMessage, ServiceName, Unmatched,
    Unregistered, Welcome, Withdraw,
};
use crate::tls::KeyDigest;

/// Largest payload on the control stream, where all of these travel (docs/protocol.md, "Control
/// stream").
const MAX_CONTROL_PAYLOAD: usize = 64 << 10;

const DIGEST: KeyDigest = KeyDigest([0xab; 32]);

#[test]
fn a_registration_is_sent_and_taken_at_its_limits_and_neither_one_past_them() {
    let with = |change: &dyn Fn(&mut Register)| {
        let mut register = registration();
        change(&mut register);
        Message::Relay(RelayMessage::Register(register))
    };
    let name = |name: &str| with(&|it| it.name = name.into());
    let long = "n".repeat(MAX_ID + 1);
    at_and_past(
        &[name("n"), name(&long[1..]), name("!~")],
        &[name(""), name(&long), name("a b"), name("a\u{7f}"), name("\u{1b}[2J"), name("é")],
        "name",
    );
    let services = |count| with(&|it| it.services = vec![service("s"); count]);
    at_and_past(&[services(0), services(MAX_SERVICES)], &[services(MAX_SERVICES + 1)], "services");
    let guests = |count| with(&|it| it.guests = vec![DIGEST; count]);
    at_and_past(&[guests(0), guests(MAX_GUESTS)], &[guests(MAX_GUESTS + 1)], "guests");
    let revoked = |count, serial: &str| with(&|it| it.revoked = vec![serial.into(); count]);
    let (short, long) = ("0".repeat(MAX_SERIAL), "0".repeat(MAX_SERIAL + 1));
    at_and_past(
        &[revoked(0, ""), revoked(1, "f"), revoked(MAX_REVOKED, &short)],
        &[
            revoked(MAX_REVOKED + 1, "f"),
            revoked(1, ""),
            revoked(1, &long),
            revoked(1, "F"),
            revoked(1, "g"),
        ],
        "revoked",
    );
    let defaults = Register { takeover: false, ..registration() };
    assert_eq!(
        decode(0x21, r#"{"name":"n"}"#),
        Ok(Some(Message::Relay(RelayMessage::Register(defaults))))
    );
}

#[test]
fn the_largest_message_of_every_kind_fits_a_control_frame() {
    let name = "\"".repeat(MAX_ID);
    let long = service(&"s".repeat(MAX_SERVICE_NAME));
    let address = "[1111:1111:1111:1111:1111:1111:1111:1111]:65535".parse().unwrap();
    let candidate = Candidate { kind: CandidateKind::Reflexive, address };
    let (code, message) = ("c".repeat(MAX_CODE), "\u{1}".repeat(MAX_SENTENCE));
    let request = u64::MAX;
    let largest = [
        Message::Relay(RelayMessage::Register(Register {
            name: name.clone(),
            services: vec![long.clone(); MAX_SERVICES],
            guests: vec![DIGEST; MAX_GUESTS],
            revoked: vec!["f".repeat(MAX_SERIAL); MAX_REVOKED],
            takeover: false,
        })),
        Message::Relay(RelayMessage::Connect(Connect {
            request,
            service: long,
            exclude: vec![DIGEST; MAX_EXCLUDED],
        })),
        Message::Relay(RelayMessage::Welcome(Welcome {
            discovery: vec![address; MAX_DISCOVERY],
            ..welcome(address)
        })),
        Message::Relay(RelayMessage::Unmatched(Unmatched {
            request,
            code,
            message,
            retry_after_ms: Some(u64::MAX),
        })),
        Message::Relay(RelayMessage::Matched(Matched {
            request,
            channel: u32::MAX,
            name,
            key: DIGEST,
        })),
        Message::Control(ControlMessage::Candidates(Candidates {
            candidates: vec![candidate; MAX_CANDIDATES],
            mapping: Mapping::Independent,
            round: u32::MAX,
            full_probes: true,
        })),
    ];
    for message in largest {
        let length = payload_of(&message).unwrap().len();
        assert!(length <= MAX_CONTROL_PAYLOAD, "{:?} has {length}", message.kind());
    }
}

#[test]
fn candidate_addresses_must_be_sendable() {
    let good = [
        "192.0.2.1:1",
        "192.168.0.1:65535",
        "127.0.0.1:9",
        "[::1]:9",
        "[fe80::1]:9",
        "[2001:db8::1]:443",
        "[::ffff:192.0.2.1]:9",
    ];
    let bad = [
        "192.0.2.1:0",
        "[2001:db8::1]:0",
        "0.0.0.0:9",
        "[::]:9",
        "[::ffff:0.0.0.0]:9",
        "224.0.0.1:9",
        "[ff02::1]:9",
        "[::ffff:239.255.255.250]:9",
        "255.255.255.255:9",
        "[fe80::1%2]:9",
    ];
    let addresses = |of: &[&str]| of.iter().map(|it| it.parse().unwrap()).collect::<Vec<_>>();
    let (good, bad) = (addresses(&good), addresses(&bad));
    let all = |of: &[SocketAddr], message: fn(SocketAddr) -> Message| {
        of.iter().map(|address| message(*address)).collect::<Vec<_>>()
    };
    let observed = |address| Message::Relay(RelayMessage::Welcome(welcome(address)));
    at_and_past(&all(&good, observed), &all(&bad, observed), "observed");
    let discovery = |address| {
        let known = "192.0.2.1:9".parse().unwrap();
        Message::Relay(RelayMessage::Welcome(Welcome {
            discovery: vec![known, address],
            ..welcome(known)
        }))
    };
    at_and_past(&all(&good, discovery), &all(&bad, discovery), "discovery");
    at_and_past(&all(&good, candidate), &all(&bad, candidate), "candidates");
}

#[test]
fn lists_and_times_of_a_relay_are_taken_at_their_limits_and_refused_one_past_them() {
    let address = "192.0.2.1:9".parse().unwrap();
    let discovery = |count| {
        Message::Relay(RelayMessage::Welcome(Welcome {
            discovery: vec![address; count],
            ..welcome(address)
        }))
    };
    at_and_past(&[discovery(MAX_DISCOVERY)], &[discovery(MAX_DISCOVERY + 1)], "discovery");
    let candidates = |count| {
        let candidate = Candidate { kind: CandidateKind::Mapped, address };
        let candidates = vec![candidate; count];
        Message::Control(ControlMessage::Candidates(Candidates {
            candidates,
            mapping: Mapping::None,
            round: 0,
            full_probes: false,
        }))
    };
    at_and_past(
        &[candidates(0), candidates(MAX_CANDIDATES)],
        &[candidates(MAX_CANDIDATES + 1)],
        "candidates",
    );
    let exclude = |count| {
        let exclude = vec![DIGEST; count];
        Message::Relay(RelayMessage::Connect(Connect {
            request: 0,
            service: service("s"),
            exclude,
        }))
    };
    at_and_past(&[exclude(MAX_EXCLUDED)], &[exclude(MAX_EXCLUDED + 1)], "exclude");
    let refresh = |refresh_ms| Message::Relay(RelayMessage::Registered(Registered { refresh_ms }));
    let (least, most) = (*REFRESH_MS.start(), *REFRESH_MS.end());
    at_and_past(
        &[refresh(least), refresh(most)],
        &[refresh(least - 1), refresh(most + 1)],
        "refresh_ms",
    );
    let matched = |length: usize| {
        let name = "n".repeat(length);
        Message::Relay(RelayMessage::Matched(Matched { request: 0, channel: 0, name, key: DIGEST }))
    };
    at_and_past(&[matched(MAX_ID)], &[matched(0), matched(MAX_ID + 1)], "name");
}

#[test]
fn a_reason_is_taken_at_its_limit_and_refused_one_past_it() {
    let all = |code: usize, words: usize| {
        let (code, message) = ("c".repeat(code), "w".repeat(words));
        [
            Message::Relay(RelayMessage::Hangup(Hangup {
                channel: 0,
                code: code.clone(),
                message: message.clone(),
            })),
            Message::Relay(RelayMessage::Unmatched(Unmatched {
                request: 0,
                code: code.clone(),
                message: message.clone(),
                retry_after_ms: None,
            })),
            Message::Relay(RelayMessage::Unregistered(Unregistered {
                code,
                message,
                retry_after_ms: None,
            })),
        ]
    };
    at_and_past(&all(1, 0), &all(0, 0), "code");
    at_and_past(&all(MAX_CODE, MAX_SENTENCE), &all(MAX_CODE + 1, 0), "code");
    at_and_past(&[], &all(1, MAX_SENTENCE + 1), "message");
}

#[test]
fn digests_sessions_and_keys_have_one_form() {
    let digits = "0123456789abcdef".repeat(4);
    let digest: KeyDigest = digits.parse().unwrap();
    assert_eq!(digest.to_string(), digits);
    let upper = digits.to_uppercase();
    let (short, long) = (&digits[1..], format!("{digits}0"));
    let odd = format!("é{}", &digits[2..]);
    for wrong in ["", short, &long, &digits[2..], &upper, &odd, &format!("{}g", &digits[1..])] {
        assert!(wrong.parse::<KeyDigest>().is_err(), "{wrong}");
        let incoming = format!(r#"{{"channel":1,"service":"s","key":"{wrong}"}}"#);
        assert!(matches!(decode(0x28, incoming), Err(MessageError::Shape { .. })), "{wrong}");
    }
    let welcome = |session: &str, key: &str| {
        let observed = "192.0.2.1:9";
        let body = serde_json::json!({ "observed": observed, "session": session, "key": key });
        decode(0x20, body.to_string())
    };
    assert!(welcome("00000000000000ff", &digits).unwrap().is_some());
    for wrong in ["ff", "0000000000000000ff", "00000000000000FF", "+0000000000000ff", ""] {
        assert!(matches!(welcome(wrong, &digits), Err(MessageError::Shape { .. })), "{wrong}");
    }
    assert!(matches!(welcome("00000000000000ff", short), Err(MessageError::Shape { .. })));
}

#[test]
fn kinds_of_candidates_and_mappings_of_later_versions_are_unknown() {
    let later = r#"{"candidates":[{"kind":"carrier_pigeon","address":"192.0.2.1:9"}],
        "mapping":"telepathic","round":4}"#;
    let Ok(Some(Message::Control(ControlMessage::Candidates(read)))) = decode(0x2a, later) else {
        panic!("refused")
    };
    assert_eq!((read.candidates[0].kind, read.mapping), (CandidateKind::Unknown, Mapping::Unknown));
    let bare = decode(0x2a, r#"{"round":0}"#);
    let nothing = Candidates {
        candidates: Vec::new(),
        mapping: Mapping::Unknown,
        round: 0,
        full_probes: false,
    };
    assert_eq!(bare, Ok(Some(Message::Control(ControlMessage::Candidates(nothing)))));
    assert_eq!(
        decode(0x24, r#"{"later":1}"#),
        Ok(Some(Message::Relay(RelayMessage::Withdraw(Withdraw {}))))
    );
}

fn registration() -> Register {
    Register {
        name: "n".into(),
        services: Vec::new(),
        guests: Vec::new(),
        revoked: Vec::new(),
        takeover: false,
    }
}

fn welcome(observed: SocketAddr) -> Welcome {
    Welcome { observed, discovery: Vec::new(), session: 0, key: DiscoveryKey([0; 32]) }
}

fn candidate(address: SocketAddr) -> Message {
    let candidates = vec![Candidate { kind: CandidateKind::Host, address }];
    Message::Control(ControlMessage::Candidates(Candidates {
        candidates,
        mapping: Mapping::Dependent,
        round: 0,
        full_probes: false,
    }))
}

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}
