//! The last known addresses of names, in memory and, if there is a home, in a file of it. It
//! decides what is kept; its caller decides when to use it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::address::HostAddress;
use crate::homedir::store;

/// Maximum number of stored places: more than a machine is invited to.
const MAX_PLACES: usize = 64;

/// The addresses, by the place as it is written.
type Addresses = BTreeMap<String, Vec<SocketAddr>>;

/// The last known good addresses.
#[derive(Debug, Default)]
pub(super) struct AddressCache {
    file: Option<PathBuf>,
    known: Mutex<Option<Addresses>>,
}

impl AddressCache {
    /// Returns a cache that outlasts the process in a file. A file that cannot be read is treated
    /// as empty: its contents can be looked up again.
    pub(super) const fn at(file: PathBuf) -> Self {
        Self { file: Some(file), known: Mutex::new(None) }
    }

    /// Stores the present addresses of a place.
    pub(super) fn keep(&self, place: &HostAddress, addresses: &[SocketAddr]) {
        let mut known = self.known();
        let known = known.get_or_insert_with(|| self.read());
        let key = place.to_string();
        if known.get(&key).is_some_and(|it| it == addresses) {
            return;
        }
        if known.len() >= MAX_PLACES && !known.contains_key(&key) {
            known.pop_first();
        }
        known.insert(key, addresses.to_vec());
        let Some(file) = &self.file else { return };
        let written = serde_json::to_vec_pretty(known).map_err(|error| error.to_string());
        let written =
            written.and_then(|text| store::replace(file, &text).map_err(|stop| stop.to_string()));
        if let Err(error) = written {
            tracing::debug!(%error, "the addresses are not remembered beyond this process");
        }
    }

    /// Returns the stored addresses of a place, if any.
    pub(super) fn recall(&self, place: &HostAddress) -> Vec<SocketAddr> {
        let mut known = self.known();
        let known = known.get_or_insert_with(|| self.read());
        known.get(&place.to_string()).cloned().unwrap_or_default()
    }

    fn read(&self) -> Addresses {
        let text = self.file.as_deref().and_then(|file| store::read(file).ok().flatten());
        let known: Option<Addresses> = text.and_then(|text| serde_json::from_slice(&text).ok());
        known.unwrap_or_default()
    }

    fn known(&self) -> MutexGuard<'_, Option<Addresses>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::homedir::tests::Scratch;

    fn place(text: &str) -> HostAddress {
        HostAddress::try_from(text.to_owned()).unwrap()
    }

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 7], port).into()
    }

    #[test]
    fn what_was_good_is_known_again_by_the_next_process() {
        let directory = Scratch::new();
        let file = directory.path().join("addresses.json");
        AddressCache::at(file.clone()).keep(&place("relay.example"), &[address(1), address(2)]);
        let next = AddressCache::at(file);
        assert_eq!(next.recall(&place("adit://relay.example")), [address(1), address(2)]);
        assert!(next.recall(&place("relay.example:1")).is_empty(), "another port, another place");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_empty_memory_and_is_replaced() {
        let directory = Scratch::new();
        let file = directory.path().join("addresses.json");
        store::replace(&file, b"{\"relay.example\": [1,").unwrap();
        let memory = AddressCache::at(file.clone());
        assert!(memory.recall(&place("relay.example")).is_empty());
        memory.keep(&place("relay.example"), &[address(1)]);
        assert_eq!(AddressCache::at(file).recall(&place("relay.example")), [address(1)]);
    }

    #[test]
    fn there_is_a_bound() {
        let memory = AddressCache::default();
        for number in 0..=MAX_PLACES {
            memory.keep(&place(&format!("host{number}.example")), &[address(1)]);
        }
        assert_eq!(memory.known().as_ref().map(BTreeMap::len), Some(MAX_PLACES));
        let newest = place(&format!("host{MAX_PLACES}.example"));
        assert_eq!(memory.recall(&newest), [address(1)]);
    }
}
