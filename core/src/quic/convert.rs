//! Converts the transport's errors to ours: one place decides which side caused them.

use quinn_proto::{ConnectError, ConnectionError, TransportErrorCode, VarInt};

use crate::error::{Code, Failure, Misuse};
use crate::transmit::Ecn;

/// TLS alerts that are about versions (RFC 8446 §6.2, RFC 7301 §3.2); any other is treated as one
/// about certificates.
const NO_APPLICATION_PROTOCOL: u64 = 120;
const PROTOCOL_VERSION: u64 = 70;
/// Alerts that a person can act on (RFC 8446 §6.2).
const CERTIFICATE_REVOKED: u64 = 44;
const CERTIFICATE_EXPIRED: u64 = 45;
/// On this side only a pinned key ends in this one: the certificates of a CA have alerts of their own.
const CERTIFICATE_UNKNOWN: u64 = 46;
const UNKNOWN_CA: u64 = 48;
const CERTIFICATE_REQUIRED: u64 = 116;

pub(super) fn failure(error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::VersionMismatch => {
            Failure::new(Code::VersionMismatch, "the peer speaks no QUIC version of ours")
        }
        ConnectionError::TransportError(e) => {
            let sentence = match alert(e.code) {
                Some(CERTIFICATE_UNKNOWN) => refused_here(CERTIFICATE_UNKNOWN).to_owned(),
                Some(alert) => format!("{} ({})", refused_here(alert), e.reason),
                None => format!("local: {e}"),
            };
            Failure::new(transport_code(e.code), sentence)
        }
        ConnectionError::ConnectionClosed(close) => {
            let sentence = match alert(close.error_code) {
                Some(alert) => refused_there(alert).to_owned(),
                None => format!("peer: {close}"),
            };
            Failure::new(transport_code(close.error_code), sentence)
        }
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            Failure::new(Code::from_wire(close.error_code.into_inner()), reason)
        }
        ConnectionError::Reset => {
            Failure::new(Code::Reset, "the peer does not know this connection any more")
        }
        ConnectionError::TimedOut => {
            Failure::new(Code::TimedOut, "no packet from the peer within the idle timeout")
        }
        ConnectionError::LocallyClosed => Failure::new(Code::Closed, "closed by this side"),
        ConnectionError::CidsExhausted => {
            Failure::new(Code::Overloaded, "no connection ids are left")
        }
    }
}

fn transport_code(code: TransportErrorCode) -> Code {
    if code == TransportErrorCode::CONNECTION_REFUSED {
        return Code::Overloaded;
    }
    // This code replaces each of ours before the handshake is complete (RFC 9000 §10.2.3).
    if code == TransportErrorCode::APPLICATION_ERROR {
        return Code::Closed;
    }
    match alert(code) {
        Some(NO_APPLICATION_PROTOCOL | PROTOCOL_VERSION) => Code::VersionMismatch,
        Some(_) => Code::Unauthenticated,
        None => Code::ProtocolViolation,
    }
}

/// Returns the TLS alert that a transport error carries (RFC 9001 §4.8).
fn alert(code: TransportErrorCode) -> Option<u64> {
    u64::from(code).checked_sub(0x100).filter(|alert| *alert <= 0xff)
}

/// Returns this side's objection to the peer's handshake.
const fn refused_here(alert: u64) -> &'static str {
    match alert {
        CERTIFICATE_REVOKED => "the peer's certificate was revoked",
        CERTIFICATE_EXPIRED => "the peer's certificate is not valid at the time of this clock",
        CERTIFICATE_UNKNOWN => "the peer has another key than the expected one",
        UNKNOWN_CA => "the peer's certificate is not of a CA that is trusted here",
        NO_APPLICATION_PROTOCOL | PROTOCOL_VERSION => "the peer speaks no version of this side",
        _ => "the peer's certificate is not acceptable",
    }
}

/// Returns the peer's objection to ours.
const fn refused_there(alert: u64) -> &'static str {
    match alert {
        CERTIFICATE_REVOKED => "the peer says that this side's certificate was revoked",
        CERTIFICATE_EXPIRED => {
            "the peer says that this side's certificate is not valid at the time of its clock"
        }
        UNKNOWN_CA => "the peer does not trust the CA of this side's certificate",
        CERTIFICATE_REQUIRED => "the peer was shown no certificate",
        NO_APPLICATION_PROTOCOL | PROTOCOL_VERSION => "the peer speaks no version of this side",
        _ => "the peer refuses this side's certificate",
    }
}

pub(super) const fn misuse(error: &ConnectError) -> Misuse {
    match error {
        ConnectError::EndpointStopping => Misuse::ShuttingDown,
        ConnectError::CidsExhausted => Misuse::OverLimit,
        ConnectError::InvalidServerName(_) => Misuse::InvalidName,
        ConnectError::InvalidRemoteAddress(_) => Misuse::InvalidAddress,
        ConnectError::NoDefaultClientConfig | ConnectError::UnsupportedVersion => {
            Misuse::WrongState
        }
    }
}

pub(super) fn wire(code: Code) -> VarInt {
    VarInt::from_u32(code.to_wire())
}

pub(super) const fn ecn_in(ecn: Ecn) -> quinn_proto::EcnCodepoint {
    match ecn {
        Ecn::Ect0 => quinn_proto::EcnCodepoint::Ect0,
        Ecn::Ect1 => quinn_proto::EcnCodepoint::Ect1,
        Ecn::Ce => quinn_proto::EcnCodepoint::Ce,
    }
}

pub(super) const fn ecn_out(ecn: quinn_proto::EcnCodepoint) -> Ecn {
    match ecn {
        quinn_proto::EcnCodepoint::Ect0 => Ecn::Ect0,
        quinn_proto::EcnCodepoint::Ect1 => Ecn::Ect1,
        quinn_proto::EcnCodepoint::Ce => Ecn::Ce,
    }
}
