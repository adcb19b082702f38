//! Whose files are trusted, and whose links.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::homedir::tests::Scratch;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn said(path: &Path) -> String {
    read(path).unwrap_err().to_string()
}

#[test]
fn a_file_that_others_may_write_is_refused_and_one_that_they_may_read_is_not() {
    let scratch = Scratch::new();
    let path = scratch.path().join("file");
    fs::write(&path, "it").unwrap();
    for (bits, is_good) in [(0o600, true), (0o644, true), (0o664, false), (0o602, false)] {
        mode(&path, bits);
        assert_eq!(read(&path).is_ok(), is_good, "{bits:o}");
    }
    assert!(said(&path).ends_with("others may write this file (mode 602); run: chmod go-w on it"));
}

#[test]
fn a_file_of_another_user_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.path().join("file");
    fs::write(&path, "it").unwrap();
    if std::os::unix::fs::chown(&path, Some(4_242), None).is_err() {
        eprintln!("SKIPPED: a file of another user, because only root can make one");
        return;
    }
    assert!(said(&path).contains("belongs to another user (id 4242)"), "{}", said(&path));
}

/// Makes the links of a ConfigMap: the file leads into a directory that is a link itself.
fn config_map(scratch: &Scratch) -> PathBuf {
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("..2026")).unwrap();
    fs::write(at("..2026/file"), "it").unwrap();
    symlink("..2026", at("..data")).unwrap();
    symlink("..data/file", at("file")).unwrap();
    at("file")
}

#[test]
fn the_links_of_a_config_map_are_followed() {
    let scratch = Scratch::new();
    let path = config_map(&scratch);
    let (contents, stamp) = read(&path).unwrap();
    assert_eq!(contents, b"it");
    assert_eq!(Stamp::of(&path), Some(stamp));
}

#[test]
fn a_link_that_another_user_can_turn_is_refused() {
    let scratch = Scratch::new();
    let path = config_map(&scratch);
    mode(scratch.path(), 0o777);
    assert!(said(&path).contains("in a directory that others may write"), "{}", said(&path));
    mode(scratch.path(), 0o1777);
    assert!(read(&path).is_ok());
    if std::os::unix::fs::lchown(scratch.path().join("..data"), Some(4_242), None).is_ok() {
        assert!(said(&path).contains("that belongs to another user"), "{}", said(&path));
    }
}

#[test]
fn a_loop_of_links_and_a_pipe_are_refused() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name);
    symlink("two", at("one")).unwrap();
    symlink("one", at("two")).unwrap();
    assert!(said(&at("one")).contains("too many links"));
    let made = std::process::Command::new("mkfifo").arg(at("pipe")).status();
    if made.is_ok_and(|status| status.success()) {
        assert_eq!(said(&at("pipe")), "this is no file; name a file");
    }
}

#[test]
fn a_changed_mode_changes_the_stamp() {
    let scratch = Scratch::new();
    let path = scratch.path().join("file");
    fs::write(&path, "it").unwrap();
    let before = Stamp::of(&path);
    // The attributes have a time of their own, which moves with the system's tick.
    std::thread::sleep(std::time::Duration::from_millis(20));
    mode(&path, 0o400);
    assert_ne!(Stamp::of(&path), before);
}
