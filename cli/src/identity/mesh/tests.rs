//! A mesh on the disk: created once, spent once, and complete after every failure.

use std::sync::Barrier;
use std::time::Duration;

use super::*;
use crate::homedir::tests::Scratch;
use crate::identity::invite::Secret;
use crate::identity::source::{CredentialFiles, CredentialSource};

fn mesh(scratch: &Scratch) -> Mesh {
    Mesh::open_or_create(&Home::find(Some(scratch.path())).unwrap()).unwrap()
}

/// Makes an invite to `web`. Returns its digest.
fn invite(mesh: &Mesh) -> KeyDigest {
    let (_, key) = Secret::new().unwrap().identity().unwrap();
    let now = unix_now();
    mesh.invite(IssuedInvite {
        key,
        service: "web".into(),
        name: None,
        issued: now,
        expires: now + 900,
        used_by: None,
        used: None,
        revoked: false,
    })
    .unwrap();
    key
}

fn can_start(mesh: &Mesh) -> bool {
    CredentialFiles::start(CredentialSource::Mesh(mesh.clone())).is_ok()
}

fn request() -> CertificateRequest {
    CertificateRequest::new_key().unwrap().1
}

#[test]
fn concurrent_creation_gives_one_mesh() {
    let scratch = Scratch::new();
    let home = Home::find(Some(&scratch.path().join("home"))).unwrap();
    let barrier = Barrier::new(8);
    let keys: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    Mesh::open_or_create(&home).unwrap().ca_key().unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.windows(2).all(|pair| pair[0] == pair[1]), "{keys:?}");
    let left: Vec<_> =
        std::fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["mesh"]);
}

#[cfg(unix)]
#[test]
fn keys_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let mesh = mesh(&scratch);
    for name in ["ca.key", "identity.pem", "registry.json"] {
        let mode = std::fs::metadata(mesh.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_certificate_has_subject_addresses_and_usage() {
    let scratch = Scratch::new();
    let mesh = mesh(&scratch);
    let request = request();
    let (device, certified) = mesh.enrol(invite(&mesh), &request, "laptop").unwrap();
    let said = certificate::describe_pem(&certified.pem).unwrap();
    let registry = mesh.registry().unwrap();
    assert_eq!(said.subject, format!("CN={}, O={}", device.id, registry.mesh));
    assert_eq!(said.names, [&*device.id]);
    assert_eq!(said.uris, ["adit:role:agent", "adit:service:web"]);
    assert_eq!(said.key, request.key());
    assert_eq!(said.serial, certified.serial);
    assert_eq!(said.not_after - said.not_before, 365 * 86_400 + 3_600);
    assert!(registry.device(&device.id).unwrap().serials.contains_key(&said.serial));
    assert!(can_start(&mesh));
}

#[test]
fn of_a_hundred_concurrent_claims_one_wins() {
    let scratch = Scratch::new();
    let mesh = mesh(&scratch);
    let (key, barrier) = (invite(&mesh), Barrier::new(100));
    let won = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    let request = request();
                    barrier.wait();
                    match mesh.enrol(key, &request, "racer") {
                        Ok((device, _)) => Some(device.id),
                        Err(Denied::Refused(Refusal::Used(_))) => None,
                        Err(other) => panic!("{other}"),
                    }
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(won.len(), 1, "{won:?}");
    let agents =
        mesh.registry().unwrap().devices.iter().filter(|d| d.role == DeviceRole::Agent).count();
    assert_eq!(agents, 1);
}

#[test]
fn a_registry_that_cannot_be_written_spends_nothing() {
    let scratch = Scratch::new();
    let mesh = mesh(&scratch);
    let key = invite(&mesh);
    let before = mesh.registry().unwrap();
    // A destination that a rename cannot replace stands for a full disk.
    let path = mesh.path("registry.json");
    let kept = std::fs::read(&path).unwrap();
    let result = mesh.transact(|registry, now| {
        let id = registry.redeem(key, request().key(), ("laptop", fresh_id()?), now)?;
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("in the way"), "").unwrap();
        Ok(id)
    });
    assert!(matches!(result, Err(Denied::Broken(_))), "{result:?}");
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, kept).unwrap();
    assert_eq!(mesh.registry().unwrap(), before);
    assert!(mesh.enrol(key, &request(), "laptop").is_ok());
}

