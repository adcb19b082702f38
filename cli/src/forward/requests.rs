//! What a connector answers to requests: JSON in, JSON out, one operation each. It decides who may
//! ask for what; it never answers later than it can say why not.
//!
//! An operation is one arm of [`answer`].

use std::borrow::Cow;

use adit_tokio::core::drive::Peer;
use adit_tokio::core::error::{Code, Failure};
use bytes::Bytes;
use serde::Deserialize;

use super::device::Device;

/// Longest body that is looked at: a certificate request has room in it, and nothing is as long.
const LONGEST: usize = 64 * 1024;

/// What every operation has. Further keys are the operation's own, or are ignored.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
}

/// Answers the requests of one peer in turn, until it is closed for good.
pub(super) async fn serve(peer: &Peer, device: &Device) {
    while let Some(request) = peer.accept_request().await {
        // A requester that has given up meanwhile needs no answer.
        let _ = match answer(request.body(), device) {
            Ok(body) => request.respond(body),
            Err(failure) => {
                tracing::info!(%device, %failure, "refused a request");
                request.fail(&failure)
            }
        };
    }
}

fn answer(body: &[u8], device: &Device) -> Result<Bytes, Failure> {
    if body.len() > LONGEST {
        let why = format!("a request to a connector has at most {LONGEST} bytes");
        return Err(Failure::new(Code::TooLarge, why));
    }
    let asked: Asked<'_> = serde_json::from_slice(body).map_err(|error| {
        Failure::new(Code::ProtocolViolation, format!("the request names no operation: {error}"))
    })?;
    match &*asked.op {
        "ping" => {
            device.as_member("\"ping\"")?;
            Ok(Bytes::from_static(b"{}"))
        }
        other => {
            let why = format!("this connector has no operation {other:?}");
            Err(Failure::new(Code::NoSuchService, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> Option<Code> {
        answer(body.as_bytes(), &Device::member(&["laptop"])).err().map(|failure| failure.code())
    }

    #[test]
    fn a_ping_is_answered_with_an_empty_object() {
        let answered = answer(br#"{"op":"ping"}"#, &Device::member(&[]));
        assert_eq!(answered.unwrap(), "{}");
        assert_eq!(code(r#"{"later":[1],"op":"\u0070ing"}"#), None);
    }

    #[test]
    fn an_unknown_operation_is_named_in_the_refusal() {
        let failure = answer(br#"{"op":"reboot"}"#, &Device::member(&[])).unwrap_err();
        assert_eq!(failure.code(), Code::NoSuchService);
        assert!(failure.detail().contains("\"reboot\""), "{failure}");
    }

    #[test]
    fn what_names_no_operation_is_a_violation() {
        for body in ["", "ping", "[]", "{}", r#"{"op":1}"#, r#"{"op":"ping"} x"#] {
            assert_eq!(code(body), Some(Code::ProtocolViolation), "{body}");
        }
    }

    #[test]
    fn a_body_may_be_so_long_and_not_a_byte_longer() {
        let body = |bytes: usize| r#"{"op":"ping"}"#.to_owned() + &" ".repeat(bytes - 13);
        assert_eq!(code(&body(LONGEST)), None);
        assert_eq!(code(&body(LONGEST + 1)), Some(Code::TooLarge));
    }

    #[test]
    fn a_guest_gets_no_answer_to_a_ping() {
        let failure = answer(br#"{"op":"ping"}"#, &Device::guest()).unwrap_err();
        assert_eq!(failure.code(), Code::Forbidden);
    }
}
