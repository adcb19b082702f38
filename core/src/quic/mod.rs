//! quinn-proto, wrapped.
