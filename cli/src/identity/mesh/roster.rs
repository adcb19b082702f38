//! A mesh as a running connector sees it: a copy of its registry, as it was read last, with an index.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use super::Mesh;
use super::registry::{MeshRegistry, RegisteredDevice, id_among};
use crate::base::exit::ExitError;
use crate::identity::follow::FollowedFiles;

/// The mesh, and a copy of its registry in memory.
#[derive(Debug)]
pub(crate) struct Roster {
    mesh: Mesh,
    view: RwLock<View>,
    files: Mutex<FollowedFiles>,
    applied: watch::Sender<u64>,
}

/// A state of the registry.
#[derive(Debug, Default)]
struct View {
    registry: MeshRegistry,
    /// The places of the devices, by id.
    by_id: BTreeMap<String, usize>,
    /// How often the registry was read.
    generation: u64,
}

impl Roster {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// A sentence about the file.
    pub(crate) fn new(mesh: Mesh) -> Result<Self, ExitError> {
        let files =
            Mutex::new(FollowedFiles::new(vec![mesh.registry_path()], "the list of devices"));
        let (view, applied) = (RwLock::default(), watch::Sender::new(0));
        let roster = Self { mesh, view, files, applied };
        roster.look()?;
        Ok(roster)
    }

    /// Reads it again if its file changed. This accesses the disk. Returns the generation in use.
    ///
    /// # Errors
    /// Why it cannot be read: the previous state remains in force.
    pub(crate) fn look(&self) -> Result<u64, ExitError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mesh = &self.mesh;
        let read = files.look(|_| mesh.read_registry(), |it| mesh.parse_registry(&it[0]))?;
        let Some(registry) = read else { return Ok(self.generation()) };
        let by_id =
            (0..).zip(&registry.devices).map(|(at, device)| (device.id.clone(), at)).collect();
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        *view = View { registry, by_id, generation: view.generation + 1 };
        Ok(view.generation)
    }

    /// Returns the number of the state in use.
    pub(crate) fn generation(&self) -> u64 {
        self.view.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// Notifies those that wait for a change: the present state is in use everywhere.
    pub(crate) fn on_applied(&self) {
        self.applied.send_replace(self.generation());
    }

    /// Waits until the device with these names is revoked.
    pub(crate) async fn revocation_of(&self, names: &[String]) {
        let mut applied = self.applied.subscribe();
        loop {
            let is_revoked = id_among(names).is_some_and(|id| {
                self.device(id, |device| device.is_some_and(|device| device.revoked.is_some()))
            });
            if is_revoked || applied.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns true if a device is registered and not revoked.
    pub(crate) fn is_active(&self, id: &str) -> bool {
        self.device(id, |device| device.is_some_and(|device| device.revoked.is_none()))
    }

    /// Returns true if a device may use a service.
    pub(crate) fn grants(&self, id: &str, service: &str) -> bool {
        self.device(id, |device| device.is_some_and(|device| device.may_use(service)))
    }

    /// Returns the name that an invite gave a device.
    pub(crate) fn name(&self, device: &str) -> Option<String> {
        self.with(|registry| registry.device(device).and_then(|device| device.name.clone()))
    }

    /// Returns what people call the device with these names in its certificate: the name that its
    /// invite gave it or, without that, its host name.
    pub(crate) fn title(&self, names: &[String]) -> Option<String> {
        self.device(id_among(names)?, |device| {
            let device = device?;
            let label = Some(&device.label).filter(|label| !label.is_empty());
            device.name.as_ref().or(label).cloned()
        })
    }

    fn device<T>(&self, id: &str, make: impl FnOnce(Option<&RegisteredDevice>) -> T) -> T {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        make(view.by_id.get(id).and_then(|&at| view.registry.devices.get(at)))
    }

    /// What is made of the registry as it was looked at last.
    pub(crate) fn with<T>(&self, make: impl FnOnce(&MeshRegistry) -> T) -> T {
        make(&self.view.read().unwrap_or_else(PoisonError::into_inner).registry)
    }

    /// Returns the mesh itself, to change it.
    pub(crate) const fn mesh(&self) -> &Mesh {
        &self.mesh
    }
}
