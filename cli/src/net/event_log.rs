//! A node's events as log lines. It decides which of them are sentences for people; all others are
//! logged at DEBUG, with the peer's number.

use adit_tokio::core::drive::Handle;
use adit_tokio::core::event::Event;
use adit_tokio::core::id::PeerId;
use adit_tokio::core::lifecycle::{State, Transition};
use adit_tokio::core::path::PathReason;
use adit_tokio::core::transmit::NextHop;

use crate::base::exit::next_step;
use crate::base::tally::Tally;

/// Handshakes that were rejected, by address and cause.
static REJECTED: Tally = Tally::new(3);

/// Logs the events of the peers that connect to a node, until it has shut down. Their transitions
/// to connected are left out: the role that serves them logs these, and their end.
pub(crate) async fn log(handle: Handle) {
    let mut events = handle.events();
    while let Some(event) = events.next().await {
        if let Event::Rejected { remote, failure } = &event {
            if let Some(more) = REJECTED.due(&remote.ip().to_string(), failure.code().as_str()) {
                tracing::info!("a handshake from {remote} was rejected: {failure}{more}");
            }
        } else if let Some(line) = line(&event) {
            tracing::debug!("{line}");
        }
    }
}

/// Returns one line about an event, if the event shows the state of a node.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the core adds events without notice to this program, and most are not for people"
)]
pub(crate) fn sentence(event: &Event, title: &str) -> Option<String> {
    match event {
        // The attempt that failed has its own line.
        Event::Transition { transition, .. } if is_another_attempt(transition) => None,
        Event::Transition { transition, .. } => match &transition.to {
            State::Connected { .. } => Some(format!("connected to {title}")),
            State::Reconnecting { last_error, .. } => {
                Some(format!("lost the connection to {title} ({last_error}); reconnecting"))
            }
            // What ends the program is its last line.
            State::Disconnected | State::Connecting { .. } | State::Failed { .. } => None,
        },
        Event::AttemptFailed { failure, attempt, retry_in, .. } => {
            let (next, wait) = (next_step(failure), retry_in.as_secs_f64());
            Some(format!(
                "no connection to {title}: {failure}; {next}; attempt {attempt} in {wait:.1} s"
            ))
        }
        Event::PathChanged { via, reason, .. } => {
            Some(format!("{title} is now {}", describe_path(*via, *reason)))
        }
        Event::GoingAway { .. } => Some(format!("{title} is shutting down")),
        _ => None,
    }
}

/// Returns the peer that an event of a connection is about.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the core adds events without notice to this program"
)]
pub(crate) const fn peer_of(event: &Event) -> Option<PeerId> {
    match event {
        Event::Transition { peer, .. }
        | Event::AttemptFailed { peer, .. }
        | Event::PathChanged { peer, .. }
        | Event::Registered { peer }
        | Event::Unregistered { peer, .. }
        | Event::GoingAway { peer } => Some(*peer),
        _ => None,
    }
}

/// Returns one line about an event, for events that show how a node is doing.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the core adds events without notice to this program, and most show nothing"
)]
pub(crate) fn line(event: &Event) -> Option<String> {
    match event {
        Event::Transition { transition, .. } if is_another_attempt(transition) => None,
        Event::Transition { peer, transition } => Some(format!("{peer}: {}", describe(transition))),
        Event::AttemptFailed { peer, failure, attempt, retry_in } => {
            let wait = retry_in.as_secs_f64();
            Some(format!("{peer}: no connection: {failure}; attempt {attempt} in {wait:.1} s"))
        }
        Event::Closed { peer, failure } => Some(format!("{peer}: closed: {failure}")),
        Event::Rejected { remote, failure } => Some(format!("{remote}: rejected: {failure}")),
        Event::Registered { peer } => Some(format!("{peer}: registered at this relay")),
        Event::Unregistered { peer, failure } => {
            Some(format!("{peer}: not registered at this relay: {failure}"))
        }
        Event::PathChanged { peer, via, reason } => {
            Some(format!("{peer}: reached {}", describe_path(*via, *reason)))
        }
        Event::Observed { peer, address } => {
            Some(format!("{peer}: the relay sees this machine at {address}"))
        }
        Event::GoingAway { peer } => Some(format!("{peer}: is shutting down")),
        _ => None,
    }
}

/// Returns a path in words, with the reason why it is this one.
pub(crate) fn describe_path(via: NextHop, reason: PathReason) -> String {
    let path = match via {
        NextHop::Direct(route) => format!("on a direct path to {}", route.remote),
        NextHop::Relayed(_) => "on a path through a relay".to_owned(),
    };
    format!("{path}: {}", reason.sentence())
}

const fn is_another_attempt(transition: &Transition) -> bool {
    matches!(
        (&transition.from, &transition.to),
        (State::Reconnecting { .. }, State::Reconnecting { .. })
    )
}

/// Returns a transition in words.
pub(crate) fn describe(transition: &Transition) -> String {
    let from = transition.from.kind();
    match &transition.to {
        State::Disconnected => format!("{from} → disconnected"),
        State::Connecting { .. } => format!("{from} → connecting"),
        State::Connected { .. } => format!("{from} → connected"),
        State::Reconnecting { attempt, last_error, .. } => {
            format!("{from} → reconnecting, attempt {attempt} ({last_error})")
        }
        State::Failed { error, .. } => format!("{from} → failed ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use adit_tokio::core::error::{Code, Failure};

    use super::*;

    fn peer() -> PeerId {
        serde_json::from_str("0").unwrap()
    }

    #[test]
    fn a_failed_attempt_names_the_peer_the_cause_and_what_to_do() {
        let event = Event::AttemptFailed {
            peer: peer(),
            failure: Failure::new(Code::TimedOut, "no answer for 10 s"),
            attempt: 2,
            retry_in: Duration::from_millis(1_500),
        };
        assert_eq!(
            sentence(&event, "hub.example").unwrap(),
            "no connection to hub.example: timed_out: no answer for 10 s; check that the peer runs \
             and that UDP reaches it; attempt 2 in 1.5 s"
        );
    }

    #[test]
    fn internal_events_have_no_sentence() {
        let peer = peer();
        for event in [
            Event::Registered { peer },
            Event::Closed { peer, failure: Failure::new(Code::ShuttingDown, "shutting down") },
        ] {
            assert_eq!(sentence(&event, "hub.example"), None);
            assert!(line(&event).is_some(), "{event:?}");
        }
    }
}
