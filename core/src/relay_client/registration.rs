//! The state of a registration at one relay.
//!
//! ```text
//!            on_up              on_registered            refresh is due
//!   Away ───────────▶ Asked ───────────────────▶ Held ──────────────────▶ Asked
//!    ▲                  │  no answer: the link is given up
//!    │ on_down          │ on_unregistered          again is due
//!    └── from all       └───────────────────▶ Refused ────────────────▶ Asked
//! ```

use std::time::{Duration, Instant};

use crate::error::{Code, Failure};
use crate::timer::{Deadline, Reason};

/// Time within which a relay answers a registration. A live relay answers immediately; without an
/// answer, this side dials again rather than assume that it is registered.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Pause after a refusal that names no time.
pub(crate) const RETRY_DELAY: Duration = Duration::from_secs(60);

/// An action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegistrationAction {
    /// Send the registration.
    Register {
        /// Whether another connection of the same key is to be replaced.
        takeover: bool,
    },
    /// Notify the relay that this node offers no services any more.
    Withdraw,
    /// The relay does not answer.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RegistrationState {
    /// There is no connection.
    Away,
    /// Connected, without an offer.
    Silent,
    /// A registration was sent.
    Asked { due: Instant },
    /// It was acknowledged.
    Held { refresh: Instant },
    /// It was refused, or ended.
    Refused { retry_at: Instant },
}

/// The registration of one node at one relay.
#[derive(Debug)]
pub(crate) struct Registration {
    state: RegistrationState,
    /// There is something to register.
    is_wanted: bool,
    /// Whether it was acknowledged since the connection is established.
    is_known: bool,
    /// Another process with the same key replaced it: this one does not register again.
    is_replaced: bool,
}

impl Registration {
    /// Returns the state for a relay that is not connected.
    pub(crate) const fn new() -> Self {
        Self {
            state: RegistrationState::Away,
            is_wanted: false,
            is_known: false,
            is_replaced: false,
        }
    }

    /// Returns true if the relay has registered it.
    pub(crate) const fn is_held(&self) -> bool {
        self.is_known
            && matches!(
                self.state,
                RegistrationState::Held { .. } | RegistrationState::Asked { .. }
            )
    }

    /// Handles a connected relay.
    pub(crate) fn on_up(&mut self, is_wanted: bool, now: Instant) -> Option<RegistrationAction> {
        (self.state, self.is_known) = (RegistrationState::Silent, false);
        self.set(is_wanted, now)
    }

    /// Handles the lost connection, and with it the lost registration.
    pub(crate) const fn on_down(&mut self) {
        (self.state, self.is_known) = (RegistrationState::Away, false);
    }

    /// Handles a changed or withdrawn offer.
    pub(crate) fn set(&mut self, is_wanted: bool, now: Instant) -> Option<RegistrationAction> {
        let was_wanted = std::mem::replace(&mut self.is_wanted, is_wanted);
        match (self.state, is_wanted) {
            // A refusal stands until its time is over, regardless of the offer.
            (RegistrationState::Away | RegistrationState::Refused { .. }, _) => None,
            (
                RegistrationState::Silent
                | RegistrationState::Asked { .. }
                | RegistrationState::Held { .. },
                true,
            ) => Some(self.ask(now)),
            (
                RegistrationState::Silent
                | RegistrationState::Asked { .. }
                | RegistrationState::Held { .. },
                false,
            ) => {
                (self.state, self.is_known) = (RegistrationState::Silent, false);
                was_wanted.then_some(RegistrationAction::Withdraw)
            }
        }
    }

    /// Handles the relay's acknowledgement, with the time until the next refresh. Returns true if
    /// the registration is new.
    pub(crate) fn on_registered(&mut self, refresh: Duration, now: Instant) -> bool {
        if !matches!(self.state, RegistrationState::Asked { .. }) {
            return false;
        }
        self.state = RegistrationState::Held { refresh: now + refresh };
        self.is_replaced = false;
        !std::mem::replace(&mut self.is_known, true)
    }

    /// Handles a relay that does not have the registration, or not any more.
    pub(crate) fn on_unregistered(&mut self, failure: &Failure, now: Instant) {
        if matches!(self.state, RegistrationState::Away) {
            return;
        }
        self.is_replaced |= failure.code() == Code::Replaced;
        self.is_known = false;
        let retry_at = now + failure.retry_after().unwrap_or(RETRY_DELAY);
        self.state = RegistrationState::Refused { retry_at };
    }

    /// Returns the due action.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<RegistrationAction> {
        match self.state {
            RegistrationState::Asked { due } if due <= now => Some(RegistrationAction::Dead),
            RegistrationState::Held { refresh: at }
            | RegistrationState::Refused { retry_at: at }
                if at <= now =>
            {
                Some(self.ask(now))
            }
            RegistrationState::Asked { .. }
            | RegistrationState::Held { .. }
            | RegistrationState::Refused { .. }
            | RegistrationState::Away
            | RegistrationState::Silent => None,
        }
    }

    /// Returns when something will be.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let at = match self.state {
            RegistrationState::Away | RegistrationState::Silent => return None,
            RegistrationState::Asked { due: at }
            | RegistrationState::Held { refresh: at }
            | RegistrationState::Refused { retry_at: at } => at,
        };
        Some((at, Reason::Relay))
    }

    fn ask(&mut self, now: Instant) -> RegistrationAction {
        self.state = RegistrationState::Asked { due: now + ANSWER };
        RegistrationAction::Register { takeover: !self.is_replaced }
    }
}
