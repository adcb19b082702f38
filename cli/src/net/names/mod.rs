//! From what a person writes to the addresses to dial: `adit://host`, SRV records, IPv4 and IPv6,
//! the last known addresses if a lookup fails, and the detour by a NAT64 where there is IPv6 alone.
//!
//! It decides which names are looked up, in what order their addresses are dialled, and when an old
//! answer is used. It looks up a name every time, since its addresses change. It never dials.

mod memory;
mod nat64;
mod order;
mod system;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use adit_tokio::core::rng::Rng;

use self::memory::AddressCache;
pub(crate) use self::order::in_turn;
use self::order::{SrvRecord, by_weight};
use self::system::SystemResolver;
use super::interfaces;
use crate::address::{HostAddress, PORT};
use crate::base::system::random;
use crate::base::tally::Tally;
use crate::homedir::Home;

/// How long one lookup may take. Resolvers ask again after 5 s if an answer was lost; a connection
/// attempt is better served by the last known good addresses.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(6);

/// Lines about names that do not resolve, by name.
static UNRESOLVED: Tally = Tally::new(1);

/// Maximum number of hosts of one SRV answer that are looked up.
const MAX_HOSTS: usize = 8;

/// Maximum number of addresses of one place. Each has a head start of a quarter of a second.
const MAX_ADDRESSES: usize = 16;

/// The source of answers.
trait Resolver {
    /// Returns the SRV records of a name; an empty list if there are none.
    fn services(&self, name: String) -> impl Future<Output = io::Result<Vec<SrvRecord>>> + Send;

    /// Returns the addresses of a host.
    fn hosts(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// The name resolver of one process.
#[derive(Debug)]
pub(crate) struct NameResolver {
    system: SystemResolver,
    memory: AddressCache,
}

impl NameResolver {
    /// Returns a resolver with a cache in memory.
    pub(crate) fn new() -> Self {
        Self { system: SystemResolver::default(), memory: AddressCache::default() }
    }

    /// Returns the same with a cache in a file of the home.
    pub(crate) fn at_home(mut self, home: &Home) -> Self {
        self.memory = AddressCache::at(home.path().join("addresses.json"));
        self
    }

    /// Returns the same without these nameservers, which are ports of this program: they may lead
    /// through the very tunnel that is to be dialled.
    pub(crate) fn without(mut self, ours: Vec<SocketAddr>) -> Self {
        self.system.ours = ours;
        self
    }

    /// Returns every address that the places have now, each once, in the order to dial them; a
    /// place without an address is logged.
    pub(crate) async fn resolve(&self, places: &[HostAddress]) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        for place in places {
            match self.resolve_one(place).await {
                Ok(addresses) => found.extend(addresses),
                Err(error) => {
                    if let Some(more) = UNRESOLVED.due(&place.to_string(), "retrying") {
                        tracing::warn!("{place} does not resolve: {error}; retrying{more}");
                    }
                }
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|address| seen.insert(*address));
        found
    }

    /// Returns the addresses of one place, now or as they were, at least one.
    ///
    /// # Errors
    /// The error of the resolver, if no address was ever found.
    pub(crate) async fn resolve_one(&self, place: &HostAddress) -> io::Result<Vec<SocketAddr>> {
        let mut rng = Rng::new(seed()?, "names");
        let found = lookup(&self.system, place, &mut rng).await;
        let found = recall(found, place, &self.memory)?;
        Ok(by_nat64(&self.system, found, interfaces::has_ipv6_alone).await)
    }
}

/// Looks up one place.
async fn lookup(
    source: &impl Resolver,
    place: &HostAddress,
    rng: &mut Rng,
) -> io::Result<Vec<SocketAddr>> {
    if let Some(address) = place.literal(PORT) {
        return Ok(vec![address]);
    }
    let (host, asked) = (place.host(), place.port());
    let port = match asked {
        Some(port) => port,
        None => {
            let name = format!("_adit._udp.{}.", host.trim_end_matches('.'));
            match timely(source.services(name)).await {
                Ok(services) if !services.is_empty() => {
                    return resolve_services(source, services, rng).await;
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%host, %error, "no SRV records"),
            }
            PORT
        }
    };
    let found = in_turn(&timely(source.hosts(host, port)).await?);
    some(found)
}

/// Returns the addresses of the hosts that SRV records name, in the records' order.
async fn resolve_services(
    source: &impl Resolver,
    services: Vec<SrvRecord>,
    rng: &mut Rng,
) -> io::Result<Vec<SocketAddr>> {
    if services.iter().all(|it| it.target.is_empty()) {
        let says = "its SRV record says that there is no such service (RFC 2782)";
        return Err(io::Error::new(io::ErrorKind::NotFound, says));
    }
    let (mut found, mut wrong) = (Vec::new(), None);
    for service in by_weight(services, rng).into_iter().take(MAX_HOSTS) {
        match timely(source.hosts(&service.target, service.port)).await {
            Ok(addresses) => found.extend(in_turn(&addresses)),
            Err(error) => wrong = Some(error),
        }
    }
    match wrong {
        Some(error) if found.is_empty() => Err(error),
        Some(_) | None => some(found),
    }
}

/// Returns what was found, or the result of the last time.
fn recall(
    found: io::Result<Vec<SocketAddr>>,
    place: &HostAddress,
    memory: &AddressCache,
) -> io::Result<Vec<SocketAddr>> {
    let error = match found {
        Ok(addresses) => {
            if place.literal(PORT).is_none() {
                memory.keep(place, &addresses);
            }
            return Ok(addresses);
        }
        Err(error) => error,
    };
    let known = memory.recall(place);
    if known.is_empty() {
        return Err(error);
    }
    if let Some(more) = UNRESOLVED.due(&place.to_string(), "cached") {
        tracing::warn!("{place} does not resolve: {error}; using its last addresses{more}");
    }
    Ok(known)
}

/// Adds the addresses by which IPv4 addresses are reached from this network, where it has IPv6 alone:
/// an address that a person wrote has no other, and not every nameserver makes one of a name.
async fn by_nat64(
    source: &impl Resolver,
    found: Vec<SocketAddr>,
    has_ipv6_alone: impl FnOnce() -> bool,
) -> Vec<SocketAddr> {
    if !nat64::is_needed(&found) || !has_ipv6_alone() {
        return found;
    }
    match timely(source.hosts(nat64::NAME, 0)).await {
        Ok(answers) => nat64::synthesize(&found, &answers),
        Err(error) => {
            tracing::debug!(%error, "no NAT64 is known here");
            found
        }
    }
}

async fn timely<T>(question: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(LOOKUP_TIMEOUT, question).await.unwrap_or_else(|_| {
        let says = format!("no answer within {LOOKUP_TIMEOUT:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, says))
    })
}

fn some(mut found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    found.truncate(MAX_ADDRESSES);
    match found.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        false => Ok(found),
    }
}

fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    random(&mut seed).map_err(io::Error::other)?;
    Ok(seed)
}

#[cfg(test)]
mod tests;
