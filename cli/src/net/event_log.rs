//! The log of a node's life for people: connections established, lost and restored, and why.

use adit_tokio::core::drive::Handle;
use adit_tokio::core::event::Event;
use adit_tokio::core::lifecycle::{State, Transition};
use adit_tokio::core::path::PathReason;
use adit_tokio::core::transmit::NextHop;

use crate::base::exit::next_step;

/// Logs the events of the peers that connect to a node, until it has shut down. Their transitions
/// to connected are left out: the role that serves them logs these, and their end.
pub(crate) async fn log(handle: Handle) {
    let mut events = handle.events();
    while let Some(event) = events.next().await {
        if matches!(event, Event::Transition { .. }) {
            continue;
        }
        if let Some(line) = line(&event) {
            tracing::info!("{line}");
        }
    }
}

/// Returns one line about an event, if the event shows the state of a node.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the core adds events without notice to this program, and most are not for people"
)]
pub(crate) fn line(event: &Event) -> Option<String> {
    match event {
        // The attempt that failed has its own line.
        Event::Transition { transition, .. } if is_another_attempt(transition) => None,
        Event::Transition { peer, transition } => Some(format!("{peer}: {}", describe(transition))),
        Event::AttemptFailed { peer, failure, attempt, retry_in } => {
            let (next, wait) = (next_step(failure), retry_in.as_secs_f64());
            Some(format!(
                "{peer}: no connection: {failure}; {next}; attempt {attempt} in {wait:.1} s"
            ))
        }
        Event::Closed { peer, failure } => Some(format!("{peer}: closed: {failure}")),
        Event::Rejected { remote, failure } => Some(format!("{remote}: rejected: {failure}")),
        Event::Registered { peer } => {
            Some(format!("{peer}: the relay has this connector's services"))
        }
        Event::Unregistered { peer, failure } => {
            let next = next_step(failure);
            Some(format!("{peer}: the relay does not have the services: {failure}; {next}"))
        }
        Event::PathChanged { peer, via, reason } => {
            Some(format!("{peer}: {}", describe_path(*via, *reason)))
        }
        Event::Observed { peer, address } => Some(format!("{peer}: the relay sees {address} here")),
        Event::GoingAway { peer } => Some(format!("{peer}: is shutting down")),
        _ => None,
    }
}

/// Another path in words.
pub(crate) fn describe_path(via: NextHop, reason: PathReason) -> String {
    format!("reached {} now: {}", way(via), reason.sentence())
}

/// A path in words.
fn way(via: NextHop) -> String {
    match via {
        NextHop::Direct(route) => format!("directly at {}", route.remote),
        NextHop::Relayed(channel) => format!("by {channel}"),
    }
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
