//! The relays that were asked for a service, and their answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::error::{Code, Failure};
use crate::id::PeerId;
use crate::timer::{Deadline, Reason};
use crate::tls::KeyDigest;

/// Pause before a relay is asked again after it, or a channel through it, was lost. A connector that
/// restarted, or that reached the relay by another path, is registered there already or will be soon:
/// the relay holds the question until then.
pub(crate) const LOST_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Pause before a relay is asked again that has no channel to a peer which is connected through
/// another relay: a relay that was restarted has its clients back within a second or two.
pub(crate) const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The same pause after it has been asked four times.
pub(crate) const RETRY_DELAY: Duration = Duration::from_secs(5);
/// How often the short pause is used after the first.
const FIRST_RETRIES: u32 = 3;

/// Connectors excluded from a search, since they turned out not to be the one that is connected;
/// beyond this the oldest are asked for again.
const MAX_EXCLUDED: usize = 16;

/// One peer's search.
#[derive(Debug, Default)]
pub(crate) struct LookupState {
    asked: BTreeMap<PeerId, u64>,
    excluded: Vec<KeyDigest>,
    /// The key of the connector that was found.
    found: Option<KeyDigest>,
    refusal: Option<Failure>,
    retry_at: Option<Instant>,
    /// How often relays were asked again since the last channel was lost.
    repeated: u32,
    /// When the last channel or relay was lost.
    lost: Option<Instant>,
}

impl LookupState {
    /// Begins a new attempt: a peer that was found before need not be found again.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Handles a lookup that was sent to a relay.
    pub(crate) fn on_asked(&mut self, relay: PeerId, request: u64) {
        self.asked.insert(relay, request);
    }

    /// Returns true if a relay has still to answer.
    pub(crate) fn is_asking(&self, relay: PeerId) -> bool {
        self.asked.contains_key(&relay)
    }

    /// Returns true if this answer of a relay is the awaited one.
    pub(crate) fn awaits(&self, relay: PeerId, request: u64) -> bool {
        self.asked.get(&relay) == Some(&request)
    }

    /// Handles a connector that a relay found. Returns true if it is the one that is wanted: the
    /// first that was found.
    pub(crate) fn on_matched(&mut self, relay: PeerId, key: KeyDigest, now: Instant) -> bool {
        self.asked.remove(&relay);
        let is_wanted = *self.found.get_or_insert(key) == key;
        if !is_wanted {
            if self.excluded.len() == MAX_EXCLUDED {
                self.excluded.remove(0);
            }
            self.excluded.push(key);
            self.schedule_retry(now);
        }
        is_wanted
    }

    /// Handles the established connection: only the connector at its other end is wanted from here
    /// on.
    pub(crate) const fn on_connected(&mut self, key: KeyDigest) {
        self.found = Some(key);
    }

    /// Handles a lookup without a match. Returns the reason, once no other relay has still to
    /// answer and none found one.
    pub(crate) fn on_unmatched(
        &mut self,
        relay: PeerId,
        failure: Failure,
        now: Instant,
    ) -> Option<Failure> {
        self.asked.remove(&relay);
        if self.found.is_some() {
            self.schedule_retry(now);
            return None;
        }
        let refusal = self.refusal.get_or_insert(failure).clone();
        self.asked.is_empty().then_some(refusal)
    }

    /// Handles the loss of a relay, or of a channel through it.
    pub(crate) fn on_lost(&mut self, relay: PeerId, now: Instant) {
        self.asked.remove(&relay);
        self.repeated = 0;
        // A relay that ends each channel as soon as it is opened is not asked more often for it.
        let is_rare =
            self.lost.is_none_or(|at| now.saturating_duration_since(at) >= FIRST_RETRY_DELAY);
        if is_rare && self.retry_at.is_none() {
            self.retry_at = Some(now + LOST_RETRY_DELAY);
        }
        self.lost = Some(now);
        self.schedule_retry(now);
    }

    fn schedule_retry(&mut self, now: Instant) {
        let wait = if self.repeated <= FIRST_RETRIES { FIRST_RETRY_DELAY } else { RETRY_DELAY };
        self.retry_at.get_or_insert(now + wait);
    }

    /// Returns true if relays without a channel to the peer are to be asked again.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let is_due = self.retry_at.is_some_and(|again| again <= now);
        if is_due {
            self.retry_at = None;
            self.repeated = self.repeated.saturating_add(1);
        }
        is_due
    }

    /// Returns when they will be.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.retry_at.map(|at| (at, Reason::Relay))
    }

    /// Returns the connectors to exclude.
    pub(crate) fn excluded(&self) -> &[KeyDigest] {
        &self.excluded
    }

    /// Returns why there is no connection, when the time for one is over.
    pub(crate) fn verdict(&self, has_relay: bool) -> Failure {
        if let Some(refusal) = &self.refusal {
            return refusal.clone();
        }
        let sentence = if has_relay {
            "the connector did not answer through the relay"
        } else {
            "no relay is reached"
        };
        Failure::new(Code::Unreachable, sentence)
    }
}
