//! The invariants for any batch on the socket: the body of the fuzz target `demux`.
//!
//! Decides what counts as a failure, and fails by panicking. Never makes up input: that comes from
//! the fuzzer, or from the corpus that the tests replay.

use crate::node::demux::first_run;
use crate::probe;

/// Batches: their runs are all of a batch in order, none is empty or cuts a packet, all packets of
/// a run are of its class, and no run could have been longer.
///
/// The first two bytes of `data` are the size of a packet.
pub fn demux(data: &[u8]) {
    let Some((size, mut batch)) = data.split_first_chunk::<2>() else { return };
    let size = usize::from(u16::from_be_bytes(*size));
    let class = |packet: &[u8]| {
        let first = packet.first().copied().unwrap_or_default();
        (probe::FIRST_BYTES.contains(&first), first & 0x80 != 0)
    };
    let expected: Vec<_> =
        batch.chunks(size.max(1)).map(|packet| (class(packet), packet)).collect();
    let (mut found, mut before) = (Vec::new(), None);
    while let Some((of, length)) = first_run(batch, size, class) {
        let (run, rest) = batch.split_at(length);
        assert!(!run.is_empty() && (rest.is_empty() || length.is_multiple_of(size.max(1))));
        assert_ne!(before.replace(of), Some(of), "the run before was too short");
        found.extend(run.chunks(size.max(1)).map(|packet| (of, packet)));
        batch = rest;
    }
    assert!(batch.is_empty() && found == expected);
}
