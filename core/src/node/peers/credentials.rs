//! How long a peer's certificate is trusted: it is checked when the peer connects, when the trust
//! changes, and in the second in which it expires. A certificate that fails closes its connection;
//! TLS decides whether it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;

use super::Peers;
use super::peer::{Dialled, PeerEntry};
use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::node::io::{Effect, Io};
use crate::quic::{self, ConnectionId};
use crate::timer::{Deadline, Reason};
use crate::tls::{Credential, Tls, TlsError};

/// Longest sleep towards an expiry. Wall time can be set while a caller sleeps, and some timers do
/// not support a distant date.
const MAX_SLEEP: Duration = Duration::from_secs(86_400);

/// Certificates that are checked in one turn, at about 150 µs each: the revocation of one device
/// has ten thousand checked, and other work must not wait for them.
pub(super) const RECHECKS: usize = 64;

/// When the certificates of connected peers expire, in wall time; at most one entry for each peer.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    by_peer: BTreeMap<PeerId, Duration>,
    in_order: BTreeSet<(Duration, PeerId)>,
}

impl Expiries {
    /// Records the last second in which a peer's certificate is valid.
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

    /// Returns how many peers are watched.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.by_peer.len(), self.in_order.len());
        self.in_order.len()
    }
}

impl Peers {
    /// Replaces the identity and the trust. Peers that the new trust may not accept are checked in
    /// the following turns, [`RECHECKS`] a turn.
    pub(in crate::node) fn set_tls(&mut self, tls: Tls, io: &mut Io) -> Result<(), TlsError> {
        let verifiers = tls.verifiers()?;
        io.quic.set_tls(&tls, &verifiers)?;
        self.verifiers = verifiers;
        // A check costs a signature or two; an invite must not make ten thousand members pay for
        // that.
        let only_guests = tls.trust().trusts_same_as(io.config.tls.trust());
        io.config.tls = tls;
        let has_own = |p: &PeerEntry| p.dialled.as_ref().is_some_and(|d| d.own.is_some());
        let is_guest = |p: &PeerEntry| p.credential.as_ref().is_some_and(Credential::is_guest);
        let concerned =
            |p: &&PeerEntry| p.link.is_some() && !has_own(p) && (!only_guests || is_guest(p));
        let queued: BTreeSet<PeerId> = self.rechecks.drain(..).collect();
        let concerned = self.all.values().filter(concerned).map(|p| p.id);
        self.rechecks = concerned.chain(queued).collect::<BTreeSet<_>>().into_iter().collect();
        Ok(())
    }

    /// Records that a peer which dialled this node has another certificate, as after a renewal:
    /// from here on its connection may last until that one expires.
    pub(in crate::node) fn renew_credential(
        &mut self,
        id: PeerId,
        chain: Vec<CertificateDer<'static>>,
        io: &Io,
    ) -> Result<(), Failure> {
        let credential = self.verifiers.dialler(&chain, io.unix())?;
        let wrong = |why| Failure::new(Code::Unauthenticated, why);
        let peer = self.all.get_mut(&id).ok_or_else(|| wrong("the peer is gone"))?;
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

    /// Returns the identity of the other end of a connection: one that was dialled, or one that
    /// dialled.
    pub(super) fn check(
        &self,
        connection: ConnectionId,
        dialled: Option<&Dialled>,
        io: &Io,
    ) -> Result<Credential, Failure> {
        let chain = io.quic.get(connection).and_then(quic::Connection::peer_chain);
        let nothing = || Failure::new(Code::Unauthenticated, "the peer presented no certificate");
        let (chain, unix) = (chain.ok_or_else(nothing)?, io.unix());
        match dialled {
            // The peer may already have its next certificate, which only a handshake would show.
            Some(dialled) => {
                let verifiers = dialled.own.as_ref().map_or(&self.verifiers, |own| &own.verifiers);
                let name = &dialled.dial.server_name;
                verifiers.acceptor(&chain, name, unix).map_err(Failure::unproven)
            }
            None => self.verifiers.dialler(&chain, unix),
        }
    }

    /// Closes the connections of peers with a certificate that has expired or is not accepted any
    /// more.
    pub(in crate::node) fn advance_certificates(&mut self, io: &mut Io) {
        while let Some(id) = self.expiries.pop_due(io.unix()) {
            self.rechecks.push_back(id);
        }
        for _ in 0..RECHECKS {
            let Some(id) = self.rechecks.pop_front() else { return };
            self.recheck(id, io);
        }
    }

    fn recheck(&mut self, id: PeerId, io: &mut Io) {
        let Some(peer) = self.all.get(&id) else { return };
        let Some(link) = &peer.link else { return };
        let checked = match &link.renewed {
            Some(chain) => self.verifiers.dialler(chain, io.unix()),
            None => self.check(link.connection, peer.dialled.as_ref(), io),
        };
        let was = peer.credential.as_ref().and_then(|c| c.mesh);
        match checked {
            // A member of a mesh does not become a guest while connected: its streams as a member
            // would live longer than its certificate.
            Ok(credential) if credential.mesh != was => {
                let failure = Failure::new(Code::Unauthenticated, "the certificate has expired");
                io.effect(Effect::Close { peer: id, failure });
            }
            Ok(credential) => {
                self.expiries.set(id, credential.not_after);
                if let Some(peer) = self.all.get_mut(&id) {
                    peer.credential = Some(credential);
                }
            }
            Err(failure) => io.effect(Effect::Close { peer: id, failure }),
        }
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
