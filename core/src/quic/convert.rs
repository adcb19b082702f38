//! The transport's errors as ours: one place decides who was to blame.

use quinn_proto::{ConnectError, ConnectionError, TransportErrorCode, VarInt};

use crate::error::{Code, Failure, Misuse};
use crate::transmit::Ecn;

/// TLS alerts that say the certificate or its absence is the problem (RFC 8446 §6.2), and
/// `no_application_protocol` (RFC 7301 §3.2).
const NO_APPLICATION_PROTOCOL: u64 = 120;
const PROTOCOL_VERSION: u64 = 70;

pub(super) fn failure(error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::VersionMismatch => {
            Failure::new(Code::VersionMismatch, "the peer speaks no QUIC version of ours")
        }
        ConnectionError::TransportError(e) => {
            Failure::new(transport_code(e.code), format!("local: {e}"))
        }
        ConnectionError::ConnectionClosed(close) => {
            Failure::new(transport_code(close.error_code), format!("peer: {close}"))
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
    let wire = u64::from(code);
    if code == TransportErrorCode::CONNECTION_REFUSED {
        return Code::Overloaded;
    }
    // What stands for every code of ours before the handshake is complete (RFC 9000 §10.2.3).
    if code == TransportErrorCode::APPLICATION_ERROR {
        return Code::Closed;
    }
    match wire.checked_sub(0x100) {
        Some(NO_APPLICATION_PROTOCOL | PROTOCOL_VERSION) => Code::VersionMismatch,
        Some(0..=0xff) => Code::Unauthenticated,
        Some(_) | None => Code::ProtocolViolation,
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
