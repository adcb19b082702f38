//! Seeded connection ids: eight random bytes from the node's own generator.
//!
//! The stock generators draw from the operating system and would make two runs of one seed differ.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

use crate::rng::Rng;

/// Bytes of a connection id.
pub(super) const CID_LEN: usize = 8;

#[derive(Debug)]
pub(super) struct SeededCids(Rng);

impl SeededCids {
    pub(super) const fn new(rng: Rng) -> Self {
        Self(rng)
    }
}

impl ConnectionIdGenerator for SeededCids {
    fn generate_cid(&mut self) -> ConnectionId {
        draw(&mut self.0)
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The provider of a client's first destination ids.
pub(super) fn initial_dst_cids(rng: Rng) -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
    let rng = Mutex::new(rng);
    Arc::new(move || draw(&mut rng.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn draw(rng: &mut Rng) -> ConnectionId {
    let mut bytes = [0; CID_LEN];
    rng.fill(&mut bytes);
    ConnectionId::new(&bytes)
}
