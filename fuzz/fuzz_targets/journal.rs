//! The fuzz target `journal`: reads any output of `journalctl`, with the body in `fuzz/checks/kernel_log.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| node_probe::fuzzing::journal(data));
