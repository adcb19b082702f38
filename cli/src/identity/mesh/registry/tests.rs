//! Which changes of a mesh's members and invites are allowed, and which are not.

use super::*;

const NOW: u64 = 1_800_000_000;

const fn key(byte: u8) -> KeyDigest {
    KeyDigest([byte; 32])
}

fn invite(byte: u8, service: &str) -> IssuedInvite {
    IssuedInvite {
        key: key(byte),
        service: service.into(),
        name: None,
        issued: NOW,
        expires: NOW + 900,
        used_by: None,
        used: None,
        revoked: false,
    }
}

fn registry(invites: &[IssuedInvite]) -> MeshRegistry {
    let mut registry = MeshRegistry::new("test".into());
    for invite in invites {
        registry.invite(invite.clone(), NOW).unwrap();
    }
    registry
}

fn redeem(
    registry: &mut MeshRegistry,
    invite: u8,
    device: u8,
    now: u64,
) -> Result<String, Refusal> {
    let fresh = ("laptop", format!("device-{device:012x}"));
    registry.redeem(key(invite), key(device), fresh, now)
}

#[test]
fn an_invite_makes_one_device_and_grants_one_service() {
    let mut registry = registry(&[invite(1, "web")]);
    let id = redeem(&mut registry, 1, 10, NOW).unwrap();
    assert!(registry.grants(&id, "web") && !registry.grants(&id, "db"));
    assert!(!registry.grants("device-other", "web"));
    assert_eq!(registry.device(&id).unwrap().label, "laptop");
}

#[test]
fn another_device_cannot_use_it_again_and_the_same_one_gets_the_same_answer() {
    let mut registry = registry(&[invite(1, "web")]);
    let id = redeem(&mut registry, 1, 10, NOW).unwrap();
    let before = registry.clone();
    let used = Err(Refusal::Used(format!("laptop ({id})")));
    assert_eq!(redeem(&mut registry, 1, 11, NOW), used);
    assert_eq!(redeem(&mut registry, 1, 10, NOW), Ok(id));
    assert_eq!(registry, before);
}

#[test]
fn an_invite_is_good_in_its_last_second_and_expired_in_the_next() {
    let mut registry = registry(&[invite(1, "web"), invite(2, "web")]);
    assert!(redeem(&mut registry, 1, 10, NOW + 900).is_ok());
    assert_eq!(redeem(&mut registry, 2, 11, NOW + 901), Err(Refusal::Expired));
    assert_eq!(registry.guests(NOW + 900).len(), 2);
    assert!(registry.guests(NOW + 901).is_empty());
}

#[test]
fn a_used_invite_repeats_its_answer_for_two_minutes_and_ends_with_its_device() {
    let mut registry = registry(&[invite(1, "web"), invite(2, "web"), invite(3, "web")]);
    let id = redeem(&mut registry, 1, 10, NOW).unwrap();
    assert_eq!(redeem(&mut registry, 1, 10, NOW + 120), Ok(id.clone()));
    assert_eq!(registry.guests(NOW + 120).len(), 3);
    let used = Err(Refusal::Used(format!("laptop ({id})")));
    assert_eq!(redeem(&mut registry, 1, 10, NOW + 121), used);
    assert_eq!(registry.guests(NOW + 121).len(), 2);
    let other = redeem(&mut registry, 2, 11, NOW + 121).unwrap();
    registry.revoke(&other, NOW + 121).unwrap();
    assert!(!registry.guests(NOW + 121).contains_key(&key(2)));
    redeem(&mut registry, 3, 12, NOW + 122).unwrap();
    registry.revoke_invite(key(3), NOW + 122).unwrap();
    assert!(registry.guests(NOW + 122).is_empty());
}

#[test]
fn unknown_and_revoked_invites_make_no_device() {
    let mut registry = registry(&[invite(1, "web")]);
    registry.revoke_invite(key(1), NOW).unwrap();
    assert_eq!(redeem(&mut registry, 1, 10, NOW), Err(Refusal::InviteRevoked));
    assert_eq!(redeem(&mut registry, 2, 10, NOW), Err(Refusal::Unknown));
    assert!(registry.devices.is_empty() && registry.guests(NOW).is_empty());
}

#[test]
fn a_second_invite_gives_a_known_device_another_service() {
    let mut registry = registry(&[invite(1, "web"), invite(2, "db")]);
    let id = redeem(&mut registry, 1, 10, NOW).unwrap();
    assert_eq!(redeem(&mut registry, 2, 10, NOW), Ok(id.clone()));
    assert_eq!(registry.devices.len(), 1);
    assert!(registry.grants(&id, "web") && registry.grants(&id, "db"));
}

