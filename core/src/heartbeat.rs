//! Heartbeat schedule.
