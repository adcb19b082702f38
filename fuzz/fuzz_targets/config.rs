//! The libFuzzer target of [`adit::testing::config`]. It has no checks of its own.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit::testing::config(data));
