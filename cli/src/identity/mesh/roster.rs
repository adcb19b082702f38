//! A mesh as a running connector sees it: a copy of its registry, as it was read last.

use std::sync::{PoisonError, RwLock};

use super::Mesh;
use super::registry::MeshRegistry;
use crate::base::exit::ExitError;

/// The mesh, and a copy of its registry in memory.
#[derive(Debug)]
pub(crate) struct Roster {
    mesh: Mesh,
    registry: RwLock<MeshRegistry>,
}

impl Roster {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn new(mesh: Mesh) -> Result<Self, ExitError> {
        let registry = RwLock::new(mesh.registry()?);
        Ok(Self { mesh, registry })
    }

    /// Reads it again. If it cannot be read, the previous state remains in force.
    pub(crate) fn refresh(&self) {
        match self.mesh.registry() {
            Ok(registry) => {
                *self.registry.write().unwrap_or_else(PoisonError::into_inner) = registry;
            }
            Err(error) => tracing::warn!("the registry cannot be read again: {error}"),
        }
    }

    /// Returns true if a device may use a service.
    pub(crate) fn grants(&self, device: &str, service: &str) -> bool {
        self.with(|registry| registry.grants(device, service))
    }

    /// Returns the result of a function of the registry as it was read last.
    pub(crate) fn with<T>(&self, make: impl FnOnce(&MeshRegistry) -> T) -> T {
        make(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the mesh itself, to change it.
    pub(crate) const fn mesh(&self) -> &Mesh {
        &self.mesh
    }
}
