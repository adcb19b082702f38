//! The bytes of every kind, as docs/protocol.md shows them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::error::{Code, Failure};
use crate::frame::FrameDecoder;
use crate::message::cloud::{
    Context, ConversationTurn, EscalationRequest, EscalationResponse, FinishReason, KnowledgeChunk,
    Preferences, PrewarmSignal, Speaker, StreamChunk, StreamEnd, Usage, Verbosity,
};
use crate::message::{
    Candidate, CandidateKind, Candidates, CloudMessage, Connect, ControlMessage, Credit,
    DiscoveryKey, ErrorMessage, Goaway, Hangup, Heartbeat, HeartbeatAck, Incoming, Mapping,
    Matched, Message, MessageKind, Open, Opened, Priority, Register, Registered, RelayMessage,
    Request, ResetAt, Response, ResponseChunk, ServerStatus, StreamMessage, Unmatched,
    Unregistered, Welcome, Withdraw,
};
use crate::tls::KeyDigest;

#[test]
fn every_kind_has_the_bytes_that_the_protocol_document_shows() {
    let Some(protocol) = protocol() else { return };
    let (shown, samples) = (shown(&protocol), samples());
    for (bytes, message) in shown.iter().zip(&samples) {
        let mut wire = BytesMut::new();
        message.encode(&mut wire).unwrap();
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert_eq!(text(&wire), text(bytes), "{:?}", message.kind());

        let frame = FrameDecoder::new().poll_frame(&mut bytes.clone()).unwrap().unwrap();
        let read = Message::decode(frame.kind, frame.payload);
        assert_eq!(read.as_ref(), Ok(&Some(message.clone())));
    }
    assert_eq!(shown.len(), samples.len());
    let kinds: Vec<_> = samples.iter().map(Message::kind).collect();
    assert_eq!(kinds, in_wire_order());
}

/// Every kind, as the document lists them.
fn in_wire_order() -> Vec<MessageKind> {
    let mut kinds = MessageKind::ALL.to_vec();
    kinds.sort_by_key(|kind| kind.to_wire());
    kinds
}

#[test]
fn the_protocol_document_lists_every_kind_and_no_other() {
    let Some(protocol) = protocol() else { return };
    let rows = protocol.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `0x")?.split('|');
        let wire = u8::from_str_radix(cells.next()?.trim().strip_suffix('`')?, 16).ok()?;
        Some((wire, cells.next()?.trim().to_owned()))
    });
    let known = in_wire_order().into_iter().map(|kind| (kind.to_wire(), format!("{kind:?}")));
    assert_eq!(rows.collect::<Vec<_>>(), known.collect::<Vec<_>>());
}

#[test]
fn every_kind_survives_the_wire_and_no_other_byte_is_one() {
    for wire in 0..=u8::MAX {
        let known = MessageKind::ALL.iter().find(|kind| kind.to_wire() == wire);
        assert_eq!(MessageKind::from_wire(wire), known.copied());
    }
}

#[test]
fn a_failure_survives_an_error_and_a_goaway() {
    for &code in Code::ALL {
        let plain = Failure::new(code, "words");
        let later = plain.clone().with_retry_after(Duration::from_millis(1500));
        assert_eq!(Hangup::new(1, &plain).to_failure(), plain);
        for failure in [plain, later] {
            assert_eq!(ErrorMessage::from(&failure).to_failure(), failure);
            assert_eq!(Goaway::from(&failure).to_failure(), failure);
            assert_eq!(Unregistered::from(&failure).to_failure(), failure);
            assert_eq!(Unmatched::new(1, &failure).to_failure(), failure);
        }
    }
}

