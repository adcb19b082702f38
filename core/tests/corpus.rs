//! Replays the committed fuzz corpora on stable: an input that once failed stays tested.

use std::path::Path;

use adit_core::testing::{
    fuzz_bytes, fuzz_demux, fuzz_identity, fuzz_probe, fuzz_records, fuzz_relay, fuzz_world,
};

#[test]
fn the_corpus_of_frames_holds() {
    replay("frames", fuzz_bytes::frames);
}

#[test]
fn the_corpus_of_messages_holds() {
    replay("messages", fuzz_bytes::messages);
}

#[test]
fn the_corpus_of_identities_holds() {
    replay("identity", fuzz_identity::identity);
}

#[test]
fn the_corpus_of_operations_holds() {
    replay("operations", fuzz_world::operations);
}

#[test]
fn the_corpus_of_relays_holds() {
    replay("relay", fuzz_relay::relay);
}

#[test]
fn the_corpus_of_probes_holds() {
    replay("probes", fuzz_probe::probes);
}

#[test]
fn the_corpus_of_batches_holds() {
    replay("demux", fuzz_demux::demux);
}

#[test]
fn the_corpus_of_records_holds() {
    replay("records", fuzz_records::records);
}

#[test]
fn the_corpus_of_trials_holds() {
    replay("trials", fuzz_records::trials);
}

#[test]
fn the_corpus_of_wires_holds() {
    replay("wire", fuzz_world::wire);
}

/// Runs `target` over every file of its corpus, in order of their names.
fn replay(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&directory).expect("the corpus can be listed");
    let mut files: Vec<_> =
        entries.map(|it| it.expect("the corpus can be listed").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    for file in files {
        println!("{}", file.display());
        target(&std::fs::read(&file).expect("the corpus can be read"));
    }
}
