//! Input that no honest peer sends, and values exactly at and one past their limits.

use bytes::{Bytes, BytesMut};

use super::{decode, payload_of};
use crate::frame::MAX_PAYLOAD;
use crate::message::cloud::{
    EscalationRequest, KnowledgeChunk, MAX_LIST, MAX_QUERY_CHARS, PrewarmSignal,
};
use crate::message::{
    CloudMessage, ControlMessage, Credit, EncodeError, ErrorMessage, Heartbeat, InvalidServiceName,
    MAX_CODE, MAX_CREDITS, MAX_ID, MAX_OBJECT, MAX_OBJECT_DEPTH, MAX_SENTENCE, Message,
    MessageError, Object, OutOfRange, Priority, RelayMessage, Request, Response, ResponseChunk,
    ServerStatus, ServiceName, StreamMessage,
};

const GOOD: &str = r#"{"device_id":"d","timestamp":1,"sequence":2}"#;

#[test]
fn an_unknown_kind_is_none_whatever_its_payload() {
    for kind in [0x00, 0x09, 0x0f, 0x18, 0x1f, 0x2b, 0xff] {
        assert_eq!(decode(kind, b"\xff{"), Ok(None));
    }
}

#[test]
fn a_credit_has_whole_entries_and_not_too_many() {
    let credit = |entries: usize| {
        let read = vec![(4, 5); entries];
        payload_of(&Message::Control(ControlMessage::Credit(Credit { budget: 1, read })))
    };
    let most = credit(MAX_CREDITS).unwrap();
    assert!(decode(0x17, &most).unwrap().is_some());
    assert_eq!(credit(MAX_CREDITS + 1), Err(OutOfRange { field: "read" }.into()));
    let more = [&most[..], &[0; 16]].concat();
    assert_eq!(decode(0x17, &more), Err(OutOfRange { field: "read" }.into()));
    for length in [0, 7, 9, 23, 25] {
        assert_eq!(decode(0x17, &most[..length]), Err(MessageError::Truncated), "{length}");
    }
}

#[test]
fn fields_of_later_versions_are_ignored() {
    let later = r#" {"device_id":"d","later":{"a":[1,{}]},"timestamp":1,"sequence":2} "#;
    assert_eq!(decode(0x01, later), decode(0x01, GOOD));
    assert!(decode(0x01, GOOD).unwrap().is_some());
    let ack = r#"{"sequence":1,"server_time":2,"latency_ms":3,"pending_messages":4,
        "server_status":"levitating"}"#;
    let Ok(Some(Message::Control(ControlMessage::HeartbeatAck(ack)))) = decode(0x02, ack) else {
        panic!("refused")
    };
    assert_eq!(ack.server_status, ServerStatus::Unknown);
}