#[test]
fn a_code_of_a_later_version_is_unknown_and_still_named() {
    let message = ErrorMessage { code: "too_hot".into(), message: "41 °C".into(), details: None };
    assert_eq!(message.to_failure(), Failure::new(Code::Unknown, "too_hot: 41 °C"));
    let details = Some(r#"{"retry_after_ms":"soon"}"#.parse().unwrap());
    assert_eq!(ErrorMessage { details, ..message }.to_failure().retry_after(), None);
}

#[test]
fn debug_shows_no_body_and_no_words_of_a_person() {
    let quoted =
        ["hello", "sleep", "Sleep", "polar", "earlier", "librarian", "almanac", "0.25", "1, 2, 3"];
    for message in samples() {
        let debug = format!("{message:?}");
        assert!(!quoted.iter().any(|word| debug.contains(word)), "{debug}");
    }
}

#[test]
fn a_message_is_send_and_sync_and_not_larger_than_it_was() {
    fn check<T: Send + Sync + 'static>() -> usize {
        size_of::<T>()
    }
    assert!(check::<Message>() <= 216, "{}", check::<Message>());
}

/// Returns the protocol document, or `None` in a package, which lacks the files of the repository.
fn protocol() -> Option<String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    if package.join("Cargo.toml.orig").exists() {
        eprintln!("SKIPPED: a package has no docs/protocol.md");
        return None;
    }
    Some(fs::read_to_string(package.join("../docs/protocol.md")).unwrap())
}

/// Returns the frames that the document shows: hexadecimal bytes, then after a bar the rest as
/// text.
fn shown(protocol: &str) -> Vec<Bytes> {
    let block = protocol.split("```frames\n").nth(1).unwrap().split("```").next().unwrap();
    let frame = |line: &str| {
        let (hex, text) = line.split_once("| ").unwrap_or((line, ""));
        let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes = hex.chunks(2).map(byte).chain(text.bytes());
        bytes.collect()
    };
    block.lines().map(frame).collect()
}

fn samples() -> Vec<Message> {
    let mut samples = liveness();
    samples.extend(escalation());
    samples.extend(warnings());
    samples.extend(tunnel());
    samples.extend(registration());
    samples.extend(channels());
    samples
}

