//! What a client does at its relays: it registers what it offers and looks for what it wants.
//!
//! It decides when to register, to refresh, to give way to another process with the same key, whom
//! to ask again, and which datagrams are kept that came before the news of their channel. It never
//! sends anything: the node carries out what it says.

mod early;
mod lookup;
mod registration;

pub(crate) use early::Early;
pub(crate) use lookup::Search;
pub(crate) use registration::{Action, Registration};

#[cfg(test)]
mod tests;
