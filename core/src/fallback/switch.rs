//! What carries the datagrams to one relay: UDP, or TCP while UDP is blocked.
//!
//! It decides when UDP is suspected, when a TCP stream is opened and closed, and which of the two
//! the next datagram takes. It never sends, never opens, and never looks into a datagram: the
//! connection above it sees one address and lives through every change, as it does through a change
//! of network (RFC 9000 §9).
//!
//! ```text
//!            silence, or refused               failed
//!      ┌── Udp ────────────────────▶ Opening ◀────────▶ Waiting
//!      │   ▲ ▲    anything by UDP       │     in a while   ▲ ▲
//!      │   │ └──────────────────────────┤                  │ │
//!      │   │ in a while              up │                  │ │
//!      │   │      anything by UDP       ▼    lost, silence │ │
//!      │ Leaving ◀──────────────────▶ Opened ──────────────┘ │
//!      │   ▲      silence, refused    │  ▲                   │
//!      │   │               anything   ▼  │ silence           │
//!      │   └──────────────────────── Tcp ────────────────────┘
//!      │           trial answered             lost
//!      └─ (from every state, when nobody sends any more)
//! ```
//!
//! An open stream carries alone. Were datagrams sent by both, the relay would answer to whichever
//! came first, and where UDP goes there and not back, that would never be heard.
//!
//! While TCP carries, only an answered [`Trial`](super::Trial) proves UDP: it shows that both
//! directions work without moving the connection there. A middlebox that answers trials and
//! swallows the rest costs [`CONFIRM_TIMEOUT`] at a time, less and less often.
//!
//! Source: docs/protocol.md, "TCP fallback".

use std::time::{Duration, Instant};

use crate::backoff::{self, Backoff};
use crate::rng::Rng;

/// How long the first datagrams may go unanswered by UDP: two of a handshake's, which repeats its
/// first after a second.
pub(super) const FIRST_SILENCE: Duration = Duration::from_secs(2);

/// How long nothing may be heard, though something was sent that wants an answer: several
/// retransmissions, and far less than the 60 s after which the connection is lost.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// What is sent so soon after something was heard is taken for its acknowledgement, which nobody
/// answers. The delay of acknowledgements is 25 ms (RFC 9000 §18.2); a retransmission that
/// is mistaken for one is followed by others.
pub(super) const ACKNOWLEDGING: Duration = Duration::from_millis(250);

/// How long something may be unanswered before what follows is kept for a stream: by then its
/// sender has used up its window, and what it sends is a probe from time to time (RFC 9002 §6.2).
pub(super) const SUSPECT_AFTER: Duration = Duration::from_millis(500);

/// How soon UDP has to be heard after it was chosen again.
pub(super) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the TCP stream stays open for what is under way in it after UDP was chosen again.
pub(super) const LINGER: Duration = Duration::from_secs(3);

/// How long a stream may be open and nothing be heard, before it is opened anew.
pub(super) const OPENED_TIMEOUT: Duration = Duration::from_secs(10);

/// The least time between two trials before TCP carries: the answer makes the stream needless.
pub(super) const OPENING_TRIAL_GAP: Duration = Duration::from_secs(1);

/// The least time between two trials while TCP carries: 1,200 bytes per keep-alive of the
/// connection. It doubles whenever UDP failed within [`STABLE_AFTER`] of being chosen again.
pub(super) const TRIAL_GAP: Duration = Duration::from_secs(10);

/// The longest that [`TRIAL_GAP`] becomes.
pub(super) const LONGEST_GAP: Duration = Duration::from_secs(300);

/// Longest wait, before jitter, after streams that could not be opened: a network that blocks both
/// transports is tried about once a minute.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// How long UDP has to work for its earlier failures to be forgotten.
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Without anything to send for so long, the stream is closed: the node has given up this relay, or
/// waits longer than it does between two attempts.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Where things stand with one relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FallbackState {
    /// UDP carries.
    Udp,
    /// UDP carries again; the stream is open for what is under way in it.
    Leaving,
    /// UDP is silent, and a stream is being opened.
    Opening,
    /// UDP is silent and no stream could be opened: a while until the next.
    Waiting,
    /// The stream is open and carries, but nothing was heard by it.
    Opened,
    /// TCP carries.
    Tcp,
}

/// What was heard from the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A datagram by UDP.
    Udp,
    /// A datagram by TCP.
    Tcp,
    /// The answer to a trial, by UDP.
    Trial,
}

/// What is to be done with the TCP stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SwitchAction {
    /// Open one; report [`TransportSwitch::handle_up`] or [`TransportSwitch::handle_down`] in the
    /// end.
    Open,
    /// Close it, or stop opening it; nothing is reported of it any more.
    Close,
}

