#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wakeupd_fuzz::snapshot(data));
