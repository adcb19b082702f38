//! Checks the layer rule of `docs/architecture.md` by reading the source: which module may name
//! which. It reads text, not types, so that it holds for code without callers as well.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the crate in its layer, best known first.
const LAYERS: &[(&str, u8)] = &[
    ("clock", 0),
    ("config", 0),
    ("error", 0),
    ("event", 0),
    ("id", 0),
    ("rng", 0),
    ("tls", 0),
    ("transmit", 0),
    ("backoff", 1),
    ("shares", 1),
    ("token_bucket", 1),
    ("encapsulation", 1),
    ("frame", 1),
    ("message", 1),
    ("probe", 1),
    ("datagram_framing", 1),
    ("timer", 1),
    ("pki", 1),
    ("admission", 2),
    ("relay_client", 2),
    ("fallback", 2),
    ("heartbeat", 2),
    ("history", 2),
    ("path", 2),
    ("latency", 2),
    ("relay", 2),
    ("request", 2),
    ("retry", 2),
    ("lifecycle", 2),
    ("quic", 3),
    ("node", 4),
    ("drive", 5),
    ("testing", 6),
];

/// What the plain values may name of the layers above: a configuration contains the configurations
/// of the machines, an event their values.
const VALUES_OF_MACHINES: &[(&str, &str)] = &[
    ("config", "heartbeat"),
    ("config", "message"),
    ("config", "path"),
    ("config", "relay"),
    ("config", "retry"),
    ("event", "message"),
    ("event", "path"),
    ("event", "lifecycle"),
];

#[test]
fn every_module_has_a_layer() {
    let modules: BTreeSet<String> = sources().into_keys().collect();
    let known: BTreeSet<String> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let found: BTreeSet<String> = modules.into_iter().filter(|name| name != "lib").collect();
    assert_eq!(found, known);
}

#[test]
fn a_module_names_only_modules_below_it() {
    for (module, named, line) in references() {
        let allowed = VALUES_OF_MACHINES.contains(&(module.as_str(), named.as_str()));
        let (from, to) = (layer(&module), layer(&named));
        assert!(
            to < from || (to == from && from < 2) || allowed,
            "{module} (L{from}) names {named} (L{to}): {line}"
        );
    }
}

#[test]
fn a_path_names_one_module_or_each_of_its_list() {
    assert_eq!(named("error::{Code, Failure}; use"), ["error"]);
    assert_eq!(named("{error::{Code, Failure}, id::PeerId}; struct {}, rng"), ["error", "id"]);
    assert!(named("Node;").is_empty());
}

#[test]
fn no_machine_names_another() {
    for (module, named, line) in references() {
        assert!(
            !(layer(&module) == 2 && layer(&named) == 2),
            "{module} names {named}, but only the node routes between machines: {line}"
        );
    }
}

#[test]
fn only_the_transport_names_quinn_proto() {
    only_in("quinn_proto", &["quic"]);
}

#[test]
fn only_the_driver_knows_wakers_and_contexts() {
    for name in ["Waker", "task::Context", "Context<'", "Future"] {
        only_in(name, &["drive"]);
    }
}

#[test]
fn only_the_driver_takes_a_lock() {
    // quinn-proto's signature requires a shared closure for the provider of first destination ids:
    // its generator is behind a lock without contention.
    only_in("Mutex", &["drive", "quic"]);
}

/// Fails if the code of a module other than these, tests and `testing` aside, contains `text`.
fn only_in(text: &str, modules: &[&str]) {
    for (module, lines) in sources() {
        if modules.contains(&module.as_str()) || module == "testing" {
            continue;
        }
        for line in lines {
            assert!(!line.contains(text), "{module} names {text}: {line}");
        }
    }
}

fn layer(module: &str) -> u8 {
    LAYERS.iter().find(|(name, _)| *name == module).map_or(0, |(_, layer)| *layer)
}

/// Returns every `crate::module` in code, as (from, to, where), references to itself aside.
fn references() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (module, lines) in sources().into_iter().filter(|(module, _)| module != "lib") {
        for part in lines.join(" ").split("crate::").skip(1) {
            for named in named(part).into_iter().filter(|named| *named != module) {
                found.push((module.clone(), named, part.chars().take(60).collect()));
            }
        }
    }
    assert!(found.len() > 50, "only {} references were found", found.len());
    found
}

/// Returns the modules that a path names after its `crate::`: one, or each of a list in braces.
fn named(path: &str) -> Vec<String> {
    let mut starts = vec![0];
    let mut depth = 0;
    for (at, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        match (c, depth) {
            (_, 0) => break,
            ('{', 1) => starts = vec![at + 1],
            (',', 1) => starts.push(at + 1),
            (_, _) => {}
        }
    }
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let modules = starts.iter().map(|&start| {
        let rest = path[start..].trim_start();
        rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())].to_owned()
    });
    modules.filter(|name| !name.is_empty()).collect()
}

/// Returns the lines of code of each top-level module: without comments, and without unit tests,
/// which are at the end of a file or in one of their own.
fn sources() -> BTreeMap<String, Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::<_, Vec<_>>::new();
    for file in files(&root) {
        let relative = file.strip_prefix(&root).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().map(|line| line.split("//").next().unwrap().trim().to_owned());
        modules.entry(module).or_default().extend(lines);
    }
    modules
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_tests = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !is_tests {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && !is_tests {
            found.push(path);
        }
    }
    found
}
