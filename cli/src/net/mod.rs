//! How this machine reaches others: nodes, names, dialling, relays, the TCP fallback, port mapping.

pub(crate) mod dialer;
pub(crate) mod event_log;
pub(crate) mod happy_eyeballs;
pub(crate) mod http_proxy;
pub(crate) mod interfaces;
pub(crate) mod link;
pub(crate) mod names;
pub(crate) mod node;
pub(crate) mod port_mapping;
pub(crate) mod registration;
pub(crate) mod relay_transports;
pub(crate) mod relays;
