//! A client's work at its relays: it registers its offer and looks up services.
//!
//! It decides when to register, to refresh and to yield to another process with the same key, which
//! relay to ask again, and which datagrams are kept that arrive before the announcement of their
//! channel. It never sends anything: the node carries out its decisions.

mod early;
mod lookup;
mod registration;

pub(crate) use early::EarlyDatagrams;
pub(crate) use lookup::LookupState;
pub(crate) use registration::{Registration, RegistrationAction};

#[cfg(test)]
mod tests;
