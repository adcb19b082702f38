//! Properties: messages survive encoding and decoding, and arbitrary bytes do no harm.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::{decode, payload_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::message::cloud::{
    Context, ConversationTurn, EscalationRequest, EscalationResponse, FinishReason, KnowledgeChunk,
    Preferences, PrewarmSignal, Speaker, StreamChunk, StreamEnd, Usage, Verbosity,
};
use crate::message::{
    Candidate, CandidateKind, Candidates, CloudMessage, Connect, ControlMessage, Credit,
    DiscoveryKey, ErrorMessage, Goaway, Hangup, Heartbeat, HeartbeatAck, Incoming, Mapping,
    Matched, Message, MessageKind, Object, Open, Opened, Priority, REFRESH_MS, Register,
    Registered, RelayMessage, Request, ResetAt, Response, ResponseChunk, ServerStatus, ServiceName,
    StreamMessage, Text, Unmatched, Unregistered, Welcome, Withdraw,
};
use crate::tls::KeyDigest;

const REGRESSIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/message.txt");

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_encoded_is_decoded_again(message in message()) {
        let payload = payload_of(&message).unwrap();
        let read = Message::decode(message.kind().to_wire(), payload.clone());
        prop_assert_eq!(read, Ok(Some(message.clone())));
        prop_assert_eq!(payload_of(&message).unwrap(), payload);
    }

    #[test]
    fn a_json_body_cut_anywhere_is_an_error(
        message in prop_oneof![control(), registration(), channels()].prop_filter(
            "a Credit has no JSON",
            |message| !matches!(message, Message::Control(ControlMessage::Credit(_))),
        ),
        cut in any::<prop::sample::Index>(),
    ) {
        let payload = payload_of(&message).unwrap();
        let cut = cut.index(payload.len());
        prop_assert!(decode(message.kind().to_wire(), &payload[..cut]).is_err());
    }

    #[test]
    fn one_byte_changed_is_read_or_refused_and_what_is_read_can_be_sent(
        message in message(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut payload = payload_of(&message).unwrap().to_vec();
        if !payload.is_empty() {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Ok(Some(read)) = decode(message.kind().to_wire(), payload) {
            let again = payload_of(&read).unwrap();
            prop_assert_eq!(decode(read.kind().to_wire(), again), Ok(Some(read)));
        }
    }

    #[test]
    fn arbitrary_bytes_of_any_kind_are_read_or_refused(kind in any::<u8>(), body in vec(any::<u8>(), 0..200)) {
        let known = MessageKind::from_wire(kind).is_some();
        prop_assert_eq!(decode(kind, body) == Ok(None), !known);
    }
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![control(), tunnel(), registration(), channels()]
}

fn control() -> impl Strategy<Value = Message> {
    prop_oneof![
        (id(), any::<u64>(), any::<u64>(), of(object())).prop_map(
            |(device_id, timestamp, sequence, vitals)| Message::Control(ControlMessage::Heartbeat(
                Heartbeat { device_id, timestamp, sequence, vitals }
            ))
        ),
        (any::<[u64; 4]>(), server_status()).prop_map(|(numbers, server_status)| {
            let [sequence, server_time, latency_ms, pending_messages] = numbers;
            Message::Control(ControlMessage::HeartbeatAck(HeartbeatAck {
                sequence,
                server_time,
                latency_ms,
                pending_messages,
                server_status,
            }))
        }),
        escalation_request(),
        (id(), text(), id(), finish(), of(usage())).prop_map(
            |(request_id, content, model, finish_reason, usage)| {
                Message::Cloud(CloudMessage::EscalationResponse(EscalationResponse {
                    request_id,
                    content,
                    model,
                    finish_reason,
                    usage,
                }))
            }
        ),
        (id(), any::<u64>(), any::<bool>(), text()).prop_map(
            |(request_id, sequence, is_final, data)| Message::Cloud(CloudMessage::StreamChunk(
                StreamChunk { request_id, sequence, is_final, data }
            ))
        ),
        (id(), any::<u64>(), finish(), of(usage())).prop_map(
            |(request_id, chunks, finish_reason, usage)| Message::Cloud(CloudMessage::StreamEnd(
                StreamEnd { request_id, chunks, finish_reason, usage }
            ))
        ),
        ("[a-z_]{1,64}", ".{0,80}", of(object())).prop_map(|(code, message, details)| {
            Message::Stream(StreamMessage::Error(ErrorMessage { code, message, details }))
        }),
        (id(), any::<u64>(), 0f32..=100.0, of(-273f32..=1000.0), ".{0,80}").prop_map(
            |(device_id, timestamp, gpu_usage, gpu_temp, reason)| {
                Message::Control(ControlMessage::PrewarmSignal(PrewarmSignal {
                    device_id,
                    timestamp,
                    gpu_usage,
                    gpu_temp,
                    reason,
                }))
            }
        ),
        ("[a-z0-9._-]{1,64}", of(id())).prop_map(|(name, origin)| Message::Stream(
            StreamMessage::Open(Open { service: name.parse().unwrap(), origin })
        )),
        ("[a-z_]{1,64}", ".{0,80}", of(any::<u64>())).prop_map(
            |(code, message, retry_after_ms)| Message::Control(ControlMessage::Goaway(Goaway {
                code,
                message,
                retry_after_ms
            }))
        ),
    ]
}

fn tunnel() -> impl Strategy<Value = Message> {
    let priority = prop_oneof![Just(Priority::High), Just(Priority::Normal), Just(Priority::Low)];
    prop_oneof![
        Just(Message::Stream(StreamMessage::Opened(Opened))),
        (any::<u64>(), any::<u64>(), "[a-z_]{1,64}").prop_map(|(stream, offset, code)| {
            Message::Stream(StreamMessage::ResetAt(ResetAt { stream, offset, code }))
        }),
        (id(), of(any::<u64>()), priority, body()).prop_map(|(id, deadline_ms, priority, body)| {
            Message::Stream(StreamMessage::Request(Request { id, deadline_ms, priority, body }))
        }),
        body().prop_map(|body| Message::Stream(StreamMessage::Response(Response { body }))),
        (any::<u64>(), any::<bool>(), body()).prop_map(|(sequence, is_final, body)| {
            Message::Stream(StreamMessage::ResponseChunk(ResponseChunk {
                sequence,
                is_final,
                body,
            }))
        }),
    ]
}

fn registration() -> impl Strategy<Value = Message> {
    prop_oneof![
        (address(), vec(address(), 0..4), any::<u64>(), any::<[u8; 32]>()).prop_map(
            |(observed, discovery, session, key)| Message::Relay(RelayMessage::Welcome(Welcome {
                observed,
                discovery,
                session,
                key: DiscoveryKey(key)
            }))
        ),
        (
            name(),
            vec(service(), 0..4),
            vec(digest(), 0..4),
            vec("[0-9a-f]{1,40}", 0..4),
            any::<bool>()
        )
            .prop_map(|(name, services, guests, revoked, takeover)| {
                Message::Relay(RelayMessage::Register(Register {
                    name,
                    services,
                    guests,
                    revoked,
                    takeover,
                }))
            }),
        REFRESH_MS.prop_map(|refresh_ms| Message::Relay(RelayMessage::Registered(Registered {
            refresh_ms
        }))),
        ("[a-z_]{1,64}", ".{0,80}", of(any::<u64>())).prop_map(
            |(code, message, retry_after_ms)| Message::Relay(RelayMessage::Unregistered(
                Unregistered { code, message, retry_after_ms }
            ))
        ),
        Just(Message::Relay(RelayMessage::Withdraw(Withdraw {}))),
    ]
}

fn channels() -> impl Strategy<Value = Message> {
    let kind = prop_oneof![
        Just(CandidateKind::Host),
        Just(CandidateKind::Reflexive),
        Just(CandidateKind::Mapped),
        Just(CandidateKind::Unknown),
    ];
    let mapping = prop_oneof![
        Just(Mapping::Unknown),
        Just(Mapping::None),
        Just(Mapping::Independent),
        Just(Mapping::Dependent),
    ];
    let candidate = (kind, address()).prop_map(|(kind, address)| Candidate { kind, address });
    prop_oneof![
        (any::<u64>(), service(), vec(digest(), 0..4)).prop_map(|(request, service, exclude)| {
            Message::Relay(RelayMessage::Connect(Connect { request, service, exclude }))
        }),
        (any::<(u64, u32)>(), name(), digest()).prop_map(|((request, channel), name, key)| {
            Message::Relay(RelayMessage::Matched(Matched { request, channel, name, key }))
        }),
        (any::<u64>(), "[a-z_]{1,64}", ".{0,80}", of(any::<u64>())).prop_map(
            |(request, code, message, retry_after_ms)| Message::Relay(RelayMessage::Unmatched(
                Unmatched { request, code, message, retry_after_ms }
            ))
        ),
        (any::<u32>(), service(), digest()).prop_map(|(channel, service, key)| {
            Message::Relay(RelayMessage::Incoming(Incoming { channel, service, key }))
        }),
        (any::<u32>(), "[a-z_]{1,64}", ".{0,80}").prop_map(|(channel, code, message)| {
            Message::Relay(RelayMessage::Hangup(Hangup { channel, code, message }))
        }),
        (any::<u64>(), vec(any::<(u64, u64)>(), 0..4)).prop_map(|(budget, read)| {
            Message::Control(ControlMessage::Credit(Credit { budget, read }))
        }),
        (vec(candidate, 0..4), mapping, any::<u32>(), any::<bool>()).prop_map(
            |(candidates, mapping, round, full_probes)| {
                Message::Control(ControlMessage::Candidates(Candidates {
                    candidates,
                    mapping,
                    round,
                    full_probes,
                }))
            }
        ),
    ]
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (1u32..0xe000_0000).prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = (1u128 << 64..0xff << 120).prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
    (prop_oneof![v4, v6], 1u16..).prop_map(SocketAddr::from)
}

fn digest() -> impl Strategy<Value = KeyDigest> {
    any::<[u8; 32]>().prop_map(KeyDigest)
}

fn service() -> impl Strategy<Value = ServiceName> {
    "[a-z0-9._-]{1,64}".prop_map(|name| name.parse().unwrap())
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9.-]{1,128}", "[!-~]{1,32}"]
}

