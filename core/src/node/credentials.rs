//! How long a peer's certificate is believed: checked when it connects, when the trust changes, and
//! at the second in which it ends. It decides what follows, which is that the connection is closed;
//! whether a certificate is good is TLS's to say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;

use super::Node;
use super::peer::{Dialled, Peer};
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::quic::{self, ConnectionId};
use crate::timer::{Deadline, Reason};
use crate::tls::{Credential, Tls, TlsError};

/// Longest sleep towards an expiry. Wall time can be set while a caller sleeps, and a far date is
/// more than some timers take.
const MAX_SLEEP: Duration = Duration::from_secs(86_400);

/// When the certificates of connected peers end, in wall time; at most one entry for each peer.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    by_peer: BTreeMap<PeerId, Duration>,
    in_order: BTreeSet<(Duration, PeerId)>,
}

impl Expiries {
    /// Notes the last second in which a peer's certificate is good.
    pub(super) fn set(&mut self, id: PeerId, not_after: Option<Duration>) {
        if let Some(old) = self.by_peer.remove(&id) {
            self.in_order.remove(&(old, id));
        }
        if let Some(last) = not_after {
            let ended = Duration::from_secs(last.as_secs().saturating_add(1));
            self.by_peer.insert(id, ended);
            self.in_order.insert((ended, id));
        }
    }

    pub(super) fn deadline(&self, unix: Duration, now: Instant) -> Option<Deadline> {
        let &(ended, _) = self.in_order.first()?;
        Some((now + ended.saturating_sub(unix).min(MAX_SLEEP), Reason::Certificate))
    }

    fn pop_due(&mut self, unix: Duration) -> Option<PeerId> {
        let &(_, id) = self.in_order.first().filter(|(ended, _)| *ended <= unix)?;
        self.set(id, None);
        Some(id)
    }

    /// How many peers are watched.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.by_peer.len(), self.in_order.len());
        self.in_order.len()
    }
}

impl Node {
    /// Exchanges the identity and the trust while running. Handshakes from now on use them.
    /// Connections that exist go on under the identity they were made with, unless the new trust
    /// does not believe their peer any more: these are closed with `unauthenticated`.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used; nothing has changed then.
    pub fn set_tls(&mut self, tls: Tls, now: Instant) -> Result<(), TlsError> {
        let now = self.clock.advance(now);
        let verifiers = tls.verifiers()?;
        self.endpoint.set_tls(&tls, &verifiers)?;
        self.verifiers = verifiers;
        // A check costs a signature or two, which ten thousand members need not pay for an invite.
        let only_guests = tls.trust().believes_the_same(self.config.tls.trust());
        self.config.tls = tls;
        let has_own = |p: &Peer| p.dialled.as_ref().is_some_and(|d| d.own.is_some());
        let is_guest = |p: &Peer| p.credential.as_ref().is_some_and(Credential::is_guest);
        let concerned =
            |p: &&Peer| p.link.is_some() && !has_own(p) && (!only_guests || is_guest(p));
        let ids: Vec<_> = self.peers.values().filter(concerned).map(|p| p.id).collect();
        for id in ids {
            self.recheck(id, now);
        }
        self.route(now);
        Ok(())
    }

    /// Notes that a peer which dialled was given another certificate, as one is that renews in time:
    /// from now on its connection lives as long as that one is good.
    ///
    /// # Errors
    /// Why it is not: the certificate is not good, or not that peer's. Nothing has changed then.
    pub fn renew_credential(
        &mut self,
        id: PeerId,
        chain: Vec<CertificateDer<'static>>,
        now: Instant,
    ) -> Result<(), Failure> {
        self.clock.advance(now);
        let credential = self.verifiers.dialler(&chain, self.clock.unix())?;
        let wrong = |why| Failure::new(Code::Unauthenticated, why);
        let peer = self.peers.get_mut(&id).ok_or_else(|| wrong("the peer is gone"))?;
        let is_the_same = |old: &Credential| {
            !old.is_guest()
                && !credential.is_guest()
                && old.names.iter().all(|name| credential.names.contains(name))
        };
        if peer.dialled.is_some() || !peer.credential.as_ref().is_some_and(is_the_same) {
            return Err(wrong("the certificate is not that of this peer"));
        }
        let link = peer.link.as_mut().ok_or_else(|| wrong("the peer is gone"))?;
        link.renewed = Some(chain);
        self.expiries.set(id, credential.not_after);
        peer.credential = Some(credential);
        Ok(())
    }

