//! What a person is told of a node's life: connections made, lost and made again, and why.

use adit_tokio::core::drive::Handle;
use adit_tokio::core::event::Event;
use adit_tokio::core::session::{State, Transition};

/// Logs what happens to the peers of a node, until it has shut down.
pub(crate) async fn log(handle: Handle) {
    let mut events = handle.events();
    while let Some(event) = events.next().await {
        if let Some(line) = line(&event) {
            tracing::info!("{line}");
        }
    }
}

/// One line about an event, for those that say how a node is doing.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the core adds events without notice to this program, and most are not for people"
)]
pub(crate) fn line(event: &Event) -> Option<String> {
    match event {
        Event::Transition { peer, transition } => Some(format!("{peer}: {}", describe(transition))),
        Event::Closed { peer, failure } => Some(format!("{peer}: closed: {failure}")),
        Event::Rejected { remote, failure } => Some(format!("{remote}: rejected: {failure}")),
        Event::GoingAway { peer } => Some(format!("{peer}: is shutting down")),
        _ => None,
    }
}

/// A transition in words.
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
