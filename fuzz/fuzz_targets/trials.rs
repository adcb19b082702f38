//! The libFuzzer target of [`adit_core::testing::fuzz_records::trials`].
//! It has no checks of its own.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_core::testing::fuzz_records::trials(data));
