//! The fuzz target `kmsg`: reads any records of `/dev/kmsg`, with the body in `fuzz/checks/kernel_log.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| node_probe::fuzzing::kmsg(data));
