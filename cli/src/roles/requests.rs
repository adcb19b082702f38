//! What a connector answers to requests: JSON in, JSON out, one operation each. It decides the
//! permissions for each operation; it never delays a refusal.
//!
//! An operation is one arm of [`read`].

use std::borrow::Cow;
use std::sync::Arc;

use adit_tokio::core::drive::Peer;
use adit_tokio::core::error::{Code, Failure};
use bytes::Bytes;
use serde::Deserialize;

use crate::base::tally::Tally;
use crate::enrol::{self, EnrolmentRequest, EnrolmentResponse};
use crate::forward::egress::access::ConnectedDevice;
use crate::identity::mesh::roster::Roster;

/// Longest body that is read: a certificate request fits in it, and no other body is as long.
const LONGEST: usize = 64 * 1024;

/// Refused requests, by device and cause.
static REFUSED: Tally = Tally::new(3);

/// The keys of every operation. Further keys are the operation's own, or are ignored.
#[derive(Deserialize)]
struct OperationName<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
}

/// A parsed operation.
#[derive(Debug)]
enum Operation {
    Ping,
    Certificate(EnrolmentRequest),
}

/// Answers the requests of one peer in turn, until it is closed permanently.
pub(crate) async fn serve(peer: &Peer, device: &ConnectedDevice, roster: Option<Arc<Roster>>) {
    while let Some(request) = peer.accept_request().await {
        let answered = match read(request.body()) {
            Ok(Operation::Ping) => ping(device),
            Ok(Operation::Certificate(ask)) => certify(peer, device, roster.clone(), ask).await,
            Err(failure) => Err(failure),
        };
        // A requester that has given up meanwhile needs no answer.
        let _ = match answered {
            Ok(body) => request.respond(body),
            Err(failure) => {
                if let Some(more) = REFUSED.due(&device.to_string(), failure.code().as_str()) {
                    tracing::info!("refused a request of {device}: {failure}{more}");
                }
                request.fail(&failure)
            }
        };
    }
}

/// Parses a request.
fn read(body: &[u8]) -> Result<Operation, Failure> {
    if body.len() > LONGEST {
        let why = format!("a request to a connector has at most {LONGEST} bytes");
        return Err(Failure::new(Code::TooLarge, why));
    }
    let malformed = |error: serde_json::Error| {
        Failure::new(
            Code::ProtocolViolation,
            format!("the request asks for nothing known: {error}"),
        )
    };
    let named: OperationName<'_> = serde_json::from_slice(body).map_err(malformed)?;
    match &*named.op {
        "ping" => Ok(Operation::Ping),
        "enrol" | "renew" => {
            serde_json::from_slice(body).map(Operation::Certificate).map_err(malformed)
        }
        other => {
            let why = format!("this connector has no operation {other:?}");
            Err(Failure::new(Code::NoSuchService, why))
        }
    }
}

fn ping(device: &ConnectedDevice) -> Result<Bytes, Failure> {
    device.as_member("\"ping\"")?;
    Ok(Bytes::from_static(b"{}"))
}

/// Issues a certificate. A member's connection lives as long as its latest one.
async fn certify(
    peer: &Peer,
    device: &ConnectedDevice,
    roster: Option<Arc<Roster>>,
    ask: EnrolmentRequest,
) -> Result<Bytes, Failure> {
    let answer = issue(device, roster, ask).await?;
    if device.as_member("a certificate").is_ok() {
        peer.renew_credential(answer.certificate.as_bytes())?;
    }
    serde_json::to_vec(&answer)
        .map(Bytes::from)
        .map_err(|error| Failure::new(Code::Unknown, error.to_string()))
}

/// Writes to the disk, which must not block the thread that carries all traffic.
async fn issue(
    device: &ConnectedDevice,
    roster: Option<Arc<Roster>>,
    ask: EnrolmentRequest,
) -> Result<EnrolmentResponse, Failure> {
    let nobody = || Failure::new(Code::NoSuchService, "this connector issues no certificates");
    let roster = roster.ok_or_else(nobody)?;
    let gone = || Failure::new(Code::Closed, "the device is gone");
    let credential = device.credential().ok_or_else(gone)?.clone();
    let work = tokio::task::spawn_blocking(move || {
        let answered = enrol::connector::answer(roster.mesh(), &credential, ask);
        // The device may reconnect immediately, and must find what it was granted. If it cannot be
        // read now, the next look does.
        let _ = roster.look();
        answered
    });
    work.await.unwrap_or_else(|error| Err(Failure::new(Code::Unknown, error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> Option<Code> {
        read(body.as_bytes()).err().map(|failure| failure.code())
    }

    #[test]
    fn a_ping_is_answered_with_an_empty_object() {
        assert!(matches!(read(br#"{"op":"ping"}"#), Ok(Operation::Ping)));
        assert_eq!(ping(&ConnectedDevice::member(&[])).unwrap(), "{}");
        assert_eq!(code(r#"{"later":[1],"op":"\u0070ing"}"#), None);
    }

    #[test]
    fn a_certificate_is_asked_for_with_a_request() {
        assert!(matches!(read(br#"{"op":"renew","csr":""}"#), Ok(Operation::Certificate(_))));
        assert_eq!(code(r#"{"op":"enrol","label":"laptop"}"#), Some(Code::ProtocolViolation));
    }

    #[tokio::test]
    async fn a_connector_without_a_mesh_issues_no_certificates() {
        let ask = EnrolmentRequest::Renew { csr: String::new() };
        let refused = issue(&ConnectedDevice::member(&["device-1"]), None, ask).await.unwrap_err();
        assert_eq!(refused.code(), Code::NoSuchService);
    }

    #[test]
    fn an_unknown_operation_is_named_in_the_refusal() {
        let failure = read(br#"{"op":"reboot"}"#).unwrap_err();
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
        let failure = ping(&ConnectedDevice::guest()).unwrap_err();
        assert_eq!(failure.code(), Code::Forbidden);
    }
}
