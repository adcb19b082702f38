//! Deadlines with reasons.
