//! Replays the committed fuzz corpora on stable: an input that once failed stays tested.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use adit::testing;

#[test]
fn the_corpus_of_configurations_holds() {
    replay("config", testing::config);
}

#[test]
fn the_corpus_of_invites_holds() {
    replay("invite", testing::invite);
}

/// Runs `target` over every file of its corpus, in order of their names.
fn replay(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    for file in files {
        println!("{}", file.display());
        target(&std::fs::read(&file).unwrap());
    }
}
