//! No method of the node or of a part of it reaches itself by way of others: how deep a call goes
//! never depends on how many peers there are. It reads text, as `layers.rs` does.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders whose types are checked: what decides about many peers.
const FOLDERS: &[&str] = &["node", "path", "relay", "relay_client", "request", "quic", "fallback"];

/// A method of a type.
type Method = (String, String);

#[test]
fn no_method_reaches_itself_through_others() {
    let calls = calls();
    assert!(calls.len() > 400, "only {} methods were found", calls.len());
    let cycles: Vec<String> = calls
        .keys()
        .filter(|start| reach(&calls, start).contains(start))
        .map(|(of, name)| format!("{of}::{name}"))
        .collect();
    assert!(cycles.is_empty(), "methods that reach themselves: {}", cycles.join(", "));
}

#[test]
fn a_part_of_the_node_does_not_know_the_node() {
    for file in files(&source().join("node")) {
        let name = file.strip_prefix(source().join("node")).unwrap().to_str().unwrap().to_owned();
        // The root itself, what checks it, and the caller's handle to a stream.
        if ["mod.rs", "routing.rs", "invariants.rs", "streams/api.rs"].contains(&name.as_str()) {
            continue;
        }
        let code = code(&file);
        let names_it = |line: &&str| line.contains("Node") && !line.trim().starts_with("//");
        assert_eq!(code.lines().find(names_it), None, "{name} names the node");
    }
}

#[test]
fn the_node_stays_a_router() {
    let calls = calls();
    let of = |name: &str| calls.keys().filter(|(of, _)| of == name).count();
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for (of, _) in calls.keys() {
        *sizes.entry(of).or_default() += 1;
    }
    for (name, methods) in sizes {
        let most = if name == "node::Node" { 66 } else { 60 };
        assert!(methods <= most, "{name} has {methods} methods");
    }
    assert!(of("node::Node") > 40, "the methods of the node were not found");
}

/// The test reads what it believes to read: a cycle of three methods over two files is found.
#[test]
fn a_cycle_is_found_where_there_is_one() {
    let mut calls = BTreeMap::new();
    collect("impl Peer {\n    fn lost(&mut self) { self.remove(); }\n}\n", &mut calls);
    collect("impl Peer {\n    fn remove(&mut self) {\n        self.send();\n    }\n", &mut calls);
    collect("impl Peer {\n    fn send(&self) { if let Err(e) = self.lost() {} }\n}\n", &mut calls);
    let lost = ("Peer".to_owned(), "lost".to_owned());
    assert!(reach(&calls, &lost).contains(&lost));
    let other = ("Relay".to_owned(), "lost".to_owned());
    assert!(!reach(&calls, &other).contains(&other));
}

/// Every method that a method calls on its own type, directly or through others.
fn reach(calls: &BTreeMap<Method, BTreeSet<String>>, start: &Method) -> BTreeSet<Method> {
    let (mut reached, mut rest) = (BTreeSet::new(), vec![start.clone()]);
    while let Some(method) = rest.pop() {
        for called in calls.get(&method).into_iter().flatten() {
            let called = (method.0.clone(), called.clone());
            if calls.contains_key(&called) && reached.insert(called.clone()) {
                rest.push(called);
            }
        }
    }
    reached
}

/// The methods of each type, and what each calls on `self` or on `Self`.
fn calls() -> BTreeMap<Method, BTreeSet<String>> {
    let mut calls = BTreeMap::new();
    for folder in FOLDERS {
        for file in files(&source().join(folder)) {
            // Two folders may have types of one name.
            let mut found = BTreeMap::new();
            collect(&code(&file), &mut found);
            for ((of, name), called) in found {
                let of = format!("{folder}::{of}");
                calls.entry((of, name)).or_insert_with(BTreeSet::new).extend(called);
            }
        }
    }
    calls
}

fn collect(code: &str, calls: &mut BTreeMap<Method, BTreeSet<String>>) {
    for block in format!("\n{code}").split("\nimpl").skip(1) {
        let (head, block) = block.split_once('{').unwrap();
        let of = head.split(" for ").last().unwrap().trim();
        let of = of.trim_start_matches(|c| c != ' ' && c != '<').trim();
        let head = if of.is_empty() || of.starts_with('<') { head.trim() } else { of };
        let of: String = head.chars().take_while(|c| is_name(*c)).collect();
        let block = block.split("\n}").next().unwrap();
        for method in block.split("fn ").skip(1) {
            let name: String = method.chars().take_while(|c| is_name(*c)).collect();
            if !method[name.len()..].starts_with(['(', '<']) {
                continue;
            }
            let called = ["self.", "Self::"].into_iter().flat_map(|on| {
                method.split(on).skip(1).filter_map(|rest| {
                    let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
                    rest[name.len()..].starts_with('(').then_some(name)
                })
            });
            calls.entry((of.clone(), name)).or_default().extend(called);
        }
    }
}

/// The code of a file, without its unit tests, which stand at the end.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
