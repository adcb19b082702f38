//! Event history.
