//! The members and invites of a mesh: plain data, and its changes.
//!
//! Every change is a function of the data, the request and the time. It accesses no file: the mesh
//! writes it in one step, so that a decision made here takes effect once or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use adit_tokio::core::tls::KeyDigest;
use serde::{Deserialize, Serialize};

/// How long ended invites are kept, so that `invite list` can show their result.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// How long a used invite is accepted again, from the device that used it: its answer may have been
/// lost.
const REPEATED: Duration = Duration::from_secs(120);

/// Maximum number of outstanding invites: a bound on what is accepted by key alone.
const MAX_INVITES: usize = 1_024;

/// Maximum number of a device's certificates that have not expired. One or two are usual, some more
/// where keys are rotated or answers lost; a device that requests without end must not fill the
/// disk.
const MAX_CERTIFICATES: usize = 256;

/// Default lifetime of a device's certificate.
const DEVICE_LIFE: Duration = Duration::from_secs(365 * 86_400);

/// Prefix of the id of every device, and of no name that a person gives.
pub(crate) const ID: &str = "device-";

/// Returns the id among the DNS names of a verified certificate, which identifies a device of a
/// mesh.
pub(crate) fn id_among(names: &[String]) -> Option<&str> {
    names.iter().map(String::as_str).find(|name| name.starts_with(ID))
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeviceRole {
    Agent,
    Connector,
}

/// A device that holds, or held, certificates of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegisteredDevice {
    /// `device-` and twelve hexadecimal digits: its name in certificates.
    pub(crate) id: String,
    /// The name that the inviter gave it, which is in its certificate too.
    pub(crate) name: Option<String>,
    /// The device's own label. It has no effect on permissions.
    pub(crate) label: String,
    pub(crate) role: DeviceRole,
    /// The digest of its present public key.
    #[serde(with = "hex")]
    pub(crate) key: KeyDigest,
    pub(crate) services: BTreeSet<String>,
    /// Serial numbers, in hexadecimal, of its certificates that have not ended, with their ends.
    pub(crate) serials: BTreeMap<String, u64>,
    pub(crate) enrolled: u64,
    pub(crate) revoked: Option<u64>,
}

/// An invite as its issuer stores it: by the digest of its secret's public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IssuedInvite {
    #[serde(with = "hex")]
    pub(crate) key: KeyDigest,
    pub(crate) service: String,
    /// The name that the device will have in its certificate.
    pub(crate) name: Option<String>,
    pub(crate) issued: u64,
    pub(crate) expires: u64,
    /// The device that used it.
    pub(crate) used_by: Option<String>,
    /// When it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<u64>,
    pub(crate) revoked: bool,
}

impl IssuedInvite {
    /// Returns its short name, for people.
    pub(crate) fn id(&self) -> String {
        self.key.to_string()[..8].to_owned()
    }

    /// Returns its state.
    pub(crate) const fn state(&self, now: u64) -> &'static str {
        match (self.revoked, &self.used_by) {
            (true, _) => "revoked",
            (false, Some(_)) => "used",
            (false, None) if now > self.expires => "expired",
            (false, None) => "open",
        }
    }

    /// Returns when its key is no longer accepted: a used one only repeats its answer.
    fn end(&self) -> u64 {
        match self.used_by {
            None => self.expires,
            Some(_) => self.expires.min(self.used.unwrap_or(0).saturating_add(REPEATED.as_secs())),
        }
    }

    const fn is_open(&self, now: u64) -> bool {
        !self.revoked && self.used_by.is_none() && now <= self.expires
    }
}

/// Why an invite or a device is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this invite is not known here")]
    Unknown,
    #[error("this invite has expired")]
    Expired,
    #[error("this invite was used already, by {0}")]
    Used(String),
    #[error("this invite was revoked")]
    InviteRevoked,
    #[error("this device was revoked")]
    DeviceRevoked,
    #[error("there is no such device")]
    NoDevice,
    #[error("this device is not revoked; revoke it first: adit id revoke {0}")]
    NotRevoked(String),
    #[error("the name \"{0}\" is taken by another device")]
    NameTaken(String),
    #[error(
        "\"{0}\" is no name for a device, which is 1 to 63 of a-z, 0-9 and \"-\", and does not begin with \"device-\""
    )]
    BadName(String),
    #[error("{0} invites are open already")]
    TooManyInvites(usize),
    #[error("this device has {0} certificates that have not ended, and gets no more of them")]
    TooManyCertificates(usize),
}

/// The state of a mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MeshRegistry {
    pub(crate) schema: String,
    pub(crate) mesh: String,
    pub(crate) devices: Vec<RegisteredDevice>,
    pub(crate) invites: Vec<IssuedInvite>,
    /// The list of revoked certificates in PEM, as the CA signed it; empty before the first.
    #[serde(default)]
    pub(crate) revoked_pem: String,
    /// The lifetime of certificates that are issued from now on, if it was set.
    #[serde(default)]
    pub(crate) certificate_seconds: Option<u64>,
    /// Number of lists that were signed.
    #[serde(default)]
    pub(crate) lists: u64,
}

