//! Invariants for any bytes: the bodies of the fuzz targets `config` and `invite`.
//!
//! It decides what counts as a failure, and fails by panicking. It never makes up input: that comes
//! from the fuzzer, or from the corpus that the tests replay.

use std::collections::BTreeSet;
use std::path::Path;

use crate::address::{Backend, MAX_ADDRESSES};
use crate::base::exit::{Exit, ExitError};
use crate::config::{AgentConfig, AgentTarget, ConnectorConfig, MAX_RELAYS, TlsFiles};
use crate::identity::invite::{Invite, seal};

/// The path of the configuration; the paths in it are relative to it.
const FILE: &str = "/etc/adit/adit.toml";

/// Where the secret is in the contents of an invite.
const SECRET: std::ops::Range<usize> = 8..40;

/// Configurations: any text is a connector's file, an agent's, or an error of one sentence, and a
/// parsed file can be used as it is.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new(FILE);
    match ConnectorConfig::parse(text, path) {
        Ok(config) => check_connector(&config),
        Err(stop) => check_mistake(&stop),
    }
    match AgentConfig::parse(text, path) {
        Ok(config) => check_agent(&config),
        Err(stop) => check_mistake(&stop),
    }
}

fn check_connector(config: &ConnectorConfig) {
    config.tls.iter().for_each(check_files);
    assert!(config.limits.connections > 0 && !config.limits.half_open.is_zero());
    let names: BTreeSet<_> = config.services.iter().map(|s| s.name.as_str()).collect();
    assert!(!names.is_empty(), "it serves nothing");
    assert_eq!(names.len(), config.services.len(), "a name stands twice");
    for service in &config.services {
        assert!(!service.name.as_str().starts_with("adit."), "a name of adit's own");
        match &service.backend {
            Backend::Tcp(address) => assert_ne!(address.port(), 0),
            #[cfg(unix)]
            Backend::Unix(path) => assert!(path.is_absolute(), "{path:?}"),
        }
    }
}

fn check_agent(config: &AgentConfig) {
    match &config.target {
        AgentTarget::Known(_) => {}
        AgentTarget::Given(remote, files) => {
            assert!(remote.addresses.len() + config.relays.len() > 0, "it dials nobody");
            check_files(files);
        }
    }
    assert!(config.limits.connections > 0 && !config.limits.half_open.is_zero());
    assert!(!config.forwards.is_empty(), "it offers nothing");
    let fixed = config.forwards.iter().filter(|forward| forward.listen.port() != 0);
    let ports: Vec<_> = fixed.map(|forward| forward.listen).collect();
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len(), "a port stands twice");
}

fn check_files(files: &TlsFiles) {
    let all = [&files.ca, &files.certificate, &files.key].into_iter().chain(&files.revoked);
    all.for_each(|path| assert!(path.is_absolute(), "{path:?}"));
}

/// Checks one sentence about a file, with the place first.
fn check_mistake(stop: &ExitError) {
    assert_eq!(stop.exit(), Exit::Usage);
    let said = stop.to_string();
    let about = said.strip_prefix(FILE).and_then(|rest| rest.strip_prefix(": "));
    assert!(about.is_some_and(|about| !about.trim().is_empty()), "{said:?}");
    assert!(!said.contains(char::is_control), "{said:?}");
}

/// Invites: any text is an invite or one sentence; an invite that is written and parsed again is
/// the same; and no message depends on its secret.
///
/// `data` is used as the text, and as the contents of an invite with a correct checksum.
pub fn invite(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
    }
    let said = check(&seal(data.to_vec()));
    let mut other = data.to_vec();
    if let Some(secret) = other.get_mut(SECRET) {
        secret.iter_mut().for_each(|byte| *byte ^= 0xa5);
        assert_eq!(check(&seal(other)), said, "the secret shows");
    }
}

/// Returns what messages and logs show of an invite.
fn check(text: &str) -> String {
    let invite = match Invite::parse(text) {
        Ok(invite) => invite,
        Err(stop) => {
            assert_eq!(stop.exit(), Exit::Usage);
            let said = stop.to_string();
            assert!(!said.is_empty() && !said.contains(char::is_control), "{said:?}");
            return said;
        }
    };
    assert_eq!(Invite::parse(&invite.to_string()).ok().as_ref(), Some(&invite));
    assert!(invite.addresses.len() <= MAX_ADDRESSES && invite.relays.len() <= MAX_RELAYS);
    assert!(invite.addresses.len() + invite.relays.len() > 0, "it leads nowhere");
    assert_ne!(invite.port, Some(0));
    assert!(!invite.connector.is_empty() && !invite.connector.contains(char::is_control));
    let identity = invite.secret.identity().map(|(identity, _)| identity);
    format!("{invite:?} {:?}", identity.map_err(|stop| stop.to_string()))
}
