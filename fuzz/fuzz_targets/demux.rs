//! libFuzzer's way into [`adit_core::testing::fuzz_demux::demux`]; it decides nothing.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_core::testing::fuzz_demux::demux(data));
