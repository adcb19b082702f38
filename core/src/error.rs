//! Errors, typed by the side that caused them, and the causes in events.
//!
//! Input from a peer never becomes an `Err`: it becomes an event, a counter or a closed connection,
//! with the reason in its [`Failure`]. `Err` is for the caller's own misuse ([`Misuse`]) and for
//! configuration.

use std::fmt;

/// The part of the system that a failure belongs to; it decides what recovery does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// The path between the two: back off and reconnect.
    Network,
    /// Certificates and authorisation: do not retry.
    Authentication,
    /// The local configuration: stop and report it.
    Configuration,
    /// The peer understood and refused: wait as it asks.
    Server,
    /// The peer, or what lies between, broke the protocol: reconnect.
    Protocol,
    /// None of the above could be established.
    Unknown,
}

/// Why a connection or an attempt ended: a stable code, its category and a sentence.
///
/// ```
/// use adit_core::error::{Category, Code, Failure};
/// let f = Failure::new(Code::TimedOut, "no answer for 30 s");
/// assert_eq!(f.category(), Category::Network);
/// assert_eq!(f.to_string(), "timed_out: no answer for 30 s");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    code: Code,
    detail: String,
    retry_after: Option<std::time::Duration>,
    #[serde(skip)]
    is_unproven: bool,
}

/// Returns true for a character that a terminal obeys or hides: a control, one that changes the
/// direction of text (U+202E), or one without width (U+200B).
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Longest detail kept, in bytes: text from a peer is quoted up to a limit.
pub const MAX_DETAIL: usize = 256;

