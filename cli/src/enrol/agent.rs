//! The device's requests: it enrols with an invite, renews before its certificate expires, and gets
//! itself a new key on request.

use std::time::Duration;

use adit_tokio::core::config::{Config, Transport};
use adit_tokio::core::drive::Peer;
use adit_tokio::core::error::{Code, Failure};
use adit_tokio::core::request::Request;
use adit_tokio::core::tls::{Tls, Trust};
use rcgen::KeyPair;

use super::{EnrolmentRequest, EnrolmentResponse};
use crate::base::exit::{Exit, ExitError};
use crate::base::system::unix_now;
use crate::base::units;
use crate::config::RemoteConnector;
use crate::homedir::Home;
use crate::identity::invite::Invite;
use crate::identity::member::Membership;
use crate::identity::mesh::certificate;
use crate::identity::saved_service::{SavedService, title};
use crate::net::dialer::{Dialer, FailureLog, one_of_several};
use crate::net::link::reach;
use crate::net::node::CONNECT_TIMEOUT;

/// How far this machine's clock may be ahead of the connector's, in seconds: as far as certificates
/// are dated back.
const CLOCK_TOLERANCE: u64 = 3_600;

/// How long an invite is tried at least, for one that this machine's clock shows as over.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);

/// How long one request may take once there is a connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Redeems an invite. Returns the name under which its service is saved here. It retries until the
/// invite expires, or for `limit`.
///
/// # Errors
/// Why it cannot be redeemed.
pub(crate) async fn redeem(
    home: &Home,
    invite: &Invite,
    limit: Option<Duration>,
) -> Result<String, ExitError> {
    let left = time_left(invite)?;
    let membership = Membership::of(home, invite.ca);
    // Before the connector is asked: a home that cannot be written costs no invite.
    membership.key()?;
    let (identity, _) = invite.secret.identity()?;
    let relay_identity = identity.clone();
    let tls = Tls::new(identity, Trust::pinned(invite.ca));
    let core = Config::builder(tls)
        .device_id("agent")
        .transport(Transport::default().connect_timeout(CONNECT_TIMEOUT))
        .build()
        .map_err(|error| ExitError::new(Exit::Degraded, error.to_string()))?;
    let retry = one_of_several();
    let dialer = Dialer {
        core,
        relay_identity,
        port_mapping: false,
        retry,
        failures: FailureLog::default(),
    };
    let remote = remote(invite);
    let patience = limit.unwrap_or(left).min(left);
    let mut known = SavedService::new(
        invite.ca,
        invite.connector.clone(),
        &invite.addresses,
        invite.service.clone(),
    )
    .by(&invite.relays);
    let name = known.name_for(home);
    let before = SavedService::load(home, &name).ok();
    let (reached, key, answer) = loop {
        let attempt = reach(&remote, &dialer, patience).await;
        let attempt = match attempt {
            // This machine used the invite before, which is accepted again only for a while.
            Err(stop) if is_refused(&stop) && before.is_some() => return Ok(name),
            attempt => attempt.map_err(|stop| if_refused(stop, invite))?,
        };
        let reached = attempt.peer.remote().filter(|_| attempt.relays.is_none());
        let answered = enrol(&attempt.peer, &membership, invite).await;
        attempt.node.retire();
        match answered {
            Ok((key, answer)) => break (reached, key, answer),
            // The answer may have been lost: asked again, it is the same.
            Err(stop) if stop.exit() == Exit::Unreachable => {
                tracing::warn!("no answer to the enrolment, trying again: {stop}")
            }
            Err(stop) => return Err(stop),
        }
    };
    membership.keep(&key, &answer.certificate, &answer.ca)?;
    if let Some(reached) = reached {
        known.prefer(&reached.into());
    }
    if let Some(before) = before {
        (known.local, known.usual) = (before.local, before.usual);
    }
    known.save(home, &name)?;
    tracing::debug!(device = answer.device, "enrolled");
    Ok(name)
}

