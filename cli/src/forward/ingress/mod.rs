//! Ways into the tunnel on the agent's side, a file for each kind.

pub(crate) mod tcp;