/// The name and version of the file's schema.
pub(crate) const SCHEMA: &str = "adit.mesh/1";

impl MeshRegistry {
    pub(crate) fn new(mesh: String) -> Self {
        Self { schema: SCHEMA.to_owned(), mesh, ..Self::default() }
    }

    /// Adds a new invite.
    pub(crate) fn invite(&mut self, invite: IssuedInvite, now: u64) -> Result<(), Refusal> {
        self.forget(now);
        if let Some(name) = &invite.name {
            self.check_name(name, now)?;
        }
        let open = self.invites.iter().filter(|i| i.is_open(now)).count();
        if open >= MAX_INVITES {
            return Err(Refusal::TooManyInvites(open));
        }
        self.invites.push(invite);
        Ok(())
    }

    /// Checks that a name is free. The name of a revoked device is not: its entries in allow lists
    /// must not pass to another device.
    fn check_name(&self, name: &str, now: u64) -> Result<(), Refusal> {
        let is_label = (1..=63).contains(&name.len())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !name.starts_with('-')
            && !name.ends_with('-')
            && !name.starts_with(ID);
        if !is_label {
            return Err(Refusal::BadName(name.to_owned()));
        }
        let named = |n: &Option<String>| n.as_deref() == Some(name);
        let is_taken = self.devices.iter().any(|d| named(&d.name))
            || self.invites.iter().any(|i| i.is_open(now) && named(&i.name));
        if is_taken { Err(Refusal::NameTaken(name.to_owned())) } else { Ok(()) }
    }

    /// Spends an invite on the device that holds `device_key`, which is `fresh_id` if it is new.
    /// Returns its id. The device that spent it may ask again, without effect on the state: its
    /// answer may have been lost.
    pub(crate) fn redeem(
        &mut self,
        invite: KeyDigest,
        device_key: KeyDigest,
        (label, fresh_id): (&str, String),
        now: u64,
    ) -> Result<String, Refusal> {
        let found = self.invites.iter().position(|i| i.key == invite).ok_or(Refusal::Unknown)?;
        let issued = &self.invites[found];
        if issued.revoked {
            return Err(Refusal::InviteRevoked);
        }
        if now > issued.expires {
            return Err(Refusal::Expired);
        }
        if let Some(id) = issued.used_by.clone() {
            let user = self.device(&id).ok_or(Refusal::NoDevice)?;
            return match user {
                user if now > issued.end() => Err(Refusal::Used(user.title())),
                user if user.key != device_key => Err(Refusal::Used(user.title())),
                user if user.revoked.is_some() => Err(Refusal::DeviceRevoked),
                _ => Ok(id),
            };
        }
        let (service, name) = (issued.service.clone(), issued.name.clone());
        let id = match self.devices.iter_mut().find(|d| d.key == device_key) {
            Some(known) if known.revoked.is_some() => return Err(Refusal::DeviceRevoked),
            Some(known) => {
                known.services.insert(service);
                if known.name.is_none() {
                    known.name = name;
                }
                known.id.clone()
            }
            None => {
                self.devices.push(RegisteredDevice {
                    id: fresh_id.clone(),
                    name,
                    label: label.to_owned(),
                    role: DeviceRole::Agent,
                    key: device_key,
                    services: BTreeSet::from([service]),
                    serials: BTreeMap::new(),
                    enrolled: now,
                    revoked: None,
                });
                fresh_id
            }
        };
        self.invites[found].used_by = Some(id.clone());
        self.invites[found].used = Some(now);
        Ok(id)
    }

    /// Returns a device that may have a new certificate, for `key`.
    pub(crate) fn renew(&mut self, id: &str, key: KeyDigest) -> Result<&RegisteredDevice, Refusal> {
        let taken = self.devices.iter().any(|d| d.key == key && d.id != id);
        let device = self.devices.iter_mut().find(|d| d.id == id).ok_or(Refusal::NoDevice)?;
        if device.revoked.is_some() {
            return Err(Refusal::DeviceRevoked);
        }
        if taken {
            return Err(Refusal::NameTaken(key.to_string()));
        }
        device.key = key;
        Ok(device)
    }

    /// Returns a device that has room for another certificate.
    pub(crate) fn certifiable(&mut self, id: &str, now: u64) -> Result<&RegisteredDevice, Refusal> {
        let device = self.devices.iter_mut().find(|d| d.id == id).ok_or(Refusal::NoDevice)?;
        device.forget(now);
        match device.serials.len() {
            count @ MAX_CERTIFICATES.. => Err(Refusal::TooManyCertificates(count)),
            _ => Ok(device),
        }
    }

    /// Adds a certificate of a device.
    pub(crate) fn certified(&mut self, id: &str, serial: String, not_after: u64, now: u64) {
        if let Some(device) = self.devices.iter_mut().find(|d| d.id == id) {
            device.forget(now);
            device.serials.insert(serial, not_after);
        }
    }