    /// Who the other end of a connection is: one that was dialled, or one that dialled.
    pub(super) fn check(
        &self,
        connection: ConnectionId,
        dialled: Option<&Dialled>,
    ) -> Result<Credential, Failure> {
        let chain = self.endpoint.get(connection).and_then(quic::Connection::peer_chain);
        let nothing = || Failure::new(Code::Unauthenticated, "the peer presented no certificate");
        let (chain, unix) = (chain.ok_or_else(nothing)?, self.clock.unix());
        match dialled {
            // It may have the next certificate already, which only a handshake would show.
            Some(dialled) => {
                let verifiers = dialled.own.as_ref().map_or(&self.verifiers, |own| &own.verifiers);
                let name = &dialled.dial.server_name;
                verifiers.acceptor(&chain, name, unix).map_err(Failure::unproven)
            }
            None => self.verifiers.dialler(&chain, unix),
        }
    }

    /// Closes the connections of those whose certificate has ended.
    pub(super) fn end_expired(&mut self, now: Instant) {
        while let Some(id) = self.expiries.pop_due(self.clock.unix()) {
            self.recheck(id, now);
        }
    }

    fn recheck(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get(&id) else { return };
        let Some(link) = &peer.link else { return };
        let checked = match &link.renewed {
            Some(chain) => self.verifiers.dialler(chain, self.clock.unix()),
            None => self.check(link.connection, peer.dialled.as_ref()),
        };
        let was = peer.credential.as_ref().and_then(|c| c.mesh);
        match checked {
            // A member of a mesh does not turn into a guest while connected: what it did as a
            // member would outlive its certificate.
            Ok(credential) if credential.mesh != was => {
                let ended = Failure::new(Code::Unauthenticated, "the certificate has expired");
                self.break_link(id, ended, now);
            }
            Ok(credential) => {
                self.expiries.set(id, credential.not_after);
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.credential = Some(credential);
                }
            }
            Err(failure) => self.break_link(id, failure, now),
        }
        self.reindex(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_certificate_is_good_in_its_last_second_and_over_in_the_next() {
        let mut expiries = Expiries::default();
        expiries.set(PeerId(7), Some(S(100)));
        assert_eq!(expiries.pop_due(S(101) - Duration::from_nanos(1)), None);
        assert_eq!(expiries.pop_due(S(101)), Some(PeerId(7)));
        assert_eq!(expiries.pop_due(S(1_000)), None);
    }

    #[test]
    fn the_first_to_end_is_waited_for_and_never_longer_than_a_day() {
        let (mut expiries, now) = (Expiries::default(), crate::testing::clock::origin());
        assert_eq!(expiries.deadline(S(0), now), None);
        expiries.set(PeerId(1), Some(S(253_402_300_799)));
        assert_eq!(expiries.deadline(S(0), now), Some((now + S(86_400), Reason::Certificate)));
        expiries.set(PeerId(2), Some(S(9)));
        assert_eq!(expiries.deadline(S(0), now), Some((now + S(10), Reason::Certificate)));
        assert_eq!(expiries.deadline(S(60), now), Some((now, Reason::Certificate)));
        expiries.set(PeerId(2), None);
        expiries.set(PeerId(1), None);
        assert_eq!(expiries.deadline(S(60), now), None);
    }
}