fn liveness() -> Vec<Message> {
    vec![
        Message::Control(ControlMessage::Heartbeat(Heartbeat {
            device_id: "device-7".into(),
            timestamp: 1_767_225_600_000,
            sequence: 42,
            vitals: Some(r#"{"cpu":0.25}"#.parse().unwrap()),
        })),
        Message::Control(ControlMessage::HeartbeatAck(HeartbeatAck {
            sequence: 42,
            server_time: 1_767_225_600_021,
            latency_ms: 21,
            pending_messages: 0,
            server_status: ServerStatus::Ok,
        })),
    ]
}

fn escalation() -> Vec<Message> {
    let request_id = "r-1".to_owned();
    let usage = Some(Usage { input_tokens: 90, output_tokens: 12 });
    vec![
        Message::Cloud(CloudMessage::EscalationRequest(EscalationRequest {
            context: Context {
                framing: Some("You are a librarian.".into()),
                knowledge_chunks: vec![KnowledgeChunk {
                    source: Some("almanac".into()),
                    text: "Some polar bears do.".into(),
                }],
                conversation_history: vec![ConversationTurn {
                    role: Speaker::User,
                    content: "earlier".into(),
                }],
            },
            preferences: Preferences {
                verbosity: Verbosity::Brief,
                tone: Some("dry".into()),
                max_tokens: 256,
            },
            model: Some("large".into()),
            stream: true,
            ..EscalationRequest::new("r-1", "Do bears sleep?")
        })),
        Message::Cloud(CloudMessage::EscalationResponse(EscalationResponse {
            request_id: request_id.clone(),
            content: "They sleep.".into(),
            model: "large".into(),
            finish_reason: FinishReason::Stop,
            usage,
        })),
        Message::Cloud(CloudMessage::StreamChunk(StreamChunk {
            request_id: request_id.clone(),
            sequence: 0,
            is_final: true,
            data: "They sleep.".into(),
        })),
        Message::Cloud(CloudMessage::StreamEnd(StreamEnd {
            request_id,
            chunks: 1,
            finish_reason: FinishReason::Stop,
            usage,
        })),
    ]
}

fn warnings() -> Vec<Message> {
    vec![
        Message::Stream(StreamMessage::Error(ErrorMessage::from(
            &Failure::new(Code::Overloaded, "64 streams are open")
                .with_retry_after(Duration::from_secs(2)),
        ))),
        Message::Control(ControlMessage::PrewarmSignal(PrewarmSignal {
            device_id: "device-7".into(),
            timestamp: 1_767_225_600_000,
            gpu_usage: 87.5,
            gpu_temp: Some(71.0),
            reason: "gpu over 80 %".into(),
        })),
    ]
}

fn tunnel() -> Vec<Message> {
    vec![
        Message::Stream(StreamMessage::Open(Open {
            service: "db.primary".parse().unwrap(),
            origin: Some("5e0c7a12".into()),
        })),
        Message::Stream(StreamMessage::Opened(Opened)),
        Message::Stream(StreamMessage::Request(Request {
            id: "r-1".into(),
            deadline_ms: Some(5000),
            priority: Priority::High,
            body: Bytes::from_static(b"hello"),
        })),
        Message::Stream(StreamMessage::Response(Response { body: Bytes::from_static(b"hello") })),
        Message::Stream(StreamMessage::ResponseChunk(ResponseChunk {
            sequence: 7,
            is_final: true,
            body: Bytes::from_static(b"hello"),
        })),
        Message::Control(ControlMessage::Goaway(Goaway {
            code: "shutting_down".into(),
            message: "back soon".into(),
            retry_after_ms: Some(3000),
        })),
        Message::Stream(StreamMessage::ResetAt(ResetAt {
            stream: 4,
            offset: 37,
            code: "cancelled".into(),
        })),
        Message::Control(ControlMessage::Credit(Credit {
            budget: 64 << 20,
            read: vec![(4, 1 << 20), (8, 4_096)],
        })),
    ]
}

fn registration() -> Vec<Message> {
    vec![
        Message::Relay(RelayMessage::Welcome(Welcome {
            observed: "203.0.113.7:40001".parse().unwrap(),
            discovery: vec!["192.0.2.1:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()],
            session: 0xff,
            key: DiscoveryKey(std::array::from_fn(|at| at as u8)),
        })),
        Message::Relay(RelayMessage::Register(Register {
            name: "device-7".into(),
            services: vec!["db.primary".parse().unwrap()],
            guests: vec![KeyDigest([0xab; 32])],
            revoked: vec!["0a1b".into()],
            takeover: true,
        })),
        Message::Relay(RelayMessage::Registered(Registered { refresh_ms: 30_000 })),
        Message::Relay(RelayMessage::Unregistered(Unregistered {
            code: "replaced".into(),
            message: "registered again from 203.0.113.9:40002".into(),
            retry_after_ms: None,
        })),
        Message::Relay(RelayMessage::Withdraw(Withdraw {})),
    ]
}

fn channels() -> Vec<Message> {
    let service = "db.primary".parse().unwrap();
    let candidate = |kind, address: &str| Candidate { kind, address: address.parse().unwrap() };
    vec![
        Message::Relay(RelayMessage::Connect(Connect {
            request: 3,
            service: "db.primary".parse().unwrap(),
            exclude: vec![KeyDigest([0xab; 32])],
        })),
        Message::Relay(RelayMessage::Matched(Matched {
            request: 3,
            channel: 5,
            name: "device-7".into(),
            key: KeyDigest([0xcd; 32]),
        })),
        Message::Relay(RelayMessage::Unmatched(Unmatched::new(
            3,
            &Failure::new(Code::UnknownService, "nobody offers it to you here")
                .with_retry_after(Duration::from_secs(1)),
        ))),
        Message::Relay(RelayMessage::Incoming(Incoming {
            channel: 9,
            service,
            key: KeyDigest([0xab; 32]),
        })),
        Message::Relay(RelayMessage::Hangup(Hangup::new(5, &Failure::new(Code::Closed, "done")))),
        Message::Control(ControlMessage::Candidates(Candidates {
            candidates: vec![
                candidate(CandidateKind::Host, "192.168.1.7:40001"),
                candidate(CandidateKind::Reflexive, "203.0.113.7:40001"),
            ],
            mapping: Mapping::Independent,
            round: 1,
            full_probes: true,
        })),
    ]
}
