//! How connections enter the tunnel on the agent's side: a file for each kind of entry.

pub(crate) mod tcp;
