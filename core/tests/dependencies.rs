//! Which crates each package may depend on: the core on no runtime and no socket, the system crate
//! on no runtime, each adapter on its own runtime. None has too many dependencies, two versions of
//! a crate that must exist once, or a version with a known vulnerability. It asks cargo; it never
//! reads code.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runtimes and sockets: the core has none of them, so that it embeds in any event loop.
const IMPURE: &[&str] = &[
    "async-executor",
    "async-io",
    "async-net",
    "async-std",
    "futures-executor",
    "hyper",
    "mio",
    "polling",
    "quinn",
    "quinn-udp",
    "rustix",
    "smol",
    "socket2",
    "tokio",
];

/// Maximum number of crates in the core's normal tree, itself included.
const CORE_BUDGET: usize = 45;

/// Maximum number of crates in the program's normal tree, itself included.
const PROGRAM_BUDGET: usize = 260;

/// Crates of which there is one version: two would have incompatible types, or double a large part
/// of the program.
const ONCE: &[&str] = &["rustls", "rand", "tokio", "hyper", "quinn-proto", "rustls-webpki"];

/// Versions below these let a peer exhaust memory or pass a revoked certificate.
const FLOORS: &[(&str, [u64; 3])] =
    &[("quinn-proto", [0, 11, 19]), ("rustls-webpki", [0, 103, 13])];

#[test]
fn the_core_depends_on_no_runtime_and_no_socket_under_any_provider() {
    for features in [
        &["--features", "aws-lc-rs"][..],
        &["--no-default-features", "--features", "ring"],
        &["--features", "aws-lc-rs,ring"],
        &["--features", "pki"],
        &["--features", "testing"],
    ] {
        let tree = tree("adit-core", features);
        assert!(tree.contains_key("quinn-proto"), "cargo tree shows too little: {tree:?}");
        for name in IMPURE {
            assert!(!tree.contains_key(*name), "adit-core {features:?} depends on {name}");
        }
    }
}

#[test]
fn system_knows_no_runtime_and_each_adapter_only_its_own() {
    let tokio = ["mio", "tokio", "adit-tokio"];
    let smol = ["async-executor", "async-io", "async-net", "polling", "smol", "adit-smol"];
    for (package, below, foreign) in [
        ("adit-system", &["adit-core"][..], [&tokio[..], &smol].concat()),
        ("adit-tokio", &["adit-core", "adit-system"], smol.to_vec()),
        ("adit-smol", &["adit-core", "adit-system"], tokio.to_vec()),
    ] {
        let tree = tree(package, &[]);
        for name in below {
            assert!(tree.contains_key(*name), "{package} does not depend on {name}");
        }
        for name in foreign {
            assert!(!tree.contains_key(name), "{package} depends on {name}");
        }
    }
}

#[test]
fn the_core_and_the_program_stay_within_their_budgets() {
    for (package, features, budget) in [
        ("adit-core", &["--features", "aws-lc-rs"][..], CORE_BUDGET),
        ("adit-core", &["--no-default-features", "--features", "ring"], CORE_BUDGET),
        ("adit", &[], PROGRAM_BUDGET),
    ] {
        let crates: usize = tree(package, features).values().map(BTreeSet::len).sum();
        assert!(crates <= budget, "{package} {features:?}: {crates} crates, {budget} are allowed");
    }
}

#[test]
fn the_program_has_one_version_of_what_matters_and_no_openssl() {
    let tree = tree("adit", &[]);
    for name in ONCE {
        let versions = tree.get(*name).map_or(0, BTreeSet::len);
        assert!(versions <= 1, "{name}: {:?}", tree[*name]);
    }
    let openssl: Vec<_> = tree.keys().filter(|name| name.starts_with("openssl")).collect();
    assert!(openssl.is_empty(), "{openssl:?}");
}

#[test]
fn no_locked_version_is_below_its_floor() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for &(name, floor) in FLOORS {
        let versions = locked(&lock, name);
        assert!(!versions.is_empty(), "{name} is not in Cargo.lock");
        for version in versions {
            assert!(version >= floor, "{name} {version:?} is below {floor:?}");
        }
    }
}

#[test]
fn a_version_is_read_as_numbers_and_one_below_its_floor_is_less() {
    let lock = "[[package]]\nname = \"a\"\nversion = \"0.11.18\"\n\n\
                [[package]]\nname = \"a\"\nversion = \"0.11.100-rc.1\"\n\n\
                [[package]]\nname = \"ab\"\nversion = \"9.9.9\"\n";
    assert_eq!(locked(lock, "a"), [[0, 11, 18], [0, 11, 100]]);
    assert!([0, 11, 18] < FLOORS[0].1 && [0, 11, 19] >= FLOORS[0].1);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the versions of each crate in a package's normal dependency tree, itself included.
fn tree(package: &str, features: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["tree", "--locked", "-e", "normal", "--prefix", "none"]);
    let output = cargo.args(["--format", "{p}", "-p", package]).args(features).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut tree = BTreeMap::<_, BTreeSet<_>>::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        tree.entry(name.to_owned()).or_default().insert(version.to_owned());
    }
    tree
}

/// Returns the versions of a crate in a lock file, in its order.
fn locked(lock: &str, name: &str) -> Vec<[u64; 3]> {
    let wanted = format!("name = \"{name}\"");
    let mut lines = lock.lines();
    let mut versions = Vec::new();
    while lines.any(|line| line == wanted) {
        let version = lines.next().and_then(|line| line.strip_prefix("version = ")).unwrap();
        let mut numbers = version.trim_matches('"').split(['.', '-', '+']);
        versions.push([(); 3].map(|()| numbers.next().unwrap().parse().unwrap()));
    }
    versions
}