#[test]
fn a_revoked_device_has_nothing_gets_nothing_and_cannot_come_back_by_an_invite() {
    let mut registry = registry(&[invite(1, "web"), invite(2, "web")]);
    let id = redeem(&mut registry, 1, 10, NOW).unwrap();
    registry.revoke(&id, NOW + 1).unwrap();
    assert!(!registry.grants(&id, "web"));
    assert_eq!(registry.renew(&id, key(10)), Err(Refusal::DeviceRevoked));
    assert_eq!(redeem(&mut registry, 1, 10, NOW), Err(Refusal::DeviceRevoked));
    assert_eq!(redeem(&mut registry, 2, 10, NOW), Err(Refusal::DeviceRevoked));
    registry.revoke(&id, NOW + 9).unwrap();
    assert_eq!(registry.device(&id).unwrap().revoked, Some(NOW + 1));
}

#[test]
fn only_the_inviter_names_a_device() {
    let named = |byte, name: &str| IssuedInvite { name: Some(name.into()), ..invite(byte, "web") };
    let mut registry = registry(&[named(1, "laptop")]);
    let taken = Err(Refusal::NameTaken("laptop".into()));
    assert_eq!(registry.invite(named(2, "laptop"), NOW), taken);
    let id = redeem(&mut registry, 1, 10, NOW).unwrap();
    registry.revoke(&id, NOW).unwrap();
    assert_eq!(registry.invite(named(2, "laptop"), NOW + 2 * 900), taken);
    for bad in ["", "-a", "a-", "A", "a b", "device-0123456789ab", &"a".repeat(64)] {
        assert_eq!(registry.invite(named(3, bad), NOW), Err(Refusal::BadName(bad.into())));
    }
    registry.invite(named(3, &"a".repeat(63)), NOW).unwrap();
}

#[test]
fn renewal_takes_a_new_key_and_not_another_devices() {
    let mut registry = registry(&[invite(1, "web"), invite(2, "web")]);
    let one = redeem(&mut registry, 1, 10, NOW).unwrap();
    redeem(&mut registry, 2, 11, NOW).unwrap();
    assert!(registry.renew(&one, key(11)).is_err());
    assert_eq!(registry.renew(&one, key(12)).unwrap().key, key(12));
    assert_eq!(registry.renew("device-none", key(13)), Err(Refusal::NoDevice));
}

#[test]
fn serials_of_certificates_that_ended_are_forgotten() {
    let mut registry = registry(&[invite(1, "web")]);
    let id = redeem(&mut registry, 1, 10, NOW).unwrap();
    registry.certified(&id, "aa".into(), NOW + 10, NOW);
    registry.certified(&id, "bb".into(), NOW + 99, NOW + 10);
    registry.certified(&id, "cc".into(), NOW + 200, NOW + 11);
    let serials: Vec<_> = registry.device(&id).unwrap().serials.keys().cloned().collect();
    assert_eq!(serials, ["bb", "cc"]);
}

#[test]
fn a_device_has_so_many_certificates_at_a_time_and_not_one_more() {
    let mut registry = registry(&[invite(1, "web")]);
    let id = redeem(&mut registry, 1, 10, NOW).unwrap();
    for serial in 0..MAX_CERTIFICATES as u64 {
        assert!(registry.certifiable(&id, NOW).is_ok(), "{serial}");
        registry.certified(&id, format!("{serial:02x}"), NOW + 10 + serial, NOW);
    }
    let full = Refusal::TooManyCertificates(MAX_CERTIFICATES);
    assert_eq!(registry.certifiable(&id, NOW + 10), Err(full));
    assert!(registry.certifiable(&id, NOW + 11).is_ok(), "the first has ended");
}

#[test]
fn a_device_is_meant_by_its_id_its_digits_its_name_or_its_label() {
    let mut registry = registry(&[invite(1, "web"), invite(2, "web")]);
    let id = redeem(&mut registry, 1, 10, NOW).unwrap();
    redeem(&mut registry, 2, 11, NOW).unwrap();
    for (word, count) in [(id.as_str(), 1), (&id[7..], 1), ("laptop", 2), ("nobody", 0)] {
        assert_eq!(registry.meant_by(word).len(), count, "{word}");
    }
}

#[test]
fn open_invites_are_bounded_and_ended_ones_make_room() {
    let mut registry = MeshRegistry::new("test".into());
    for number in 0..MAX_INVITES as u64 {
        let mut one = invite(0, "web");
        one.key.0[..8].copy_from_slice(&number.to_be_bytes());
        registry.invite(one, NOW).unwrap();
    }
    let full = Err(Refusal::TooManyInvites(MAX_INVITES));
    assert_eq!(registry.invite(invite(1, "web"), NOW), full);
    let later = NOW + 900 + REMEMBERED.as_secs() + 1;
    registry.invite(IssuedInvite { expires: later + 900, ..invite(1, "web") }, later).unwrap();
    assert_eq!(registry.invites.len(), 1);
}

#[test]
fn the_file_reads_back_as_it_was_written() {
    let mut registry = registry(&[invite(1, "web")]);
    redeem(&mut registry, 1, 10, NOW).unwrap();
    let text = serde_json::to_string(&registry).unwrap();
    assert_eq!(serde_json::from_str::<MeshRegistry>(&text).unwrap(), registry);
    assert!(text.contains(&key(1).to_string()));
}