/// The decisions for one relay.
#[derive(Debug, Clone)]
pub(super) struct TransportSwitch {
    state: FallbackState,
    /// When the state ends by itself.
    until: Option<Instant>,
    /// When the first datagram was sent that wants an answer and has none.
    unanswered: Option<Instant>,
    sent: Option<Instant>,
    heard: Option<Instant>,
    /// UDP was heard since the node began to send here.
    is_known: bool,
    next_trial: Option<Instant>,
    /// When UDP was chosen again.
    left: Option<Instant>,
    /// How often in a row UDP did not last.
    relapses: u32,
    /// How often in a row no stream lasted.
    failures: u32,
    up: Option<Instant>,
    backoff: Backoff,
}

impl TransportSwitch {
    /// A relay to which nothing was sent, with jitter from this generator.
    #[must_use]
    pub(super) fn new(rng: Rng) -> Self {
        let delays = backoff::BackoffConfig::builder()
            .initial(Duration::from_millis(500))
            .max(LONGEST_DELAY)
            .build();
        Self {
            state: FallbackState::Udp,
            until: None,
            unanswered: None,
            sent: None,
            heard: None,
            is_known: false,
            next_trial: None,
            left: None,
            relapses: 0,
            failures: 0,
            up: None,
            backoff: Backoff::new(delays.unwrap_or_default(), rng),
        }
    }

    /// Where things stand.
    #[must_use]
    pub(super) const fn state(&self) -> FallbackState {
        self.state
    }

    /// Whether the next datagram goes by TCP; or else by UDP.
    #[must_use]
    pub(super) const fn is_by_tcp(&self) -> bool {
        match self.state {
            FallbackState::Udp
            | FallbackState::Leaving
            | FallbackState::Opening
            | FallbackState::Waiting => false,
            FallbackState::Opened | FallbackState::Tcp => true,
        }
    }