#[test]
fn what_a_crash_left_beside_the_registry_is_not_read() {
    let scratch = Scratch::new();
    let mesh = mesh(&scratch);
    let before = mesh.registry().unwrap();
    std::fs::write(mesh.path(".registry.json.1.0.5"), "{\"schema\":").unwrap();
    assert_eq!(mesh.registry().unwrap(), before);
}

#[test]
fn a_damaged_registry_is_reported_and_not_overwritten() {
    let scratch = Scratch::new();
    let mesh = mesh(&scratch);
    for text in
        ["", "{", "[]", "{\"schema\":\"adit.mesh/9\",\"mesh\":\"m\",\"devices\":[],\"invites\":[]}"]
    {
        std::fs::write(mesh.path("registry.json"), text).unwrap();
        let said = mesh.set_certificate_life(Duration::from_secs(1)).unwrap_err().to_string();
        assert!(said.contains("not what adit wrote") && said.contains("backup"), "{said}");
        assert_eq!(std::fs::read_to_string(mesh.path("registry.json")).unwrap(), text);
    }
}

#[test]
fn a_revoked_device_is_on_the_list_with_every_certificate_it_has() {
    let scratch = Scratch::new();
    let mesh = mesh(&scratch);
    let (device, first) = mesh.enrol(invite(&mesh), &request(), "laptop").unwrap();
    let (_, second) = mesh.renew(&device.id, &request()).unwrap();
    mesh.revoke(&device.id).unwrap();
    let pem = mesh.registry().unwrap().revoked_pem;
    let (_, list) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let list = x509_parser::parse_x509_crl(&list.contents).unwrap().1;
    let revoked: std::collections::BTreeSet<_> = list
        .iter_revoked_certificates()
        .map(|entry| data_encoding::HEXLOWER.encode(entry.raw_serial()))
        .collect();
    assert_eq!(revoked, [first.serial, second.serial].into());
    assert!(mesh.renew(&device.id, &request()).is_err());
    assert!(can_start(&mesh));
}

#[test]
fn a_rotated_connector_has_another_key_and_the_same_name() {
    let scratch = Scratch::new();
    let mesh = mesh(&scratch);
    let describe = || certificate::describe_file(&mesh.path("identity.pem")).unwrap();
    let before = describe();
    mesh.keep_current().unwrap();
    assert_eq!(describe(), before);
    mesh.rotate().unwrap();
    assert_ne!(describe().key, before.key);
    assert_eq!(describe().names, before.names);
}

#[test]
fn a_certificate_is_due_thirty_days_before_its_end_and_a_short_one_at_two_thirds() {
    let scratch = Scratch::new();
    let of = |not_before: u64, not_after: u64| certificate::CertificateDescription {
        not_before,
        not_after,
        ..certificate::describe_file(&mesh(&scratch).path("identity.pem")).unwrap()
    };
    let day = 86_400;
    assert!(!of(0, 365 * day).is_due(335 * day - 1) && of(0, 365 * day).is_due(335 * day));
    // It was signed an hour after it begins.
    assert!(!of(0, 3_690).is_due(3_659) && of(0, 3_690).is_due(3_660));
}

#[test]
fn one_identity_is_for_one_running_connector() {
    let scratch = Scratch::new();
    let mesh = mesh(&scratch);
    let first = mesh.claim().unwrap();
    let said = mesh.claim().unwrap_err().to_string();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    drop(first);
    assert!(mesh.claim().is_ok());
}

#[test]
fn the_key_that_a_crash_left_in_an_unfinished_mesh_is_removed() {
    let scratch = Scratch::new();
    let home = Home::find(Some(scratch.path())).unwrap();
    let at = |name: &str| scratch.path().join(name);
    for name in [".mesh-old", ".mesh-new"] {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::write(at(name).join("ca.key"), "a key").unwrap();
    }
    let old = std::time::SystemTime::now() - 2 * UNFINISHED_LIFE;
    std::fs::File::open(at(".mesh-old")).unwrap().set_modified(old).unwrap();
    Mesh::open_or_create(&home).unwrap();
    assert!(!at(".mesh-old").exists() && at(".mesh-new").exists());
}
