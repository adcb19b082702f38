//! The layers of the program, checked by reading its source: which top-level module may name which.
//! It reads text instead of types, so that it covers code for every platform.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module with its layer, lowest first. Modules of one layer do not know each
/// other.
const LAYERS: &[(&str, u8)] = &[
    ("base", 0), // exit codes, output, units, tasks, signals, logging, random bytes, wall time
    ("address", 1), // how endpoints are written, and the default port
    ("homedir", 2), // where files are kept, and how they are written
    ("config", 3), // configuration files
    ("control", 3), // the socket by which commands talk to a running process
    ("identity", 4), // mesh, memberships, invites, and the files that are followed
    ("net", 5),  // nodes, names, dialling, relays, TCP fallback, port mapping
    ("enrol", 6), // from an invite to a certificate, and to the next one
    ("forward", 6), // ingress and egress: TCP, Unix sockets, the built-in services
    ("observe", 6), // status, and how it is shown
    ("diagnose", 7), // what a network allows
    ("roles", 7), // agent, connector, relay: composition only
    ("commands", 8), // one file for each command: its arguments and what it does
    ("testing", 9), // what fuzzers and tests reach
];

#[test]
fn every_module_has_a_layer() {
    let known: BTreeSet<String> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let found = sources().into_keys().filter(|name| !matches!(name.as_str(), "lib" | "main"));
    assert_eq!(found.collect::<BTreeSet<_>>(), known);
}

#[test]
fn a_module_names_only_modules_of_lower_layers() {
    for (module, named, place) in references() {
        let (from, to) = (layer(&module), layer(&named));
        assert!(to < from, "{module} (L{from}) names {named} (L{to}): {place}");
    }
}

#[test]
fn only_commands_know_the_command_line() {
    only_in("clap", &["commands", "lib"]);
}

#[test]
fn only_base_and_commands_write_to_the_terminal() {
    for name in ["println!", "print!", "dbg!", "stdout()", "stderr()"] {
        only_in(name, &["base", "commands"]);
    }
    only_in("output::", &["base", "commands", "lib"]);
}

/// Fails if the code of any other module contains `text`.
fn only_in(text: &str, modules: &[&str]) {
    for (module, lines) in sources() {
        for line in lines {
            let is_allowed = modules.contains(&module.as_str()) || !line.contains(text);
            assert!(is_allowed, "{module} names {text}: {line}");
        }
    }
}

fn layer(module: &str) -> u8 {
    let found = LAYERS.iter().find(|(name, _)| *name == module);
    found.unwrap_or_else(|| panic!("{module} has no layer")).1
}

/// Returns every `crate::module` in code as (who names, what is named, where), without references
/// of a module to itself.
fn references() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (module, lines) in sources() {
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        for part in lines.join(" ").split("crate::").skip(1) {
            for named in named(part).into_iter().filter(|named| *named != module) {
                found.push((module.clone(), named, part.chars().take(60).collect()));
            }
        }
    }
    assert!(found.len() > 50, "only {} references were found", found.len());
    found
}

/// Returns the modules that a path names behind its `crate::`: one, or each of a list in braces.
fn named(path: &str) -> Vec<String> {
    let (mut starts, mut depth) = (vec![0], 0);
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
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\n").next().unwrap();
        let lines = code.lines().map(|line| line.split("//").next().unwrap().trim().to_owned());
        modules.entry(first.trim_end_matches(".rs").to_owned()).or_default().extend(lines);
    }
    modules
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_for_tests = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !is_for_tests {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && !is_for_tests {
            found.push(path);
        }
    }
    found
}
