//! The lines of the control socket: the form of requests and answers, and the maximum length of
//! either. It does no IO.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Longest request, its end of line included: the known ones have 15 bytes.
pub(super) const MAX_REQUEST: usize = 1024;

/// Longest answer that is read: a status takes about 1 KiB for each peer, of which a node has at
/// most 16,384 unless it is configured to accept more.
pub(super) const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// A request to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum ControlRequest {
    /// Report the status.
    Status,
    /// Read the certificates and trust anchors again.
    Reload,
}

impl ControlRequest {
    /// Returns how long to wait for an answer. A process that takes longer for a status hangs; a
    /// reload reads files.
    pub(super) const fn patience(self) -> Duration {
        match self {
            Self::Status => Duration::from_secs(2),
            Self::Reload => Duration::from_secs(10),
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, and the right form.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| {
            format!("not a request: {error}; send {{\"op\":\"status\"}} or {{\"op\":\"reload\"}}")
        })
    }

    pub(super) fn line(self) -> Vec<u8> {
        line(&self)
    }
}

#[derive(Serialize)]
struct AcceptedAnswer<'a, T> {
    ok: bool,
    #[serde(flatten)]
    value: &'a T,
}

#[derive(Serialize)]
struct RefusedAnswer<'a> {
    ok: bool,
    error: &'a str,
}

/// Returns the line that answers a request.
pub(super) fn accepted<T: Serialize>(value: &T) -> Vec<u8> {
    line(&AcceptedAnswer { ok: true, value })
}

/// Returns the line with the reason why there is no answer.
pub(super) fn refused(error: &str) -> Vec<u8> {
    line(&RefusedAnswer { ok: false, error })
}

fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(value)
        .unwrap_or_else(|_| br#"{"ok":false,"error":"the answer is no JSON; see the log"}"#.into());
    line.push(b'\n');
    line
}

/// Reads an answer.
///
/// # Errors
/// The error that the process reported, or that this is no answer.
pub(super) fn answer(line: &[u8]) -> Result<Map<String, Value>, String> {
    let strange = || "its answer is not understood; run the same version of adit".to_owned();
    let mut answer: Map<String, Value> = serde_json::from_slice(line).map_err(|_| strange())?;
    match (answer.remove("ok"), answer.get("error")) {
        (Some(Value::Bool(true)), _) => Ok(answer),
        (Some(Value::Bool(false)), Some(Value::String(error))) => Err(error.clone()),
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_short_line_each() {
        for (request, text) in [
            (ControlRequest::Status, "{\"op\":\"status\"}\n"),
            (ControlRequest::Reload, "{\"op\":\"reload\"}\n"),
        ] {
            assert_eq!(request.line(), text.as_bytes());
            assert!(text.len() < MAX_REQUEST);
            assert_eq!(ControlRequest::parse(text.as_bytes()), Ok(request));
        }
    }

    #[test]
    fn what_is_no_request_is_answered_with_what_would_be_one() {
        for line in ["", "status", "{}", "[]", "{\"op\":\"stop\"}"] {
            let said = ControlRequest::parse(line.as_bytes()).unwrap_err();
            assert!(said.ends_with("send {\"op\":\"status\"} or {\"op\":\"reload\"}"), "{said}");
        }
        assert!(ControlRequest::parse(b"\xff\0").is_err());
    }

    #[test]
    fn answers_contain_success_or_failure() {
        let closed = Map::from_iter([("closed".to_owned(), Value::from(2))]);
        let line = accepted(&closed);
        assert_eq!(line, b"{\"ok\":true,\"closed\":2}\n");
        assert_eq!(answer(&line), Ok(closed));
        assert_eq!(answer(&refused("it \"failed\"\n")), Err("it \"failed\"\n".to_owned()));
        for strange in ["", "[]", "{}", "{\"ok\":1}", "{\"ok\":false}", "{\"ok\":true"] {
            assert!(answer(strange.as_bytes()).unwrap_err().contains("same version"), "{strange}");
        }
    }
}