    /// Whether what is sent now by UDP may well be lost: it is worth keeping for a stream that may
    /// follow. By then it is little, a handshake's first flight or probes.
    #[must_use]
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        match self.state {
            FallbackState::Udp => {
                !self.is_known || self.unanswered.is_some_and(|at| is_over(at, SUSPECT_AFTER, now))
            }
            FallbackState::Opening | FallbackState::Waiting => true,
            FallbackState::Leaving | FallbackState::Opened | FallbackState::Tcp => false,
        }
    }

    /// Handles a datagram that was sent by what [`TransportSwitch::is_by_tcp`] returned. Returns
    /// true if a [`Trial`](super::Trial) is to be sent along by UDP.
    pub(super) fn handle_sent(&mut self, now: Instant) -> bool {
        if self.state == FallbackState::Udp
            && self.sent.is_some_and(|at| is_over(at, IDLE_TIMEOUT, now))
        {
            self.forget();
        }
        self.sent = Some(now);
        if self.heard.is_none_or(|at| is_over(at, ACKNOWLEDGING, now)) {
            self.unanswered.get_or_insert(now);
        }
        let gap = match self.state {
            FallbackState::Udp | FallbackState::Leaving => return false,
            FallbackState::Opening | FallbackState::Waiting | FallbackState::Opened => {
                OPENING_TRIAL_GAP
            }
            FallbackState::Tcp => self.gap(),
        };
        let is_due = self.next_trial.is_none_or(|at| at <= now);
        if is_due {
            self.next_trial = Some(now + gap);
        }
        is_due
    }

    /// UDP refused to send: a local firewall, or no route.
    pub(super) fn handle_refused(&mut self, now: Instant) -> Option<SwitchAction> {
        match self.state {
            FallbackState::Udp | FallbackState::Leaving => self.on_silence(now),
            FallbackState::Opening
            | FallbackState::Waiting
            | FallbackState::Opened
            | FallbackState::Tcp => None,
        }
    }

    /// Something was heard from the relay.
    pub(super) fn handle_heard(&mut self, heard: Heard, now: Instant) -> Option<SwitchAction> {
        match (self.state, heard) {
            (FallbackState::Udp | FallbackState::Leaving, Heard::Udp) => {
                self.is_known = true;
                self.on_heard(now);
                None
            }
            (FallbackState::Opening | FallbackState::Waiting, Heard::Udp | Heard::Trial) => {
                self.is_known |= heard == Heard::Udp;
                self.on_heard(now);
                self.left = Some(now);
                self.move_to(FallbackState::Udp, None);
                Some(SwitchAction::Close)
            }
            (FallbackState::Opened, Heard::Udp)
            | (FallbackState::Opened | FallbackState::Tcp, Heard::Trial) => {
                self.unanswered = None;
                // What comes next by TCP was sent before: acknowledging it by UDP wants proof.
                self.heard = None;
                self.left = Some(now);
                self.move_to(FallbackState::Leaving, Some(now + LINGER));
                None
            }
            (FallbackState::Opened | FallbackState::Tcp, Heard::Tcp) => {
                self.on_heard(now);
                if self.state == FallbackState::Opened {
                    self.next_trial = Some(now + self.gap());
                    self.move_to(FallbackState::Tcp, None);
                }
                None
            }
            // Underway before it was left, or before it was chosen; neither proves anything.
            (
                FallbackState::Udp
                | FallbackState::Leaving
                | FallbackState::Opening
                | FallbackState::Waiting,
                Heard::Tcp,
            )
            | (FallbackState::Udp | FallbackState::Leaving, Heard::Trial)
            | (FallbackState::Tcp, Heard::Udp) => None,
        }
    }

    /// The stream is open.
    pub(super) fn handle_up(&mut self, now: Instant) -> Option<SwitchAction> {
        match self.state {
            FallbackState::Opening => {
                self.up = Some(now);
                self.move_to(FallbackState::Opened, Some(now + OPENED_TIMEOUT));
                None
            }
            FallbackState::Udp | FallbackState::Waiting => Some(SwitchAction::Close),
            FallbackState::Leaving | FallbackState::Opened | FallbackState::Tcp => None,
        }
    }

    /// The stream could not be opened, or was lost.
    pub(super) fn handle_down(&mut self, now: Instant) {
        match self.state {
            FallbackState::Opening | FallbackState::Opened | FallbackState::Tcp => {
                self.on_lost(now)
            }
            FallbackState::Leaving => self.move_to(FallbackState::Udp, None),
            FallbackState::Udp | FallbackState::Waiting => {}
        }
    }

    /// Time has passed. Call it again while [`TransportSwitch::deadline`] is not later than `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<SwitchAction> {
        if self.rest().is_some_and(|at| at <= now) {
            self.forget();
            self.move_to(FallbackState::Udp, None);
            return Some(SwitchAction::Close);
        }
        if self.silence().is_some_and(|at| at <= now) {
            return self.on_silence(now);
        }
        if self.until.is_none_or(|at| at > now) {
            return None;
        }
        match self.state {
            FallbackState::Leaving => {
                self.move_to(FallbackState::Udp, None);
                Some(SwitchAction::Close)
            }
            FallbackState::Waiting => {
                self.move_to(FallbackState::Opening, None);
                Some(SwitchAction::Open)
            }
            FallbackState::Opened => {
                self.on_lost(now);
                Some(SwitchAction::Close)
            }
            FallbackState::Udp | FallbackState::Opening | FallbackState::Tcp => None,
        }
    }

    /// When [`TransportSwitch::handle_timeout`] is to be called.
    #[must_use]
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.rest(), self.silence(), self.until].into_iter().flatten().min()
    }

    fn rest(&self) -> Option<Instant> {
        match self.state {
            FallbackState::Udp => None,
            FallbackState::Leaving
            | FallbackState::Opening
            | FallbackState::Waiting
            | FallbackState::Opened
            | FallbackState::Tcp => self.sent.map(|at| at + IDLE_TIMEOUT),
        }
    }

    /// When silence decides.
    fn silence(&self) -> Option<Instant> {
        let allowed = match self.state {
            FallbackState::Udp if !self.is_known => FIRST_SILENCE,
            FallbackState::Udp | FallbackState::Tcp => SILENCE,
            FallbackState::Leaving => CONFIRM_TIMEOUT,
            FallbackState::Opening | FallbackState::Waiting | FallbackState::Opened => return None,
        };
        self.unanswered.map(|at| at + allowed)
    }

    fn on_heard(&mut self, now: Instant) {
        self.heard = Some(now);
        self.unanswered = None;
    }

    /// What carries is not heard.
    fn on_silence(&mut self, now: Instant) -> Option<SwitchAction> {
        match self.state {
            FallbackState::Udp | FallbackState::Leaving => {
                let has_relapsed = self.left.is_some_and(|at| !is_over(at, STABLE_AFTER, now));
                self.relapses = if has_relapsed { self.relapses.saturating_add(1) } else { 0 };
                self.next_trial = has_relapsed.then(|| now + self.gap());
            }
            FallbackState::Tcp => self.next_trial = None,
            FallbackState::Opening | FallbackState::Waiting | FallbackState::Opened => return None,
        }
        if self.state == FallbackState::Udp {
            self.move_to(FallbackState::Opening, None);
            return Some(SwitchAction::Open);
        }
        self.move_to(FallbackState::Opened, Some(now + OPENED_TIMEOUT));
        None
    }

    /// There is no stream.
    fn on_lost(&mut self, now: Instant) {
        let has_lasted = self.up.take().is_some_and(|at| is_over(at, OPENED_TIMEOUT, now));
        self.failures = if has_lasted { 1 } else { self.failures.saturating_add(1) };
        if self.relapses == 0 {
            self.next_trial = None;
        }
        let delay = self.backoff.delay(self.failures);
        self.move_to(FallbackState::Waiting, Some(now + delay));
    }

    /// The next datagram is the first.
    fn forget(&mut self) {
        self.is_known = false;
        self.unanswered = None;
        self.heard = None;
    }

    fn gap(&self) -> Duration {
        TRIAL_GAP.saturating_mul(2_u32.saturating_pow(self.relapses)).min(LONGEST_GAP)
    }

    const fn move_to(&mut self, state: FallbackState, until: Option<Instant>) {
        self.state = state;
        self.until = until;
    }
}

/// Whether more than `length` has passed since `at`.
fn is_over(at: Instant, length: Duration, now: Instant) -> bool {
    now.saturating_duration_since(at) > length
}

#[cfg(test)]
mod tests;
