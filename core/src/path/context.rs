//! What every owner in this folder is called with: configuration, role, randomness, and the queue
//! of effects.
//!
//! It decides how many effects may wait. It never carries one out:
//! [`Paths::poll`](super::Paths::poll) hands them to the node.

use std::collections::VecDeque;

use super::action::{PathAction, PathRole};
use super::config::PathConfig;
use crate::rng::Rng;

/// Actions that may wait to be fetched before a probe is no longer answered.
pub(super) const MAX_ACTIONS: usize = 256;

/// The surroundings of one connection's paths.
#[derive(Debug)]
pub(super) struct PathContext {
    pub(super) config: PathConfig,
    pub(super) role: PathRole,
    pub(super) rng: Rng,
    actions: VecDeque<PathAction>,
}

impl PathContext {
    pub(super) const fn new(config: PathConfig, role: PathRole, rng: Rng) -> Self {
        Self { config, role, rng, actions: VecDeque::new() }
    }

    /// Queues an effect.
    pub(super) fn push(&mut self, action: PathAction) {
        self.actions.push_back(action);
    }

    /// Takes the oldest effect.
    pub(super) fn pop(&mut self) -> Option<PathAction> {
        self.actions.pop_front()
    }

    /// Returns how many effects wait.
    pub(super) fn waiting(&self) -> usize {
        self.actions.len()
    }

    /// Returns true if a peer may cause no further effect before some are fetched.
    pub(super) fn is_full(&self) -> bool {
        self.waiting() >= MAX_ACTIONS
    }
}
