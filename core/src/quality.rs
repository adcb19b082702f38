//! Latency and health.