impl Failure {
    /// Returns a failure with its explanation, cut to [`MAX_DETAIL`] bytes. Characters that a
    /// terminal obeys or hides are replaced: the text may be a peer's.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if detail.contains(is_invisible) {
            detail = detail.replace(is_invisible, "\u{fffd}");
        }
        if detail.len() > MAX_DETAIL {
            let mut end = MAX_DETAIL;
            while !detail.is_char_boundary(end) {
                end -= 1;
            }
            detail.truncate(end);
        }
        Self { code, detail, retry_after: None, is_unproven: false }
    }

    /// Returns the same failure with the peer's request to come back no sooner than `after`.
    #[must_use]
    pub fn with_retry_after(mut self, after: std::time::Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Returns the same failure, as one that any party on the path could have caused: it was met
    /// before the peer had proven its identity.
    #[must_use]
    pub const fn unproven(mut self) -> Self {
        self.is_unproven = true;
        self
    }

    /// Returns true if it comes from a peer that had proven its identity, or from this side alone.
    /// An unproven failure is no reason to abandon a peer that was connected before.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        !self.is_unproven
    }

    /// Returns the stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Returns the category of the code.
    #[must_use]
    pub const fn category(&self) -> Category {
        self.code.category()
    }

    /// Returns what happened, for a person.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns how long the peer asked to be left alone.
    #[must_use]
    pub const fn retry_after(&self) -> Option<std::time::Duration> {
        self.retry_after
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Failure {}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $text:literal, $category:ident, $hint:literal;)*) => {
        /// Stable failure codes: the text is what logs, events and `--json` carry, the number
        /// is the QUIC application error code (docs/protocol.md, "Closing").
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the stable text of the code.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Returns the QUIC application error code of the code.
            #[must_use]
            pub const fn to_wire(self) -> u32 {
                match self { $(Self::$name => $wire,)* }
            }

            /// Returns the code a peer meant by an application error code.
            #[must_use]
            pub const fn from_wire(wire: u64) -> Self {
                match wire { $($wire => Self::$name,)* _ => Self::Unknown }
            }

            /// Returns the side that caused it.
            #[must_use]
            pub const fn category(self) -> Category {
                match self { $(Self::$name => Category::$category,)* }
            }

            /// Returns advice for a person.
            #[must_use]
            pub const fn suggestion(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

codes! {
    /// Closed on purpose, without an error.
    Closed = 0x00, "closed", Network, "nothing to do: the peer closed the connection on purpose";
    /// The cause is not one of those below.
    Unknown = 0x01, "unknown", Unknown, "look at the detail, and at the peer's log";
    /// No answer within the time allowed.
    TimedOut = 0x02, "timed_out", Network, "check that the peer runs and that UDP reaches it";
    /// The peer answered that it does not know this connection.
    Reset = 0x03, "reset", Network, "the peer restarted: reconnecting is enough";
    /// Heartbeats went unanswered.
    HeartbeatLost = 0x04, "heartbeat_lost", Network, "check the network between the two";
    /// The local socket could not send there.
    Unreachable = 0x05, "unreachable", Network, "check the address and the local routes";
    /// The peer's certificate, or ours in its eyes, was not acceptable.
    Unauthenticated = 0x06, "unauthenticated", Authentication, "check the certificates and the CA of both sides";
    /// The peer is known, and not allowed this.
    Forbidden = 0x07, "forbidden", Authentication, "ask the owner of the service to allow this device";
    /// The two share no version or application protocol.
    VersionMismatch = 0x08, "version_mismatch", Configuration, "run the same major version on both sides";
    /// The peer broke the tunnel's or QUIC's rules.
    ProtocolViolation = 0x09, "protocol_violation", Protocol, "report this with both versions: one side has a bug";
    /// The peer is at one of its limits.
    Overloaded = 0x0a, "overloaded", Server, "try again later, or raise the peer's limits";
    /// The peer is shutting down.
    ShuttingDown = 0x0b, "shutting_down", Server, "wait for it to return";
    /// No service of that name is offered.
    NoSuchService = 0x0c, "no_such_service", Configuration, "check the service name on both sides";
    /// The service behind the connector refused or did not answer.
    BackendUnavailable = 0x0d, "backend_unavailable", Server, "start the service that the connector forwards to";
    /// A frame, body or queue would pass its limit.
    TooLarge = 0x0e, "too_large", Protocol, "send less at once: the limit is 10 MiB";
    /// A request's deadline passed.
    DeadlineExceeded = 0x0f, "deadline_exceeded", Network, "allow more time, or check the peer's load";
    /// Cancelled by its caller.
    Cancelled = 0x10, "cancelled", Network, "nothing to do: it was cancelled on purpose";
    /// The queue is full.
    QueueFull = 0x11, "queue_full", Server, "wait for the queue to drain";
    /// The connection was lost after the request had been sent; it may have been carried out.
    ConnectionLost = 0x12, "connection_lost", Network, "repeat the request if it is safe to repeat";
    /// The local configuration cannot work.
    Misconfigured = 0x13, "misconfigured", Configuration, "correct the configuration";
    /// Another connection with the same key replaced this one at a relay.
    Replaced = 0x14, "replaced", Configuration, "run one of the two, or give each an identity of its own";
    /// The same key is registered at a relay by another connection that lives.
    InUse = 0x15, "in_use", Server, "stop the other program that runs with this identity, or wait until it is gone";
    /// The name is held by another key at a relay.
    NameTaken = 0x16, "name_taken", Configuration, "give the connector another name";
    /// No connector that would take this client offers the service at a relay.
    UnknownService = 0x17, "unknown_service", Network, "start the connector with this relay, and check that it lets this device in";
    /// The other end of a channel of a relay has vanished.
    PeerGone = 0x18, "peer_gone", Network, "nothing to do: look for the service again";
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// A mistake of the caller; the core's state is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// No such peer: it never existed, or it is closed.
    #[error("no such peer")]
    UnknownPeer,
    /// No such stream, or both its directions are finished.
    #[error("no such stream")]
    UnknownStream,
    /// No such request, or it has ended.
    #[error("no such request")]
    UnknownRequest,
    /// The peer is not connected.
    #[error("the peer is not connected")]
    NotConnected,
    /// The node was configured without an identity to accept with.
    #[error("this node does not accept connections")]
    NotListening,
    /// The node trusts every dialer, and so has no acceptor that it trusts.
    #[error("this node is for accepting alone")]
    NotDialling,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The name is not a valid TLS server name.
    #[error("not a valid server name")]
    InvalidName,
    /// The address cannot be dialled.
    #[error("the address cannot be dialled")]
    InvalidAddress,
    /// The identity or the trust that a dial brought cannot be used.
    #[error("the identity or the trust of the dial cannot be used")]
    UnusableIdentity,
    /// More than a limit allows: of bytes, of peers, or of requests.
    #[error("over the limit")]
    OverLimit,
    /// The state of the thing does not allow this.
    #[error("not possible in this state")]
    WrongState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire_and_has_its_own_text() {
        let mut texts = std::collections::BTreeSet::new();
        for &code in Code::ALL {
            assert_eq!(Code::from_wire(u64::from(code.to_wire())), code);
            assert!(texts.insert(code.as_str()), "{} stands twice", code.as_str());
        }
        assert_eq!(Code::from_wire(u64::MAX), Code::Unknown);
    }

    #[test]
    fn a_detail_is_cut_at_its_limit_and_at_a_character() {
        assert_eq!(Failure::new(Code::Reset, "é".repeat(128)).detail().len(), MAX_DETAIL);
        assert_eq!(Failure::new(Code::Reset, format!("a{}", "é".repeat(128))).detail().len(), 255);
    }

    #[test]
    fn a_detail_moves_no_cursor_and_begins_no_line() {
        let failure = Failure::new(Code::Reset, "a\u{1b}[2Jb\r\nc\u{9b}é");
        assert_eq!(failure.detail(), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}é");
        let failure = Failure::new(Code::Reset, "gpj.\u{202e}exe a\u{200b}b\u{feff}");
        assert_eq!(failure.detail(), "gpj.\u{fffd}exe a\u{fffd}b\u{fffd}");
        assert!(Failure::new(Code::Reset, "\u{1}".repeat(MAX_DETAIL)).detail().len() <= MAX_DETAIL);
    }
}
