//! What a process runs as: agent, connector, relay, or a command that connects once. Composition
//! alone: a role passes values between services that do not know each other.

pub(crate) mod agent;
pub(crate) mod connector;
pub(crate) mod dialler;
pub(crate) mod one_shot;
pub(crate) mod relay;
mod requests;
mod serving;
mod shutdown;
#[cfg(test)]
pub(crate) mod world;
