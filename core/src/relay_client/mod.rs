//! What a client does at its relays: it registers what it offers and looks for what it wants.
//!
//! It decides when to register, to refresh and to yield to another process with the same key, which
//! relay to ask again, and which datagrams are kept that arrive before the announcement of their
//! channel. It never sends anything: the node carries out its decisions.

mod early;
mod lookup;
mod registration;

pub(crate) use early::Early;
pub(crate) use lookup::Search;
pub(crate) use registration::{Action, Registration};

#[cfg(test)]
mod tests;
