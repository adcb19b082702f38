//! Certificates for the conformance suite: one authority, its devices, and those that must not
//! be let in. Validity is in fixed years, so that no case depends on when it runs, this century.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::backoff;
use crate::config::{Builder, Config, Transport};
use crate::heartbeat;
use crate::retry;
use crate::tls::{Identity, Tls, Trust};

pub(super) const SERVER_NAME: &str = "server.test";

/// The years between which a certificate is valid, the last one excluded.
pub(super) type Years = (i32, i32);

pub(super) const VALID: Years = (2000, 2100);
pub(super) const EXPIRED: Years = (2000, 2001);
pub(super) const FUTURE: Years = (2099, 2100);

/// One authority.
pub(super) struct Identities {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Identities {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "conformance authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_years(&mut params, VALID);
        let key = KeyPair::generate().expect("the provider makes P-256 keys");
        let authority = CertifiedIssuer::self_signed(params, key)
            .expect("an authority can be signed by itself");
        Self { authority }
    }

    /// A server's configuration, valid and trusting this authority.
    pub(super) fn server(&self) -> Builder {
        self.config(SERVER_NAME, VALID, self).listening(true)
    }

    /// A client's configuration, valid and trusting this authority.
    pub(super) fn client(&self) -> Builder {
        self.config("client.test", VALID, self)
    }

    /// A configuration with a certificate of this authority that trusts `trusted`.
    pub(super) fn config(&self, name: &str, years: Years, trusted: &Self) -> Builder {
        let trust = Trust::new(vec![trusted.authority.der().clone()])
            .expect("the authority is a certificate");
        Config::builder(Tls::new(self.issue(name, years), trust))
            .device_id(name)
            .transport(Transport { keep_alive: Duration::from_millis(250), ..Transport::default() })
            .retry(quick_retry())
    }

    fn issue(&self, name: &str, years: Years) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).expect("the name is a DNS name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_years(&mut params, years);
        let key = KeyPair::generate().expect("the provider makes P-256 keys");
        let leaf = params.signed_by(&key, &self.authority).expect("the authority can sign");
        Identity::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes())
            .expect("what was just made can be read")
    }
}

fn set_years(params: &mut CertificateParams, (from, to): Years) {
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
}

/// Finds a silent peer within a few seconds. Cases in which a peer falls silent ask for it; in the
/// others a busy machine must not make one look dead.
pub(super) fn quick_heartbeat() -> heartbeat::Config {
    heartbeat::Config::builder()
        .interval(Duration::from_secs(1))
        .ack_within(Duration::from_secs(1))
        .dead_after(Duration::from_secs(3))
        .build()
        .expect("the schedule fits together")
}

/// Tries again after a tenth of a second and never gives up.
fn quick_retry() -> retry::Policy {
    let backoff = backoff::Config::builder()
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
