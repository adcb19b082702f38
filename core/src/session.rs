//! Connection lifecycle.
