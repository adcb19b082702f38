//! Fails a simulation that logs an error: at that level, a log line is a bug of this program.
//!
//! It decides only this, and formats nothing else.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Runs `world` on this thread; an error that it logs is a panic.
///
/// # Panics
/// When something is logged at level ERROR.
pub fn without_errors<T>(world: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(NoErrors, world)
}

struct NoErrors;

impl Subscriber for NoErrors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = EventText(String::new());
        event.record(&mut text);
        panic!("logged as an error: {}: {}", event.metadata().target(), text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct EventText(String);

impl Visit for EventText {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the reason")]
    fn an_error_in_the_log_is_a_panic() {
        without_errors(|| tracing::error!("the reason"));
    }

    #[test]
    fn a_warning_is_none() {
        without_errors(|| tracing::warn!("mind the step"));
    }
}