/// Returns the connector of an invite.
pub(crate) fn remote(invite: &Invite) -> RemoteConnector {
    let addresses: Vec<_> = invite.addresses.iter().cloned().map(Into::into).collect();
    let title = title(&addresses, &invite.service);
    RemoteConnector::at(addresses, invite.connector.clone())
        .called(title)
        .by(&invite.relays, Some(&invite.service))
}

fn time_left(invite: &Invite) -> Result<Duration, ExitError> {
    let (now, next) = (unix_now(), "ask for a new one: adit invite new");
    // The connector decides by its own clock; only an invite that is long over is not shown to it.
    if now > invite.expires.saturating_add(CLOCK_TOLERANCE) {
        let ago = Duration::from_secs(now - invite.expires);
        let sentence = format!(
            "this invite expired {} ago, unless this machine's clock, which says {}, is wrong; {next}",
            units::span(ago),
            units::date(now),
        );
        return Err(ExitError::new(Exit::Authentication, sentence));
    }
    let left = Duration::from_secs(invite.expires.saturating_sub(now));
    Ok(left.max(LEAST_PATIENCE))
}

fn is_refused(stop: &ExitError) -> bool {
    stop.exit() == Exit::Authentication && !stop.is_about_clock()
}

/// Returns the error for a rejected key of an invite.
fn if_refused(stop: ExitError, invite: &Invite) -> ExitError {
    if !is_refused(&stop) {
        return stop;
    }
    ExitError::new(
        Exit::Authentication,
        format!(
            "the connector {} does not take this invite ({stop}): it was revoked, has expired, or is \
             another connector's; ask for a new one: adit invite new",
            invite.connector
        ),
    )
}

/// Requests a certificate, with a new key if the present one is rejected: a revoked device stays
/// revoked, and becomes a new one when it is invited again.
async fn enrol(
    peer: &Peer,
    membership: &Membership,
    invite: &Invite,
) -> Result<(KeyPair, EnrolmentResponse), ExitError> {
    let mut key = membership.key()?;
    let mut answered = enrol_with(peer, &key).await?;
    let is_refused = answered.as_ref().is_err_and(|failure| failure.code() == Code::Forbidden);
    if is_refused && membership.is_certified() {
        key = membership.next_key()?;
        answered = enrol_with(peer, &key).await?;
    }
    let answer = answered.map_err(|failure| {
        if failure.code() == Code::Forbidden {
            let sentence = format!("{}; ask for a new one: adit invite new", failure.detail());
            return ExitError::new(Exit::Authentication, sentence);
        }
        failure.into()
    })?;
    if certificate::key_of_pem(&answer.ca).ok() != Some(invite.ca) {
        let sentence = "the connector answered with another CA than the invite's; tell its owner";
        return Err(ExitError::new(Exit::Authentication, sentence));
    }
    Ok((key, answer))
}

async fn enrol_with(
    peer: &Peer,
    key: &KeyPair,
) -> Result<Result<EnrolmentResponse, Failure>, ExitError> {
    let csr = certificate::request_pem(key)?;
    Ok(ask(peer, &EnrolmentRequest::Enrol { csr, label: certificate::this_machine() }).await)
}

/// Requests the next certificate over an existing connection, for the present key or a new one.
///
/// # Errors
/// Why there is none; the present one is kept.
pub(crate) async fn renew(
    peer: &Peer,
    membership: &Membership,
    rotate: bool,
) -> Result<(), ExitError> {
    // On the disk before it is requested: a full disk costs no certificate.
    let key = if rotate { membership.next_key()? } else { membership.key()? };
    let csr = certificate::request_pem(&key)?;
    let answer = ask(peer, &EnrolmentRequest::Renew { csr }).await?;
    membership.keep(&key, &answer.certificate, &answer.ca)
}

async fn ask(peer: &Peer, ask: &EnrolmentRequest) -> Result<EnrolmentResponse, Failure> {
    let broken =
        |error: serde_json::Error| Failure::new(Code::ProtocolViolation, error.to_string());
    let body = serde_json::to_vec(ask).map_err(broken)?;
    let response = peer.request(Request::new(body).deadline(ANSWER_TIMEOUT)).await?;
    let body = response.collect().await?;
    serde_json::from_slice(&body).map_err(broken)
}
