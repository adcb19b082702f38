//! The commands: one file each, with what it does.

pub(crate) mod agent;
pub(crate) mod connector;
pub(crate) mod relay;
