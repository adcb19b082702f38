//! Certificates for the conformance suite: one authority, its devices, and those that must be
//! rejected. Validity is in fixed years, so that no case depends on when it runs, this century.

use std::time::Duration;

use crate::backoff;
use crate::config::{Builder, Config, Transport};
use crate::heartbeat;
use crate::pki::{Authority, Role, Validity};
use crate::retry;
use crate::tls::{Identity, Tls};

pub(super) const SERVER_NAME: &str = "server.test";

/// From 2000 until 2100.
pub(super) const VALID: Validity = between(946_684_800, 4_102_444_800);
/// From 2000 until 2001.
pub(super) const EXPIRED: Validity = between(946_684_800, 978_307_200);
/// From 2099 until 2100.
pub(super) const FUTURE: Validity = between(4_070_908_800, 4_102_444_800);

/// One authority.
pub(super) struct Identities {
    authority: Authority,
}

impl Identities {
    pub(super) fn new() -> Self {
        let authority = Authority::valid("conformance authority", VALID);
        Self { authority: authority.expect("the provider makes P-256 keys") }
    }

    /// Returns a server's configuration, valid and trusting this authority.
    pub(super) fn server(&self) -> Builder {
        self.config(SERVER_NAME, VALID, self).listening(true)
    }

    /// Returns a client's configuration, valid and trusting this authority.
    pub(super) fn client(&self) -> Builder {
        self.config("client.test", VALID, self)
    }

    /// Returns a configuration with a certificate of this authority that trusts `trusted`.
    pub(super) fn config(&self, name: &str, validity: Validity, trusted: &Self) -> Builder {
        let trust = trusted.authority.trust().expect("the authority is a certificate");
        Config::builder(Tls::new(self.issue(name, validity), trust))
            .device_id(name)
            .transport(Transport { keep_alive: Duration::from_millis(250), ..Transport::default() })
            .retry(quick_retry())
    }

    fn issue(&self, name: &str, validity: Validity) -> Identity {
        let issued = self.authority.issue_valid(name, Role::Connector, validity);
        issued.expect("the name is a DNS name").identity()
    }
}

/// Returns a validity between two times, in seconds since the Unix epoch.
const fn between(not_before: u64, not_after: u64) -> Validity {
    Validity {
        not_before: Duration::from_secs(not_before),
        not_after: Duration::from_secs(not_after),
    }
}

/// Finds a silent peer within a few seconds. Cases in which a peer falls silent ask for it; in the
/// others a busy machine must not make one look dead.
pub(super) fn quick_heartbeat() -> heartbeat::HeartbeatConfig {
    heartbeat::HeartbeatConfig::builder()
        .interval(Duration::from_secs(1))
        .ack_within(Duration::from_secs(1))
        .dead_after(Duration::from_secs(3))
        .build()
        .expect("the schedule fits together")
}

/// Returns a policy that tries again after a tenth of a second and never gives up.
fn quick_retry() -> retry::Policy {
    let backoff = backoff::BackoffConfig::builder()
        .initial(Duration::from_millis(100))
        .max(Duration::from_millis(400))
        .build()
        .expect("the delays fit together");
    retry::Policy::builder()
        .max_attempts(None)
        .max_unavailable(None)
        .backoff(backoff)
        .build()
        .expect("the policy fits together")
}
