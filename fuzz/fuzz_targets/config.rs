//! libFuzzer's way into [`adit::testing::config`]; it decides nothing.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit::testing::config(data));