fn escalation_request() -> impl Strategy<Value = Message> {
    let role = prop_oneof![Just(Speaker::System), Just(Speaker::User), Just(Speaker::Assistant)];
    let verbosity =
        prop_oneof![Just(Verbosity::Brief), Just(Verbosity::Normal), Just(Verbosity::Detailed)];
    let chunk = (of(text()), text()).prop_map(|(source, text)| KnowledgeChunk { source, text });
    let turn = (role, text()).prop_map(|(role, content)| ConversationTurn { role, content });
    let context = (of(text()), vec(chunk, 0..3), vec(turn, 0..3)).prop_map(
        |(framing, knowledge_chunks, conversation_history)| Context {
            framing,
            knowledge_chunks,
            conversation_history,
        },
    );
    let preferences = (verbosity, of(id()), 1u32..=128_000)
        .prop_map(|(verbosity, tone, max_tokens)| Preferences { verbosity, tone, max_tokens });
    (id(), ".{1,80}", context, preferences, 1u16..=600, of(id()), any::<bool>()).prop_map(
        |(request_id, query, context, preferences, timeout_secs, model, stream)| {
            Message::Cloud(CloudMessage::EscalationRequest(EscalationRequest {
                request_id,
                query: query.into(),
                context,
                preferences,
                timeout_secs,
                model,
                stream,
            }))
        },
    )
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{1,128}", ".{1,32}"]
}

fn text() -> impl Strategy<Value = Text> {
    any::<String>().prop_map(Text::from)
}

fn body() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn object() -> impl Strategy<Value = Object> {
    proptest::collection::btree_map(".{0,8}", any::<f64>(), 0..5)
        .prop_map(|map| serde_json::to_string(&map).unwrap().parse().unwrap())
}

fn usage() -> impl Strategy<Value = Usage> {
    any::<(u64, u64)>()
        .prop_map(|(input_tokens, output_tokens)| Usage { input_tokens, output_tokens })
}

fn server_status() -> impl Strategy<Value = ServerStatus> {
    prop_oneof![
        Just(ServerStatus::Ok),
        Just(ServerStatus::Degraded),
        Just(ServerStatus::Draining),
        Just(ServerStatus::Unknown),
    ]
}

fn finish() -> impl Strategy<Value = FinishReason> {
    prop_oneof![
        Just(FinishReason::Stop),
        Just(FinishReason::Length),
        Just(FinishReason::Filtered),
        Just(FinishReason::Failed),
        Just(FinishReason::Unknown),
    ]
}