#[test]
fn bodies_of_another_shape_are_errors() {
    for (body, why) in [
        ("", MessageError::NotAnObject),
        ("null", MessageError::NotAnObject),
        (r#"["d",1,2]"#, MessageError::NotAnObject),
        ("{", MessageError::Syntax { line: 1, column: 1 }),
        (&GOOD[..GOOD.len() - 1], MessageError::Syntax { line: 1, column: 43 }),
        (&format!("{GOOD}{GOOD}"), MessageError::Syntax { line: 1, column: 45 }),
        (&format!("{GOOD}x"), MessageError::Syntax { line: 1, column: 45 }),
        ("{}", MessageError::Shape { line: 1, column: 2 }),
    ] {
        assert_eq!(decode(0x01, body), Err(why), "{body}");
    }
    for body in [
        r#"{"device_id":7,"timestamp":1,"sequence":2}"#,
        r#"{"device_id":"d","timestamp":-1,"sequence":2}"#,
        r#"{"device_id":"d","timestamp":1.5,"sequence":2}"#,
        r#"{"device_id":"d","timestamp":18446744073709551616,"sequence":2}"#,
        r#"{"device_id":"d","device_id":"e","timestamp":1,"sequence":2}"#,
        r#"{"device_id":"d","timestamp":1,"sequence":2,"vitals":[1]}"#,
        r#"{"device_id":"d","timestamp":1,"sequence":2,"vitals":"x"}"#,
    ] {
        let shape = matches!(decode(0x01, body), Err(MessageError::Shape { .. }));
        assert!(shape, "{body}");
    }
    let huge = r#"{"device_id":"d","timestamp":1,"gpu_usage":1e999,"reason":""}"#;
    assert!(matches!(decode(0x08, huge), Err(MessageError::Syntax { .. })));
    let cast = r#"{"device_id":"d","timestamp":1,"gpu_usage":1e99,"reason":""}"#;
    assert_eq!(decode(0x08, cast), Err(OutOfRange { field: "gpu_usage" }.into()));
}

#[test]
fn a_body_that_is_not_utf_8_is_an_error_even_in_a_field_that_is_ignored() {
    let mut body = br#"{"device_id":"d","timestamp":1,"sequence":2,"x":"?"}"#.to_vec();
    let at = body.iter().position(|byte| *byte == b'?').unwrap();
    body[at] = 0xff;
    assert_eq!(decode(0x01, &body), Err(MessageError::NotUtf8));
}

#[test]
fn ten_mebibytes_of_nesting_are_an_error_and_no_overflow_of_the_stack() {
    let half = MAX_PAYLOAD / 2 - 64;
    let nest = format!("{}{}", "[".repeat(half), "]".repeat(half));
    let in_vitals = GOOD.replace('}', r#","vitals":"#);
    for body in [
        "[".repeat(MAX_PAYLOAD),
        "{\"a\":".repeat(MAX_PAYLOAD / 5),
        format!("{in_vitals}{nest}}}"),
        format!("{in_vitals}{{\"a\":{nest}}}}}"),
        format!("{{\"device_id\":{nest}}}"),
    ] {
        assert!(decode(0x01, &body).is_err());
    }
    let ignored = GOOD.replace('}', &format!(",\"later\":{nest}}}"));
    assert_eq!(decode(0x01, ignored), decode(0x01, GOOD));
}

#[test]
fn an_object_is_taken_at_its_depth_and_size_and_refused_one_past_either() {
    let nested =
        |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    let deep = nested(MAX_OBJECT_DEPTH);
    assert!(deep.parse::<Object>().is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(&deep).is_ok());
    let deeper = nested(MAX_OBJECT_DEPTH + 1);
    let refused = Err(OutOfRange { field: "object" }.into());
    assert_eq!(deeper.parse::<Object>(), refused);
    assert!(serde_json::from_str::<serde_json::Value>(&deeper).is_err());

    let sized = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
    assert!(sized(MAX_OBJECT).parse::<Object>().is_ok());
    assert_eq!(sized(MAX_OBJECT + 1).parse::<Object>(), refused);

    let brackets_in_a_string = format!(r#"{{"a":"\"{}"}}"#, "[".repeat(500));
    assert!(brackets_in_a_string.parse::<Object>().is_ok());
    assert_eq!("null".parse::<Object>(), Err(MessageError::NotAnObject));
    assert_eq!(decode(0x01, GOOD.replace('}', r#","vitals":null}"#)), decode(0x01, GOOD));
}

#[test]
fn a_value_is_sent_and_taken_at_its_limit_and_neither_one_past_it() {
    let id = |length| "i".repeat(length);
    let beat = |length| {
        Message::Control(ControlMessage::Heartbeat(Heartbeat {
            device_id: id(length),
            timestamp: 0,
            sequence: 0,
            vitals: None,
        }))
    };
    at_and_past(&[beat(1), beat(MAX_ID)], &[beat(0), beat(MAX_ID + 1)], "device_id");

    let error = |code, words: usize| {
        let message = "w".repeat(words);
        Message::Stream(StreamMessage::Error(ErrorMessage {
            code: id(code),
            message,
            details: None,
        }))
    };
    at_and_past(&[error(1, 0), error(MAX_CODE, MAX_SENTENCE)], &[error(MAX_CODE + 1, 0)], "code");
    at_and_past(&[], &[error(1, MAX_SENTENCE + 1)], "message");

    let prewarm = |gpu_usage, gpu_temp| {
        Message::Control(ControlMessage::PrewarmSignal(PrewarmSignal {
            device_id: id(1),
            timestamp: 0,
            gpu_usage,
            gpu_temp: Some(gpu_temp),
            reason: String::new(),
        }))
    };
    at_and_past(
        &[prewarm(0.0, -273.0), prewarm(100.0, 1000.0)],
        &[prewarm(-0.1, 0.0), prewarm(100.1, 0.0)],
        "gpu_usage",
    );
    at_and_past(&[], &[prewarm(0.0, -273.1), prewarm(0.0, 1000.1)], "gpu_temp");
    for broken in [f32::NAN, f32::INFINITY] {
        let sent = payload_of(&prewarm(broken, 0.0));
        assert_eq!(sent, Err(OutOfRange { field: "gpu_usage" }.into()));
    }
}

#[test]
fn an_escalation_is_sent_and_taken_at_its_limits_and_neither_one_past_them() {
    let with = |change: &dyn Fn(&mut EscalationRequest)| {
        let mut request = EscalationRequest::new("r", "q");
        change(&mut request);
        Message::Cloud(CloudMessage::EscalationRequest(request))
    };
    let query = |chars: usize| with(&|it| it.query = "é".repeat(chars).into());
    at_and_past(
        &[query(1), query(MAX_QUERY_CHARS)],
        &[query(0), query(MAX_QUERY_CHARS + 1)],
        "query",
    );
    let tokens = |tokens| with(&|it| it.preferences.max_tokens = tokens);
    at_and_past(&[tokens(1), tokens(128_000)], &[tokens(0), tokens(128_001)], "max_tokens");
    let timeout = |secs| with(&|it| it.timeout_secs = secs);
    at_and_past(&[timeout(1), timeout(600)], &[timeout(0), timeout(601)], "timeout_secs");
    let tone = |length| with(&|it| it.preferences.tone = Some("t".repeat(length)));
    at_and_past(&[tone(1), tone(MAX_ID)], &[tone(0), tone(MAX_ID + 1)], "tone");
    let model = |length| with(&|it| it.model = Some("m".repeat(length)));
    at_and_past(&[model(1), model(MAX_ID)], &[model(0), model(MAX_ID + 1)], "model");
    let chunk = KnowledgeChunk { source: None, text: "t".into() };
    let chunks = |count| with(&|it| it.context.knowledge_chunks = vec![chunk.clone(); count]);
    at_and_past(&[chunks(MAX_LIST)], &[chunks(MAX_LIST + 1)], "knowledge_chunks");

    let defaults = decode(0x03, r#"{"request_id":"r","query":"q"}"#);
    assert_eq!(defaults, Ok(Some(with(&|_| {}))));
}

#[test]
fn a_service_name_is_taken_at_its_limit_and_refused_one_past_it() {
    for good in ["a", "db.primary", "x-_.0", &"n".repeat(64)] {
        assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        assert_eq!(ServiceName::try_from(good.to_owned()).unwrap().to_string(), good);
    }
    for bad in ["", "A", "a b", "a/b", "ä", "a\0", "a\n", &"n".repeat(65)] {
        assert_eq!(bad.parse::<ServiceName>(), Err(InvalidServiceName));
        assert_eq!(ServiceName::try_from(bad.to_owned()), Err(InvalidServiceName));
        let body = serde_json::to_string(&serde_json::json!({ "service": bad })).unwrap();
        assert!(matches!(decode(0x10, body), Err(MessageError::Shape { .. })), "{bad}");
    }
    let escaped = decode(0x10, r#"{"service":"\u0061b"}"#).unwrap().unwrap();
    assert_eq!(escaped, decode(0x10, r#"{"service":"ab"}"#).unwrap().unwrap());
}

#[test]
fn binary_bodies_cut_short_are_errors() {
    for body in [&b""[..], b"\0", b"\0\x03{}", b"\xff\xff{\"id\":\"r\"}"] {
        assert_eq!(decode(0x12, body), Err(MessageError::Truncated));
    }
    assert_eq!(decode(0x12, b"\0\0{}"), Err(MessageError::NotAnObject));
    assert_eq!(decode(0x12, b"\0\x09{\"id\":\"\"}"), Err(OutOfRange { field: "id" }.into()));
    assert_eq!(decode(0x14, [0; 8]), Err(MessageError::Truncated));
    assert!(decode(0x14, [0; 9]).is_ok());
    assert_eq!(decode(0x11, b"x"), Err(MessageError::NotEmpty));
}

#[test]
fn a_request_without_deadline_or_priority_has_neither_hurry() {
    let request = decode(0x12, b"\0\x0a{\"id\":\"r\"}body").unwrap().unwrap();
    let body = Bytes::from_static(b"body");
    let expected = Request { id: "r".into(), deadline_ms: None, priority: Priority::Normal, body };
    assert_eq!(request, Message::Stream(StreamMessage::Request(expected)));
    assert!(Priority::High < Priority::Normal && Priority::Normal < Priority::Low);
}

#[test]
fn flags_of_later_versions_are_ignored() {
    for (flags, is_final) in [(0x00, false), (0x01, true), (0xfe, false), (0xff, true)] {
        let chunk = decode(0x14, [0, 0, 0, 0, 0, 0, 0, 5, flags]).unwrap().unwrap();
        let expected = ResponseChunk { sequence: 5, is_final, body: Bytes::new() };
        assert_eq!(chunk, Message::Stream(StreamMessage::ResponseChunk(expected)));
    }
}

#[test]
fn bodies_are_not_copied_on_receipt() {
    let body = Bytes::from_static(b"the body");
    let request = Request { id: "r".into(), deadline_ms: None, priority: Priority::Low, body };
    let response = Response { body: request.body.clone() };
    let chunk = ResponseChunk { sequence: 0, is_final: false, body: request.body.clone() };
    for message in [
        Message::Stream(StreamMessage::Request(request)),
        Message::Stream(StreamMessage::Response(response)),
        Message::Stream(StreamMessage::ResponseChunk(chunk)),
    ] {
        let payload = payload_of(&message).unwrap();
        let tail = payload[payload.len() - 8..].as_ptr();
        let read = Message::decode(message.kind().to_wire(), payload).unwrap().unwrap();
        let (Message::Stream(StreamMessage::Request(Request { body, .. }))
        | Message::Stream(StreamMessage::Response(Response { body }))
        | Message::Stream(StreamMessage::ResponseChunk(ResponseChunk { body, .. }))) = read
        else {
            panic!("another kind")
        };
        assert_eq!((body.as_ptr(), &body[..]), (tail, &b"the body"[..]));
    }
}

#[test]
fn a_response_at_the_limit_is_sent_and_one_past_it_leaves_the_buffer_as_it_was() {
    let body = Bytes::from(vec![0; MAX_PAYLOAD + 1]);
    let mut wire = BytesMut::from(&b"before"[..]);
    let past = Message::Stream(StreamMessage::Response(Response { body: body.clone() }));
    assert_eq!(past.encode(&mut wire), Err(EncodeError::TooLarge));
    let chunk = ResponseChunk { sequence: 0, is_final: true, body: body.slice(..MAX_PAYLOAD - 8) };
    assert_eq!(
        Message::Stream(StreamMessage::ResponseChunk(chunk)).encode(&mut wire),
        Err(EncodeError::TooLarge)
    );
    assert_eq!(&wire[..], b"before");
    Message::Stream(StreamMessage::Response(Response { body: body.slice(1..) }))
        .encode(&mut wire)
        .unwrap();
    assert_eq!(wire.len(), 6 + 5 + MAX_PAYLOAD);
}

#[test]
fn json_that_grows_past_the_limit_while_it_is_written_is_undone() {
    let mut request = EscalationRequest::new("r", "q");
    request.context.framing = Some("\u{1}".repeat(MAX_PAYLOAD / 6 + 1).into());
    let mut wire = BytesMut::from(&b"before"[..]);
    let sent = Message::Cloud(CloudMessage::EscalationRequest(request)).encode(&mut wire);
    assert_eq!(sent, Err(EncodeError::TooLarge));
    assert_eq!(&wire[..], b"before");
}

/// Checks that `good` can be sent and is read back; and that `bad` can be neither sent nor read,
/// because of `field`.
pub(super) fn at_and_past(good: &[Message], bad: &[Message], field: &'static str) {
    for message in good {
        let payload = payload_of(message).unwrap();
        assert_eq!(decode(message.kind().to_wire(), payload).as_ref(), Ok(&Some(message.clone())));
    }
    for message in bad {
        assert_eq!(payload_of(message), Err(OutOfRange { field }.into()));
        let json = match message {
            Message::Control(ControlMessage::Heartbeat(body)) => serde_json::to_vec(body),
            Message::Stream(StreamMessage::Error(body)) => serde_json::to_vec(body),
            Message::Control(ControlMessage::PrewarmSignal(body)) => serde_json::to_vec(body),
            Message::Cloud(CloudMessage::EscalationRequest(body)) => serde_json::to_vec(body),
            Message::Relay(RelayMessage::Welcome(body)) => serde_json::to_vec(body),
            Message::Relay(RelayMessage::Register(body)) => serde_json::to_vec(body),
            Message::Relay(RelayMessage::Registered(body)) => serde_json::to_vec(body),
            Message::Relay(RelayMessage::Unregistered(body)) => serde_json::to_vec(body),
            Message::Relay(RelayMessage::Connect(body)) => serde_json::to_vec(body),
            Message::Relay(RelayMessage::Matched(body)) => serde_json::to_vec(body),
            Message::Relay(RelayMessage::Unmatched(body)) => serde_json::to_vec(body),
            Message::Relay(RelayMessage::Hangup(body)) => serde_json::to_vec(body),
            Message::Control(ControlMessage::Candidates(body)) => serde_json::to_vec(body),
            Message::Control(ControlMessage::HeartbeatAck(_))
            | Message::Cloud(CloudMessage::EscalationResponse(_))
            | Message::Cloud(CloudMessage::StreamChunk(_))
            | Message::Cloud(CloudMessage::StreamEnd(_))
            | Message::Stream(StreamMessage::Open(_))
            | Message::Stream(StreamMessage::Opened(_))
            | Message::Stream(StreamMessage::ResetAt(_))
            | Message::Stream(StreamMessage::Request(_))
            | Message::Stream(StreamMessage::Response(_))
            | Message::Stream(StreamMessage::ResponseChunk(_))
            | Message::Control(ControlMessage::Goaway(_))
            | Message::Control(ControlMessage::Credit(_))
            | Message::Relay(RelayMessage::Withdraw(_))
            | Message::Relay(RelayMessage::Incoming(_)) => {
                panic!("no limit of {:?} is tried here", message.kind())
            }
        };
        let read = decode(message.kind().to_wire(), json.unwrap());
        assert_eq!(read, Err(OutOfRange { field }.into()));
    }
}