    /// Revokes a device's certificates permanently.
    pub(crate) fn revoke(&mut self, id: &str, now: u64) -> Result<(), Refusal> {
        let device = self.devices.iter_mut().find(|d| d.id == id).ok_or(Refusal::NoDevice)?;
        device.revoked.get_or_insert(now);
        Ok(())
    }

    /// Revokes an invite. The device that used it remains, and its key is no longer accepted.
    pub(crate) fn revoke_invite(&mut self, key: KeyDigest, now: u64) -> Result<(), Refusal> {
        let invite = self.invites.iter_mut().find(|i| i.key == key).ok_or(Refusal::Unknown)?;
        if now > invite.expires {
            return Err(Refusal::Expired);
        }
        invite.revoked = true;
        Ok(())
    }

    /// Returns the lifetime of certificates that are issued from now on.
    pub(crate) fn certificate_life(&self) -> Duration {
        self.certificate_seconds.map_or(DEVICE_LIFE, Duration::from_secs)
    }

    pub(crate) fn device(&self, id: &str) -> Option<&RegisteredDevice> {
        self.devices.iter().find(|d| d.id == id)
    }

    /// Returns the devices that a person may mean by a word: an id, or the digits of one, a name or
    /// a label.
    pub(crate) fn meant_by(&self, word: &str) -> Vec<&RegisteredDevice> {
        let exact = |d: &&RegisteredDevice| d.id == word || d.name.as_deref() == Some(word);
        let loose = |d: &&RegisteredDevice| d.label == word || d.id.strip_prefix(ID) == Some(word);
        let found: Vec<_> = self.devices.iter().filter(exact).collect();
        if found.is_empty() { self.devices.iter().filter(loose).collect() } else { found }
    }

    /// Returns the keys that are accepted without a certificate, with their end: those of invites
    /// that can be used, and those of used ones, whose device may not have received its answer.
    pub(crate) fn guests(&self, now: u64) -> BTreeMap<KeyDigest, Duration> {
        self.invites
            .iter()
            .filter(|invite| !invite.revoked && now <= invite.end())
            .filter(|invite| {
                let user = invite.used_by.as_deref();
                user.is_none_or(|id| self.device(id).is_some_and(|user| user.revoked.is_none()))
            })
            .map(|invite| (invite.key, Duration::from_secs(invite.end())))
            .collect()
    }

    /// Returns true if a device may use a service.
    #[cfg(test)]
    pub(crate) fn grants(&self, id: &str, service: &str) -> bool {
        self.device(id).is_some_and(|device| device.may_use(service))
    }

    /// Removes a revoked device, and frees its name. The serial numbers of certificates that have not
    /// expired stay, without a name, for the revocation list.
    pub(crate) fn forget_device(&mut self, id: &str, now: u64) -> Result<(), Refusal> {
        let device = self.devices.iter_mut().find(|d| d.id == id).ok_or(Refusal::NoDevice)?;
        if device.revoked.is_none() {
            return Err(Refusal::NotRevoked(id.to_owned()));
        }
        device.name = None;
        device.label.clear();
        device.services.clear();
        self.forget(now);
        Ok(())
    }

    /// Removes the invites that can no longer be used. Returns how many.
    pub(crate) fn prune_invites(&mut self, now: u64) -> usize {
        let before = self.invites.len();
        self.invites.retain(|invite| invite.is_open(now));
        before - self.invites.len()
    }

    fn forget(&mut self, now: u64) {
        self.devices.retain(|device| {
            !device.is_forgotten() || device.serials.values().any(|end| *end >= now)
        });
        self.invites.retain(|i| now <= i.expires.saturating_add(REMEMBERED.as_secs()));
    }
}

impl RegisteredDevice {
    /// Returns true if only the serial numbers of a removed device are left.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.revoked.is_some()
            && self.name.is_none()
            && self.label.is_empty()
            && self.services.is_empty()
    }

    /// Removes certificates that have expired, unless they are on the revocation list.
    fn forget(&mut self, now: u64) {
        if self.revoked.is_none() {
            self.serials.retain(|_, end| *end >= now);
        }
    }

    /// Returns true if it may use a service.
    pub(crate) fn may_use(&self, service: &str) -> bool {
        self.revoked.is_none() && self.services.contains(service)
    }

    /// Returns its title in a sentence.
    pub(crate) fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.id),
            None if self.label.is_empty() => self.id.clone(),
            None => format!("{} ({})", self.label, self.id),
        }
    }
}

/// Digests as hexadecimal text.
mod hex {
    use adit_tokio::core::tls::KeyDigest;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(key: &KeyDigest, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<KeyDigest, D::Error> {
        let wrong = || serde::de::Error::custom("not 64 hexadecimal digits");
        let text = String::deserialize(from)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong())?;
        Ok(KeyDigest(bytes.try_into().map_err(|_| wrong())?))
    }
}

#[cfg(test)]
mod tests;
