//! The resolvers of this machine: its own for addresses, which reads the hosts file and the
//! system's other sources; and, for SRV records, which it does not support, the nameservers that it
//! uses, asked directly.
//!
//! It decides which nameservers are asked. One that is a port of this program is not: its answers
//! might come through the tunnel that is to be dialled, which could then never be established.

use std::io;
use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use super::order::SrvRecord;
use super::{LOOKUP_TIMEOUT, Resolver};

/// The resolvers of this machine.
#[derive(Debug, Default)]
pub(super) struct SystemResolver {
    /// Ports that this program listens on.
    pub(super) ours: Vec<SocketAddr>,
}

impl Resolver for SystemResolver {
    async fn services(&self, name: String) -> io::Result<Vec<SrvRecord>> {
        // Read again each time: another network has other nameservers.
        let (config, options) =
            hickory_resolver::system_conf::read_system_conf().map_err(io::Error::other)?;
        services(config, options, &self.ours, name).await
    }

    async fn hosts(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Asks the nameservers of `config` that are not `ours`.
async fn services(
    config: ResolverConfig,
    options: ResolverOpts,
    ours: &[SocketAddr],
    name: String,
) -> io::Result<Vec<SrvRecord>> {
    let (_, _, servers) = config.into_parts();
    let (own, servers): (Vec<_>, Vec<_>) =
        servers.into_iter().partition(|server| is_ours(server, ours));
    for server in &own {
        tracing::warn!("the nameserver {} is not used: this program forwards its port", server.ip);
    }
    if servers.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no nameserver to ask"));
    }
    // Without the search list: the name is complete.
    let config = ResolverConfig::from_name_servers(servers);
    let provider = TokioRuntimeProvider::default();
    let mut builder = TokioResolver::builder_with_config(config, provider).with_options(options);
    builder.options_mut().timeout = LOOKUP_TIMEOUT / 3;
    builder.options_mut().attempts = 1;
    let resolver = builder.build().map_err(io::Error::other)?;
    let answer = match resolver.srv_lookup(name).await {
        Ok(answer) => answer,
        Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
        Err(error) => return Err(io::Error::other(error)),
    };
    let records = answer.answers().iter().filter_map(|record| {
        let RData::SRV(srv) = &record.data else { return None };
        let target = srv.target.to_utf8().trim_end_matches('.').to_owned();
        Some(SrvRecord { priority: srv.priority, weight: srv.weight, port: srv.port, target })
    });
    Ok(records.collect())
}

/// Returns true if a port of this program is a nameserver.
fn is_ours(server: &NameServerConfig, ours: &[SocketAddr]) -> bool {
    let is_here = |it: &SocketAddr| match it.ip().is_unspecified() {
        true => server.ip.is_loopback(),
        false => it.ip().to_canonical() == server.ip.to_canonical(),
    };
    let is_used = |port| server.connections.iter().any(|it| it.port == port);
    ours.iter().any(|it| is_used(it.port()) && is_here(it))
}

#[cfg(test)]
mod tests;
