//! A mesh as a running connector sees it: a copy of its registry, as it was read last.

use std::sync::{PoisonError, RwLock};

use super::Mesh;
use super::registry::{MeshRegistry, id_among};
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
            Err(error) => tracing::warn!("the list of devices cannot be read again: {error}"),
        }
    }

    /// Returns true if a device may use a service.
    pub(crate) fn grants(&self, device: &str, service: &str) -> bool {
        self.with(|registry| registry.grants(device, service))
    }

    /// Returns the name that an invite gave a device.
    pub(crate) fn name(&self, device: &str) -> Option<String> {
        self.with(|registry| registry.device(device).and_then(|device| device.name.clone()))
    }

    /// Returns what people call the device with these names in its certificate: the name that its
    /// invite gave it or, without that, its host name.
    pub(crate) fn title(&self, names: &[String]) -> Option<String> {
        let id = id_among(names)?;
        self.with(|registry| {
            let device = registry.devices.iter().find(|device| device.id == id)?;
            let label = Some(&device.label).filter(|label| !label.is_empty());
            device.name.as_ref().or(label).cloned()
        })
    }

    /// What is made of the registry as it was looked at last.
    pub(crate) fn with<T>(&self, make: impl FnOnce(&MeshRegistry) -> T) -> T {
        make(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the mesh itself, to change it.
    pub(crate) const fn mesh(&self) -> &Mesh {
        &self.mesh
    }
}
