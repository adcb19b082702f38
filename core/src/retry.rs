//! Reconnect policy.
