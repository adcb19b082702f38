//! The addresses of the services' hosts. It decides that a name is looked up once at a time,
//! however many connections wait for it: a lookup takes a thread, and the system may take long.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::address::HostPort;

/// What a lookup found, for everybody who waits; the error of the system as its sentence.
type Found = Option<Result<Vec<SocketAddr>, String>>;

/// The lookups that are under way; at most one for each service of the configuration.
#[derive(Debug, Default, Clone)]
pub(super) struct Lookups(Arc<Mutex<BTreeMap<HostPort, watch::Receiver<Found>>>>);

impl Lookups {
    /// Returns every address that a host has now, at least one.
    pub(super) async fn resolve(&self, host: &HostPort) -> io::Result<Vec<SocketAddr>> {
        let mut found = self.join(host);
        match found.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(addresses))) => Ok(addresses.clone()),
            Ok(Some(Err(sentence))) => Err(io::Error::other(sentence.clone())),
            Ok(None) | Err(_) => Err(io::Error::other("the lookup was abandoned")),
        }
    }

    /// Returns the lookup that is under way, or begins one. It goes on when its first caller no
    /// longer waits.
    fn join(&self, host: &HostPort) -> watch::Receiver<Found> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = under_way.get(host) {
            return found.clone();
        }
        let (answer, found) = watch::channel(None);
        under_way.insert(host.clone(), found.clone());
        let (lookups, host) = (self.0.clone(), host.clone());
        tokio::spawn(async move {
            let result = host.resolve().await.map_err(|error| error.to_string());
            lookups.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
            answer.send_replace(Some(result));
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_ask_while_a_lookup_is_under_way_share_it() {
        let (lookups, host) = (Lookups::default(), "192.0.2.1:80".to_owned());
        let host = HostPort::try_from(host).unwrap();
        let first = lookups.join(&host);
        assert!(first.same_channel(&lookups.join(&host)));
        assert_eq!(lookups.resolve(&host).await.unwrap(), ["192.0.2.1:80".parse().unwrap()]);
        assert!(lookups.0.lock().unwrap().is_empty());
        assert!(!first.same_channel(&lookups.join(&host)));
    }
}
