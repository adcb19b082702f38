//! libFuzzer's way into [`adit::testing::invite`]; it decides nothing.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit::testing::invite(data));
